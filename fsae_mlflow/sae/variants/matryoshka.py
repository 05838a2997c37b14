"""The Matryoshka SAE: nested dictionaries under batch top-k (Bussmann et al. 2025, arXiv 2503.17547)."""

from fsae_mlflow.sae.variants.batchtopk import BatchTopKSAE


class MatryoshkaSAE(BatchTopKSAE):
    """Batch top-k whose leading features must reconstruct on their own: the loss is the mean over nested prefixes.

    The prefixes double: with n_prefixes 4 they are the first eighth, quarter and half of the features, and all.
    """

    @property
    def prefixes(self) -> list[int]:
        return [max(1, self.d_sae >> shift) for shift in reversed(range(self.settings.n_prefixes))]
