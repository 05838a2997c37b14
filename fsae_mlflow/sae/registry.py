"""The variants of sparse autoencoder by name."""

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.batchtopk import BatchTopKSAE
from fsae_mlflow.sae.gated import GatedSAE
from fsae_mlflow.sae.jumprelu import JumpReluSAE
from fsae_mlflow.sae.matryoshka import MatryoshkaSAE
from fsae_mlflow.sae.relu import ReluSAE
from fsae_mlflow.sae.topk import TopKSAE

VARIANTS: dict[str, type[SparseAutoencoder]] = {
    variant.variant: variant for variant in (GatedSAE, ReluSAE, TopKSAE, BatchTopKSAE, JumpReluSAE, MatryoshkaSAE)
}
