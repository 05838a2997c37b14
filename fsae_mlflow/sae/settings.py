"""What training asks of a variant's settings."""

from typing import ClassVar

from fsae_mlflow.parameters import settings


@settings
class VariantSettings:
    """The settings of one variant. Training asks these methods; a variant overrides what differs.

    `sae` names the variant's class as "module:Class".
    """

    sae: ClassVar[str]

    def sparsity_weight(self, step: int | None = None) -> float:
        """λ at a training step, without one after the warm-up; by default there is no sparsity term."""
        return 0.0

    def resampling_due(self, epoch: int, n_epochs: int) -> bool:
        """Whether dead features are resampled after this epoch (from 1)."""
        return False

    def epochs_until_dead(self, epoch: int, n_epochs: int) -> float:
        """Epochs without firing that make a feature dead in this epoch (from 1)."""
        return 1.0
