"""Settings and SAEs from flat values, as a command line gives them."""

import dataclasses

from fsae_mlflow.parameters import parse
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.variants.registry import VARIANTS, untrained


def train_settings(**values: object) -> TrainSettings:
    return parse(TrainSettings, values)


def new_sae(variant: str, d_in: int, d_sae: int, *, normalize: bool = False, **own: object) -> SparseAutoencoder:
    """An SAE with those of `own` that its variant has."""
    kind = VARIANTS[variant]
    names = {field.name for field in dataclasses.fields(kind)}
    settings = kind(**{name: value for name, value in own.items() if name in names})
    return untrained(settings, d_in, d_sae, normalize=normalize)
