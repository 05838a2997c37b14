"""Settings of evaluate_lfw."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import EXECUTION, chosen_names, settings

CONTROLS = ("random", "energy", "pca", "mean")


Folds = Annotated[int, "Folds of the pairs that are made; a pairs file has its own.", Ge(2)]
PairsPerFold = Annotated[
    int, "Largest number of genuine (and of impostor) pairs in a fold that is made.", Gt(0), Le(1_000_000)
]


@settings
class EvaluateSettings:
    """Verification of pairs of faces with original templates and with templates decoded from an SAE's features."""

    templates: Annotated[str, "Template set to verify: a folder, a run id, or latest.", EXECUTION] = "latest"
    sae: Annotated[
        str,
        "Sparse autoencoder: a folder, a run id, a models:/ address, latest, or none (original templates alone).",
        EXECUTION,
    ] = "latest"
    pairs: Annotated[
        str,
        "LFW's pairs.txt, its folder, or a table image_id_a, image_id_b, genuine, fold; empty: made from identities.",
    ] = ""
    density_templates: Annotated[
        str,
        "Template set whose densities split the features into clusters; empty: the SAE's training set.",
        EXECUTION,
    ] = ""
    readings: Annotated[
        str,
        "What describe wrote of this SAE, whose densities split the features into clusters: a folder, a run id, or "
        "latest; empty: as density_templates says.",
        EXECUTION,
    ] = ""
    without: Annotated[
        str,
        "Features to leave out in one more row: numbers, attribute:NAME, identity:NAME or pose:NAME, separated by "
        "commas; names need readings.",
    ] = ""
    labeled_templates: Annotated[
        str,
        "Template set of the labeled faces that tell what `without` leaves of an attribute: a folder, a run id, or "
        "latest; empty: the verified templates.",
        EXECUTION,
    ] = ""
    ablation: Annotated[
        bool, "Whether to measure how verification changes where each feature, and each reading, is left out."
    ] = False
    attributes: Annotated[
        str,
        "CSV or Parquet with labels, joined by its column path; extra columns of the set count too. Labels are of the "
        "verified faces (error rates are audited) or, where labeled_templates is given, of that set (no audit).",
        EXECUTION,
    ] = ""
    far: Annotated[
        float, "False accept rate of the threshold that the audit decides at, chosen on other folds.", Gt(0), Lt(1)
    ] = 1e-3
    controls: Annotated[
        str,
        "Controls beside the clusters, by commas: random (as many random features), energy (as many of most energy), "
        "pca (as many principal components as the cluster's L0), mean (the mean template); or none.",
    ] = "none"
    folds: Folds = 10
    pairs_per_fold: PairsPerFold = 300
    seed: Annotated[int, "Seed of the pairs that are made, and of random features.", Ge(0)] = 0
    force: Annotated[bool, "Go on although SAE, templates and recognizer do not belong together.", EXECUTION] = False
    batch_size: Annotated[int, "Templates encoded at once.", Gt(0), EXECUTION] = 512
    device: Annotated[str, "auto, cpu or cuda.", EXECUTION] = "auto"
    output: Annotated[str, "Folder to write to; empty: outputs/evaluate_lfw/FINGERPRINT.", EXECUTION] = ""

    @property
    def control_names(self) -> list[str]:
        """The controls that are asked for."""
        return chosen_names("controls", self.controls, CONTROLS)

    def check(self) -> None:
        """Rules that join fields, and the names of the controls.

        Raises: UserError for an unknown control, for what needs an SAE without one, for readings beside
        density_templates, and for labeled templates that nothing is measured on.
        """
        if self.control_names and self.sae == "none":
            raise UserError(
                "controls are compared with the clusters of an SAE's features, but sae is none; give an SAE, or leave "
                "controls out."
            )
        if self.readings and self.density_templates:
            raise UserError(
                "readings and density_templates both say which densities split the features into clusters; leave one "
                "of them out."
            )
        if self.readings and self.sae == "none":
            raise UserError("readings describe an SAE's features, but sae is none; give an SAE, or leave readings out.")
        if (self.without or self.ablation) and self.sae == "none":
            name = "without" if self.without else "ablation"
            raise UserError(f"{name} leaves out features of an SAE, but sae is none; give an SAE, or leave {name} out.")
        if self.labeled_templates and not self.without:
            raise UserError(
                "labeled_templates measures what is left of an attribute after without removed its features; give "
                "without, or leave labeled_templates out."
            )
