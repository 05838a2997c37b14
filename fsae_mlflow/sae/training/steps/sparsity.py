"""λ during a training: given, or found so that templates of people never seen fire the wanted number of features."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.settings import VariantSettings
from fsae_mlflow.sae.terms import Loss
from fsae_mlflow.sae.training.data import TrainingData

# An L0 this near to the target, relative to it, has reached it.
TOLERANCE = 0.05
# People who steer λ: at most this share of the training people, with about so many templates.
STEERING_SHARE, N_STEERING = 0.1, 1024
# Corrections of λ in a training, where it has as many steps.
N_CORRECTIONS = 100
# The share of the training in which L0 may be above the target.
DESCENT = 0.4
# What a deviation of 1 in log L0 adds to log λ: at once and as long as it lasts; and for good, in a whole training at
# the full learning rate.
FAST, SLOW = 0.5, 10.0
# The same for L0 that follows λ with a lag, and the number of corrections for which its last change is continued.
SLOW_OF_LAGGING, AHEAD = 20.0, 10


class Sparsity:
    """The λ of each step.

    Where λ is found, a controller with a proportional and an integral part corrects it a hundred times. It measures L0
    on people who take no other part in the training, because more features fire on them than on people trained on. L0
    should lie between the target and a limit, which falls from half of the features, as at the start, to the target.
    log λ follows the deviation from there in log L0, −1…1; its integral part slows down with the learning rate, as the
    SAE does.

    Raises: UserError for a target above the number of features.
    """

    def __init__(
        self,
        variant: VariantSettings,
        sae: SparseAutoencoder,
        scaled: Callable[[Tensor], Tensor],
        people: TrainingData,
        n_steps: int,
    ) -> None:
        self.given, self.d_sae, self.n_steps = variant, sae.d_sae, n_steps
        self.target = variant.l0_to_reach(people.templates.width)
        if self.target is None:
            return
        if self.target > sae.d_sae:
            raise UserError(f"target_l0 must be at most the number of features, {sae.d_sae}; it is {self.target:g}.")
        self.base = self.lam = variant.first_lam(self.target)
        self.former = sae.d_sae / 2  # L0 at the last correction
        self.steering = scaled(people.sample(N_STEERING).to(sae.W_dec.device))

    @property
    def variant(self) -> VariantSettings:
        """The variant's settings with the λ of now."""
        return self.given if self.target is None else self.given.with_lam(self.lam)

    @torch.no_grad()
    def l0(self, step: int, sae: SparseAutoencoder, loss: Loss, n: int, ranks: Ranks) -> Float64[Tensor, ""]:
        """The L0 to steer by after a step on a batch of `n` templates, without a read from the device; 0 where λ is not
        corrected.

        It is at most twice that of the batch: an SAE whose own templates fire still fewer features has memorized them,
        and a larger λ would only go on with that.
        """
        if not self._is_due(step):
            return torch.zeros((), dtype=torch.float64, device=loss.counts.device)
        fired = torch.stack([(sae.features(part) > 0).sum() for part in self.steering.split(256)]).sum()
        unseen, seen = ranks.sum(torch.stack((fired, loss.counts.sum())).double())
        return torch.minimum(unseen / len(self.steering), 2 * seen / n)

    def correct(self, step: int, l0: float, pace: float) -> None:
        """Correct λ after a step whose learning rate was `pace` times the full one."""
        if self.target is None or not self._is_due(step):
            return
        ahead = max(0.0, 1 - step / (DESCENT * self.n_steps)) ** 2
        limit = max(self.target, self.d_sae / 2) ** ahead * self.target ** (1 - ahead)
        l0, slow = max(l0, 1e-3), SLOW
        former, self.former = self.former, l0
        if self.given.l0_lags:
            l0, slow = l0 * (l0 / former) ** AHEAD, SLOW_OF_LAGGING
        l0 = min(max(l0, self.target / math.e), limit * math.e)
        deviation = math.log(l0 / min(max(l0, self.target), limit))
        self.base *= math.exp(slow * math.sqrt(pace) * self._period / self.n_steps * deviation)
        self.lam = self.base * math.exp(FAST * deviation)

    def metrics(self) -> dict[str, float]:
        """The λ of now, where it is found."""
        return {} if self.target is None else {"lam": self.lam}

    def state(self) -> dict[str, float]:
        """What the coming corrections depend on."""
        return {} if self.target is None else {"base": self.base, "lam": self.lam, "former": self.former}

    def require_own(self, state: dict[str, Any]) -> None:
        """Check that `state` can be this training's.

        Raises: ValueError for other names, and for numbers that no λ has.
        """
        if state.keys() != self.state().keys():
            raise ValueError("it has no λ, or one that this training does not look for")
        if not all(type(value) is float and 0 < value < math.inf for value in state.values()):
            raise ValueError("λ and L0 must be above 0")

    def load_state(self, state: dict[str, float]) -> None:
        """Take over the state of another process."""
        for name, value in state.items():
            setattr(self, name, value)

    @property
    def _period(self) -> int:
        return max(1, self.n_steps // N_CORRECTIONS)

    def _is_due(self, step: int) -> bool:
        return self.target is not None and step % self._period == 0


def reached(l0: float, target: float) -> bool:
    """Whether an L0 is within 5 % of the target."""
    return abs(l0 / target - 1) <= TOLERANCE


def steering_rows(
    variant: VariantSettings, identities: np.ndarray, held: Bool[np.ndarray, " n"], *, width: int, seed: int
) -> Bool[np.ndarray, " n"]:
    """A mask of the rows whose people steer λ and are not trained on; nobody where λ is given, where no person is held
    out, and where one person alone is left to train on.
    """
    rows = np.zeros_like(held)
    training = identities[~held]
    if variant.l0_to_reach(width) is not None and held.any() and len(np.unique(training)) > 1:
        rows[~held] = holdout_rows(training, min(STEERING_SHARE, N_STEERING / len(training)), seed=seed)
    return rows
