"""Settings of visualize."""

from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import EXECUTION, Choice, chosen_names, deciding, settings
from fsae_mlflow.visualization.objectives.registry import OBJECTIVES
from fsae_mlflow.visualization.parametrizations.registry import PARAMETRIZATIONS

CONTROLS = ("real", "other", "random", "pixels")
NOT_OF_AN_IMAGE = ("features", "n_features", "n_images", "n_top_faces", "judge", "judge_card", "controls", "dial")
"""Settings that say which images are made, or what is said of them."""


@settings
class VisualizeSettings:
    """Images optimized to fire chosen features, beside the faces of a template set that fire them most, and a verdict
    on each image.

    `preset=paper` takes all settings of the paper.
    """

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "paper": {
            "parametrization": "dip",
            "objective": "gate",
            "steps": 4096,
            "lr": 1e-4,
            "noise": 0.0,
            "images_at_once": 1,
        },
    }

    templates: Annotated[str, "Template set with the real faces: a folder, a run id, or latest.", EXECUTION] = "latest"
    sae: Annotated[str, "Sparse autoencoder: a folder, a run id, a models:/ address, or latest.", EXECUTION] = "latest"
    readings: Annotated[
        str,
        "What describe wrote of this SAE and these templates, read in place of encoding: a folder, a run id, or "
        "latest; empty: encode. Top faces are then those that describe kept, without near-duplicates, and the "
        "readings are written again with what the images confirm.",
        EXECUTION,
    ] = ""
    recognizer: Annotated[str, "Recognizer that images are optimized for; empty: the one that made the templates."] = ""
    recognizer_card: Annotated[str, "JSON card of that recognizer; empty: the one given to extract."] = ""
    preset: Annotated[
        Literal["default", "paper"],
        "Values of parameters that are not given: these defaults, or the paper's.",
        EXECUTION,
    ] = "default"
    features: Annotated[
        str,
        "Features: numbers separated by commas, with + for several at once and - for one without another "
        "(17,17+40,17-40); best: half from the high-, half from the low-density cluster; or all that fire.",
    ] = "best"
    n_features: Annotated[int, "Number of features that features=best chooses.", Ge(1), Le(300)] = 6
    n_images: Annotated[int, "Images of each feature, each with its own seed.", Ge(1), Le(100)] = 2
    n_top_faces: Annotated[int, "Faces of highest activation shown for each feature.", Ge(1), Le(100)] = 8
    parametrization: Annotated[str, "How an image is written as parameters.", Choice(lambda: PARAMETRIZATIONS)] = (
        "eigenfaces"
    )
    objective: Annotated[
        str,
        "What is maximized: direction (the decoder direction, as far as real faces reach), gate (the paper's), "
        "or activation.",
        Choice(lambda: OBJECTIVES),
    ] = "direction"
    start: Annotated[
        str,
        "What eigenfaces and accentuate begin with: typical (how faces change with the feature), mean (the mean face), "
        "or the image_id of a face; empty: typical for eigenfaces, mean for accentuate.",
    ] = ""
    steps: Annotated[int, "Steps of AdamW (the paper: 4096); 0: the parametrization's own number.", Ge(0)] = 0
    lr: Annotated[float, "AdamW's learning rate (the paper: 1e-4); 0: the parametrization's own.", Ge(0)] = 0.0
    jitter: Annotated[int, "Largest random shift before each step, in pixels.", Ge(0), Le(56)] = 0
    scale: Annotated[float, "Largest random change of size before each step, 0.05 for 5 %.", Ge(0), Le(0.5)] = 0.0
    rotation: Annotated[float, "Largest random rotation before each step, in degrees.", Ge(0), Le(180)] = 0.0
    noise: Annotated[
        float, "Standard deviation of random noise on pixels (0…1) before each step; the paper: 0.", Ge(0), Le(1)
    ] = 0.02
    jpeg: Annotated[float, "Standard deviation of noise as JPEG makes it, on 8 x 8 blocks.", Ge(0), Le(1)] = 0.0
    gray: Annotated[float, "Probability that a step sees an image without color.", Ge(0), Le(1)] = 0.0
    ensemble: Annotated[
        str, "A second recognizer that images are optimized for too, as for extract; not the judge. Empty: none."
    ] = ""
    ensemble_card: Annotated[str, "JSON card of that recognizer."] = ""
    judge: Annotated[str, "Another recognizer that judges the images, as for extract; empty: no second opinion."] = ""
    judge_card: Annotated[str, "JSON card of that recognizer."] = ""
    attributes: Annotated[
        str,
        "Labels of the faces, as for describe: the judge then looks for the attribute that a feature is read as.",
        EXECUTION,
    ] = ""
    controls: Annotated[
        str,
        "What is judged in the same way beside the images, by commas: real (the feature's strongest face), other "
        "(another feature's image, where there are several), random (random directions), pixels (the pixel "
        "parametrization); or none.",
    ] = "real,other"
    dial: Annotated[
        bool, "Whether to make a dial of each feature: a face at -3 to +3 standard deviations of its projection."
    ] = True
    images_at_once: Annotated[
        int, "Images optimized at once; they do not influence each other.", Ge(1), Le(1024), EXECUTION
    ] = 16
    record_every: Annotated[int, "Steps between records of objective, activation and norm.", Ge(1)] = 16
    force: Annotated[bool, "Go on although SAE, templates and recognizer do not belong together.", EXECUTION] = False
    batch_size: Annotated[int, "Templates encoded at once.", Ge(1), EXECUTION] = 512
    seed: Annotated[int, "Seed of the first image of each feature; the next images take the next numbers.", Ge(0)] = 0
    device: Annotated[str, "auto, cpu or cuda.", EXECUTION] = "auto"
    output: Annotated[str, "Folder to write to; empty: outputs/visualize/FINGERPRINT.", EXECUTION] = ""

    @property
    def control_names(self) -> list[str]:
        """The controls that are asked for."""
        return chosen_names("controls", self.controls, CONTROLS)

    @property
    def making(self) -> dict[str, Any]:
        """The settings that decide how the image of a target and seed looks."""
        return {name: value for name, value in deciding(self).items() if name not in NOT_OF_AN_IMAGE}

    def check(self) -> None:
        """Refuse a parametrization or an objective that the registry does not have, and unknown controls."""
        for name, registry in (("parametrization", PARAMETRIZATIONS), ("objective", OBJECTIVES)):
            if getattr(self, name) not in registry:
                raise UserError(f"{name} must be one of {', '.join(registry)}; it is {getattr(self, name)!r}.")
        _ = self.control_names
