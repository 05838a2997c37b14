"""Which images are made: the targets that the setting `features` names."""

import numpy as np

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.features.clusters import choose_features, clusters
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.visualization.settings import VisualizeSettings
from fsae_mlflow.visualization.targets import Target


def named_targets(features: str, d_sae: int) -> list[Target]:
    """The targets that the setting `features` names, each once; none for "best" and "all".

    Raises: UserError for words that name no target.
    """
    if features in ("best", "all"):
        return []
    return list(dict.fromkeys(Target.of(word.strip(), d_sae) for word in features.split(",")))


def chosen_targets(settings: VisualizeSettings, sae: SparseAutoencoder, activity: Activity) -> list[Target]:
    """The targets that are named, or the best features of both clusters, or all features that fire.

    The clusters come from the SAE's training densities, if it has them.
    """
    if named := named_targets(settings.features, sae.d_sae):
        return named
    if settings.features == "all":
        features = np.flatnonzero(activity.counts).tolist()
        if not features:
            raise UserError("features=all finds no feature that fires on these templates; train the SAE longer.")
    else:
        trained = sae.density.double().cpu().numpy()
        both = clusters(trained if trained.any() else activity.density)
        features = choose_features(
            both, activity.counts, activity.contrast, n=settings.n_features, enough=settings.n_top_faces
        )
    return [Target((feature,)) for feature in features]
