"""What an evaluation can be told."""

from typing import Annotated

from annotated_types import Ge, Gt

from fsae_mlflow.parameters import EXECUTION, settings


@settings
class EvaluateSettings:
    """Verification on pairs of faces with templates as they are and as a sparse autoencoder decodes them."""

    templates: Annotated[str, "Template set to verify: a folder, or latest.", EXECUTION] = "latest"
    sae: Annotated[
        str,
        "Sparse autoencoder: a folder, a models:/ address, latest, or none for the original templates alone.",
        EXECUTION,
    ] = "latest"
    pairs: Annotated[
        str,
        "LFW's pairs.txt, its folder, or a table image_id_a, image_id_b, genuine, fold; empty pairs the people.",
    ] = ""
    density_templates: Annotated[
        str,
        "Template set whose densities split the features into clusters; empty: the one that the SAE was trained on.",
        EXECUTION,
    ] = ""
    folds: Annotated[int, "Folds of the pairs that are made; a pairs file brings its own.", Ge(2)] = 10
    pairs_per_fold: Annotated[int, "Most genuine (and as many impostor) pairs of a fold that is made.", Gt(0)] = 300
    seed: Annotated[int, "Seed of the pairs that are made.", Ge(0)] = 0
    batch_size: Annotated[int, "Templates encoded at once.", Gt(0), EXECUTION] = 512
    device: Annotated[str, "auto, cpu or cuda.", EXECUTION] = "auto"
    output: Annotated[str, "Folder to write to; empty takes one under outputs/.", EXECUTION] = ""
