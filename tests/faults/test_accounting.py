"""Every picture, file and name of a source is accounted for; one bad name never stops the others."""

import io
import json
import logging
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from fsae_mlflow.errors import UserError
from fsae_mlflow.extraction.stage import Extraction, extract
from fsae_mlflow.faces import storage
from fsae_mlflow.faces.decoding import decoded, read, sweep
from fsae_mlflow.faces.pictures import Picture, take_inventory
from fsae_mlflow.faces.sources.registry import open_source
from fsae_mlflow.faces.storage import Location
from fsae_mlflow.files.locks import only_writer
from fsae_mlflow.machine.processes import lives
from fsae_mlflow.verification.pairs import Pair, find_rows
from tests import standin
from tests.pictures import png


@pytest.fixture(autouse=True)
def recognizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsae_mlflow.extraction.stage.load_recognizer", standin.load)


def run(faces: Path | str, output: Path, **more: object) -> Extraction:
    return extract(standin.settings(faces, output, **more), on_metrics=lambda metrics, step: None)


def marker(extraction: Extraction) -> dict[str, object]:
    return json.loads((extraction.templates.folder / "set.json").read_text())


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def test_the_same_member_name_in_three_tars(tmp_path: Path) -> None:
    for number, content in enumerate([png(1), b"broken", png(3)]):
        tar(tmp_path / f"faces-{number}.tar", {"a/1.png": content, "a/2.png": b""})
    extraction = run(tmp_path / "faces-*.tar", tmp_path / "out", batch_size=6, shard_images=6)
    assert extraction.templates.image_ids == ["a/1.png"] * 2
    assert [image_id for image_id, _ in extraction.templates.failures] == ["a/2.png", "a/1.png", "a/2.png", "a/2.png"]
    assert {name: marker(extraction)[name] for name in ("n_pictures", "n_rows", "n_failures")} == {
        "n_pictures": 6,
        "n_rows": 2,
        "n_failures": 4,
    }
    assert Image.open(extraction.rejected).size == (4 * 226, 226)


def test_pairs_refuse_an_id_that_several_rows_have(tmp_path: Path) -> None:
    for number in range(2):
        tar(tmp_path / f"faces-{number}.tar", {"a/1.png": png(number), f"b/{number}.png": png(9)})
    templates = run(tmp_path / "faces-*.tar", tmp_path / "out").templates
    both = {"image_id_b": "b/1.png", "genuine": True, "fold": 0, "line": 2}
    find_rows([Pair(**both, image_id_a="b/0.png")], templates, source="pairs.csv")
    with pytest.raises(UserError, match=r"pairs\.csv, line 2: the image 'a/1\.png' matches several images"):
        find_rows([Pair(**both, image_id_a="a/1.png")], templates, source="pairs.csv")


