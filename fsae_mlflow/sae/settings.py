"""What training asks of a variant's settings."""

from typing import ClassVar

from fsae_mlflow.parameters import settings


@settings
class VariantSettings:
    """The settings of one variant. Training asks these methods; a variant overrides what differs.

    `sae` names the variant's class as "module:Class". `directions` names those (sae/directions.py) that are computed
    once, where nothing is trained. `l0_lags` says that L0 follows λ slowly, and hardly rises again. `reads` names the
    parameters of a training that decide the result; None: all.
    """

    sae: ClassVar[str]
    directions: ClassVar[str | None] = None
    l0_lags: ClassVar[bool] = False
    reads: ClassVar[frozenset[str] | None] = None

    def sparsity_weight(self, step: int | None = None) -> float:
        """λ at a training step, without one after the warm-up; by default there is no sparsity term."""
        return 0.0

    def l0_to_reach(self, d_in: int) -> float | None:
        """The L0 that λ is adapted to during training; None where λ is given or there is none."""
        return None

    def first_lam(self, l0: float) -> float:
        """λ at the start of a training that adapts it to this L0."""
        return 0.0

    def with_lam(self, lam: float) -> "VariantSettings":
        """The same settings with this λ, where there is one."""
        return self

    def resampling_due(self, epoch: int, n_epochs: int) -> bool:
        """Whether dead features are resampled after this epoch (from 1)."""
        return False

    def epochs_until_dead(self, epoch: int, n_epochs: int) -> float:
        """Epochs without firing that make a feature dead in this epoch (from 1)."""
        return 1.0
