"""SAEs that version 0.1 saved."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

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
    assert len({digest(path) for path in (FIXTURES / "saes").iterdir()}) == 6
