"""The variants of sparse autoencoder by name."""

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.batchtopk import BatchTopKSAE
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.jumprelu import JumpReluSAE
from fsae_mlflow.sae.variants.matryoshka import MatryoshkaSAE
from fsae_mlflow.sae.variants.relu import ReluSAE
from fsae_mlflow.sae.variants.topk import TopKSAE

VARIANTS: dict[str, type[SparseAutoencoder]] = {
    variant.variant: variant for variant in (GatedSAE, ReluSAE, TopKSAE, BatchTopKSAE, JumpReluSAE, MatryoshkaSAE)
}
