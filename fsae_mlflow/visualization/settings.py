"""Settings of visualize."""

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import EXECUTION, Choice, settings
from fsae_mlflow.visualization.parametrizations.registry import PARAMETRIZATIONS


@settings
class VisualizeSettings:
    """Images optimized to fire chosen features, beside the faces of a template set that fire them most.

    `preset=paper` takes all settings of the paper.
    """

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "paper": {"parametrization": "dip", "steps": 4096, "lr": 1e-4, "jitter": 0, "images_at_once": 1},
    }

    templates: Annotated[str, "Template set with the real faces: a folder, a run id, or latest.", EXECUTION] = "latest"
    sae: Annotated[str, "Sparse autoencoder: a folder, a models:/ address, or latest.", EXECUTION] = "latest"
    readings: Annotated[
        str,
        "What describe wrote of this SAE and these templates, read in place of encoding: a folder, a run id, or "
        "latest; empty: encode. Top faces are then those that describe kept, without near-duplicates.",
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
        str, "Features: numbers separated by commas, or best: half from the high-, half from the low-density cluster."
    ] = "best"
    n_features: Annotated[int, "Number of features that features=best chooses.", Ge(1), Le(300)] = 6
    n_images: Annotated[int, "Images of each feature, each with its own random start.", Ge(1), Le(100)] = 2
    n_top_faces: Annotated[int, "Faces of highest activation shown for each feature.", Ge(1), Le(100)] = 6
    parametrization: Annotated[str, "How an image is written as parameters.", Choice(lambda: PARAMETRIZATIONS)] = "dip"
    steps: Annotated[int, "Steps of AdamW (the paper: 4096).", Ge(1)] = 128
    lr: Annotated[float, "AdamW's learning rate (the paper: 1e-4, with its 4096 steps).", Gt(0)] = 3e-3
    jitter: Annotated[
        int, "Largest random shift of the image before each step, in pixels; 0 as in the paper.", Ge(0), Le(56)
    ] = 2
    images_at_once: Annotated[
        int, "Images optimized at once; they do not influence each other.", Ge(1), Le(1024), EXECUTION
    ] = 4
    record_every: Annotated[int, "Steps between records of objective, activation and norm.", Ge(1)] = 16
    force: Annotated[bool, "Go on although SAE, templates and recognizer do not belong together.", EXECUTION] = False
    batch_size: Annotated[int, "Templates encoded at once.", Ge(1), EXECUTION] = 512
    seed: Annotated[int, "Seed of the first image of each feature; the next images take the next numbers.", Ge(0)] = 0
    device: Annotated[str, "auto, cpu or cuda.", EXECUTION] = "auto"
    output: Annotated[str, "Folder to write to; empty: outputs/visualize/FINGERPRINT.", EXECUTION] = ""

    def check(self) -> None:
        """Refuse a parametrization that the registry does not have."""
        if self.parametrization not in PARAMETRIZATIONS:
            known = ", ".join(PARAMETRIZATIONS)
            raise UserError(f"parametrization must be one of {known}; it is {self.parametrization!r}.")
