"""An SAE as a folder that SAELens loads: `SAE.load_from_disk(folder)` takes and gives raw templates."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fsae_mlflow.atomic import atomic_write
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.batchtopk import BatchTopKSAE
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.jumprelu import JumpReluSAE
from fsae_mlflow.sae.variants.topk import TopKSAE


@torch.no_grad()
def export_saelens(sae: SparseAutoencoder, folder: Path) -> None:
    """Write `sae` in SAELens' layout (cfg.json, sae_weights.safetensors; SAELens 6), scale and center folded into its
    weights.

    Features are the same, reconstructions are in the recognizer's units. Batch top-k and matryoshka, whose features
    fire above a threshold outside training, become jumprelu.

    Raises: ValueError for an SAE that brings templates to unit length, which SAELens' layout cannot say.
    """
    if sae.normalize:
        raise ValueError(
            "SAELens' format has no step that brings inputs to unit length; export an SAE trained with normalize=False."
        )
    architecture, own = _architecture(sae)
    tensors = {
        "W_enc": sae.W_enc.T * sae.scale,
        "W_dec": sae.W_dec / sae.scale,
        "b_dec": sae.b_dec / sae.scale + sae.center,
        **own,
    }
    config = {
        "architecture": architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {},
    }
    if architecture == "topk" and isinstance(sae, TopKSAE):
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        save_file(
            {name: tensor.float().contiguous().cpu() for name, tensor in tensors.items()},
            temporary / "sae_weights.safetensors",
        )
        (temporary / "cfg.json").write_text(json.dumps(config, indent=2))


def _architecture(sae: SparseAutoencoder) -> tuple[str, dict[str, Tensor]]:
    if isinstance(sae, GatedSAE):
        return "gated", {"r_mag": sae.r_mag, "b_gate": sae.b_gate, "b_mag": sae.b_mag}
    if isinstance(sae, JumpReluSAE):
        return "jumprelu", {"b_enc": sae.b_enc, "threshold": sae.log_threshold.exp()}
    if isinstance(sae, BatchTopKSAE):
        return "jumprelu", {"b_enc": sae.b_enc, "threshold": sae.threshold.clamp(min=0).expand(sae.d_sae)}
    if isinstance(sae, TopKSAE):
        return "topk", {"b_enc": sae.b_enc}
    return "standard", {"b_enc": sae.get_parameter("b_enc")}
