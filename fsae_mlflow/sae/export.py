"""An SAE as a folder that SAELens loads: `SAE.load_from_disk(folder)` takes and gives raw templates."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.sae.base import SparseAutoencoder


@torch.no_grad()
def export_saelens(sae: SparseAutoencoder, folder: Path) -> None:
    """Write `sae` in SAELens' layout (cfg.json, sae_weights.safetensors; SAELens 6), with scale and center folded into
    the weights.

    Features are the same, and reconstructions are in the recognizer's units. Batch top-k and Matryoshka, whose features
    fire above a threshold outside training, become jumprelu.

    Raises: UserError for an SAE that brings templates to unit length, which SAELens' layout cannot express, and for a
    variant that SAELens does not have.
    """
    if sae.normalize:
        raise UserError(
            "SAELens' format has no step that brings inputs to unit length; export an SAE trained with normalize=False."
        )
    form = sae.saelens()
    tensors = {
        "W_enc": sae.W_enc.T * sae.scale,
        "W_dec": sae.W_dec / sae.scale,
        "b_dec": sae.b_dec / sae.scale + sae.center,
        **form.tensors,
    }
    config = {
        "architecture": form.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {},
        **form.config,
    }
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        save_file(
            {name: tensor.float().contiguous().cpu() for name, tensor in tensors.items()},
            temporary / "sae_weights.safetensors",
        )
        (temporary / "cfg.json").write_text(json.dumps(config, indent=2))
