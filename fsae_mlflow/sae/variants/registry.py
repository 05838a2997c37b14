"""The variants by name: one line each."""

import pkgutil
from typing import TYPE_CHECKING

from fsae_mlflow.parameters import OneOf
from fsae_mlflow.sae.settings import VariantSettings
from fsae_mlflow.sae.variants.settings import (
    BatchTopKSettings,
    GatedSettings,
    IcaSettings,
    JumpReluSettings,
    KmeansSettings,
    MatryoshkaSettings,
    PcaSettings,
    PursuitSettings,
    ReluSettings,
    TopKSettings,
)

if TYPE_CHECKING:
    from fsae_mlflow.sae.base import SparseAutoencoder

VARIANTS: dict[str, type[VariantSettings]] = {
    "gated": GatedSettings,
    "relu": ReluSettings,
    "topk": TopKSettings,
    "batchtopk": BatchTopKSettings,
    "jumprelu": JumpReluSettings,
    "matryoshka": MatryoshkaSettings,
    "pursuit": PursuitSettings,
    "ica": IcaSettings,
    "pca": PcaSettings,
    "kmeans": KmeansSettings,
}
VARIANT = OneOf(lambda: VARIANTS)


def untrained(settings: VariantSettings, d_in: int, d_sae: int, *, normalize: bool = False) -> "SparseAutoencoder":
    """A new SAE of the variant that `settings` are of.

    Raises: UserError where the settings do not fit `d_in` and `d_sae`.
    """
    return pkgutil.resolve_name(settings.sae)(d_in, d_sae, settings, normalize=normalize)
