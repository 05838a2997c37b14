"""Reads the pickles of pair sets without unpickling them: only the opcodes and shapes that such files hold.

An unpickler, even one that allows numpy's names only, builds arrays whose dtypes the file describes, and such a dtype
reads memory outside the array. Here nothing of numpy is built: an array is its bytes, and its dtype is checked.
"""

import math
import pickletools
from dataclasses import dataclass
from io import BufferedIOBase
from typing import IO, Any, cast

LARGEST_PICTURE = 64 << 20
LARGEST_FILE = 4 << 30
LARGEST_N_STEPS = 10_000_000  # a picture takes 3 to 45

VALUES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"} | {
    "BININT1", "BININT2", "BININT", "INT", "LONG1", "LONG",
}  # fmt: skip
CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False, "NONE": None, "EMPTY_TUPLE": ()}
PUTS, GETS = {"BINPUT", "LONG_BINPUT", "PUT"}, {"BINGET", "LONG_BINGET", "GET"}
DTYPES = {kind + size for kind in "biu" for size in "1248"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
FUNCTIONS = {
    "_codecs.encode",
    "builtins.bytes",
    "builtins.bytearray",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
}


class RefusedError(ValueError):
    """What stands in the pickle is not part of a pair set; the message says what."""


@dataclass(frozen=True)
class _Function:
    name: str


@dataclass(frozen=True)
class _Dtype:
    """A dtype of whole numbers or booleans with `size` bytes a value; the order of bytes does not matter here."""

    size: int


@dataclass
class _Array:
    """An array, which a pickle first names and then fills."""

    dtype: _Dtype = _Dtype(0)
    shape: tuple[int, ...] = ()
    content: bytes = b""

    def fill(self, dtype: _Dtype, shape: tuple[Any, ...], content: bytes) -> "_Array":
        # numbers of any length and count would take for ever to multiply
        if len(shape) > 8 or not all(type(length) is int and 0 <= length <= max(1, len(content)) for length in shape):
            raise RefusedError("an array has a wrong shape")
        if math.prod(shape) * dtype.size != len(content):
            raise RefusedError(f"an array must have as many bytes as its shape says; it has {len(content)}")
        self.dtype, self.shape, self.content = dtype, shape, content
        return self

    @property
    def picture(self) -> bytes:
        if self.dtype.size != 1 or sum(length != 1 for length in self.shape) > 1:
            raise RefusedError("a picture must be a row of bytes; it is an array of another shape or type")
        return self.content

    @property
    def truths(self) -> list[bool]:
        if not self.dtype.size or len(self.shape) != 1:
            raise RefusedError("the booleans must be a row")
        size = self.dtype.size
        return [any(self.content[first : first + size]) for first in range(0, len(self.content), size)]


class _Bounded:
    """What pickletools reads from: no read is larger than a picture may be, whatever length the file names."""

    def __init__(self, file: BufferedIOBase) -> None:
        self.file, self.position = file, 0

    def read(self, length: int) -> bytes:
        if length > LARGEST_PICTURE:
            raise RefusedError(f"an entry has more than {LARGEST_PICTURE >> 20} MiB")
        return self._counted(self.file.read(length))

    def readline(self) -> bytes:
        line = self.file.readline(LARGEST_PICTURE + 1)
        if len(line) > LARGEST_PICTURE:
            raise RefusedError(f"a line has more than {LARGEST_PICTURE >> 20} MiB")
        return self._counted(line)

    def tell(self) -> int:
        return self.position

    def _counted(self, content: bytes) -> bytes:
        self.position += len(content)
        if self.position > LARGEST_FILE:
            raise RefusedError(f"it has more than {LARGEST_FILE >> 30} GiB")
        return content


def read_pairs(file: BufferedIOBase) -> tuple[list[bytes], list[bool]]:
    """The encoded pictures and the booleans of a pickled pair set, of Python 2 or 3 and numpy 1 or 2.

    Raises: ValueError with the reason for anything that such a file does not hold.
    """
    match _Reader(file).read():
        case (list() | tuple() as pictures, list() | tuple() | _Array() as truths):
            encoded = [picture.picture if isinstance(picture, _Array) else picture for picture in pictures]
            same = truths.truths if isinstance(truths, _Array) else truths
        case _:
            raise RefusedError("it must hold a list of pictures and a list of booleans")
    if not all(isinstance(content, bytes) for content in encoded):
        raise RefusedError("every picture must be bytes or an array of bytes")
    if not all(isinstance(value, int) for value in same):
        raise RefusedError("every boolean must be True or False")
    return encoded, [bool(value) for value in same]


class _Reader:
    """A pickle machine with a stack, marks and a memo, as pickletools describes it, and without the other opcodes."""

    def __init__(self, file: BufferedIOBase) -> None:
        self.file = _Bounded(file)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.n_encoded = 0

    def read(self) -> Any:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], self.file))):
            if step == LARGEST_N_STEPS:
                raise RefusedError(f"it has more than {LARGEST_N_STEPS} steps")
            if opcode.name in VALUES:
                self.stack.append(argument)
            else:
                self._step(opcode.name, argument)
        return self._take(1)[0]

    def _step(self, name: str, argument: Any) -> None:
        if name in PUTS or name == "MEMOIZE":
            (self.memo[len(self.memo) if name == "MEMOIZE" else argument],) = self._take(1, keep=True)
        elif name in GETS:
            if argument not in self.memo:
                raise RefusedError("it uses a value before it makes it")
            self.stack.append(self.memo[argument])
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in TUPLES:
            self.stack.append(tuple(self._take(TUPLES[name])))
        elif name in ("SHORT_BINSTRING", "BINSTRING"):  # bytes of Python 2, which pickletools gives as text
            self.stack.append(argument.encode("latin-1"))
        elif name == "BYTEARRAY8":
            self.stack.append(bytes(argument))
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in ("TUPLE", "LIST"):
            self.stack.append((tuple if name == "TUPLE" else list)(self._since_mark()))
        elif name == "EMPTY_LIST":
            self.stack.append([])
        elif name in ("APPEND", "APPENDS"):
            added = self._take(1) if name == "APPEND" else self._since_mark()
            (target,) = self._take(1, keep=True)
            if not isinstance(target, list):
                raise RefusedError("it adds to something that is not a list")
            target.extend(added)
        elif name == "GLOBAL":
            self.stack.append(_function(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            self.stack.append(_function(".".join(map(_text, self._take(2)))))
        elif name == "REDUCE":
            function, arguments = self._take(2)
            self.stack.append(self._called(function, arguments))
        elif name == "BUILD":
            (state,), (target,) = self._take(1), self._take(1, keep=True)
            _build(target, state)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise RefusedError(f"it uses {name}, which a pair set does not contain")

    def _take(self, n: int, *, keep: bool = False) -> list[Any]:
        """The last `n` values of the stack since the last mark."""
        first = len(self.stack) - n
        if first < (self.marks[-1] if self.marks else 0):
            raise RefusedError("it takes a value that it did not make")
        taken = self.stack[first:]
        if not keep:
            del self.stack[first:]
        return taken

    def _since_mark(self) -> list[Any]:
        if not self.marks:
            raise RefusedError("it takes values that it did not make")
        first = self.marks.pop()
        taken = self.stack[first:]
        del self.stack[first:]
        return taken

    def _called(self, function: Any, arguments: Any) -> Any:
        match function, arguments:
            case (
                _Function("_codecs.encode" | "builtins.bytearray"),
                (str(text), str() | bytes() as encoding),
            ) if _text(encoding) in ("latin1", "latin-1"):
                # Without this sum, one text that is encoded again and again would fill the memory.
                self.n_encoded += len(text)
                if self.n_encoded > self.file.position:
                    raise RefusedError("it makes more bytes than it has")
                return text.encode("latin-1")
            case _Function("builtins.bytes" | "builtins.bytearray"), ():
                return b""
            case _Function("builtins.bytearray"), (bytes(content),):
                return content
            case _Function("numpy.dtype"), (str() | bytes() as name, int(), int()):
                return _dtype(_text(name))
            case _Function("numpy.core.multiarray._reconstruct"), (_Function("numpy.ndarray"), (0,), str() | bytes()):
                return _Array()
            case _Function("numpy.core.multiarray.scalar"), (_Dtype() as dtype, bytes(content)):
                return any(_Array().fill(dtype, (), content).content)
            case _Function("numpy.core.numeric._frombuffer"), (bytes(content), _Dtype() as dtype, tuple(shape), str()):
                return _Array().fill(dtype, shape, content)
        raise RefusedError("it makes a value in a way that a pair set does not contain")


def _build(target: Any, state: Any) -> None:
    match target, state:
        case _Array(), (1, tuple(shape), _Dtype() as dtype, int(), bytes(content)):
            target.fill(dtype, shape, content)
        case _Dtype(), (3, str() | bytes(), None, None, None, int(), int(), int()):
            pass  # the order of bytes; a dtype with fields or parts would have them instead of None
        case _:
            raise RefusedError("it holds an array or type of another kind than a pair set")


def _function(name: str) -> _Function:
    known = name.replace("__builtin__.", "builtins.").replace("numpy._core.", "numpy.core.")
    if known not in FUNCTIONS:
        raise RefusedError(f"it asks for {name[:100]}, which a pair set does not contain")
    return _Function(known)


def _dtype(name: str) -> _Dtype:
    if name not in DTYPES:
        raise RefusedError(f"it holds values of type {name[:20]!r}, not bytes or booleans")
    return _Dtype(int(name[1]))


def _text(name: Any) -> str:
    if isinstance(name, bytes):
        return name.decode("latin-1")
    if not isinstance(name, str):
        raise RefusedError("a name must be text")
    return name
