"""The learning rate as a function of the step."""

import math

from fsae_mlflow.sae.training.settings import TrainSettings


def learning_rate(settings: TrainSettings, step: int, n_steps: int, steps_since_resampling: int) -> float:
    """Cosine from `lr` to `lr_end` over the training (or constant `lr`), times a linear warm-up at the start and after
    each resampling.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, n_steps - 1))) if settings.lr_schedule == "cosine" else 1.0
    rate = settings.lr_end + (settings.lr - settings.lr_end) * cosine
    return rate * min(1.0, (steps_since_resampling + 1) / (settings.lr_warmup + 1))
