"""Extraction gives the same template set however it is run, interrupted or shared out."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from fsae_mlflow import progress
from fsae_mlflow.extraction.stage import Extraction, extract
from fsae_mlflow.extraction.writing import embed
from fsae_mlflow.faces.decoding import memory_folder
from fsae_mlflow.faces.sources.registry import open_source
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.templates.writing import finish
from tests import standin

COLUMNS = ("image_id", "identity", "template", "probability", "box", "keypoints", "source_width", "yaw", "sharpness")


@pytest.fixture(autouse=True)
def recognizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsae_mlflow.extraction.stage.load_recognizer", standin.load)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures each of five people, two of them broken."""
    folder = tmp_path_factory.mktemp("faces")
    for picture in open_source("orl"):
        person, name = picture.image_id.split("/")
        if person in ("s1", "s2", "s3", "s4", "s5") and name in ("1.pgm", "2.pgm", "3.pgm", "4.pgm"):
            (folder / person).mkdir(exist_ok=True)
            (folder / person / name).write_bytes(picture.read())
    (folder / "s2" / "3.pgm").write_bytes(b"broken")
    (folder / "s5" / "4.pgm").write_bytes((folder / "s5" / "4.pgm").read_bytes()[:5000])
    return folder


def run(faces: Path, output: Path, **more: object) -> Extraction:
    return extract(standin.settings(faces, output, **more), on_metrics=lambda metrics, step: None)


def assert_equal(one: TemplateSet, other: TemplateSet) -> None:
    for column in COLUMNS:
        np.testing.assert_array_equal(one.column(column), other.column(column), err_msg=column)
    assert one.failures == other.failures
    assert one.digest == other.digest


@pytest.fixture(scope="module")
def reference(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> TemplateSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsae_mlflow.extraction.stage.load_recognizer", standin.load)
        return run(faces, tmp_path_factory.mktemp("reference")).templates


def test_every_picture_ends_in_a_row_or_a_failure(faces: Path, reference: TemplateSet) -> None:
    pictures = [picture.image_id for picture in open_source(str(faces))]
    failed = [image_id for image_id, _ in reference.failures]
    assert failed == ["s2/3.pgm", "s5/4.pgm"]
    assert reference.image_ids == [image_id for image_id in pictures if image_id not in failed]
    assert set(reference.identities) == {"s1", "s2", "s3", "s4", "s5"}
    assert reference.metadata["recognizer"]["name"] == "standin"
    assert reference.metadata["source"]["n_pictures"] == 20


def test_the_template_is_that_of_the_stored_face(faces: Path, tmp_path: Path) -> None:
    templates = run(faces, tmp_path, jpeg_quality=100).templates
    stored = np.stack([np.array(face) for face in templates.faces(range(len(templates)))])
    again = embed(stored, standin.load("standin"), flip=False)
    np.testing.assert_allclose(templates.templates, again, atol=0.01)
    mirrored = embed(stored[:, :, ::-1].copy(), standin.load("standin"), flip=False)
    flipped = run(faces, tmp_path / "flipped", jpeg_quality=100, flip=True).templates
    np.testing.assert_allclose(flipped.templates, (again + mirrored) / 2, atol=0.01)


@pytest.mark.parametrize("more", [{"workers": 2}, {"threads": 3}, {"workers": 1, "threads": 2}])
def test_workers_and_threads_change_nothing(
    faces: Path, reference: TemplateSet, tmp_path: Path, more: dict[str, int]
) -> None:
    assert_equal(run(faces, tmp_path, **more).templates, reference)


def test_found_faces_do_not_depend_on_batch_workers_or_shards(faces: Path, tmp_path: Path) -> None:
    found = {"aligned": False, "enlarge": 2, "no_face": "central_crop"}
    one = run(faces, tmp_path / "one", **found, batch_size=1).templates
    many = run(faces, tmp_path / "many", **found, batch_size=9, workers=1, shard_images=20).templates
    assert one.image_ids == many.image_ids
    assert one.column("probability").min() > 0.9
    np.testing.assert_allclose(one.column("keypoints"), many.column("keypoints"), atol=0.01)
    np.testing.assert_allclose(one.templates, many.templates, atol=1e-3)
    again = run(faces, tmp_path / "again", **found, batch_size=9, threads=2, shard_images=20).templates
    assert_equal(many, again)


def start(
    faces: Path, output: Path, *, seconds: float, workers: int = 0, **environment: str
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.standin", str(faces), str(output), str(seconds), str(workers)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], env=os.environ | environment)


def test_killed_at_random_moments_it_is_continued(faces: Path, reference: TemplateSet, tmp_path: Path) -> None:
    moments = random.Random(0)
    folder = tmp_path / "templates"
    for n_shards in (1, 4):
        process = start(faces, tmp_path, seconds=0.4, workers=1)
        while len(list(folder.glob("templates-*.parquet"))) < n_shards and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        workers = psutil.Process(process.pid).children(recursive=True)
        pixels = list(Path(memory_folder()).glob(f"fsae-{process.pid}-*"))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert workers and not psutil.wait_procs(workers, timeout=20)[1]
        assert pixels and not pixels[0].exists()
        with pytest.raises(ValueError, match="not a finished template set"):
            TemplateSet.open(folder)
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("templates-*.parquet")}
    templates = run(faces, tmp_path).templates
    assert len(kept) >= 4
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert_equal(templates, reference)
    assert not list(folder.glob(".*.tmp"))


def test_two_processes_give_what_one_gives(
    faces: Path, reference: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = start(faces, tmp_path, seconds=0.0, RANK="1", WORLD_SIZE="2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    first = run(faces, tmp_path)
    assert other.wait() == 0
    assert_equal(first.templates, reference)


def test_a_finished_set_is_left_alone(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(faces, tmp_path)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    caplog.set_level("INFO", "fsae_mlflow.progress")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "templates").iterdir()}
    again = run(faces, tmp_path, batch_size=7, threads=2)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "templates").iterdir()} == before
    assert "check: " in caplog.text and "bytes" in caplog.text  # a large set takes minutes to read
    assert again.metrics["n_faces"] == 18


