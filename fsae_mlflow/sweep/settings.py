"""The settings of a sweep."""

import re
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import EXECUTION, flat, options, parse, settings
from fsae_mlflow.sae.training.settings import TrainSettings


@settings
class SweepSettings:
    """A search over λ (log scale) and expansion; the same settings and templates continue the same study."""

    templates: Annotated[
        str, "Template set to train on: a folder, a run id, or `latest` of the experiment.", EXECUTION
    ] = "latest"
    n_trials: Annotated[
        int, "Number of finished trials at the end, including those of earlier calls.", Ge(1), EXECUTION
    ] = 12
    objective: Annotated[
        Literal["fvu", "pareto"],
        "`fvu`: minimize held-out fvu with L0 at most max_l0; `pareto`: minimize both fvu and L0.",
    ] = "fvu"
    max_l0: Annotated[float, "Largest mean number of active features that the best trial may have.", Gt(0)] = 105.0
    lam_min: Annotated[float, "Smallest λ of the search.", Gt(0)] = 1e-3
    lam_max: Annotated[float, "Largest λ of the search.", Gt(0)] = 1.0
    expansions: Annotated[str, "Expansion factors to choose from, separated by commas."] = "4,8,16"
    epochs: Annotated[int, "Epochs of each trial.", Ge(1)] = 100
    lr: Annotated[float, "AdamW's initial learning rate in each trial.", Gt(0)] = 1e-3
    batch_size: Annotated[int, "Templates per step of each trial.", Ge(1)] = 256
    holdout: Annotated[float, "Share of the identities held out; trials are scored on them.", Gt(0), Lt(1)] = 0.1
    register: Annotated[bool, "Whether to register the best SAE with the alias `champion`.", EXECUTION] = True
    model_name: Annotated[str, "Name of the best SAE in the MLflow model registry.", EXECUTION] = "fsae"
    describe: Annotated[
        bool,
        "Whether to log the readings' and probes' metrics of describe for the best SAE, where the templates have "
        "attributes.",
        EXECUTION,
    ] = True
    seed: Annotated[int, "Seed of the search and of every training.", Ge(0)] = 0
    device: Annotated[str, "Where to train: auto, cpu, cuda, cuda:1, …", EXECUTION] = "auto"
    output: Annotated[
        str, "Folder of the study and its SAEs; empty: outputs/sweep/ and a hash of the search.", EXECUTION
    ] = ""

    def check(self) -> None:
        """Rules that join fields.

        Raises: UserError for an empty λ range or expansions that are not positive integers.
        """
        if self.lam_max < self.lam_min:
            raise UserError(f"lam_max must be at least lam_min ({self.lam_min}); it is {self.lam_max}.")
        if not all(re.fullmatch(r"\s*0*[1-9][0-9]{0,8}\s*", part) for part in self.expansions.split(",")):
            raise UserError(
                f"expansions must be integers from 1 to 999999999 separated by commas; it is {self.expansions[:100]!r}."
            )

    @property
    def expansion_list(self) -> list[int]:
        """The expansion factors as numbers."""
        return [int(part) for part in self.expansions.split(",")]

    def trial(self, lam: float, expansion: int) -> TrainSettings:
        """The training settings of one trial: what a sweep and a training both have, with this λ and expansion."""
        shared = {option.name for option in options(TrainSettings)} - {"output"}
        values = {name: value for name, value in flat(self).items() if name in shared}
        return parse(TrainSettings, values | {"lam": lam, "expansion": expansion})
