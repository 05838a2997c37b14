"""Files that were cut, flipped, emptied or replaced either load or are refused by a sentence; nothing else happens."""

import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.sources.registry import open_source
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.checkpoint import load_exactly, read_checkpoint, state_dict
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.recognizers.student import StudentArchitecture, StudentNetwork, read_student, write_student
from fsae_mlflow.sae.saved import CONFIG, WEIGHTS, load_sae
from fsae_mlflow.templates.set import TemplateSet
from tests.pictures import png

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1"
N_DAMAGES = 27


def new_network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4))


def save_onnx(path: Path) -> None:
    weights = {"matrix": torch.rand(192, 4), "bias": torch.rand(4)}
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix", "bias"], ["template"]),
    ]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 8, 8])
    taken = helper.make_tensor_value_info("template", TensorProto.FLOAT, ["n", 4])
    stored = [numpy_helper.from_array(value.numpy(), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "small", [given], [taken], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind."""
    folder = tmp_path_factory.mktemp("intact")
    shutil.copytree(FIXTURES / "templates", folder / "templates")
    shutil.copytree(FIXTURES / "saes" / "gated", folder / "sae")
    torch.manual_seed(0)
    write_student(
        StudentNetwork(StudentArchitecture(backbone="lcnet_035", head_width=8, template_width=8)),
        folder / "student.safetensors",
    )
    RecognizerCard(name="card").write(folder / "card.json")
    torch.save({"state_dict": new_network().state_dict()}, folder / "network.pt")
    torch.save(new_network().state_dict(), folder / "former.pt", _use_new_zipfile_serialization=False)
    save_onnx(folder / "small.onnx")
    contents = [png(value) for value in range(4)]
    (folder / "pairs.bin").write_bytes(pickle.dumps((contents, [True, False]), protocol=4))
    return folder


def load_network(path: Path) -> None:
    load_exactly(new_network(), state_dict(read_checkpoint(str(path)), str(path)), str(path))


LOADERS: dict[str, Callable[[Path], object]] = {
    "templates/set.json": lambda path: TemplateSet.open(path.parent),
    f"sae/{CONFIG}": lambda path: load_sae(path.parent),
    f"sae/{WEIGHTS}": lambda path: load_sae(path.parent),
    "student.safetensors": read_student,
    "card.json": RecognizerCard.from_json,
    "network.pt": load_network,
    "former.pt": load_network,
    "small.onnx": lambda path: load_recognizer(f"onnx:{path}"),
    "pairs.bin": lambda path: list(open_source(str(path))),
}
DEEP = b"[" * 100_000
OTHER = {
    "empty": b"",
    "text": b"not what it says",
    "deep JSON": DEEP,
    "deep object": b'{"a":' * 500 + b"1" + b"}" * 500,
    "digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "list": b"[]",
    "object": b"{}",
    "large header": (50 << 20).to_bytes(8, "little") + b"{" * 100,
    "pickle": pickle.dumps({"a": 1}),
    "zip": b"PK\x03\x04" + bytes(100),
    "pickled zip": b"PK\x05\x06" + bytes(18),
}


def damages(content: bytes, name: str) -> Iterator[bytes]:
    chance = random.Random(name)
    for _ in range(N_DAMAGES):
        kind = chance.randrange(3)
        if kind == 0:
            yield content[: chance.randrange(len(content))]
            continue
        # most of a file is numbers, where a flipped bit is another number: damage its start, where names are, too
        end = chance.choice([64, 1000, len(content)])
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 1, 8])):
            damaged[chance.randrange(min(end, len(content)))] ^= 1 << chance.randrange(8)
        if kind == 2:
            first = chance.randrange(len(content))
            damaged[first : first + chance.randrange(100)] = chance.randbytes(chance.randrange(100))
        yield bytes(damaged)
    yield from OTHER.values()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LOADERS)
def test_a_damaged_file_loads_or_is_refused_by_name(intact: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(intact, tmp_path, dirs_exist_ok=True)
    LOADERS[name](tmp_path / name)
    n_refused = 0
    for number, content in enumerate(damages((intact / name).read_bytes(), name)):
        (tmp_path / name).write_bytes(content)
        try:
            LOADERS[name](tmp_path / name)
        except UserError as error:
            n_refused += 1
            sentence = str(error)
            assert str(tmp_path) in sentence and len(sentence) < 1500, f"{number}: {sentence}"
        except Exception as error:
            raise AssertionError(f"damage {number} of {name}: {content[:200]!r}") from error
    assert n_refused >= len(OTHER) - 1
