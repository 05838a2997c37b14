import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fsae_mlflow.features.labels.attributes import Labels, read_attributes
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.templates.writing import finish, write_shard
from tests.template_sets import face_row

IDS = [f"p{person:02d}/p{person:02d}-{number}.jpg" for person in range(21) for number in range(2)]
HALF = [number % 2 for number in range(42)]


def made(folder: Path, jpeg: bytes, ids: list[str], **columns: tuple[str, list]) -> TemplateSet:
    """A set of these faces with extra columns, each a kind and its values."""
    folder.mkdir()
    kinds = {name: kind for name, (kind, _) in columns.items()}
    people = [name.split("/")[-1].split("-")[0] for name in ids]  # "p00/p00-1.jpg" is of p00
    values = zip(*(values for _, values in columns.values()), strict=True) if columns else [()] * len(ids)
    rows = [
        replace(face_row(name, np.ones(2), jpeg), identity=person, attributes=own)
        for name, person, own in zip(ids, people, values, strict=True)
    ]
    write_shard(folder, 0, rows, [], width=2, n_pictures=len(rows), attributes=kinds)
    return finish(folder, n_shards=1, width=2, metadata={}, attributes=kinds)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, jpeg: bytes) -> TemplateSet:
    """Two faces of 21 people each, without extra columns."""
    return made(tmp_path_factory.mktemp("attributes") / "set", jpeg, IDS)


def written(folder: Path, paths: list[str], name: str = "labels.csv", **columns: list) -> str:
    path = folder / name
    mark = "\t" if name.endswith(".tsv") else ","
    lines = [["path", *columns], *zip(paths, *columns.values(), strict=True)]
    path.write_text("\n".join(mark.join(map(str, line)) for line in lines))
    return str(path)


def nan_equal(found: np.ndarray, expected: list[float]) -> bool:
    return np.array_equal(found, np.array(expected, np.float64), equal_nan=True)


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv"])
def test_labels_are_joined_by_path(faces: TemplateSet, tmp_path: Path, name: str) -> None:
    columns = {
        "plain": HALF,
        "signed": [2 * value - 1 for value in HALF],
        "word": ["true" if value else "False" for value in HALF],
        "some": ["" if number == 3 else value for number, value in enumerate(HALF)],
        "age": [number + 0.5 for number in range(42)],
        "grade": [number % 3 for number in range(42)],
        "identity": ["somebody"] * 42,
    }
    backwards = {key: values[::-1] for key, values in columns.items()}
    found = read_attributes(written(tmp_path, IDS[::-1], name, **backwards), faces)
    assert list(found.booleans) == ["plain", "signed", "word", "some"]
    assert list(found.numbers) == ["age", "grade"]
    for key in ("plain", "signed", "word"):
        assert nan_equal(found.booleans[key], HALF), key
    assert nan_equal(found.booleans["some"], [*HALF[:3], np.nan, *HALF[4:]])
    assert nan_equal(found.numbers["age"], columns["age"])


def test_blanks_around_names_are_no_part_of_them(faces: TemplateSet, tmp_path: Path) -> None:
    path = Path(written(tmp_path, IDS, glasses=HALF))
    path.write_text(path.read_text().replace("path,glasses", "path , glasses"))
    assert list(read_attributes(str(path), faces).booleans) == ["glasses"]


def test_parquet_keeps_what_is_unknown(faces: TemplateSet, tmp_path: Path) -> None:
    path = str(tmp_path / "labels.parquet")
    some = [None, *map(bool, HALF[1:])]
    ages = [np.inf, *range(1, 42)]
    table = pa.table({"path": pa.array([*IDS, "other.jpg"]).dictionary_encode(), "some": [*some, True]})
    pq.write_table(table.append_column("age", [[*map(float, ages), 7.0]]), path)
    found = read_attributes(path, faces)
    assert nan_equal(found.booleans["some"], [np.nan, *HALF[1:]])
    assert nan_equal(found.numbers["age"], [np.nan, *ages[1:]])


def test_faces_without_a_line_are_unknown(faces: TemplateSet, tmp_path: Path) -> None:
    found = read_attributes(written(tmp_path, IDS[1:], glasses=HALF[1:]), faces)
    assert nan_equal(found.booleans["glasses"], [np.nan, *HALF[1:]])


@pytest.mark.parametrize(
    ("of_file", "of_set"),
    [("./", ""), ("", "./"), ("celeba/", ""), ("./a/b/", ""), ("", "/data/celeba/"), ("img/", "/data/celeba/")],
)
def test_folders_that_all_paths_begin_with_may_differ(tmp_path: Path, jpeg: bytes, of_file: str, of_set: str) -> None:
    faces = made(tmp_path / "set", jpeg, [of_set + name for name in IDS])
    found = read_attributes(written(tmp_path, [of_file + name for name in IDS[::-1]], glasses=HALF[::-1]), faces)
    assert nan_equal(found.booleans["glasses"], HALF)


def test_paths_of_digits_are_text(tmp_path: Path, jpeg: bytes) -> None:
    digits = [f"{number:06d}" for number in range(42)]
    found = read_attributes(written(tmp_path, digits, glasses=HALF), made(tmp_path / "set", jpeg, digits))
    assert nan_equal(found.booleans["glasses"], HALF)


def test_the_kind_of_a_column_is_found_from_all_lines(faces: TemplateSet, tmp_path: Path) -> None:
    many = [f"elsewhere/{number}.jpg" for number in range(60_000)]  # more than pyarrow reads at once
    found = read_attributes(written(tmp_path, many + IDS, age=[1] * 60_000 + [number + 0.5 for number in HALF]), faces)
    assert nan_equal(found.numbers["age"], [number + 0.5 for number in HALF])


