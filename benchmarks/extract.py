"""Speed of extraction on the CPU, compared with a plain facenet-pytorch loop and with the networks alone.

    python benchmarks/extract.py --faces FOLDER --recognizer onnx:MODEL.onnx

Contenders take turns on the same pictures, so that a busy machine slows all of them down; medians and their ratios are
printed, for elapsed time and for processor time (of all threads and processes).

loop       one picture at a time: Pillow, MTCNN.detect, the same alignment, the recognizer
extract    the stage `extract`, which also writes templates and JPEGs
share      the same with min_face_share=0.25
networks   the forward passes alone, on the batches that `extract` gives them, as many at once

It also prints which parts of `extract` take the processor time, by clocks around them.
"""

import argparse
import csv
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from facenet_pytorch import MTCNN
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from PIL import Image
from torch import Tensor, nn

from fsae_mlflow.extraction import stage as extraction
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.extraction.writing import FACES_PER_CALL, embed, face_cutter
from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.faces.alignment import align
from fsae_mlflow.faces.decoding import read
from fsae_mlflow.faces.detection.keypoints import Faces
from fsae_mlflow.faces.detection.mtcnn import FaceFinder
from fsae_mlflow.faces.sources.registry import open_source
from fsae_mlflow.machine.memory import keep_freed_memory
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.templates.set import TemplateSet

