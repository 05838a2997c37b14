"""What a sweep can look for: metrics of a trial, and which direction is better."""

from dataclasses import dataclass
from typing import Any, Literal

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import unknown
from fsae_mlflow.sae.training.settings import TrainSettings

Direction = Literal["minimize", "maximize"]
FVU, L0 = "heldout/fvu", "heldout/l0"
READINGS = ("readings/", "probes/")
VERIFICATION = "verification/"
MEASURES: dict[str, Direction] = {
    "fvu": "minimize",
    "l0": "minimize",
    "mse": "minimize",
    "cosine": "maximize",
    "alive": "maximize",
}
DIRECTIONS: dict[str, Direction] = {
    **{f"{side}/{name}": direction for side in ("heldout", "train") for name, direction in MEASURES.items()},
    "readings/strong_of_alive": "maximize",
    "readings/strong_of_judged": "maximize",
    "readings/confirmed_of_alive": "maximize",
    "readings/confirmed_of_judged": "maximize",
    "readings/n_kinds": "maximize",
    "readings/n_identities": "maximize",
    **{f"probes/{name}_k{size}": "maximize" for name in ("auroc", "precision") for size in (1, 2, 5, 10, 20, 50, 100)},
    "verification/accuracy": "maximize",
    "verification/auc": "maximize",
}
MOST_FOLDS = 10


@dataclass(frozen=True)
class Objective:
    """A metric by its name, and which direction is better."""

    name: str

    @property
    def direction(self) -> Direction:
        return DIRECTIONS[self.name]

    def cost(self, value: float) -> float:
        """The value, with the sign that makes less better."""
        return value if self.direction == "minimize" else -value

    @property
    def known_each_epoch(self) -> bool:
        """Whether a training measures it after each epoch."""
        return self.name.startswith(("heldout/", "train/"))


def read_objectives(text: str) -> list[Objective]:
    """The objectives that stand in `text`, separated by commas.

    Raises: UserError for a metric that is not known, with the nearest, and for one that is there twice.
    """
    names = [name.strip() for name in text.split(",")]
    if strange := next((name for name in names if name not in DIRECTIONS), None):
        raise UserError(f"objective: {unknown(strange, DIRECTIONS)}")
    if len(set(names)) < len(names):
        raise UserError(f"objective: each metric must be named once; it is {text!r}. Remove the second one.")
    return [Objective(name) for name in names]


def measured(objectives: list[Objective], *, sae: Any, templates: Any, settings: TrainSettings) -> dict[str, float]:
    """The metrics that the objectives need and a training does not measure: readings and probes, as describe has them,
    and verification of pairs of held-out people by their decoded templates.

    Raises: UserError where the templates do not allow an objective's measurement.
    """
    from fsae_mlflow.features.describe import reading_metrics
    from fsae_mlflow.features.settings import DescribeSettings

    found: dict[str, float] = {}
    if any(objective.name.startswith(READINGS) for objective in objectives):
        found |= reading_metrics(DescribeSettings(device=settings.device), templates=templates, sae=sae)
    if any(objective.name.startswith(VERIFICATION) for objective in objectives):
        found |= _verification(sae, templates, settings)
    for objective in objectives:
        if not objective.known_each_epoch and objective.name not in found:
            raise UserError(
                f"objective: {objective.name} cannot be measured on these templates, which lack attributes or people "
                "(docs/readings.md); take another objective."
            )
    return found


def _verification(sae: Any, templates: Any, settings: TrainSettings) -> dict[str, float]:
    import numpy as np

    from fsae_mlflow.identities import holdout_rows
    from fsae_mlflow.verification.decoding import decode_masked
    from fsae_mlflow.verification.pairs import make_pairs
    from fsae_mlflow.verification.protocol import area_under_curve, cross_validate, squared_distances

    rows = np.flatnonzero(holdout_rows(templates.identities, settings.holdout, seed=settings.seed))
    people = templates.identities[rows]
    _, counts = np.unique(people.astype(str), return_counts=True)
    folds = min(MOST_FOLDS, len(counts) // 2, int((counts > 1).sum()))
    if folds < 2:
        raise UserError(
            f"objective: verification needs four held-out people, two of them with two pictures; "
            f"holdout={settings.holdout} gives {len(counts)}, {int((counts > 1).sum())} of them with two. Increase it."
        )
    image_ids = [templates.image_ids[row] for row in rows]
    pairs = make_pairs(image_ids, people, folds=folds, seed=settings.seed)
    every = {"all": np.ones(sae.d_sae, dtype=bool)}
    decoded = decode_masked(sae, templates.templates_of(rows), every, batch_size=1024)["all"].templates
    distances = squared_distances(decoded[pairs.first], decoded[pairs.second])
    return {
        "verification/accuracy": cross_validate(distances, pairs.genuine, pairs.fold).mean,
        "verification/auc": area_under_curve(distances, pairs.genuine),
    }
