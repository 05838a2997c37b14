"""Settings and SAEs from flat values, as a command line gives them."""

import dataclasses

import torch

from fsae_mlflow.parameters import parse
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.variants.batchtopk import BatchTopKSAE
from fsae_mlflow.sae.variants.registry import VARIANTS, untrained

TRAINED = [name for name, kind in VARIANTS.items() if not kind.directions]
"""The variants that take training steps."""


def train_settings(**values: object) -> TrainSettings:
    return parse(TrainSettings, values)


def new_sae(variant: str, d_in: int, d_sae: int, *, normalize: bool = False, **own: object) -> SparseAutoencoder:
    """An SAE with those of `own` that its variant has."""
    kind = VARIANTS[variant]
    names = {field.name for field in dataclasses.fields(kind)}
    settings = kind(**{name: value for name, value in own.items() if name in names})
    return untrained(settings, d_in, d_sae, normalize=normalize)


def firing_sae(variant: str, x: torch.Tensor, d_sae: int, *, density: float, **own: object) -> SparseAutoencoder:
    """A perturbed SAE of which about `density` of all entries are above the floor on scaled templates; where a batch
    shares its places, half as many are above the threshold.
    """
    torch.manual_seed(0)
    sae = new_sae(variant, x.shape[1], d_sae, k=max(1, round(density * d_sae)), **own)
    with torch.no_grad():
        sae.W_enc.mul_(5).add_(0.02 * torch.randn_like(sae.W_enc))
        sae.b_dec.add_(0.05 * torch.randn(sae.d_in))
        for name in sae.feature_parameters:
            getattr(sae, name).add_(0.02 * torch.randn(d_sae))
        projected = sae.projected(x)
        place = int((1 - density) * (projected.numel() - 1))
        level = projected.flatten().sort().values[place : place + 2].mean()  # no entry is on it
        for name in ("b_gate", "b_enc"):
            if hasattr(sae, name) and sae.competition is None:
                getattr(sae, name).sub_(level)
        if isinstance(sae, BatchTopKSAE):
            activations = (projected + sae.b_enc).flatten().sort().values
            place = int((1 - density / 2) * (len(activations) - 1))
            sae.threshold.copy_(activations[place : place + 2].mean())  # no entry is on it
        if not sae.unit_decoder:
            sae.W_dec.mul_(0.5 + torch.rand(d_sae, 1))
    return sae