SHARE = 0.25
N_RECORDED = 128  # pictures, spread evenly, for `networks`
Cost = tuple[int, float]  # pictures, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", required=True, help="Folder of pictures, one folder per identity.")
    parser.add_argument("--recognizer", default="tiny")
    parser.add_argument("--recognizer_card", default="")
    parser.add_argument("--images", type=int, default=400, help="Pictures in a round, spread evenly over the folder.")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    keep_freed_memory()  # as the entry point does
    pictures = list(open_source(given.faces))
    chosen = [pictures[i] for i in np.linspace(0, len(pictures) - 1, min(given.images, len(pictures))).astype(int)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (folder / "list.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [["path"], *([str(Path(picture.location.path).absolute())] for picture in chosen)]
            )
        settings = {
            "faces": str(folder / "list.csv"),
            "recognizer": given.recognizer,
            "recognizer_card": given.recognizer_card,
        }
        peer = Loop(folder / "list.csv", given.recognizer, given.recognizer_card)
        networks = Networks(ExtractSettings(**settings))
        extraction.load_recognizer = cache(load_recognizer)  # loading is not compared
        clocks = Clocks()
        contenders: dict[str, Callable[[Path], Cost]] = {
            "loop": peer,
            "extract": lambda output: clocks.around(extracted, ExtractSettings(**settings, output=str(output))),
            "share": lambda output: extracted(ExtractSettings(**settings, min_face_share=SHARE, output=str(output))),
            "networks": networks,
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        processor: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(given.rounds):
            for name, contender in contenders.items():
                before = processor_time()
                n_pictures, passed = contender(folder / f"{name}{turn}")
                seconds[name].append(passed / n_pictures)
                processor[name].append((processor_time() - before) / n_pictures)
                print(f"round {turn + 1} {name}: {1 / seconds[name][-1]:.1f} images/s", flush=True)
        own, fast = (TemplateSet.open(folder / f"{name}0" / "templates") for name in ("extract", "share"))
        print(json.dumps(report(seconds, processor, own, fast, peer) | {"inside_extract": clocks.shares}, indent=2))


def extracted(settings: ExtractSettings) -> Cost:
    """One extraction with the start and end of its processes."""
    metrics = extraction.extract(settings, on_metrics=lambda *_: None).metrics
    return int(metrics["n_images"]), metrics["n_images"] / metrics["images_per_second"]


class Loop:
    """A plain loop with facenet-pytorch; it keeps the keypoints that it found."""

    def __init__(self, paths: Path, recognizer: str, card: str) -> None:
        self.paths = [row["path"] for row in csv.DictReader(paths.open())]
        self.detector = MTCNN(keep_all=True, min_face_size=20)
        self.recognizer = load_recognizer(recognizer, card=card)
        self.keypoints: dict[str, np.ndarray] = {}

    def __call__(self, output: Path) -> Cost:
        started = time.perf_counter()
        templates = []
        for path in self.paths:
            picture = Image.open(path).convert("RGB")
            boxes, probabilities, *keypoints = self.detector.detect(picture, landmarks=True)
            if boxes is None:
                continue
            faces = Faces(*(np.asarray(part, np.float32) for part in (boxes, keypoints[0], probabilities)))
            self.keypoints[path] = faces.keypoints[faces.chosen("central", *picture.size)[0]]
            face = align(np.asarray(picture), self.keypoints[path])
            with torch.inference_mode():
                templates.append(self.recognizer(to_float(face[None])))
        torch.save(torch.cat(templates), output)
        return len(self.paths), time.perf_counter() - started


class Networks:
    """The forward passes of an extraction alone: recorded on some pictures, then repeated on as many threads."""

    def __init__(self, settings: ExtractSettings) -> None:
        source = list(open_source(settings.faces))
        pictures = [read(picture) for picture in source[:: max(1, len(source) // N_RECORDED)]]
        self.n_recorded = len(pictures)
        cutter = face_cutter(settings, device=torch.device("cpu"))
        recognizer = load_recognizer(settings.recognizer, card=settings.recognizer_card)
        self.calls: list[tuple[nn.Module, Tensor]] = []
        networks = [cutter.find.pnet, cutter.find.rnet, cutter.find.onet, recognizer]
        hooks = [
            network.register_forward_pre_hook(lambda network, given: self.calls.append((network, given[0].clone())))
            for network in networks
        ]
        with torch.inference_mode():
            faces, _ = cutter(pictures)
            for first in range(0, len(faces), FACES_PER_CALL):
                embed(np.stack([face.pixels for face in faces[first : first + FACES_PER_CALL]]), recognizer, flip=False)
        for hook in hooks:
            hook.remove()

    def __call__(self, output: Path) -> Cost:
        def forward(call: tuple[nn.Module, Tensor]) -> None:
            with torch.inference_mode():
                call[0](call[1])

        n_threads = torch.get_num_threads()
        with ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as threads:
            started = time.perf_counter()
            list(threads.map(forward, self.calls))
            return self.n_recorded, time.perf_counter() - started


class Clocks:
    """Processor time of the parts of an extraction, each of which runs in one thread."""

    parts = (
        (FaceFinder, "__call__", "MTCNN"),
        *((network, "forward", "MTCNN's networks") for network in (PNet, RNet, ONet)),
        (Recognizer, "forward", "recognizer"),
    )

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {name: [] for _, _, name in self.parts}
        self.total = 0.0

    def around(self, function: Callable[..., Cost], *given: object) -> Cost:
        before = processor_time()
        with ExitStack() as patches:
            for owner, method, name in self.parts:
                patches.enter_context(patch.object(owner, method, self.clocked(getattr(owner, method), name)))
            cost = function(*given)
        self.total += processor_time() - before
        return cost

    def clocked(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            started = time.thread_time()
            result = method(*given)
            self.spent[name].append(time.thread_time() - started)
            return result

        return run

    @property
    def shares(self) -> dict[str, float]:
        """The share of the processor time, 0…1, that each part takes."""
        detector, networks, recognizer = (sum(spent) / self.total for spent in self.spent.values())
        return {
            "MTCNN's networks": round(networks, 3),
            "recognizer": round(recognizer, 3),
            "MTCNN's pyramid, crops and suppression": round(detector - networks, 3),
            "everything else": round(1 - detector - recognizer, 3),
        }


def processor_time() -> float:
    """User and system seconds of this process and of its ended child processes."""
    return sum(sum(resource.getrusage(whose)[:2]) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def report(
    seconds: dict[str, list[float]], processor: dict[str, list[float]], own: TemplateSet, fast: TemplateSet, peer: Loop
) -> dict[str, object]:
    """Medians, ratios, and distances between the keypoints."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    processor_ms = {name: round(1000 * statistics.median(values), 1) for name, values in processor.items()}
    best = {name: round(1 / min(values), 1) for name, values in seconds.items()}
    places = {
        name: dict(zip(found.image_ids, found.column("keypoints"), strict=True))
        for name, found in (("extract", own), ("share", fast))
    }
    off_loop = [np.abs(places["extract"][path] - points.ravel()).max() for path, points in peer.keypoints.items()]
    off_share = [np.abs(points - places["share"].get(path, np.inf)).max() for path, points in places["extract"].items()]
    return {
        "images_per_second": {name: round(1 / value, 1) for name, value in medians.items()},
        "images_per_second_at_best": best,
        "times_the_loop": {name: round(medians["loop"] / medians[name], 2) for name in ("extract", "share")},
        "processor_ms_per_image": processor_ms,
        "keypoints_off_the_loop_px": float(np.max(off_loop)),
        "keypoints_off_the_loop_by_0.001_px": float(np.mean(np.array(off_loop) > 0.001)),
        "keypoints_off_by_2_px_with_share": float(np.mean(np.array(off_share) > 2)),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
