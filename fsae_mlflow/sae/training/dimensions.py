"""Whether a training's features are sparse and describe templates."""

import logging
from collections.abc import Mapping

from fsae_mlflow.templates.spectrum import Spectrum

LARGEST_SHARE = 1 / 3
LARGEST_FVU = 0.9

logger = logging.getLogger(__name__)


def warn_if_useless(metrics: Mapping[str, float], spectrum: Spectrum, *, computed: bool = False) -> None:
    """Warn where the final L0, on held-out people if there are any, exceeds a third of the effective dimension (the
    dimensions that hold 99.99 % of the variance), and where fvu exceeds 0.9. `computed`: the SAE was not trained.
    """
    l0, n_dimensions = metrics.get("heldout/l0", metrics["train/l0"]), spectrum.dimensions(99.99)
    fvu = metrics.get("heldout/fvu", metrics["train/fvu"])
    if l0 > LARGEST_SHARE * n_dimensions:
        logger.warning(
            "L0 is %.3g, more than a third of the %d dimensions that hold 99.99 %% of the templates' variance, so the "
            "features are hardly sparse; %s.",
            l0,
            n_dimensions,
            "lower target_l0" if computed else "raise lam, or lower target_l0 or k",
        )
    if fvu > LARGEST_FVU:
        logger.warning(
            "fvu is %.3g, so decoded templates are %s than the mean template (1); %s.",
            fvu,
            "worse" if fvu > 1 else "hardly better",
            "take more templates"
            if computed
            else "take more epochs, a larger target_l0 or k, a smaller lam or expansion, or more templates",
        )
