"""SAEs that version 0.1 saved, and folders that hold no sound SAE."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.saved import digest, load_sae
from fsae_mlflow.templates.set import TemplateSet

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1"


@pytest.mark.parametrize("variant", ["gated", "relu", "topk", "batchtopk", "jumprelu", "matryoshka"])
def test_an_sae_of_version_0_1_gives_the_same_outputs(variant: str) -> None:
    sae = load_sae(FIXTURES / "saes" / variant)
    expected = load_file(FIXTURES / "saes" / variant / "expected.safetensors")
    templates = torch.from_numpy(TemplateSet.open(FIXTURES / "templates").templates)
    torch.testing.assert_close(sae.encode(templates), expected["features"])
    torch.testing.assert_close(sae(templates), expected["reconstruction"])
    assert len(digest(FIXTURES / "saes" / variant)) == 16
    assert not sae.training and not any(parameter.requires_grad for parameter in sae.parameters())
    assert len({digest(path) for path in (FIXTURES / "saes").iterdir()}) == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"variant": None}, "must have variant of type string; it is None"),
        ({"variant": "magic"}, "names the variant 'magic'; known are gated"),
        ({"hyperparameters": 3}, "must have hyperparameters of type object"),
        ({"hyperparameters": {"d_in": 8, "d_sae": "32", "normalize": False}}, "must have d_sae of type whole number"),
        ({"hyperparameters": {"d_in": 8, "d_sae": 10**12, "normalize": False}}, f"W_enc must be {10**12} x 8"),
        ({"hyperparameters": {"d_in": 8, "d_sae": 32, "normalize": False, "lam": "x"}}, "lam must be a valid number"),
    ],
)
def test_a_forged_config_is_refused_by_name(tmp_path: Path, change: dict, words: str) -> None:
    shutil.copytree(FIXTURES / "saes" / "gated", tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=words) as refusal:
        load_sae(tmp_path)
    assert str(tmp_path) in str(refusal.value)


def test_weights_that_are_not_the_config_s_are_refused(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "saes" / "gated", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "sae.safetensors"
    weights = load_file(path)
    for change, words in (
        ({"b_gate": torch.zeros(31)}, "size mismatch for b_gate"),
        ({"b_mag": torch.full((32,), torch.nan)}, "NaN or infinite values in b_mag"),
    ):
        save_file(weights | change, path)
        with pytest.raises(UserError, match=words) as refusal:
            load_sae(tmp_path)
        assert str(path) in str(refusal.value)
    path.unlink()
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_sae(tmp_path)
