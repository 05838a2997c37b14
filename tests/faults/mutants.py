"""Change one operator, number or statement of a room at a time, and run the room's tests: which changes go unseen?

    python -m tests.faults.mutants --rooms sae verification templates --sample 150 --seed 0

Each mutant is written into a copy of the project in a temporary folder, so the checkout stays as it is. It is killed if
a test fails, or if the tests take four times as long as on the unchanged code (`too slow`: look at these). The tests
must pass on the unchanged code, else nothing is judged. Texts, decorators and annotations of functions stay.
"""

import argparse
import ast
import copy
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

ROOT = Path(__file__).parents[2]
SWAPPED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.USub: ast.UAdd,
}  # fmt: skip
# Tests of a room that stand elsewhere.
ALSO = {"templates": ["faults/test_template_damage.py"], "sae": ["faults/test_damaged_files.py"]}
# Imported once, in the process that forks one child for each mutant.
HEAVY = ("torch", "numpy", "pandas", "pyarrow.parquet", "matplotlib.pyplot", "mlflow", "numba", "hypothesis", "pytest")
STARTING = Lock()  # a process that is forked while another starts would hold that one's pipe, and its end be seen late


@dataclass(frozen=True)
class Mutant:
    """A file with one change: its path in the project, the changed line before and after, and the whole text."""

    path: Path
    line: int
    before: str
    after: str
    text: str


def mutants_of(path: Path) -> Iterator[Mutant]:
    """All mutants of a file, in the order of its syntax tree."""
    source = (ROOT / path).read_text()
    tree = ast.parse(source)
    for index, node in enumerate(_changeable(tree)):
        changed = copy.deepcopy(tree)
        other = list(_changeable(changed))[index]
        before = ast.unparse(other)
        _change(other)
        ast.fix_missing_locations(changed)
        yield Mutant(path, getattr(node, "lineno", 0), before, ast.unparse(other), ast.unparse(changed))


def _changeable(node: ast.AST) -> Iterator[ast.AST]:
    operators = getattr(node, "ops", [getattr(node, "op", None)])
    if isinstance(node, ast.Compare | ast.BoolOp | ast.BinOp | ast.AugAssign | ast.UnaryOp):
        if type(operators[0]) in SWAPPED or isinstance(operators[0], ast.Not):
            yield node
    elif (
        (isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float))
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
        or isinstance(node, ast.If | ast.IfExp | ast.Break | ast.Continue)
    ):
        yield node
    for name, value in ast.iter_fields(node):
        if name == "decorator_list" or (name in ("annotation", "returns") and not isinstance(node, ast.AnnAssign)):
            continue
        if isinstance(node, ast.JoinedStr):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changeable(child)


def _change(node: ast.AST) -> None:
    match node:
        case ast.Compare():
            node.ops[0] = SWAPPED[type(node.ops[0])]()
        case ast.UnaryOp(op=ast.Not()):  # not not x: x as a truth value
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
        case ast.BoolOp() | ast.BinOp() | ast.AugAssign() | ast.UnaryOp():
            node.op = SWAPPED[type(node.op)]()
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant():
            node.value += 1
        case ast.Expr():
            node.value = ast.Constant(None)
        case ast.If() | ast.IfExp():
            node.test = ast.UnaryOp(ast.Not(), node.test)
        case ast.Break() | ast.Continue():
            node.__class__ = ast.Continue if isinstance(node, ast.Break) else ast.Break


@cache  # the tests that were there at the start, although the checkout goes on
def tests_of(path: Path) -> list[str]:
    """The tests that may notice a change of a file: those of its own name first, then its others."""
    room = ROOT / "tests" / path.parts[1]
    found = sorted(room.rglob("test_*.py")) if room.is_dir() else [ROOT / "tests" / f"test_{path.stem}.py"]
    found += [ROOT / "tests" / name for name in ALSO.get(path.parts[1], ())]
    near = [path.stem, path.parent.name]
    found.sort(key=lambda test: not any(name in test.stem or name == test.parent.name for name in near))
    return [str(test.relative_to(ROOT)) for test in found]


def _test(project: Path, tests: list[str], skipped: str) -> None:
    os.chdir(project)
    os.setpgid(0, 0)
    sys.path.insert(0, str(project))
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "fsae_mlflow", "__mp_main__")]:
        del sys.modules[name]  # else the checkout's would be tested instead of the copy's
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    import pytest

    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-k", skipped, *tests]))


def judged(mutant: Mutant, project: Path, skipped: str, limit: float) -> str:
    """What the tests say of a mutant, written into this copy of the project and taken back afterwards."""
    target = project / mutant.path
    times = (target.stat().st_atime_ns, target.stat().st_mtime_ns)
    original = target.read_text()
    target.write_text(mutant.text)
    try:
        return outcome(project, tests_of(mutant.path), skipped, limit)
    finally:
        target.write_text(original)
        os.utime(target, ns=times)  # Python finds its compiled file by the time of the source


def outcome(project: Path, tests: list[str], skipped: str, limit: float | None = None) -> str:
    """Whether a mutant is killed by these tests, survives them, or makes them too slow."""
    process = multiprocessing.get_context("fork").Process(target=_test, args=(project, tests, skipped))
    with STARTING:
        process.start()
    process.join(limit)
    if is_slow := process.is_alive():
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    return "too slow" if is_slow else "killed" if process.exitcode else "SURVIVED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", nargs="+", default=["sae", "verification", "templates"], help="folders or files")
    parser.add_argument("--sample", type=int, default=150, help="mutants to take at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", default="", help="tests to leave out, as for pytest -k: 'not killed_training'")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    sys.dont_write_bytecode = True
    sys.path[:] = [path for path in sys.path if path not in ("", str(ROOT))]
    rooms = [ROOT / "fsae_mlflow" / room for room in options.rooms]
    files = sorted(file for room in rooms for file in (room.rglob("*.py") if room.is_dir() else [room]))
    everything = [mutant for file in files for mutant in mutants_of(file.relative_to(ROOT))]
    chosen = random.Random(options.seed).sample(everything, min(options.sample, len(everything)))
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        projects: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.workers):
            project = Path(folder) / str(number)
            shutil.copytree(ROOT, project, symlinks=True, ignore=shutil.ignore_patterns(".git", "outputs", "mlruns"))
            projects.put(project)

        limits = {}
        for tests in {tuple(sorted(tests_of(mutant.path))) for mutant in chosen}:
            started = time.monotonic()
            if outcome(Path(folder) / "0", list(tests), options.skip) != "SURVIVED":
                raise SystemExit(f"The tests fail on the unchanged code: {' '.join(tests)}")
            limits[tests] = 30 + 4 * (time.monotonic() - started)

        def judge(mutant: Mutant) -> str:
            project = projects.get()
            word = judged(mutant, project, options.skip, limits[tuple(sorted(tests_of(mutant.path)))])
            projects.put(project)
            print(f"{word:8} {mutant.path}:{mutant.line}  {mutant.before!r} -> {mutant.after!r}", flush=True)
            return word

        with ThreadPoolExecutor(options.workers) as workers:
            n_alive = list(workers.map(judge, chosen)).count("SURVIVED")
    n_killed = len(chosen) - n_alive
    print(f"{n_killed} of {len(chosen)} mutants killed ({n_killed / len(chosen):.0%}), out of {len(everything)}.")


if __name__ == "__main__":
    main()
