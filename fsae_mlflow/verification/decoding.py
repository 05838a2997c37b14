"""Templates decoded from some features of an SAE alone."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from fsae_mlflow.features.activity.survey import encoded
from fsae_mlflow.metrics import Fidelity
from fsae_mlflow.sae.base import SparseAutoencoder


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Templates decoded from `n_features` features alone, of which `l0` fire on average, and how close they are."""

    templates: Float32[np.ndarray, "n d_in"]
    n_features: int
    l0: float
    fidelity: Fidelity


def decode_masked(
    sae: SparseAutoencoder,
    templates: Float32[np.ndarray, "n d_in"],
    masks: dict[str, Bool[np.ndarray, " d_sae"]],
    *,
    batch_size: int,
) -> dict[str, Decoded]:
    """Decode raw templates from each mask's features alone (b_dec stays).

    Fidelity is relative to what a perfect SAE would decode: the templates, of unit length where the SAE normalizes.
    """
    counts = np.zeros(sae.d_sae, np.int64)
    fidelities = {name: Fidelity() for name in masks}
    decoded: dict[str, list[np.ndarray]] = {name: [] for name in masks}
    for batch in encoded(sae, templates, batch_size=batch_size, label="evaluate"):
        counts += batch.entries.counts
        target = batch.x / sae.scale + sae.center
        for name, mask in masks.items():
            x_hat = batch.encoder.decoded(batch.entries.of_features(mask)) / sae.scale + sae.center
            fidelities[name].add(target, x_hat)
            decoded[name].append(x_hat.cpu().numpy())
    return {
        name: Decoded(
            templates=np.concatenate(decoded[name]),
            n_features=int(mask.sum()),
            l0=float(counts[mask].sum() / len(templates)),
            fidelity=fidelities[name],
        )
        for name, mask in masks.items()
    }
