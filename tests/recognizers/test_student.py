"""Students: built from their architecture, written, read again."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.documents import sha256
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.recognizers.student import StudentArchitecture, StudentNetwork, read_student, write_student
from tests.recognizers.networks import gradient_share

SMALL = StudentArchitecture(backbone="lcnet_035", stem_stride=1, head_width=16, template_width=24)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("student") / "small.safetensors"
    write_student(StudentNetwork(SMALL), path)
    return path


@pytest.mark.parametrize("head", ["depthwise", "mean"])
@pytest.mark.parametrize("stem_stride", [0, 1])
def test_student_comes_back_as_written(tmp_path: Path, head: str, stem_stride: int) -> None:
    architecture = StudentArchitecture(
        backbone="lcnet_035", head=head, stem_stride=stem_stride, head_width=16, template_width=24
    )
    network = StudentNetwork(architecture).half().float()  # what float16 keeps
    write_student(network, tmp_path / "a.safetensors")
    again = read_student(tmp_path / "a.safetensors")
    faces = torch.rand(2, 3, 112, 112)
    torch.testing.assert_close(again.eval()(faces), network.eval()(faces), rtol=0, atol=0)


def test_stem_stride_keeps_detail() -> None:
    fine, coarse = (
        StudentNetwork(StudentArchitecture(backbone="lcnet_035", stem_stride=stride)).pool.weight.shape[1]
        for stride in (1, 0)
    )
    assert (fine, coarse) == (7, 4)


def test_card_lies_beside_the_weights(written: Path) -> None:
    for name in ("small.json", "card.json"):
        RecognizerCard(name=name, template_width=24, weights_sha256=sha256(written)).write(written.with_name(name))
        recognizer = load_recognizer(f"student:{written}")
        assert recognizer.card.name == name
        written.with_name(name).unlink()
    assert gradient_share(recognizer) > 0.9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": "no_such_net"}, "backbone must be a name that timm knows"),
        ({"backbone": "vit_tiny_patch16_224", "backbone_args": '{"img_size": 112}'}, "features are maps"),
        ({"backbone_args": "{"}, "backbone_args must be a JSON object"),
        ({"backbone_args": '{"color": 1}'}, "backbone must be a name that timm knows"),
    ],
)
def test_backbone_that_cannot_serve_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        StudentNetwork(StudentArchitecture(**({"backbone": "lcnet_035"} | changes)))


def test_broken_or_foreign_weights_are_refused(written: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(written.read_bytes()[:1000])
    save_file(load_file(written), tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        read_student(tmp_path / "broken.safetensors")
    with pytest.raises(ValueError, match="must name their architecture"):
        read_student(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"head_width": 10**12}, "of another shape|cannot be built"),
        ({"head_width": "16"}, "head_width must be a valid integer"),
        ({"input_size": 10**9}, "input_size must be less than or equal to 4096"),
        ({"color": 1}, "another version"),
        ({"backbone": "hf_hub:someone/net"}, r"timm\.list_models"),
        ({"backbone_args": '{"checkpoint_path": "/etc/passwd"}'}, "without a checkpoint_path"),
    ],
)
def test_a_forged_architecture_is_refused_by_name(written: Path, tmp_path: Path, change: dict, words: str) -> None:
    path = tmp_path / "forged.safetensors"
    save_file(load_file(written), path, metadata={"architecture": json.dumps(asdict(SMALL) | change)})
    with pytest.raises(UserError, match=words) as refusal:
        read_student(path)
    assert str(path) in str(refusal.value)
