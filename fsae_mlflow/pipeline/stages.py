"""The stages of a pipeline, in their order."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fsae_mlflow.explanation.settings import ExplainSettings
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.features.settings import DescribeSettings
from fsae_mlflow.report.browser.settings import BrowseSettings
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.verification.settings import EvaluateSettings
from fsae_mlflow.visualization.settings import VisualizeSettings


@dataclass(frozen=True)
class Input:
    """What a stage takes from an earlier one; `otherwise` is given where that was not done, None: it cannot be.

    Where the parameter `unless` is given, nothing is taken.
    """

    stage: str
    otherwise: str | None = None
    unless: str = ""


@dataclass(frozen=True)
class Stage:
    """One stage: its settings, its inputs by parameter, and which of its artifacts the pipeline shows."""

    settings: type
    inputs: Mapping[str, Input] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    """The pipeline's parameters that the stage gets under the same name."""
    only_with: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Those of them that the stage gets where it also gets certain others; alone they would have no effect."""
    optional: bool = False
    """Whether the pipeline goes on where the stage fails: few people cannot be read, few pairs not be judged."""
    artifacts: tuple[str, ...] = ()


TEMPLATES_AND_SAE = {"templates": Input("extract"), "sae": Input("train_sae")}
STAGES: Mapping[str, Stage] = {
    "extract": Stage(ExtractSettings, shared=("faces", "recognizer"), artifacts=("accepted.png",)),
    "train_sae": Stage(
        TrainSettings,
        {"templates": Input("extract")},
        shared=("preset",),
    ),
    "describe": Stage(
        DescribeSettings,
        TEMPLATES_AND_SAE,
        shared=("attributes", "judge"),
        optional=True,
        artifacts=("readings.png",),
    ),
    "explain": Stage(
        ExplainSettings,
        TEMPLATES_AND_SAE | {"readings": Input("describe", otherwise="none")},
        shared=("pairs",),
        optional=True,
        artifacts=("genuine-typical.png", "impostor-hardest.png"),
    ),
    "evaluate_lfw": Stage(
        EvaluateSettings,
        TEMPLATES_AND_SAE | {"readings": Input("describe", otherwise="", unless="density_templates")},
        shared=("pairs", "attributes"),
        optional=True,
        artifacts=("density.png", "table.png"),
    ),
    "visualize": Stage(
        VisualizeSettings,
        TEMPLATES_AND_SAE | {"readings": Input("describe", otherwise="")},
        shared=("attributes", "judge"),
        only_with={"attributes": ("judge", "readings")},
        artifacts=("features.png",),
    ),
    "browse": Stage(
        BrowseSettings,
        TEMPLATES_AND_SAE | {"readings": Input("describe"), "images": Input("visualize", otherwise="none")},
        artifacts=("features.html",),
    ),
}
