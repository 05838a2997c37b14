"""An SAE whose directions are computed from the training templates at once."""

import numpy as np
import torch
from jaxtyping import Float64

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.directions import DIRECTIONS
from fsae_mlflow.sae.training.data import TrainingData, fit_scaling
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.start import Space
from fsae_mlflow.sae.variants.registry import untrained

RIDGE = 0.1
"""What is added to each feature's mean square where the decoder is fitted, relative to it: against overfitting."""


def computed_sae(settings: TrainSettings, data: TrainingData, steering: TrainingData) -> SparseAutoencoder:
    """The SAE of `settings.variant.directions`: at most expansion · d_in features, fewer where directions run out.

    Encoder rows are scaled so that each projection has a mean square of 1. One threshold lets target_l0 features fire
    on the templates of `steering`, on which more features fire than on those that the directions were computed from; of
    `data`, where there is nobody to steer by. The decoder is the ridge regression of the templates on the features.

    Raises: UserError for a target above the number of features, and for templates that are all the same.
    """
    variant, width = settings.variant, data.templates.width
    assert variant.directions is not None
    scaling = untrained(variant, width, 1, normalize=settings.normalize)
    fit_scaling(scaling, data, center=settings.center)
    space = Space(scaling, data, whiten=0)
    x = space.centered(data)
    if not np.square(x).sum() > 1e-6 * len(x):
        raise UserError(
            f"variant={variant.directions} needs templates of at least two directions; all {len(x)} have the same. "
            "Give another set."
        )
    found = DIRECTIONS[variant.directions](x, settings.expansion * width, settings.seed)
    projected = x @ found.encoder.T
    size = np.sqrt(np.square(projected).mean(axis=0)).clip(min=1e-12)
    encoder, projected = found.encoder / size[:, None], projected / size
    target = variant.l0_to_reach(width)
    assert target is not None
    if target > len(encoder):
        raise UserError(f"target_l0 must be at most the number of features, {len(encoder)}; it is {target:g}.")
    unseen = space.centered(steering) @ encoder.T if len(steering) else projected
    threshold = max(float(np.quantile(unseen, 1 - target / len(encoder))), 1e-6)
    decoder, mean = _decoder(np.where(projected > threshold, projected, 0.0), x)

    sae = untrained(variant, width, len(encoder), normalize=settings.normalize)
    values = {
        **scaling.state_dict(),
        "W_enc": encoder,
        "W_dec": decoder,
        # What the mean adds to b_dec moves the projections, and b_enc moves them back.
        "b_dec": scaling.b_dec.double().detach().numpy() + mean,
        "b_enc": encoder @ mean,
        "threshold": np.full(len(encoder), threshold),
        "density": np.zeros(len(encoder)),
    }
    sae.load_state_dict({name: torch.as_tensor(value, dtype=torch.float32) for name, value in values.items()})
    return sae


def _decoder(
    features: Float64[np.ndarray, "n d_sae"], x: Float64[np.ndarray, "n d_in"]
) -> tuple[Float64[np.ndarray, "d_sae d_in"], Float64[np.ndarray, " d_in"]]:
    """The rows and the constant that bring features nearest to x."""
    mean = features.mean(axis=0)
    products = features.T @ features / len(x)
    ridge = np.diag(RIDGE * np.diag(products).clip(min=1e-12))
    decoder = np.linalg.solve(
        products - np.outer(mean, mean) + ridge, features.T @ x / len(x) - np.outer(mean, x.mean(axis=0))
    )
    return decoder, x.mean(axis=0) - mean @ decoder
