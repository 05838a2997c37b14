"""Every kind of source gives the same pictures with the right identities, or a sentence that says what is wrong."""

import io
import json
import os
import pickle
import tarfile
import textwrap
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fsae_mlflow.faces import sources
from fsae_mlflow.faces.decoding import decoded
from fsae_mlflow.faces.images import decode
from fsae_mlflow.faces.pictures import Source, take_inventory
from fsae_mlflow.faces.sources.registry import SOURCES, open_source
from tests.pictures import png


def seen(source: Source) -> list[tuple[str, str, int]]:
    return [(picture.image_id, picture.identity, int(decode(picture.read())[0, 0, 0])) for picture in source]


IN_FOLDER = [("alone.png", "alone", 3), ("ann/1.png", "ann", 0), ("ann/2.PNG", "ann", 1), ("bob/deep/3.png", "bob", 2)]


def test_a_folder_per_identity(folder: Path) -> None:
    assert seen(open_source(str(folder))) == IN_FOLDER


def test_the_orl_faces_come_with_a_wheel() -> None:
    source = open_source("orl")
    pictures = list(source)
    assert (source.name, len(pictures), len({picture.identity for picture in pictures})) == ("orl", 400, 40)
    assert decode(pictures[0].read()).shape == (112, 92, 3)


def test_the_inventory_knows_one_source_from_another(folder: Path) -> None:
    first = take_inventory(open_source(str(folder)))
    assert first.n_pictures == 4
    assert take_inventory(open_source(str(folder))) == first
    (folder / "ann" / "1.png").write_bytes(png(0) + b"more")
    assert take_inventory(open_source(str(folder))).digest != first.digest


@pytest.mark.parametrize("uri", ["memory://set", "file://{tmp}/faces"])
def test_a_folder_behind_a_uri(folder: Path, uri: str) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/set", recursive=True)
    try:
        assert seen(open_source(uri.format(tmp=folder.parent))) == IN_FOLDER
    finally:
        memory.rm("/set", recursive=True)


def test_a_csv_list_carries_its_columns_along(folder: Path) -> None:
    (folder / "list.csv").write_text(
        "path,identity,age,pose,notes\nann/1.png,Ann,31,0.5,x\nbob/deep/3.png,,,7,\n\nalone.png,Al,40,-1,z\n",
        encoding="utf-8-sig",
    )
    source = open_source(str(folder / "list.csv"))
    assert source.attributes == {"age": "int", "pose": "float", "notes": "string"}
    assert seen(source) == [("ann/1.png", "Ann", 0), ("bob/deep/3.png", "deep", 2), ("alone.png", "Al", 3)]
    assert [picture.attributes for picture in source] == [(31, 0.5, "x"), (None, 7.0, None), (40, -1.0, "z")]


def test_a_parquet_list_keeps_its_types(folder: Path) -> None:
    columns = {
        "identity": [7, 8],
        "path": ["ann/1.png", str(folder / "alone.png")],
        "male": [True, None],
        "age": [1.5, None],
    }
    pq.write_table(pa.table(columns), folder / "list.parquet")
    source = open_source(str(folder / "list.parquet"))
    assert source.attributes == {"male": "bool", "age": "float"}
    assert [(picture.identity, picture.attributes) for picture in source] == [("7", (True, 1.5)), ("8", (None, None))]
    assert [value for *_, value in seen(source)] == [0, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,identity\na.png,b\n", "must have the column path; its columns are file, identity"),
        ("", "its columns are none"),
        ("path,age\na.png,1\nb.png\n", "line 3 must have 2 values, as the header; it has 1"),
        ("path,age\n,1\n", "line 2: the path is empty"),
        ("path,age,age\na,1,1\n", "two columns named age"),
        ("path\na\udce4.png\n", "not a UTF-8 CSV file"),
    ],
)
def test_a_wrong_list_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=message):
        take_inventory(open_source(str(tmp_path / "list.csv")))


def pairs(kind: type, protocol: int) -> bytes:
    contents = [png(value) for value in range(4)]
    arrays = [np.frombuffer(content, np.uint8) for content in contents]
    return pickle.dumps((contents if kind is bytes else arrays, [True, False]), protocol=protocol)


