"""The pairs of faces to compare: read from a file, or made from the identities of a template set."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Int64

from fsae_mlflow.errors import UserError
from fsae_mlflow.templates.set import TemplateSet

COLUMNS = ("image_id_a", "image_id_b", "genuine", "fold")
ACCEPTED = f"LFW's pairs.txt or a table with the columns {', '.join(COLUMNS)}"
TRUTH = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two images, whether they show the same person, the fold (from 0), and the line of the pairs file."""

    image_id_a: str
    image_id_b: str
    genuine: bool
    fold: int
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class RowPairs:
    """Pairs as rows of a template set; `fold` counts from 0 without gaps."""

    first: Int64[np.ndarray, " pairs"]
    second: Int64[np.ndarray, " pairs"]
    genuine: Bool[np.ndarray, " pairs"]
    fold: Int64[np.ndarray, " pairs"]

    def __len__(self) -> int:
        return len(self.first)

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    @property
    def rows(self) -> Int64[np.ndarray, " rows"]:
        """All rows that occur in pairs, each once, in ascending order."""
        return np.unique(np.concatenate([self.first, self.second]))


def pairs_path(pairs: str) -> Path:
    """The file that the parameter `pairs` names: itself, or pairs.txt in the folder that it names."""
    path = Path(pairs.removeprefix("lfw:"))
    return path / "pairs.txt" if path.is_dir() else path


def read_pairs(path: Path) -> list[Pair]:
    """Read LFW's pairs.txt (with any number of folds), the folder that holds it, or a comma- or tab-separated table.

    LFW: a header `folds<TAB>pairs`; then, per fold, `pairs` lines `name n m` (genuine) and `pairs` lines `name n name
    m` (impostor); the image is NAME/NAME_0001 (Huang et al. 2007, View 2). Table: a header with the columns image_id_a,
    image_id_b, genuine (0 or 1) and fold.

    Raises: UserError naming the file, the line and what is expected there.
    """
    path = pairs_path(str(path))
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"pairs: {path} cannot be read ({error.strerror}); give the path of a pairs file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"pairs: {path} is not a text file; give {ACCEPTED}.") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"pairs: {path} is empty; give {ACCEPTED}.")
    first = lines[0].split()
    pairs = _read_lfw(path, lines) if first and first[0].isdecimal() else _read_table(path, lines)
    if len({pair.fold for pair in pairs}) < 2:
        raise UserError(
            f"pairs: {path} has a single fold; give at least two, since the threshold is chosen on the other folds."
        )
    return pairs


