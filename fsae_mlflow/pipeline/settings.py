"""Settings of the pipeline."""

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Annotated, Any

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import Choice, Parts, names_in, parse, settings, short
from fsae_mlflow.pipeline.stages import STAGES
from fsae_mlflow.sae.training.settings import TrainSettings

NEEDED = ("extract", "train_sae")


@settings
class PipelineSettings:
    """The input of all stages, and the values that are given to single ones."""

    faces: Annotated[str, "Pictures of faces, as for extract."] = "orl"
    recognizer: Annotated[str, "Recognizer, as for extract."] = "tiny"
    preset: Annotated[str, "Preset of train_sae.", Choice(lambda: ("default", *TrainSettings.PRESETS))] = "default"
    attributes: Annotated[str, "CSV or Parquet with labels of the faces, as for describe; empty: none."] = ""
    pairs: Annotated[str, "Pairs to verify, as for evaluate_lfw; empty: made from identities."] = ""
    judge: Annotated[str, "Another recognizer that judges features and images, as for describe; empty: none."] = ""
    skip: Annotated[str, "Stages to leave out, by commas: describe, explain, evaluate_lfw, visualize, browse."] = ""
    cache: Annotated[bool, "Whether a finished run of the same inputs, settings and code is reused."] = True
    stages: Annotated[
        dict[str, dict[str, Any]], Parts(lambda: {name: one.settings for name, one in STAGES.items()})
    ] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What sets a run apart, in a few words."""
        return f"{short(self.faces)} {short(self.recognizer)}"

    @property
    def skipped(self) -> list[str]:
        """The stages to leave out."""
        return names_in(self.skip)

    def given(self, stage: str, inputs: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
        """The values that a stage is given, `inputs` from earlier stages among them where it has no others."""
        shared = {name: getattr(self, name) for name in STAGES[stage].shared if getattr(self, name)}
        own = self.stages.get(stage, {})
        values = {**inputs, **shared, **own}
        without = [name for name, others in STAGES[stage].only_with.items() if not values.keys() >= set(others)]
        return {name: value for name, value in values.items() if name in own or name not in without}

    def check(self) -> None:
        """Refuse what a stage would refuse before the first one runs.

        Raises: UserError naming the stage and its parameter.
        """
        optional = [name for name in STAGES if name not in NEEDED]
        if wrong := [name for name in self.skipped if name not in optional]:
            raise UserError(f"skip must name some of {', '.join(optional)}; it names {wrong[0]!r}.")
        for name, stage in STAGES.items():
            try:
                parse(stage.settings, self.given(name))
            except UserError as error:
                raise UserError(f"{name}.{error}") from error
