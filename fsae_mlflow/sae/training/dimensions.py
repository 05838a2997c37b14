"""Whether a training's features are sparse, given the dimensions that its templates fill."""

import logging
from collections.abc import Mapping

from fsae_mlflow.templates.spectrum import Spectrum

LARGEST_SHARE = 1 / 3

logger = logging.getLogger(__name__)


def warn_if_dense(metrics: Mapping[str, float], spectrum: Spectrum) -> None:
    """Warn where the final L0, on held-out people if there are any, exceeds a third of the effective dimension: the
    dimensions that hold 99.99 % of the variance.
    """
    l0, n_dimensions = metrics.get("heldout/l0", metrics["train/l0"]), spectrum.dimensions(99.99)
    if l0 > LARGEST_SHARE * n_dimensions:
        logger.warning(
            "L0 is %.3g, more than a third of the %d dimensions that hold 99.99 %% of the templates' variance, so the "
            "features are hardly sparse; lower target_l0 or k.",
            l0,
            n_dimensions,
        )