def test_one_side_may_have_fewer_folders(tmp_path: Path, jpeg: bytes) -> None:
    flat = ["all/" + name.split("/")[-1] for name in IDS]
    both = [*flat, "other/p99-0.jpg"]
    faces = made(tmp_path / "flat", jpeg, flat)
    found = read_attributes(written(tmp_path, ["celeba/" + name for name in both], glasses=[*HALF, 1]), faces)
    assert nan_equal(found.booleans["glasses"], HALF)
    faces = made(tmp_path / "both", jpeg, ["/data/celeba/" + name for name in both])
    found = read_attributes(written(tmp_path, flat, glasses=HALF), faces)
    assert nan_equal(found.booleans["glasses"], [*HALF, np.nan])
    faces = made(tmp_path / "dots", jpeg, ["./" * (number % 2) + name for number, name in enumerate(flat)])
    found = read_attributes(written(tmp_path, flat, glasses=HALF), faces)
    assert nan_equal(found.booleans["glasses"], HALF)


def test_the_sets_own_columns_are_labels(tmp_path: Path, jpeg: bytes, caplog: pytest.LogCaptureFixture) -> None:
    own = made(
        tmp_path / "set",
        jpeg,
        IDS,
        glasses=("bool", [None, *map(bool, HALF[1:])]),
        age=("int", [None, *range(1, 42)]),
        split=("string", ["train"] * 42),
        year=("int", [1994] * 42),
    )
    found = read_attributes("", own)
    assert list(found.booleans) == ["glasses"] and list(found.numbers) == ["age"]
    assert nan_equal(found.booleans["glasses"], [np.nan, *HALF[1:]])
    assert nan_equal(found.numbers["age"], [np.nan, *range(1, 42)])
    assert "split hold text" in caplog.text
    assert "year has the one value 1994; the column is left out" in caplog.text
    both = read_attributes(written(tmp_path, IDS, glasses=[1 - value for value in HALF]), own)
    assert nan_equal(both.booleans["glasses"], [1 - value for value in HALF])
    assert list(both.numbers) == ["age"]


def test_no_labels_are_no_error(faces: TemplateSet) -> None:
    assert read_attributes("", faces) == Labels(booleans={}, numbers={})


def test_columns_that_cannot_be_judged_are_left_out(
    faces: TemplateSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = [value if number < 38 else "" for number, value in enumerate(HALF)]
    enough = [value if number < 40 else "" for number, value in enumerate(HALF)]
    path = written(tmp_path, IDS, glasses=HALF, hat=[0] * 42, none=[""] * 42, few=few, enough=enough)
    with caplog.at_level(logging.INFO):
        assert list(read_attributes(path, faces).booleans) == ["glasses", "enough"]
    for sentence in ("hat has the one value 0", "none labels 0 people", "few labels 19 people", "42 of 42 faces"):
        assert sentence in caplog.text


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (
            "path,hat\nx/1.jpg,1\n",
            r"no path in .*labels.csv is a face of .*: the file has x/1.jpg, the set p00/p00-0.jpg;",
        ),
        ("path,hat\n", "the file has no line, the set p00/p00-0.jpg"),
        ("file,hat\np00/p00-0.jpg,1\n", "must have the column path; its columns are file, hat"),
        ("path,hat,hat\np00/p00-0.jpg,1,1\n", "two columns named hat; rename"),
        ("path,hat\np00/p00-0.jpg,1\n./p00/p00-0.jpg,1\n", "has the path p00/p00-0.jpg twice"),
        ("path,hat\np00/p00-0.jpg,1\np00/p00-1.jpg,red\n", "has '1' in the column hat; its values must be numbers"),
        ("path,hat\np00/p00-0.jpg,1\np00/p00-1.jpg,0\n", "two values and 20 labeled people; hat labels 1 people"),
        ("path,hat\n" + "".join(f"{name},1\n" for name in IDS), "hat has the one value 1: give a column in which both"),
        ("path\np00/p00-0.jpg\n", "it has no column of labels"),
        ("path,hat\np00/p00-0.jpg\n", "cannot be read .*Expected 2 columns"),
        ("", "cannot be read .*Empty CSV"),
    ],
)
def test_mistakes_are_named(faces: TemplateSet, tmp_path: Path, content: str, error: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=error) as raised:
        read_attributes(str(path), faces)
    assert str(raised.value).startswith(f"attributes: {path}") or "attributes: no path" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("labels.parquet", b"nothing", "cannot be read .*give a readable .parquet file"),
        ("labels.csv", None, "cannot be read .*No such file"),
        ("labels.txt", b"path,hat", "must be a .csv, .tsv or .parquet file"),
    ],
)
def test_unreadable_files_are_named(
    faces: TemplateSet, tmp_path: Path, name: str, content: bytes | None, error: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=error):
        read_attributes(str(tmp_path / name), faces)


def test_the_real_labels_are_read(shared_data: Path, tmp_path: Path, jpeg: bytes) -> None:
    path = shared_data / "celeba_attributes.csv"
    ids = [line.split(",")[0] for line in path.read_text().splitlines()[1:2001]]
    found = read_attributes(str(path), made(tmp_path / "set", jpeg, ids))
    assert len(found.booleans) == 40 and not found.numbers
    assert found.booleans["Smiling"][:5].tolist() == [1, 0, 1, 1, 1]
