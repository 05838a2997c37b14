"""The variants of sparse autoencoder by name."""

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.gated import GatedSAE

VARIANTS: dict[str, type[SparseAutoencoder]] = {variant.variant: variant for variant in (GatedSAE,)}