def _read_lfw(path: Path, lines: list[str]) -> list[Pair]:
    header = lines[0].split()
    if len(header) != 2 or not all(word.isdecimal() and int(word) > 0 for word in header):
        raise UserError(
            f"pairs: {path}, line 1: expected the number of folds and of genuine pairs per fold "
            f"(10 300), found {lines[0].strip()!r}."
        )
    folds, size = map(int, header)
    if len(lines) - 1 != 2 * folds * size:
        raise UserError(
            f"pairs: {path}, line {len(lines)}: {folds} folds of {size} + {size} pairs need "
            f"{2 * folds * size} lines after the first, found {len(lines) - 1}."
        )
    pairs = []
    for position, line in enumerate(lines[1:]):
        words = line.split("\t") if "\t" in line else line.split()
        words = [word.strip() for word in words]
        genuine = position % (2 * size) < size
        names, numbers = (words[:1] * 2, words[1:]) if genuine else (words[0::2], words[1::2])
        if len(words) != (3 if genuine else 4) or not all(number.isdecimal() and int(number) > 0 for number in numbers):
            expected = "name, number, number (one person)" if genuine else "name, number, name, number (two people)"
            raise UserError(f"pairs: {path}, line {position + 2}: expected {expected}, found {line.strip()!r}.")
        a, b = (f"{name}/{name}_{int(number):04d}" for name, number in zip(names, numbers, strict=True))
        pairs.append(Pair(image_id_a=a, image_id_b=b, genuine=genuine, fold=position // (2 * size), line=position + 2))
    return pairs


def _read_table(path: Path, lines: list[str]) -> list[Pair]:
    reader = csv.reader(lines, delimiter="\t" if "\t" in lines[0] else ",")
    header = [name.strip() for name in next(reader)]
    if missing := [name for name in COLUMNS if name not in header]:
        raise UserError(
            f"pairs: {path}, line 1: expected LFW's header (10 300) or the columns {', '.join(COLUMNS)}; "
            f"missing: {', '.join(missing)}."
        )
    pairs = []
    for values in reader:
        line = reader.line_num
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(header):
            raise UserError(f"pairs: {path}, line {line}: expected {len(header)} values, found {len(values)}.")
        row = {name: value.strip() for name, value in zip(header, values, strict=True)}
        if row["genuine"].lower() not in TRUTH:
            raise UserError(f"pairs: {path}, line {line}: genuine must be 0 or 1, found {row['genuine']!r}.")
        if not row["fold"].isdecimal():
            raise UserError(f"pairs: {path}, line {line}: fold must be a whole number from 0, found {row['fold']!r}.")
        if row["image_id_a"] == row["image_id_b"]:
            raise UserError(
                f"pairs: {path}, line {line}: the image {row['image_id_a']!r} is compared with itself; "
                "a pair needs two images."
            )
        a, b = row["image_id_a"], row["image_id_b"]
        pairs.append(
            Pair(image_id_a=a, image_id_b=b, genuine=TRUTH[row["genuine"].lower()], fold=int(row["fold"]), line=line)
        )
    if not pairs:
        raise UserError(f"pairs: {path} has a header but no pairs; add one line per pair.")
    if {pair.genuine for pair in pairs} != {True, False}:
        raise UserError(f"pairs: {path} must have both genuine (1) and impostor (0) pairs; add the missing kind.")
    return pairs


def find_rows(pairs: Sequence[Pair], templates: TemplateSet, *, source: Path | str) -> RowPairs:
    """The rows of each pair's images in a template set; images may be named without their extension.

    No pair is skipped, since that would move the fold boundaries.

    Raises: UserError naming the file, the line and the image that has no template, with extraction's reason if known.
    """
    rows = _index(templates.image_ids)
    found = np.empty((len(pairs), 2), np.int64)
    for position, pair in enumerate(pairs):
        for side, image_id in enumerate((pair.image_id_a, pair.image_id_b)):
            row = rows.get(image_id)
            if row is None:
                raise UserError(f"pairs: {source}, line {pair.line}: {_why_missing(image_id, templates)}")
            if row < 0:
                raise UserError(
                    f"pairs: {source}, line {pair.line}: the image {image_id!r} matches several images of "
                    f"{templates.folder}; give its extension, or pictures with ids of their own."
                )
            found[position, side] = row
    _, fold = np.unique([pair.fold for pair in pairs], return_inverse=True)
    genuine = np.array([pair.genuine for pair in pairs], dtype=bool)
    return RowPairs(first=found[:, 0].copy(), second=found[:, 1].copy(), genuine=genuine, fold=fold.astype(np.int64))


def find_row(image_id: str, templates: TemplateSet) -> int | None:
    """The row of an image, named with or without its extension; None where the set has no such image.

    Raises: UserError where the name matches several images.
    """
    row = _index(templates.image_ids).get(image_id)
    if row == -1:
        raise UserError(f"{image_id!r} matches several images of {templates.folder}; give its extension.")
    return row


def _index(image_ids: Sequence[str]) -> dict[str, int]:
    """The row of each image id, with and without extension; -1 where the name is ambiguous."""
    stems: dict[str, int] = {}
    ids: dict[str, int] = {}
    for row, image_id in enumerate(image_ids):
        stem = str(PurePosixPath(image_id).with_suffix(""))
        stems[stem] = -1 if stem in stems else row
        ids[image_id] = -1 if image_id in ids else row
    return stems | ids


def _why_missing(image_id: str, templates: TemplateSet) -> str:
    for failed, reason in templates.failures:
        if image_id in (failed, str(PurePosixPath(failed).with_suffix(""))):
            return (
                f"the image {image_id!r} has no template in {templates.folder} ({reason}); "
                "extract again with no_face=central_crop, which gives every readable image a template."
            )
    return f"the image {image_id!r} is not in {templates.folder}; extract the images that the pairs name."


def make_pairs(
    image_ids: Sequence[str],
    identities: Sequence[str] | np.ndarray,
    *,
    folds: int = 10,
    pairs_per_fold: int = 300,
    seed: int = 0,
) -> RowPairs:
    """Make pairs in `folds` folds that share no identity; the result does not depend on the order of the rows.

    Every fold has the same number of genuine and of impostor pairs, at most `pairs_per_fold` of each.

    Raises: UserError with fewer than two identities per fold, one of them with at least two images.
    """
    order = np.array(sorted(range(len(image_ids)), key=lambda row: image_ids[row]), dtype=np.int64)
    names = np.asarray(identities, dtype=object)[order]
    members: dict[str, list[int]] = {}
    for row, name in zip(order.tolist(), names.tolist(), strict=True):
        members.setdefault(name, []).append(row)
    generator = np.random.default_rng(seed)
    shuffled = [sorted(members)[index] for index in generator.permutation(len(members))]
    shuffled.sort(key=lambda name: len(members[name]) < 2)
    several = sum(len(rows) > 1 for rows in members.values())
    if several < folds or len(members) < 2 * folds:
        raise UserError(
            f"folds={folds} needs at least {2 * folds} identities, {folds} of them with two images or more; "
            f"the templates have {len(members)}, {several} of them with two or more; use fewer folds or a pairs file."
        )
    people = [[members[name] for name in shuffled[fold::folds]] for fold in range(folds)]
    size = min(pairs_per_fold, *(count for fold in people for count in _n_pairs(fold)))
    rows = np.concatenate([drawn(fold, size, generator) for fold in people for drawn in (_genuine, _impostor)])
    return RowPairs(
        first=rows[:, 0].copy(),
        second=rows[:, 1].copy(),
        genuine=np.tile(np.repeat([True, False], size), folds),
        fold=np.repeat(np.arange(folds, dtype=np.int64), 2 * size),
    )


def _n_pairs(people: list[list[int]]) -> tuple[int, int]:
    """How many genuine and impostor pairs the images of these people can form."""
    genuine = sum(math.comb(len(rows), 2) for rows in people)
    return genuine, math.comb(sum(map(len, people)), 2) - genuine


def _genuine(people: list[list[int]], size: int, generator: np.random.Generator) -> Int64[np.ndarray, "pairs 2"]:
    counts = np.array([math.comb(len(rows), 2) for rows in people])
    ends = np.cumsum(counts)
    drawn = generator.choice(ends[-1], size=size, replace=False)
    owners = np.searchsorted(ends, drawn, side="right")
    ranks = drawn - (ends - counts)[owners]
    later = ((1 + np.sqrt(1 + 8 * ranks)) // 2).astype(np.int64)
    earlier = ranks - later * (later - 1) // 2
    return np.array(
        [(people[owner][i], people[owner][j]) for owner, i, j in zip(owners, earlier, later, strict=True)],
        dtype=np.int64,
    )


def _impostor(people: list[list[int]], size: int, generator: np.random.Generator) -> Int64[np.ndarray, "pairs 2"]:
    rows = np.array([row for person in people for row in person], dtype=np.int64)
    owner = np.repeat(np.arange(len(people)), [len(person) for person in people])
    found: dict[tuple[int, int], None] = {}
    while len(found) < size:
        drawn = np.sort(generator.integers(len(rows), size=(2 * size, 2)), axis=1)
        found |= dict.fromkeys((int(i), int(j)) for i, j in drawn if owner[i] != owner[j])
    return rows[np.array(list(found)[:size])]
