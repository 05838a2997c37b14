"""Matryoshka sparse autoencoder: nested dictionaries under batch top-k (Bussmann et al. 2025, arXiv 2503.17547)."""

from typing import Any

from fsae_mlflow.sae.variants.batchtopk import BatchTopKSAE


class MatryoshkaSAE(BatchTopKSAE):
    """Batch top-k whose leading features must reconstruct on their own: the loss is the mean over nested prefixes.

    The prefixes double: with n_prefixes 4 they are the first eighth, quarter and half of the features, and all.
    """

    variant = "matryoshka"

    def __init__(self, d_in: int, d_sae: int, *, n_prefixes: int = 4, **options: Any) -> None:
        super().__init__(d_in, d_sae, **options)
        self.n_prefixes = n_prefixes

    @classmethod
    def options(cls, settings: Any) -> dict[str, Any]:
        return super().options(settings) | {"n_prefixes": settings.n_prefixes}

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return super().hyperparameters | {"n_prefixes": self.n_prefixes}

    @property
    def prefixes(self) -> list[int]:
        return [max(1, self.d_sae >> shift) for shift in reversed(range(self.n_prefixes))]