def test_a_path_that_is_listed_twice(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    (tmp_path / "2.png").write_bytes(b"broken")
    (tmp_path / "list.csv").write_text("path\n" + "1.png\n2.png\n" * 3)
    extraction = run(tmp_path / "list.csv", tmp_path / "out", batch_size=6)
    assert len(extraction.templates) == len(extraction.templates.failures) == 3
    assert marker(extraction)["n_pictures"] == 6


def test_files_that_are_passed_over_are_counted_by_suffix(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    for name in ("1.png", "a.txt", "b.TXT", "c.svg", "README"):
        (folder / name).write_bytes(png(1))
    with caplog.at_level(logging.INFO):
        extraction = run(folder, tmp_path / "out")
    assert marker(extraction)["passed_over"] == {"": 1, ".svg": 1, ".txt": 2}
    assert marker(extraction)["n_passed_over"] == extraction.metrics["n_passed_over"] == 4
    assert "passed over, as their suffix is not that of a picture: 1 without suffix, 1 .svg, 2 .txt" in caplog.text
    assert "extract: 1 pictures: 1 with a row, 0 failures" in caplog.text
    labels = {"1.png": png(1), "1.cls": b"7", "1.txt": b"x"}
    assert take_inventory(open_source(str(tar(tmp_path / "x.tar", labels)))).passed_over == {".txt": 1}


@pytest.mark.parametrize(
    ("suffix", "kind"), [("mpo", "JPEG"), ("tga", "TGA"), ("j2k", "JPEG2000"), ("ico", "ICO"), ("pcx", "PCX")]
)
def test_more_kinds_are_read(tmp_path: Path, suffix: str, kind: str) -> None:
    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / f"1.{suffix}", kind)
    (picture,) = open_source(str(tmp_path))
    pixels = read(picture).pixels
    assert pixels is not None and pixels[5, 5, 0] > 150


@pytest.mark.parametrize("damage", ["between members", "in a later header", "in a member", "bad header", "joined"])
def test_a_cut_tar_is_refused_with_the_number_of_members(tmp_path: Path, damage: str) -> None:
    path = tar(tmp_path / "x.tar", {f"{n}.png": png(n) for n in range(5)})
    content = path.read_bytes()
    with tarfile.open(path) as whole:
        third = whole.getmembers()[3].offset
    path.write_bytes(
        {
            "between members": content[:third],
            "in a later header": content[: third + 100],
            "in a member": content[: third - 600],
            "bad header": content[:third] + b"x" * 512 + content[third + 512 :],
            "joined": content * 2,
        }[damage]
    )
    n_members = {"in a member": "[23]", "joined": 5}.get(damage, 3)
    with pytest.raises(UserError, match=rf"x\.tar is cut or damaged after {n_members} members"):
        take_inventory(open_source(str(path)))


def test_one_bad_name_never_stops_the_others(tmp_path: Path) -> None:
    """In a process of its own with a time limit, as a FIFO that is opened hangs for ever."""
    folder = tmp_path / "faces"
    (folder / "a").mkdir(parents=True)
    (folder / "x.jpg").mkdir()
    (folder / "a" / "1.png").write_bytes(png(1))
    (folder / "x.jpg" / "2.png").write_bytes(png(2))
    Path(os.fsdecode(os.fsencode(folder) + b"/\xe4.png")).write_bytes(png(3))
    os.mkfifo(folder / "fifo.jpg")
    (folder / "null.jpg").symlink_to("/dev/zero")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    code = (
        "import sys; from fsae_mlflow.faces.decoding import decoded\n"
        "from fsae_mlflow.faces.sources.folder import Folder\n"
        "print(len(list(decoded(Folder(sys.argv[1]), workers=0))))"
    )
    started = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=Path(__file__).parents[2],
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert started.stdout == "7\n", started.stderr
    extraction = run(folder, tmp_path / "out")
    assert sorted(extraction.templates.image_ids) == ["\\udce4.png", "a/1.png", "x.jpg/2.png"]
    failures = dict(extraction.templates.failures)
    assert failures.keys() == {"a/up", "fifo.jpg", "null.jpg", "self.jpg"}
    assert "link to a folder that holds it" in failures["a/up"]
    assert "a pipe, a socket or a device" in failures["fifo.jpg"] == failures["null.jpg"]


def test_bad_names_in_lists_and_tars(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    (tmp_path / "d.jpg").mkdir()
    (tmp_path / "list.csv").write_bytes(b"path,identity\na\0b.png,x\ngopher://x/y.png,x\nd.jpg,x\n1.png,x\0\n")
    items = list(decoded(open_source(str(tmp_path / "list.csv")), workers=0))
    assert [item.picture.image_id for item in items] == ["a\\x00b.png", "gopher://x/y.png", "d.jpg", "1.png"]
    assert ["NUL" in items[0].reason, "cannot be opened" in items[1].reason, items[2].reason, items[3].reason] == [
        True,
        True,
        "The file cannot be read (Is a directory).",
        "",
    ]
    assert items[3].picture.identity == "x\\x00"
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT) as file:
        for name, kind in (("\udce4/1.png", tarfile.REGTYPE), ("2.png", tarfile.LNKTYPE), ("3.png", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "\udce4/1.png" if kind == tarfile.LNKTYPE else ""
            member.size = len(png(1)) if kind == tarfile.REGTYPE else 0
            file.addfile(member, io.BytesIO(png(1)))
    extraction = run(tmp_path / "x.tar", tmp_path / "out")
    assert extraction.templates.image_ids == ["\\udce4/1.png"]
    assert [image_id for image_id, _ in extraction.templates.failures] == ["2.png", "3.png"]


@pytest.mark.parametrize("kind", ["list", "tar", "folder"])
def test_changed_pictures_are_not_finished_already(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "faces"
    folder.mkdir()
    (folder / "1.png").write_bytes(png(1))
    (tmp_path / "list.csv").write_text("path\nfaces/1.png\n")
    tar(tmp_path / "x.tar", {"1.png": png(1)})
    faces = {"list": tmp_path / "list.csv", "tar": tmp_path / "x.tar", "folder": folder}[kind]
    run(faces, tmp_path / "out")
    assert len(run(faces, tmp_path / "out").templates) == 1
    changed = faces if kind == "tar" else folder / "1.png"
    later = changed.stat().st_mtime_ns + 5_000_000_000
    if kind == "tar":
        tar(faces, {"1.png": png(2)})
    else:
        changed.write_bytes(png(2))
    os.utime(changed, ns=(later, later))
    with pytest.raises(UserError, match=r"changed in size or modification time since the extraction in .* began"):
        run(faces, tmp_path / "out")
    plan = tmp_path / "out" / "templates" / "plan.json"  # one of version 0.1, which has no such entry
    plan.write_text(json.dumps({k: v for k, v in json.loads(plan.read_text()).items() if k != "files"}))
    assert len(run(faces, tmp_path / "out").templates) == 1


def test_a_second_extraction_into_a_folder_is_refused(faces: Path, tmp_path: Path) -> None:
    with only_writer(tmp_path / "out"), pytest.raises(UserError, match="is being written by process"):
        run(faces, tmp_path / "out")
    assert len(run(faces, tmp_path / "out").templates) > 20


def test_memory_of_dead_processes_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = next(number for number in range(4_000_000, 5_000_000) if not lives(number))
    names = [f"fsae-{dead}-a", f"fsae-{dead}-b", f"fsae-{os.getpid()}-c", "fsae-x-d", "other"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "pixels").write_bytes(b"x")
    with FileLock(tmp_path / names[1] / ".lock"):  # a process of another container
        sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
    monkeypatch.setattr("fsae_mlflow.faces.decoding.memory_folder", lambda: str(tmp_path))
    picture = Picture("a", "a", Location("a"), content=png(1))
    assert next(iter(decoded([picture], workers=1))).pixels is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[2:])


def test_one_client_a_store_not_one_a_uri(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pyarrow import fs

    made: list[str] = []

    class Counted:
        @staticmethod
        def from_uri(uri: str) -> tuple[object, str]:
            made.append(uri)
            return fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "bucket"

    monkeypatch.setattr(fs, "FileSystem", Counted)
    storage._client.cache_clear()
    (tmp_path / "bucket").mkdir()
    for number in range(40):
        (tmp_path / "bucket" / f"{number} x.png").write_bytes(png(number))
    (tmp_path / "list.csv").write_text(
        "path\n" + "".join(f"s3://bucket/{number}%20x.png?region=x\n" for number in range(40))
    )
    items = list(decoded(open_source(str(tmp_path / "list.csv")), workers=0))
    storage._client.cache_clear()
    assert made == ["s3://bucket/?region=x"]
    assert [int(item.pixels[0, 0, 0]) for item in items if item.pixels is not None] == list(range(40))
