"""How fast faces become templates on the CPU, beside the plain facenet-pytorch loop and beside the networks alone.

    python benchmarks/extract.py --faces FOLDER --recognizer onnx:MODEL.onnx

Contenders take turns on the same pictures, so that a busy machine slows all alike; medians and their ratios are
printed, in seconds passed and in processor time (of all threads and processes).

loop       one picture at a time: Pillow, MTCNN.detect, the same alignment, the recognizer
extract    the extraction as it is, templates and JPEGs written
share      the same with min_face_share=0.25
networks   the bare forward passes, on batches like those that `extract` gives them, as many at once as it has

And where the processor time of `extract` goes, by clocks around its parts.
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
from fsae_mlflow.extraction.stage import FACES_PER_CALL, embed
from fsae_mlflow.faces.alignment import align
from fsae_mlflow.faces.cutting import FaceCutter
from fsae_mlflow.faces.decoding import read
from fsae_mlflow.faces.detection.keypoints import Faces
from fsae_mlflow.faces.detection.mtcnn import FaceFinder
from fsae_mlflow.faces.sources.registry import open_source
from fsae_mlflow.memory import keep_freed_memory
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
        extraction.load_recognizer = cache(load_recognizer)  # loading is not what is compared
        clocks = Clocks()
        contenders: dict[str, Callable[[Path], Cost]] = {
            "loop": peer,
            "extract": lambda output: clocks.around(extracted, ExtractSettings(**settings), output),
            "share": lambda output: extracted(ExtractSettings(**settings, min_face_share=SHARE), output),
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


def extracted(settings: ExtractSettings, output: Path) -> Cost:
    """One extraction, its processes started and ended."""
    figures = extraction.extract(settings, output=output, on_metrics=lambda *_: None).metrics
    return int(figures["n_images"]), figures["n_images"] / figures["images_per_second"]


class Loop:
    """What one writes with facenet-pytorch; keeps the keypoints it found."""

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
                templates.append(self.recognizer(torch.from_numpy(face).permute(2, 0, 1)[None].float() / 255))
        torch.save(torch.cat(templates), output)
        return len(self.paths), time.perf_counter() - started


class Networks:
    """The bare forward passes of an extraction: recorded on some pictures, then repeated on as many threads."""

    def __init__(self, settings: ExtractSettings) -> None:
        source = list(open_source(settings.faces))
        pictures = [read(picture) for picture in source[:: max(1, len(source) // N_RECORDED)]]
        self.n_recorded = len(pictures)
        cutter = FaceCutter(settings, device=torch.device("cpu"))
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

        n_lanes = torch.get_num_threads()
        with ThreadPoolExecutor(n_lanes, initializer=torch.set_num_threads, initargs=(1,)) as lanes:
            started = time.perf_counter()
            list(lanes.map(forward, self.calls))
            return self.n_recorded, time.perf_counter() - started


class Clocks:
    """Processor time of an extraction's parts, each of which stays in one thread."""

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
        """How the processor time divides."""
        detector, networks, recognizer = (sum(spent) / self.total for spent in self.spent.values())
        return {
            "MTCNN's networks": round(networks, 3),
            "recognizer": round(recognizer, 3),
            "MTCNN's pyramid, crops and suppression": round(detector - networks, 3),
            "everything else": round(1 - detector - recognizer, 3),
        }


def processor_time() -> float:
    """User and system seconds of this process and of those it has ended."""
    return sum(sum(resource.getrusage(whose)[:2]) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def report(
    seconds: dict[str, list[float]], processor: dict[str, list[float]], own: TemplateSet, fast: TemplateSet, peer: Loop
) -> dict[str, object]:
    """Medians, ratios, and how far apart the keypoints are."""
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
