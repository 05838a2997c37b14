"""timm models as recognizers, from files of weights."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.recognizers.timm_model import split_checkpoint
from tests.recognizers.networks import gradient_share

NAME = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small timm model whose classifier has 24 outputs, as a face model's embedding has its width."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "face.safetensors"
    save_file(timm.create_model(NAME, num_classes=24).state_dict(), path)
    return path


def reference(weights: Path, faces: torch.Tensor, *, features: bool) -> torch.Tensor:
    from safetensors.torch import load_file

    network = timm.create_model(NAME, num_classes=24)
    network.load_state_dict(load_file(weights))
    if features:
        network.reset_classifier(0)
    with torch.no_grad():
        return network.eval()((faces - 0.5) / 0.5)


def test_own_checkpoint_gives_its_own_output(weights: Path) -> None:
    recognizer = load_recognizer(f"timm:{NAME}@{weights}")
    own = timm.create_model(NAME).pretrained_cfg
    assert recognizer.card.template_width == 24
    assert recognizer.card.input_size == own["input_size"][-1]
    torch.testing.assert_close(torch.tensor(recognizer.card.mean), torch.tensor(own["mean"]) * 255)
    assert gradient_share(recognizer) > 0.9


@pytest.mark.parametrize(("width", "features"), [(24, False), (1024, True)])
def test_card_chooses_output_or_features(weights: Path, tmp_path: Path, width: int, features: bool) -> None:
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"template_width": width}))
    faces = torch.rand(2, 3, 112, 112)
    templates = load_recognizer(f"timm:{NAME}@{weights}", card=str(card))(faces)
    torch.testing.assert_close(templates, reference(weights, faces, features=features), rtol=1e-4, atol=1e-5)


def test_card_beside_the_checkpoint_is_used(weights: Path, tmp_path: Path) -> None:
    beside = tmp_path / "a@b.safetensors"
    beside.write_bytes(weights.read_bytes())
    beside.with_suffix(".json").write_text(json.dumps({"name": "beside", "template_width": 24}))
    assert load_recognizer(f"timm:{NAME}@{beside}").card.name == "beside"


def test_card_that_fits_neither_is_refused(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps({"template_width": 512}))
    with pytest.raises(ValueError, match=f"template_width in the card of timm:{NAME} must be 24 or 1024; it is 512"):
        load_recognizer(f"timm:{NAME}@{weights}", card=str(tmp_path / "card.json"))


def test_weights_of_another_model_are_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        load_recognizer(f"timm:lcnet_050@{weights}")


def test_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"recognizer timm:no_such_net cannot be created .*hf_hub:OWNER/NAME"):
        load_recognizer("timm:no_such_net")


def test_checkpoint_and_hub_revision_are_told_apart() -> None:
    assert split_checkpoint("vit@/a@b/w.pt") == ("vit", "/a@b/w.pt")
    assert split_checkpoint("hf_hub:me/vit@main") == ("hf_hub:me/vit@main", "")
