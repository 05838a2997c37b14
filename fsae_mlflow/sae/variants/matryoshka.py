"""The Matryoshka SAE: nested dictionaries under batch top-k (Bussmann et al. 2025, arXiv 2503.17547)."""

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.variants.batchtopk import BatchTopKSAE
from fsae_mlflow.sae.variants.settings import MatryoshkaSettings


class MatryoshkaSAE(BatchTopKSAE):
    """Batch top-k whose leading features must reconstruct on their own: the loss is the mean over nested prefixes.

    The prefixes double: with n_prefixes 4 they are the first eighth, quarter and half of the features, and all.

    Raises: UserError where the smallest prefix would have no feature.
    """

    def __init__(self, d_in: int, d_sae: int, settings: MatryoshkaSettings, **shared: object) -> None:
        super().__init__(d_in, d_sae, settings, **shared)
        if settings.n_prefixes > d_sae.bit_length():
            raise UserError(
                f"n_prefixes must be at most {d_sae.bit_length()} for {d_sae} features, each half of the one before; "
                f"it is {settings.n_prefixes}."
            )

    @property
    def prefixes(self) -> list[int]:
        return [self.d_sae >> shift for shift in reversed(range(self.settings.n_prefixes))]