def test_another_extraction_is_refused_with_the_difference_named(faces: Path, tmp_path: Path) -> None:
    run(faces, tmp_path)
    with pytest.raises(ValueError, match=r'recognizer name \("standin" there, "other" now\)'):
        run(faces, tmp_path, recognizer="other")
    with pytest.raises(ValueError, match=r"settings flip \(false there, true now\)"):
        run(faces, tmp_path, flip=True)
    with pytest.raises(ValueError, match=r"source n_pictures \(20 there, 4 now\)"):
        run(faces / "s1", tmp_path)
    with pytest.raises(ValueError, match="holds other files; choose an empty or new folder"):
        (tmp_path / "taken" / "templates").mkdir(parents=True)
        (tmp_path / "taken" / "templates" / "diary.txt").touch()
        run(faces, tmp_path / "taken")


def test_pictures_that_seem_aligned_are_pointed_out(
    faces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "aligned" / "s1").mkdir(parents=True)
    for path in (faces / "s1").iterdir():
        Image.open(path).resize((112, 112)).save(tmp_path / "aligned" / "s1" / f"{path.stem}.png")
    for folder, more, warned in (
        ("aligned", {"aligned": False}, True),
        ("aligned", {"aligned": True}, False),
        ("aligned", {"aligned": False, "pad": 0.3}, False),
        ("", {"aligned": False}, False),
    ):
        caplog.clear()
        run(tmp_path / folder if folder else faces, tmp_path / f"{folder}{more}", **more)
        assert any("give aligned=true" in one for one in caplog.messages) == warned


def test_columns_of_a_list_are_carried_along(faces: Path, tmp_path: Path) -> None:
    rows = "".join(
        f"{faces}/s1/{number}.pgm,Ann,{number},{'' if number == 2 else number / 2}\n" for number in (1, 2, 3)
    )
    (tmp_path / "list.csv").write_text("path,identity,age,smile\n" + rows)
    templates = run(tmp_path / "list.csv", tmp_path / "out").templates
    assert templates.attributes == {"age": "int", "smile": "float"}
    assert templates.column("age").tolist() == [1, 2, 3]
    np.testing.assert_array_equal(templates.column("smile"), [0.5, np.nan, 1.5])
    (tmp_path / "list.csv").write_text(f"path,yaw\n{faces}/s1/1.pgm,0\n")
    with pytest.raises(ValueError, match="columns must not be named yaw"):
        run(tmp_path / "list.csv", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_set_without_a_face_is_not_finished(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "broken.png").touch()
    with pytest.raises(ValueError, match=r"none of the 1 pictures gave a face, most often: The file is empty\."):
        run(tmp_path / "faces", tmp_path / "out")
    assert not list(tmp_path.rglob("set.json"))


def test_contact_sheets_show_both_kinds(faces: Path, tmp_path: Path) -> None:
    extraction = run(faces, tmp_path)
    assert extraction.accepted is not None and extraction.rejected is not None
    assert Image.open(extraction.accepted).size == (8 * 114, 3 * 114)
    rejected = np.asarray(Image.open(extraction.rejected).convert("L"))
    assert rejected.shape == (226, 2 * 226)
    assert (rejected < 128).sum() > 100  # the reasons are written there


def test_a_set_is_unfinished_until_its_last_step(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **more: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("fsae_mlflow.extraction.stage.finish", fail)
    with pytest.raises(OSError, match="No space left"):
        run(faces, tmp_path)
    with pytest.raises(ValueError, match="unfinished: run the same extract command again"):
        TemplateSet.open(tmp_path / "templates")
    monkeypatch.setattr("fsae_mlflow.extraction.stage.finish", finish)
    assert len(run(faces, tmp_path).templates) == 18


def test_every_odd_picture_is_accounted_for(shared_data: Path, tmp_path: Path) -> None:
    templates = run(shared_data / "odd", tmp_path, aligned=False, min_face_share=0.1, shard_images=100).templates
    files = {path.relative_to(shared_data / "odd").as_posix() for path in (shared_data / "odd").rglob("*.*")}
    failures = dict(templates.failures)
    assert set(templates.image_ids) | failures.keys() == files
    assert not set(templates.image_ids) & failures.keys()
    assert set(map(str, {path for path in files if path.startswith("broken/")})) <= failures.keys()
    for name in (
        "hopper.Lab.tif",
        "hopper.gif",
        "hopper_16bit.pgm",
        "hopper_1bit.pbm",
        "hopper_gray.jpg",
        "hopper.webp",
    ):
        assert f"modes/{name}" in templates.image_ids
    assert all(reason.endswith((".", "?")) and len(reason.split()) > 3 for reason in failures.values())
