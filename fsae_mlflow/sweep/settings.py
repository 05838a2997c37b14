"""The settings of a sweep."""

from collections.abc import Collection
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import EXECUTION, flat, options, parse, settings
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sweep.objectives import FVU, L0, Objective, read_objectives
from fsae_mlflow.sweep.space import VARIANT, Space, read_space
from fsae_mlflow.sweep.storage import check_storage


@settings
class SweepSettings(TrainSettings):
    """A search over any parameters of train_sae; those that are not searched are given as for train_sae.

    The same settings and templates continue the same study.
    """

    space: Annotated[
        str,
        "What is searched, as lam:1e-3..1:log,expansion:4|8|16 (docs/sweeps.md); empty: lam or k, and expansion.",
    ] = ""
    objective: Annotated[
        str,
        "Metric to search for; several, separated by commas, give a Pareto front (names and directions: "
        "docs/sweeps.md).",
    ] = "heldout/fvu"
    max_l0: Annotated[
        float,
        "Largest mean number of active features that the best trial may have on held-out people; with a single "
        "objective the search keeps to it.",
        Gt(0),
    ] = 105.0
    n_trials: Annotated[
        int, "Number of finished trials at the end, of all processes and all earlier calls.", Ge(1), EXECUTION
    ] = 12
    minutes: Annotated[
        float, "Minutes after which this process starts no other trial; 0: no limit but n_trials.", Ge(0), EXECUTION
    ] = 0.0
    patience: Annotated[
        int, "Finished trials without a better one after which the search ends; 0: it does not.", Ge(0), EXECUTION
    ] = 0
    sampler: Annotated[
        Literal["tpe", "gp", "random", "grid"],
        "How values are drawn: tree-structured Parzen estimator, Gaussian process, at random, or every combination of "
        "the listed values.",
    ] = "tpe"
    pruner: Annotated[
        Literal["none", "median", "halving"],
        "Whether a trial ends early: if it is worse than the median of the others after the same epoch, from half of "
        "the epochs on, or by successive halving.",
    ] = "none"
    storage: Annotated[
        str,
        "Where the study is kept: `sqlite`, for one process; `journal`, a file for several; both lie in the output "
        "folder; postgresql://… or grpc://HOST:PORT for several machines.",
        EXECUTION,
    ] = "sqlite"
    register: Annotated[bool, "Whether to add the best SAE to the MLflow model registry.", EXECUTION] = True
    describe: Annotated[
        bool,
        "Whether to log the readings' and probes' metrics of describe for the best SAE, where the templates have "
        "attributes.",
        EXECUTION,
    ] = True
    seed: Annotated[int, "Seed of the search, and of every training.", Ge(0)] = 0
    output: Annotated[
        str, "Folder of the study and its SAEs; empty: outputs/sweep/ and a hash of the search.", EXECUTION
    ] = ""

    def check(self) -> None:
        """Rules that join fields.

        Raises: UserError for a space, an objective or a storage that cannot be read, and for settings that do not go
        together.
        """
        TrainSettings.check(self)
        objectives, search = self.objectives, self.search
        if not self.holdout:
            raise UserError("holdout is 0, but trials are compared on held-out people; give holdout=0.1.")
        if self.sampler == "grid":
            next(search.grid())
        if self.pruner != "none" and not (len(objectives) == 1 and objectives[0].known_each_epoch):
            raise UserError(
                f"pruner={self.pruner} compares one objective after each epoch, and objective is {self.objective}; "
                "take one heldout/ or train/ metric, or pruner=none."
            )
        check_storage(self.storage)

    @property
    def title(self) -> str:
        """What sets a run apart, in a few words."""
        searched = ",".join(self.search.dimensions)
        return searched if VARIANT in self.search.dimensions else f"{flat(self)[VARIANT]} {searched}"

    @property
    def searched(self) -> Collection[str]:
        """The parameters that have no value of their own, because each trial has another."""
        return self.search.dimensions

    @property
    def objectives(self) -> list[Objective]:
        """What is searched for, the most important first."""
        return read_objectives(self.objective)

    @property
    def axes(self) -> list[Objective]:
        """What the front of the trials is of: the objectives, and L0 beside a single one, or fvu beside L0."""
        found = self.objectives
        return found if len(found) > 1 else [*found, Objective(FVU if found[0].name == L0 else L0)]

    @property
    def search(self) -> Space:
        """What is searched, around the settings of a training that all trials share."""
        names = {option.name for option in options(TrainSettings)} - {"output"}
        shared = {name: value for name, value in flat(self).items() if name in names}
        return read_space(self.space, parse(TrainSettings, shared))
