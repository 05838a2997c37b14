"""What an optimization of images can be told."""

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from fsae_mlflow.parameters import EXECUTION, settings


@settings
class VisualizeSettings:
    """Images optimized to fire chosen features, beside the faces of a template set that fire them most; `preset=paper`
    takes every setting of the paper.
    """

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "paper": {"parametrization": "dip", "steps": 4096, "lr": 1e-4, "jitter": 0, "images_at_once": 1},
    }

    templates: Annotated[str, "Template set to take faces from: a folder, a run id, or latest.", EXECUTION] = "latest"
    sae: Annotated[str, "Sparse autoencoder: a folder, a models:/ address, or latest.", EXECUTION] = "latest"
    recognizer: Annotated[str, "Recognizer to optimize through; empty: the one that made the templates."] = ""
    recognizer_card: Annotated[str, "JSON card of that recognizer; empty: the one given to extract."] = ""
    preset: Annotated[
        Literal["default", "paper"], "Where unset parameters come from: these defaults, or the paper.", EXECUTION
    ] = "default"
    features: Annotated[
        str, "Features by number, with commas between, or best: half of the high- and half of the low-density cluster."
    ] = "best"
    n_features: Annotated[int, "How many features best takes.", Ge(1)] = 6
    n_images: Annotated[int, "Images of each feature, every one from another initialization.", Ge(1)] = 2
    n_top_faces: Annotated[int, "Faces of highest activation shown for each feature.", Ge(1)] = 6
    parametrization: Annotated[Literal["dip", "fourier", "pixels"], "How an image is written as parameters."] = "dip"
    steps: Annotated[int, "Steps of AdamW (the paper: 4096).", Ge(1)] = 128
    lr: Annotated[float, "AdamW's learning rate (the paper: 1e-4, with its 4096 steps).", Gt(0)] = 3e-3
    jitter: Annotated[
        int, "Largest random shift of the image before each step, in pixels; 0 as in the paper.", Ge(0)
    ] = 2
    images_at_once: Annotated[int, "Images optimized side by side; they do not influence each other.", Ge(1)] = 4
    record_every: Annotated[int, "Steps between records of objective, activation and norm.", Ge(1)] = 16
    batch_size: Annotated[int, "Templates encoded at once when top faces are looked for.", Ge(1), EXECUTION] = 512
    seed: Annotated[int, "Seed of the first image of each feature; the others follow it.", Ge(0)] = 0
    device: Annotated[str, "auto, cpu or cuda.", EXECUTION] = "auto"
    output: Annotated[str, "Folder to write to; empty takes one under outputs/.", EXECUTION] = ""
