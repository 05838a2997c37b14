"""SAELens' folder format; that SAELens itself agrees is checked by benchmarks/saelens_agrees.py."""

import json

import pytest
import torch
from safetensors.torch import load_file

from fsae_mlflow.sae.export import export_saelens
from fsae_mlflow.sae.variants.registry import VARIANTS
from tests.sae.making import new_sae


@pytest.mark.parametrize("variant", VARIANTS)
def test_folded_weights_give_the_same_features(variant: str, tmp_path) -> None:
    torch.manual_seed(0)
    sae = new_sae(variant, 6, 20, k=4)
    with torch.no_grad():
        sae.scale.fill_(0.3)
        sae.center.normal_()
        sae.b_dec.normal_()
        if hasattr(sae, "threshold"):
            sae.threshold.fill_(0.1)
    export_saelens(sae, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "cfg.json").read_text())
    w = load_file(tmp_path / "out" / "sae_weights.safetensors")
    x = 3 * torch.randn(9, 6)
    hidden = (x - w["b_dec"]) @ w["W_enc"]
    # As SAELens computes each architecture.
    if config["architecture"] == "gated":
        features = (hidden + w["b_gate"] > 0) * torch.relu(hidden * w["r_mag"].exp() + w["b_mag"])
    else:
        hidden = torch.relu(hidden + w["b_enc"])
        if config["architecture"] == "topk":
            top = hidden.topk(config["k"], dim=1)
            hidden = torch.zeros_like(hidden).scatter(1, top.indices, top.values)
        features = hidden * (hidden > w["threshold"]) if "threshold" in w else hidden
    fixed = {"d_in": 6, "d_sae": 20, "apply_b_dec_to_input": True, "normalize_activations": "none"}
    assert fixed.items() <= config.items() and config.get("rescale_acts_by_decoder_norm", False) is False
    torch.testing.assert_close(features, sae.encode(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features @ w["W_dec"] + w["b_dec"], sae(x), rtol=1e-4, atol=1e-4)


def test_unit_length_cannot_be_exported(tmp_path) -> None:
    with pytest.raises(ValueError, match="normalize=False"):
        export_saelens(new_sae("gated", 4, 8, normalize=True), tmp_path / "out")