@pytest.mark.parametrize("kind", [bytes, np.ndarray])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pair_set_of_insightface(tmp_path: Path, kind: type, protocol: int) -> None:
    (tmp_path / "lfw.bin").write_bytes(pairs(kind, protocol))
    source = open_source(str(tmp_path / "lfw.bin"))
    assert seen(source) == [
        ("00000/a", "00000", 0),
        ("00000/b", "00000", 1),
        ("00001/a", "00001a", 2),
        ("00001/b", "00001b", 3),
    ]
    assert [picture.attributes for picture in source] == [(0, True), (0, True), (1, False), (1, False)]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch owned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(([b"a", b"b"], [Evil()])), r"posix\.system, which a pair set does not contain"),
        (pickle.dumps(([b"a"], [True])), "two encoded pictures for each boolean; it holds 1 and 1"),
        (pickle.dumps({"a": 1}), "is not a pair set of InsightFace"),
        (b"not a pickle", "is not a pair set of InsightFace"),
    ],
)
def test_a_pickle_that_is_no_pair_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.bin").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_source("pairs.bin")
    assert not Path("owned").exists()


def shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("pattern", ["faces-{00..01}.tar", "faces-*.tar"])
def test_tar_shards(tmp_path: Path, pattern: str) -> None:
    label = json.dumps({"identity": "Bob", "age": 3}).encode()
    shard(
        tmp_path / "faces-00.tar",
        {"0001.png": png(1), "0001.cls": b"42\n", "0002.json": label, "0002.face.png": png(2)},
    )
    shard(tmp_path / "faces-01.tar", {"ann/1.png": png(3), "ann/1.txt": b"hello"})
    expected = [("0001.png", "42", 1), ("0002.face.png", "Bob", 2), ("ann/1.png", "ann", 3)]
    assert seen(open_source(str(tmp_path / pattern))) == expected
    assert seen(open_source(f"file://{tmp_path}/{pattern}")) == expected


def test_a_label_that_is_no_json_is_refused(tmp_path: Path) -> None:
    for label, words in ((b"[" * 100_000, "nested values"), (b"{", "not readable JSON")):
        shard(tmp_path / "faces.tar", {"1.json": label, "1.png": png(1)})
        with pytest.raises(ValueError, match=rf"1\.json in .*faces\.tar .*{words}"):
            take_inventory(open_source(str(tmp_path / "faces.tar")))


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "faces.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ValueError, match="not an uncompressed tar file"):
        take_inventory(open_source(str(tmp_path / "faces.tar")))


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        ("nowhere", "there is no folder nowhere"),
        ("nowhere.csv", r"there is no file nowhere\.csv"),
        ("nowhere.bin", r"there is no file nowhere\.bin"),
        ("nowhere.tar", r"there is no file nowhere\.tar"),
        ("nowhere-*.tar", r"no file matches nowhere-\*\.tar"),
        ("file.xyz", r"file\.xyz is a file of an unknown kind; give a folder or one of orl, \*\.csv, "),
        ("empty", "empty holds no picture"),
        ("gopher://x/y", "cannot be opened by pyarrow or fsspec"),
    ],
)
def test_a_source_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faces: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file.xyz").touch()
    with pytest.raises(ValueError, match=message):
        take_inventory(open_source(faces))


def test_a_source_is_added_as_the_docstring_of_its_room_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = sources.__doc__[sources.__doc__.index("    from ") : sources.__doc__.index("and add the line")]
    added: dict[str, type] = {}
    exec(textwrap.dedent(example), added)
    monkeypatch.setitem(SOURCES, "*.txt", added["PathList"])
    (folder / "list.TXT").write_text("bob/deep/3.png\nann/2.PNG\n")
    uri = f"file://{folder}/list.TXT"
    for source in (open_source(str(folder / "list.TXT")), open_source(uri)):
        assert isinstance(source, Source) and take_inventory(source).n_pictures == 2
        assert seen(source) == [("bob/deep/3.png", "deep", 2), ("ann/2.PNG", "ann", 1)]
        items = decoded(source, workers=1)
        assert [int(item.pixels[0, 0, 0]) for item in items if item.pixels is not None] == [2, 1]
    with pytest.raises(ValueError, match=r"there is no file nowhere\.txt"):
        open_source("nowhere.txt")


def test_a_folder_may_be_called_like_a_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    folder.rename("ORL")
    assert seen(open_source("ORL")) == IN_FOLDER
