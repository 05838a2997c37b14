"""Settings of explain."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import EXECUTION, settings
from fsae_mlflow.verification.settings import Folds, PairsPerFold


@settings
class ExplainSettings:
    """Why two faces match: their similarity, split into the features that make it."""

    templates: Annotated[
        str, "Template set of the faces and of the pairs: a folder, a run id, or latest.", EXECUTION
    ] = "latest"
    sae: Annotated[str, "Sparse autoencoder: a folder, a run id, a models:/ address, or latest.", EXECUTION] = "latest"
    readings: Annotated[
        str,
        "What describe wrote of this SAE: a folder, a run id, latest, or none (features without a meaning).",
        EXECUTION,
    ] = "latest"
    reading_templates: Annotated[
        str,
        "Template set that the readings were made on, whose faces are shown as top faces; empty: templates, where the "
        "readings are of that set.",
        EXECUTION,
    ] = ""
    first: Annotated[str, "One face: an image id of the template set, or a picture file."] = ""
    second: Annotated[str, "The other face; without both, the hardest and the most typical pairs are explained."] = ""
    pairs: Annotated[
        str,
        "Pairs that the threshold is chosen on: LFW's pairs.txt, its folder, or a table image_id_a, image_id_b, "
        "genuine, fold; empty: made from identities.",
    ] = ""
    folds: Folds = 10
    pairs_per_fold: PairsPerFold = 300
    far: Annotated[
        float | None,
        "Share of impostor pairs that the threshold accepts; left out: 0.001, or one pair where there are fewer than "
        "1,000.",
        Gt(0),
        Lt(1),
    ] = None
    n_shared: Annotated[int, "Features shown that add most to the similarity.", Ge(1), Le(20)] = 5
    n_opposing: Annotated[int, "Features shown that take most away from it.", Ge(0), Le(20)] = 3
    without: Annotated[
        str,
        "Features that the counterfactual switches off: numbers, attribute:NAME, identity:NAME, pose:NAME, by commas; "
        "empty: those that add most, one after the other.",
    ] = ""
    maps: Annotated[bool, "Whether to show where on the faces the features look; it takes the recognizer."] = True
    noise: Annotated[
        float,
        "Standard deviation of the noise added to the copies of a face for its map (pixels are in 0…1).",
        Gt(0),
    ] = 0.1
    n_copies: Annotated[int, "Copies of a face that its map is averaged over.", Ge(1), Le(1024)] = 8
    recognizer: Annotated[str, "Recognizer of the templates; empty: the one given to extract."] = ""
    recognizer_card: Annotated[str, "JSON card of that recognizer; empty: the one given to extract."] = ""
    n_deleted: Annotated[
        int,
        "Pairs for measuring how fast the similarity falls when features are switched off in the explanation's order; "
        "0: no measurement.",
        Ge(0),
    ] = 200
    n_hidden: Annotated[
        int, "Faces on which it is measured how much a feature falls when the top tenth of its map is hidden.", Ge(0)
    ] = 0
    seed: Annotated[int, "Seed of the pairs that are made, of noise and of random orders.", Ge(0)] = 0
    force: Annotated[bool, "Go on although SAE and templates do not belong together.", EXECUTION] = False
    batch_size: Annotated[int, "Templates encoded at once.", Gt(0), EXECUTION] = 512
    device: Annotated[str, "auto, cpu or cuda.", EXECUTION] = "auto"
    output: Annotated[str, "Folder to write to; empty: outputs/explain/FINGERPRINT.", EXECUTION] = ""

    def check(self) -> None:
        """Refuse one face without the other, and hidden maps without maps."""
        if bool(self.first) != bool(self.second):
            given, missing = ("first", "second") if self.first else ("second", "first")
            raise UserError(f"{given} names a face, and {missing} must name one too: a similarity is of two faces.")
        if self.n_hidden and not self.maps:
            raise UserError("n_hidden measures maps, and maps is false; leave one of them out.")
