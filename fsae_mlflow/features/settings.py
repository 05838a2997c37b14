"""Settings of describe and compare."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import EXECUTION, chosen_names, names_in, settings, short
from fsae_mlflow.sae.directions import DIRECTIONS


@settings
class DescribeSettings:
    """What each feature of an SAE means: readings found on some people and confirmed on others."""

    templates: Annotated[str, "Template set of the faces to read: a folder, a run id, or latest.", EXECUTION] = "latest"
    sae: Annotated[str, "Sparse autoencoder: a folder, a run id, a models:/ address, or latest.", EXECUTION] = "latest"
    attributes: Annotated[
        str,
        "CSV or Parquet with labels of the faces, joined by its column path; the set's own extra columns count too.",
        EXECUTION,
    ] = ""
    judge: Annotated[
        str, "Another recognizer that judges monosemanticity, as for extract; empty: monosemanticity is left out."
    ] = ""
    judge_card: Annotated[str, "JSON card of that recognizer."] = ""
    controls: Annotated[
        str,
        "Dictionaries judged beside the SAE, by commas: raw, random, data, pca, ica, kmeans, pursuit; or none.",
    ] = "raw,pca,ica"
    n_top_faces: Annotated[int, "Top faces kept of each feature, at most 3 of a person.", Ge(1), Le(100)] = 24
    read_faces: Annotated[
        int, "Faces that readings are computed on, of people drawn at random; all, if there are no more.", Ge(100)
    ] = 50_000
    confirm: Annotated[
        float, "Share of the people on whom readings are confirmed; they are found on the others.", Gt(0), Lt(1)
    ] = 0.5
    seed: Annotated[int, "Seed of the split of people, of the controls and of shuffles.", Ge(0)] = 0
    force: Annotated[bool, "Go on although SAE and templates do not belong together.", EXECUTION] = False
    batch_size: Annotated[int, "Templates encoded at once.", Gt(0), EXECUTION] = 1024
    device: Annotated[str, "auto, cpu or cuda.", EXECUTION] = "auto"
    output: Annotated[str, "Folder to write to; empty: outputs/describe/FINGERPRINT.", EXECUTION] = ""

    @property
    def control_names(self) -> list[str]:
        """The controls that are asked for."""
        return chosen_names("controls", self.controls, DIRECTIONS)

    def check(self) -> None:
        """Refuse a control that the registry does not have."""
        _ = self.control_names


@settings
class CompareSettings:
    """Which features of SAEs are found again in one another: seeds, variants, expansions, recognizers."""

    saes: Annotated[
        str, "Two or more sparse autoencoders, separated by commas: folders, models:/ addresses, run ids.", EXECUTION
    ]
    templates: Annotated[
        str,
        "Template set of the faces to compare on: a folder, a run id, or latest; or one for each SAE, separated by "
        "commas, of the same faces.",
        EXECUTION,
    ] = "latest"
    readings: Annotated[
        str,
        "What describe wrote of the first SAE (a folder, a run id, or latest), to be written again with the columns "
        "stability and stability_correlation; empty: none.",
        EXECUTION,
    ] = ""
    n_faces: Annotated[int, "Faces to compare on, of people drawn at random; all, if there are no more.", Ge(100)] = (
        20_000
    )
    initial: Annotated[bool, "Whether to compare the untrained SAEs of the same settings and seeds too."] = True
    force: Annotated[bool, "Go on although SAE, templates and readings do not belong together.", EXECUTION] = False
    batch_size: Annotated[int, "Templates encoded at once.", Gt(0), EXECUTION] = 1024
    device: Annotated[str, "auto, cpu or cuda.", EXECUTION] = "auto"
    output: Annotated[str, "Folder to write to; empty: outputs/compare/FINGERPRINT.", EXECUTION] = ""

    @property
    def title(self) -> str:
        """What sets a run apart, in a few words."""
        return " and ".join(
            name.removeprefix("models:/") if name.startswith("models:/") else short(name) for name in self.sae_names
        )

    @property
    def sae_names(self) -> list[str]:
        """The SAEs that are asked for."""
        return names_in(self.saes)

    @property
    def template_names(self) -> list[str]:
        """The template set of each SAE."""
        names = names_in(self.templates)
        return names * len(self.sae_names) if len(names) == 1 else names

    def check(self) -> None:
        """Refuse less than two SAEs, and template sets that are neither one nor one for each SAE."""
        n_saes, n_sets = len(self.sae_names), len(self.template_names)
        if n_saes < 2:
            raise UserError(f"saes must name at least two SAEs, separated by commas; it is {self.saes!r}.")
        if n_sets != n_saes:
            raise UserError(f"templates must name one set, or one for each of the {n_saes} SAEs; it names {n_sets}.")
