"""Pair sets are read by opcodes and shapes: those of Python 2 and 3 and of numpy 1 and 2, and nothing else."""

import io
import os
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsae_mlflow.faces.sources import pair_pickle
from fsae_mlflow.faces.sources.pair_pickle import read_pairs

CONTENTS = [b"\xff\xd8one\n", b"", b"\x80three" * 60, b"four"]
ARRAYS = [np.frombuffer(content, np.uint8) for content in CONTENTS]
PICTURES = {
    "bytes": CONTENTS,
    "bytearrays": list(map(bytearray, CONTENTS)),
    "views": ARRAYS,
    "arrays": [array.copy() for array in ARRAYS],
    "columns": [array.reshape(-1, 1).copy() for array in ARRAYS],
}
TRUTHS = {
    "bools": [True, False],
    "numpy bools": [np.True_, np.False_],
    "array": np.array([True, False]),
    "ints": np.array([256, 0]),
}
FUZZED = int(os.environ.get("FUZZ_EXAMPLES", "300"))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("pictures", PICTURES)
def test_every_way_to_write_a_pair_set(pictures: str, protocol: int) -> None:
    for truths in TRUTHS.values():
        by_numpy_2 = pickle.dumps((PICTURES[pictures], truths), protocol=protocol)
        by_numpy_1 = by_numpy_2.replace(b"numpy._core", b"numpy.core") if protocol < 4 else by_numpy_2
        for content in (by_numpy_2, by_numpy_1):
            assert read_pairs(io.BytesIO(content)) == (CONTENTS, [True, False])


def test_what_python_2_wrote() -> None:
    texts = b"\x80\x02]q\x01(U\x04\xff\xd8abq\x02T\x04\x00\x00\x00\x80\x00cdq\x03e]q\x04\x88a\x86q\x05."
    assert read_pairs(io.BytesIO(texts)) == ([b"\xff\xd8ab", b"\x80\x00cd"], [True])
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07"
    minus_1 = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\nq\x08U\x02u1q\x09K\x00K\x01\x87q\x0aRq\x0b(K\x03U\x01|NNN" + minus_1 * 2 + b"K\x00tb"
    arrays = b"\x80\x02]q\x01" + array + b"(K\x01K\x04\x85q\x0c" + dtype + b"\x89U\x04\xff\xd8abq\x0dtba]\x86."
    assert read_pairs(io.BytesIO(arrays)) == ([b"\xff\xd8ab"], [])


class Calls:
    def __init__(self, *called: Any) -> None:
        self.called = called

    def __reduce__(self) -> Any:
        return self.called


OUTSIDE = (3, "|", None, ("a",), {"a": (np.dtype("u1"), 64)}, 4, 1, 16)
PART = (3, "|", (np.dtype("u1"), (2**40,)), None, None, 4, 1, 0)
FILE = b"\x80\x05"


def array_of(dtype: tuple[Any, ...], name: str = "V4") -> Calls:
    """An array whose dtype the file describes."""
    made = Calls(np.dtype, (name, False, True), dtype)
    return Calls(np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, (1,), made, False, b"1234"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps(([array_of(OUTSIDE)], [])), "way that a pair set does not|EMPTY_DICT|not bytes or booleans"),
        (pickle.dumps(([array_of(OUTSIDE, "u1")], [])), "EMPTY_DICT"),
        (pickle.dumps(([array_of(PART, "u1")], [])), "another kind"),
        (pickle.dumps(([array_of(PART)], [])), "another kind|not bytes or booleans"),
        (pickle.dumps(([Calls(os.system, ("true",))], [])), r"posix\.system, which a pair set does not contain"),
        (pickle.dumps(([np.array([b"a"], object)], [])), "not bytes or booleans"),
        (pickle.dumps(([np.zeros(2)], [])), "not bytes or booleans"),
        (pickle.dumps(([np.zeros((2, 2), np.uint8)], [])), "must be a row of bytes"),
        (pickle.dumps(([b"a", "b"], [True])), "every picture must be bytes"),
        (pickle.dumps(([b"a", b"b"], [b"x"])), "every boolean must be"),
        (pickle.dumps({"a": 1}), "EMPTY_DICT, which a pair set does not contain"),
        (FILE + b"B" + (2**32 - 1).to_bytes(4, "little"), "an entry has more than 64 MiB"),
        (FILE + b"\x8e" + (2**62).to_bytes(8, "little"), "an entry has more than 64 MiB"),
        (FILE + b"0.", "POP, which"),
        (FILE + b"\x86.", "takes a value that it did not make"),
        (FILE + b"h\x07.", "before it makes it"),
        (FILE + b"t.", "did not make"),
        (FILE + b"K\x01K\x01a.", "not a list"),
        (b"", "before seeing STOP"),
    ],
)
def test_anything_else_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_pairs(io.BytesIO(content))


def test_a_small_file_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20)
    again = b"c_codecs\nencode\nq\x01" + text + b"q\x02X\x06\x00\x00\x00latin1q\x03]"
    with pytest.raises(ValueError, match="more bytes than it has"):
        read_pairs(io.BytesIO(b"\x80\x02" + again + b"h\x01h\x02h\x03\x86Ra" * 100))
    monkeypatch.setattr(pair_pickle, "LARGEST_N_STEPS", 1000)
    with pytest.raises(ValueError, match="more than 1000 steps"):
        read_pairs(io.BytesIO(FILE + b"]" + b"\x94" * 10_000))
    monkeypatch.setattr(pair_pickle, "LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="it has more than"):
        read_pairs(io.BytesIO(FILE + (b"C\xff" + b"a" * 255) * 30))


SEEDS = [pickle.dumps((p, t), protocol=n) for p in PICTURES.values() for t in TRUTHS.values() for n in (0, 2, 4, 5)]
OPCODES = b"(.0NK\x88\x89)]}tleab\x85\x86\x87Rc\x93C\x8eB\x96UTX\x8chjqr\x94\x95\x80VSILgp\x8a"
PIECES = st.one_of(st.binary(max_size=6), st.sampled_from([bytes([code]) for code in OPCODES]), st.sampled_from(SEEDS))
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), PIECES), min_size=1, max_size=6)


@settings(max_examples=FUZZED, deadline=None, derandomize=FUZZED == 300, database=None)
@given(seed=st.sampled_from([*SEEDS, FILE]), edits=EDITS)
def test_a_forged_file_is_read_or_refused(seed: bytes, edits: list[tuple[float, int, bytes]]) -> None:
    """FUZZ_EXAMPLES=25000 makes it a run of about ten minutes."""
    content = seed
    for place, removed, piece in edits:
        first = int(place * len(content))
        content = content[:first] + piece + content[first + removed :]
    try:
        pictures, truths = read_pairs(io.BytesIO(content))
    except ValueError:
        return
    assert sum(map(len, {id(picture): picture for picture in pictures}.values())) <= len(content)
    assert {type(picture) for picture in pictures} <= {bytes} and {type(truth) for truth in truths} <= {bool}
