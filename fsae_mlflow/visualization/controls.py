"""What images are judged beside: real faces, other features' images, and random directions as an SAE of their own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.features.activity.survey import survey
from fsae_mlflow.features.controls import control
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.dictionary import Dictionary
from fsae_mlflow.visualization.making.optimization import Job
from fsae_mlflow.visualization.making.saved import save_picture
from fsae_mlflow.visualization.settings import VisualizeSettings
from fsae_mlflow.visualization.targets import Target

N_JUDGED = 48
"""Top faces kept of each feature where nothing was described; about half are of people on whom images are judged."""
N_RANDOM_TEMPLATES = 10_000


@dataclass(frozen=True, kw_only=True)
class Made:
    """An image file, what it was made for and how, and of which dictionary."""

    target: Target
    seed: int
    path: Path
    parametrization: str
    dictionary: Dictionary
    control: str


def surveyed(settings: VisualizeSettings, sae: SparseAutoencoder, templates: TemplateSet) -> Activity:
    """How the templates fire an SAE, with as many top faces as are shown or judged by."""
    most = max(settings.n_top_faces, N_JUDGED)
    return survey(sae, templates, most=most, batch_size=settings.batch_size).activity


def real_faces(of: Dictionary, templates: TemplateSet, folder: Path) -> list[Made]:
    """The face that fires each target's feature most, saved as an optimized image is."""
    rows = [of.activity.top_of(of.row(target))[0][:1] for target in of.targets]
    known = [(target, int(row[0])) for target, row in zip(of.targets, rows, strict=True) if len(row)]
    made = []
    for (target, row), face in zip(known, templates.faces([row for _, row in known]), strict=True):
        path = save_picture(face, folder / Job(target=target, seed=0).name, {"row": row})
        made.append(Made(target=target, seed=0, path=path, parametrization="", dictionary=of, control="real"))
    return made


def of_others(made: Sequence[Made]) -> list[Made]:
    """The image of the next target that is to fire none of the same features, to be judged as if it were made for this
    one; nothing where there is no such target.
    """
    found = []
    for place, one in enumerate(made):
        others = [*made[place + 1 :], *made[:place]]
        other = next((other for other in others if not {*other.target.fired} & {*one.target.fired}), None)
        if other is not None:
            found.append(replace(one, path=other.path, control="other"))
    return found


def random_directions(settings: VisualizeSettings, main: Dictionary, templates: TemplateSet) -> Dictionary:
    """As many random directions as there are targets, as an SAE."""
    drawn = np.random.default_rng(settings.seed).permutation(len(templates))[:N_RANDOM_TEMPLATES]
    x = np.array(templates.templates_of(np.sort(drawn).astype(np.int64)))
    n_features = max(2, len(main.targets))
    sae = control("random", x, n_features=n_features, seed=settings.seed, origin=templates.origin)
    sae = sae.to(main.sae.scale.device)
    targets = [Target((feature,)) for feature in range(min(len(main.targets), sae.d_sae))]
    return Dictionary(sae=sae, activity=surveyed(settings, sae, templates), targets=targets)
