from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.pairs import Pair, find_rows, make_pairs, read_pairs
from tests.template_sets import TemplateWriter, face_row


def template_set(folder: Path, image_ids: list[str], failures: tuple[tuple[str, str], ...] = ()) -> TemplateSet:
    rows = [face_row(image_id, np.full(4, 1 + index), b"") for index, image_id in enumerate(image_ids)]
    with TemplateWriter(folder, width=4, metadata={}) as writer:
        writer.write(rows)
        for image_id, reason in failures:
            writer.fail(image_id, reason)
    return TemplateSet.open(folder)


LFW = "2\t1\nAnn\t1\t4\nBea\t2\tCid\t1\nDan\t1\t12\nEve\t3\tFay\t10\n"


def test_lfw_pairs_are_read_in_file_order(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(LFW)
    pairs = read_pairs(path)
    assert [(pair.image_id_a, pair.image_id_b) for pair in pairs] == [
        ("Ann/Ann_0001", "Ann/Ann_0004"),
        ("Bea/Bea_0002", "Cid/Cid_0001"),
        ("Dan/Dan_0001", "Dan/Dan_0012"),
        ("Eve/Eve_0003", "Fay/Fay_0010"),
    ]
    assert [pair.genuine for pair in pairs] == [True, False, True, False]
    assert [pair.fold for pair in pairs] == [0, 0, 1, 1]
    assert [pair.line for pair in pairs] == [2, 3, 4, 5]
    assert read_pairs(tmp_path) == pairs


def test_folds_of_several_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    genuine, impostor = "Ann\t1\t4\nAnn\t1\t5\n", "Bea\t2\tCid\t1\nBea\t3\tCid\t1\n"
    path.write_text("2\t2\n" + 2 * (genuine + impostor))
    pairs = read_pairs(path)
    assert [pair.genuine for pair in pairs] == 2 * [True, True, False, False]
    assert [pair.fold for pair in pairs] == 4 * [0] + 4 * [1]


def test_names_with_spaces_need_tabs_and_other_names_do_not(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(LFW.replace("Ann", "Ann Lee"))
    assert read_pairs(path)[0].image_id_b == "Ann Lee/Ann Lee_0004"
    path.write_text(LFW)
    expected = read_pairs(path)
    path.write_text(LFW.replace("\t", " "))
    assert read_pairs(path) == expected


def test_the_real_lfw_file(shared_data: Path) -> None:
    pairs = read_pairs(shared_data / "lfw" / "pairs.txt")
    assert len(pairs) == 6000
    assert all(sum(pair.genuine for pair in pairs if pair.fold == fold) == 300 for fold in range(10))
    missing = [
        image
        for pair in pairs
        for image in (pair.image_id_a, pair.image_id_b)
        if not (shared_data / "lfw/images" / f"{image}.jpg").is_file()
    ]
    assert not missing


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_table_is_read(tmp_path: Path, delimiter: str) -> None:
    lines = [
        ("fold", "image_id_a", "image_id_b", "genuine"),
        ("3", "s1/1.pgm", "s1/2.pgm", "1"),
        ("5", "s1/1.pgm", "s2/1.pgm", "false"),
    ]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(delimiter.join(line) for line in lines) + "\n\n")
    assert read_pairs(path) == [
        Pair(image_id_a="s1/1.pgm", image_id_b="s1/2.pgm", genuine=True, fold=3, line=2),
        Pair(image_id_a="s1/1.pgm", image_id_b="s2/1.pgm", genuine=False, fold=5, line=3),
    ]


HEADER = "image_id_a,image_id_b,genuine,fold\n"
FAULTY: dict[str, tuple[str, str]] = {
    "empty": ("", "is empty"),
    "header of three": ("10 300 7\n", r"line 1: expected the number of folds .* found '10 300 7'"),
    "a line too few": (
        LFW.rsplit("\n", 2)[0],
        r"line 4: 2 folds of 1 \+ 1 pairs need 4 lines after the first, found 3",
    ),
    "impostor among genuine": (
        LFW.replace("Dan\t1\t12", "Dan\t1\tDon\t2"),
        r"line 4: expected name, number, number .* found",
    ),
    "genuine among impostors": (
        LFW.replace("Bea\t2\tCid\t1", "Bea\t2\t1"),
        r"line 3: expected name, number, name, number",
    ),
    "no number": (LFW.replace("Ann\t1\t4", "Ann\t1\tx"), r"line 2: expected name, number, number"),
    "no folds": (LFW.replace("2\t1\n", "0\t1\n", 1), "line 1: expected the number of folds"),
    "number zero": (LFW.replace("Ann\t1\t4", "Ann\t0\t4"), "line 2"),
    "columns": ("a,b,c\n1,2,3\n", "line 1: expected LFW's header .* missing: image_id_a"),
    "values": (HEADER + "a,b,1\n", "line 2: expected 4 values, found 3"),
    "genuine": (HEADER + "a,b,1,0\na,b,maybe,0\n", "line 3: genuine must be 0 or 1, found 'maybe'"),
    "fold": (HEADER + "a,b,1,one\n", "line 2: fold must be a whole number from 0, found 'one'"),
    "itself": (HEADER + "a,a,1,0\n", "line 2: the image 'a' is compared with itself"),
    "no first line": ("\na,b,1,0\n", "line 1: expected LFW's header .* missing: image_id_a"),
    "no pairs": (HEADER, "has a header but no pairs"),
    "one fold": (HEADER + "a,b,1,0\na,c,0,0\n", "single fold"),
    "no impostors": (HEADER + "a,b,1,0\nb,c,1,1\n", r"must have both genuine \(1\) and impostor \(0\) pairs"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_file_is_named_with_its_line(tmp_path: Path, fault: str) -> None:
    content, message = FAULTY[fault]
    path = tmp_path / "faulty.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        read_pairs(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_pairs(tmp_path / "none.txt")
    (tmp_path / "image.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match="not a text file"):
        read_pairs(tmp_path / "image.jpg")


def test_images_are_found_with_and_without_extension(tmp_path: Path) -> None:
    templates = template_set(tmp_path, ["Ann/Ann_0001.jpg", "Ann/Ann_0004.jpg", "Bea/Bea_0002.jpg"])
    pairs = [
        Pair(image_id_a="Ann/Ann_0001", image_id_b="Ann/Ann_0004.jpg", genuine=True, fold=7, line=2),
        Pair(image_id_a="Bea/Bea_0002", image_id_b="Ann/Ann_0001", genuine=False, fold=9, line=3),
    ]
    found = find_rows(pairs, templates, source="pairs.txt")
    assert found.first.tolist() == [0, 2] and found.second.tolist() == [1, 0]
    assert found.genuine.tolist() == [True, False] and found.fold.tolist() == [0, 1]
    assert found.rows.tolist() == [0, 1, 2]


def test_a_missing_image_is_named_with_file_line_and_reason(tmp_path: Path) -> None:
    templates = template_set(tmp_path, ["a/1.jpg"], failures=(("a/2.jpg", "no face found"),))
    with pytest.raises(ValueError, match=r"my\.txt, line 8: the image 'a/2' has no template in .* \(no face found\)"):
        find_rows([Pair(image_id_a="a/1", image_id_b="a/2", genuine=True, fold=0, line=8)], templates, source="my.txt")
    with pytest.raises(ValueError, match=r"my\.txt, line 9: the image 'b/1' is not in"):
        find_rows([Pair(image_id_a="b/1", image_id_b="a/1", genuine=True, fold=0, line=9)], templates, source="my.txt")


def test_an_ambiguous_name_asks_for_its_extension(tmp_path: Path) -> None:
    templates = template_set(tmp_path, ["a/1.jpg", "a/1.png", "a/2.png"])
    pair = Pair(image_id_a="a/1", image_id_b="a/2", genuine=True, fold=0, line=4)
    with pytest.raises(ValueError, match="line 4: the image 'a/1' matches several"):
        find_rows([pair], templates, source="my.txt")
    exact = Pair(image_id_a="a/1.png", image_id_b="a/2", genuine=True, fold=0, line=4)
    assert find_rows([exact], templates, source="my.txt").first.tolist() == [1]


def people(sizes: list[int]) -> tuple[list[str], list[str]]:
    rows = [(f"s{person}/{image}.pgm", f"s{person}") for person, size in enumerate(sizes) for image in range(size)]
    return [image_id for image_id, _ in rows], [identity for _, identity in rows]


def test_made_pairs_are_balanced_true_and_disjoint_by_identity() -> None:
    image_ids, identities = people([10] * 40)
    pairs = make_pairs(image_ids, identities, folds=10, seed=3)
    names = np.array(identities)
    assert len(pairs) == 10 * 2 * 180 and pairs.n_folds == 10
    np.testing.assert_array_equal(names[pairs.first] == names[pairs.second], pairs.genuine)
    assert all(
        pairs.genuine[pairs.fold == fold].sum() == 180 and (~pairs.genuine[pairs.fold == fold]).sum() == 180
        for fold in range(10)
    )
    members = [
        set(names[pairs.first[pairs.fold == fold]]) | set(names[pairs.second[pairs.fold == fold]]) for fold in range(10)
    ]
    assert [len(fold) for fold in members] == [4] * 10 and len(set.union(*members)) == 40
    unordered = {frozenset(pair) for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}
    assert len(unordered) == len(pairs) and all(len(pair) == 2 for pair in unordered)


def named(
    image_ids: list[str], seed: int, order: Callable[[list[str]], list[str]] = list
) -> list[tuple[str, str, bool, int]]:
    ids = order(image_ids)
    pairs = make_pairs(ids, [image_id.split("/")[0] for image_id in ids], folds=3, pairs_per_fold=20, seed=seed)
    return [
        (ids[a], ids[b], bool(g), int(f))
        for a, b, g, f in zip(pairs.first, pairs.second, pairs.genuine, pairs.fold, strict=True)
    ]


def test_made_pairs_depend_on_the_seed_and_not_on_the_rows_order() -> None:
    image_ids, _ = people([5] * 12)
    assert named(image_ids, 0) == named(image_ids, 0, lambda ids: ids[::-1])
    assert named(image_ids, 0) != named(image_ids, 1)


def test_the_same_seed_makes_the_same_pairs_in_every_version() -> None:
    """Else accuracies of two versions could not be compared."""
    image_ids, identities = people([2, 3] * 5 + [3] * 10)
    pairs = make_pairs(image_ids, identities)
    same = make_pairs(image_ids, identities, folds=10, pairs_per_fold=300, seed=0)
    assert (pairs.first.tolist(), pairs.second.tolist()) == (same.first.tolist(), same.second.tolist())
    assert pairs.n_folds == 10
    assert pairs.first[:8].tolist() == [32, 31, 0, 31, 33, 32, 32, 31]
    assert pairs.second[:8].tolist() == [33, 32, 1, 33, 0, 0, 1, 1]
    image_ids, identities = people([26] * 4)
    assert len(make_pairs(image_ids, identities, folds=2)) == 2 * 2 * 300


def test_two_people_a_fold_are_enough() -> None:
    image_ids, identities = people([2, 2, 2, 1, 1, 1])
    assert make_pairs(image_ids, identities, folds=3).n_folds == 3
    for sizes, words in (([2, 2, 1, 1, 1, 1], "have 6, 2 of them"), ([2, 2, 2, 1, 1], "have 5, 3 of them")):
        with pytest.raises(ValueError, match=words):
            make_pairs(*people(sizes), folds=3)


def test_people_of_one_image_make_impostors_only() -> None:
    image_ids, identities = people([2, 2, 2, 1, 1, 1, 1])
    pairs = make_pairs(image_ids, identities, folds=3)
    assert len(pairs) == 6
    assert all(np.bincount(pairs.fold) == 2)


def test_as_many_pairs_are_made_as_the_rarer_kind_allows() -> None:
    """In each fold one person of four images and one of a single image: 6 genuine pairs and 4 impostor pairs."""
    identities = [name for fold in "ab" for name in (4 * [f"{fold}-four"] + [f"{fold}-one"])]
    pairs = make_pairs([f"{row}.jpg" for row in range(10)], identities, folds=2, pairs_per_fold=300)
    assert len(pairs) == 2 * (4 + 4)


def test_too_few_people_are_refused() -> None:
    image_ids, identities = people([3] * 5)
    with pytest.raises(ValueError, match=r"folds=10 needs at least 20 identities, 10 of them .* have 5, 5 of them"):
        make_pairs(image_ids, identities, folds=10)
