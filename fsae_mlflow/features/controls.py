"""Controls: simple directions in template space as SAEs, so that they are judged in the same way as trained ones.

A control reads templates of unit length minus their mean, at E‖x‖² = 1, and is a ReLU SAE whose weights are computed,
not trained.
"""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float32

from fsae_mlflow.errors import UserError
from fsae_mlflow.provenance import Origin
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.directions import DIRECTIONS, unit
from fsae_mlflow.sae.variants.registry import untrained
from fsae_mlflow.sae.variants.settings import ReluSettings

ROWS_AT_ONCE = 4096


def control(
    name: str, templates: Float32[np.ndarray, "n d_in"], *, n_features: int, seed: int, origin: Origin
) -> SparseAutoencoder:
    """The control `name` of DIRECTIONS, fitted on raw templates of `origin`, on the CPU and in evaluation mode.

    It has `n_features` features, or fewer where there are not as many directions. Its density is that of `templates`.

    Raises: UserError for fewer than two features, and for templates that are all the same.
    """
    if n_features < 2:
        raise UserError(f"controls: {name} must have at least 2 features, one for each sign; it has {n_features}.")
    x = unit(templates.astype(np.float64))
    center = x.mean(axis=0)
    x -= center
    size = np.sqrt(np.square(x).sum() / max(len(x), 1))
    if not size > 1e-6:
        raise UserError(
            f"controls: {name} needs templates of at least two directions; all {len(x)} have the same. "
            "Give another set."
        )
    x /= size
    found = DIRECTIONS[name](x, n_features, seed)
    d_sae, d_in = found.encoder.shape
    sae = untrained(ReluSettings(lam=0.0), d_in, d_sae, normalize=True)
    weights = {
        "W_enc": found.encoder,
        "W_dec": found.decoder,
        "b_enc": -found.threshold,
        "b_dec": np.zeros(d_in),
        "center": center,
        "scale": 1 / size,
        "density": np.zeros(d_sae),
    }
    sae.load_state_dict({key: torch.as_tensor(value, dtype=torch.float32) for key, value in weights.items()})
    sae.origin = dataclasses.replace(origin, what=f"control: {name}")
    sae.eval().requires_grad_(False)
    parts = torch.from_numpy(templates).split(ROWS_AT_ONCE)
    sae.density.copy_(torch.stack([(sae.encode(part) > 0).sum(dim=0) for part in parts]).sum(dim=0) / len(templates))
    return sae
