"""Settings of each SAE variant; importing them does not import torch, so a command line lists them at once."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import settings
from fsae_mlflow.sae.settings import VariantSettings

DecoderNorm = Annotated[
    Literal["held", "weighted"],
    "Decoder rows `held` at unit norm, or free with the sparsity term `weighted` by their norms.",
]


TargetL0 = Annotated[
    float | None,
    "Mean number of features that a template fires, reached by adapting λ or, where nothing is trained, one threshold; "
    "left out, and lam too: a sixteenth of d_in.",
    Gt(0),
]


@settings
class PenalizedSettings(VariantSettings):
    """Variants with a sparsity penalty, whose dead features are resampled."""

    target_l0: TargetL0 = None
    lam: Annotated[
        float | None,
        "A fixed sparsity weight λ in place of target_l0, of the L1 norm or (jumprelu) of L0; each loss term is summed "
        "over dimensions or features, and averaged over the batch, with E‖x‖² = 1.",
        Ge(0),
    ] = None
    lam_warmup: Annotated[int, "Steps over which λ rises from 0.", Ge(0)] = 0
    resample_every: Annotated[int, "Epochs between resamplings of dead features; 0 never resamples.", Ge(0)] = 10
    resample_until: Annotated[
        float, "Share of the training after which no feature is resampled any more.", Ge(0), Le(1)
    ] = 0.75

    def check(self) -> None:
        if self.lam is not None and self.target_l0 is not None:
            raise UserError(
                f"lam ({self.lam}) fixes λ, and target_l0 ({self.target_l0}) finds it; leave one of them out."
            )

    def sparsity_weight(self, step: int | None = None) -> float:
        lam = self.first_lam(self.target_l0 or 32.0) if self.lam is None else self.lam
        return lam if step is None else lam * min(1.0, (step + 1) / (self.lam_warmup + 1))

    def l0_to_reach(self, d_in: int) -> float | None:
        if self.lam is not None:
            return None
        return self.target_l0 or _l0_by_default(d_in)

    def first_lam(self, l0: float) -> float:
        # λ is compared with activations, of which l0 have squares that sum to about 1. Most SAEs end with thrice that.
        return 0.5 / l0**0.5

    def with_lam(self, lam: float) -> "PenalizedSettings":
        return dataclasses.replace(self, lam=lam, target_l0=None)

    def resampling_due(self, epoch: int, n_epochs: int) -> bool:
        every = self.resample_every
        return epoch > 0 and every > 0 and epoch % every == 0 and epoch <= self.resample_until * n_epochs

    def epochs_until_dead(self, epoch: int, n_epochs: int) -> float:
        """Those since the last resampling."""
        former = (earlier for earlier in range(epoch - 1, 0, -1) if self.resampling_due(earlier, n_epochs))
        return float(epoch - next(former, 0))


@settings
class GatedSettings(PenalizedSettings):
    """Settings of the gated SAE."""

    sae: ClassVar[str] = "fsae_mlflow.sae.variants.gated:GatedSAE"
    decoder_norm: DecoderNorm = "held"


@settings
class ReluSettings(PenalizedSettings):
    """Settings of the ReLU SAE."""

    sae: ClassVar[str] = "fsae_mlflow.sae.variants.relu:ReluSAE"
    decoder_norm: DecoderNorm = "weighted"


@settings
class JumpReluSettings(PenalizedSettings):
    """Settings of the JumpReLU SAE."""

    sae: ClassVar[str] = "fsae_mlflow.sae.variants.jumprelu:JumpReluSAE"
    l0_lags: ClassVar[bool] = True
    bandwidth: Annotated[float, "Width of the window around a threshold in which it learns, at E‖x‖² = 1.", Gt(0)] = (
        0.01
    )
    initial_threshold: Annotated[float, "Every feature's threshold at the start, at E‖x‖² = 1.", Gt(0)] = 0.01

    def first_lam(self, l0: float) -> float:
        # λ is compared with squared activations.
        return 0.1 / l0


@settings
class TopKSettings(VariantSettings):
    """Settings of the top-k SAE."""

    sae: ClassVar[str] = "fsae_mlflow.sae.variants.topk:TopKSAE"
    k: Annotated[int, "Features that a template fires.", Ge(1)] = 32
    k_aux: Annotated[
        int | None, "Dead features of each template in the auxiliary loss term; left out: half of d_in.", Ge(1)
    ] = None
    aux_weight: Annotated[float, "Weight of the auxiliary loss term, by which dead features learn.", Ge(0)] = 1 / 32
    dead_after: Annotated[float, "Epochs without firing after which a feature counts as dead.", Gt(0)] = 1.0

    def epochs_until_dead(self, epoch: int, n_epochs: int) -> float:
        return self.dead_after


@settings
class BatchTopKSettings(TopKSettings):
    """Settings of the batch top-k SAE."""

    sae: ClassVar[str] = "fsae_mlflow.sae.variants.batchtopk:BatchTopKSAE"


@settings
class MatryoshkaSettings(TopKSettings):
    """Settings of the Matryoshka SAE."""

    sae: ClassVar[str] = "fsae_mlflow.sae.variants.matryoshka:MatryoshkaSAE"
    n_prefixes: Annotated[int, "Nested dictionaries, each twice as large as the one before.", Ge(1)] = 4


@settings
class ComputedSettings(VariantSettings):
    """Dictionaries that are computed from the templates: directions, one threshold, and the decoder that fits best."""

    sae: ClassVar[str] = "fsae_mlflow.sae.variants.computed:ComputedSAE"
    reads: ClassVar[frozenset[str] | None] = frozenset({"expansion", "center", "normalize", "holdout", "seed"})
    target_l0: TargetL0 = None

    def l0_to_reach(self, d_in: int) -> float | None:
        return self.target_l0 or _l0_by_default(d_in)


@settings
class PursuitSettings(ComputedSettings):
    """Settings of the dictionary of kurtosis pursuit and independent components."""

    directions: ClassVar[str | None] = "pursuit"


@settings
class IcaSettings(ComputedSettings):
    """Settings of the dictionary of independent components, each with both signs."""

    directions: ClassVar[str | None] = "ica"


@settings
class PcaSettings(ComputedSettings):
    """Settings of the dictionary of principal components, each with both signs."""

    directions: ClassVar[str | None] = "pca"


@settings
class KmeansSettings(ComputedSettings):
    """Settings of the dictionary of k-means centroids."""

    directions: ClassVar[str | None] = "kmeans"


def _l0_by_default(d_in: int) -> float:
    return max(1.0, d_in / 16)
