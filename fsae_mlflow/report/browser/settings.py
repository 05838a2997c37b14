"""Settings of browse."""

from typing import Annotated

from annotated_types import Ge, Gt, Le

from fsae_mlflow.parameters import EXECUTION, names_in, settings


@settings
class BrowseSettings:
    """A page that shows every feature: its faces, its optimized images, what it means, and how sure that is.

    It opens from disk and in the MLflow UI, and needs neither a server nor a network.
    """

    templates: Annotated[str, "Template set with the real faces: a folder, a run id, or latest.", EXECUTION] = "latest"
    sae: Annotated[str, "Sparse autoencoder: a folder, a run id, a models:/ address, or latest.", EXECUTION] = "latest"
    readings: Annotated[
        str, "What describe wrote of this SAE and these templates: a folder, a run id, or latest.", EXECUTION
    ] = "latest"
    images: Annotated[
        str, "What visualize made of this SAE: a folder, a run id, or latest; none: no optimized images.", EXECUTION
    ] = "latest"
    explanation: Annotated[
        str, "JSON files that explain wrote, separated by commas, to be shown too; empty: none.", EXECUTION
    ] = ""
    real_faces: Annotated[
        bool, "Whether real faces and names of people are in the page; false: optimized images and numbers only."
    ] = True
    n_faces: Annotated[int, "Top faces, and as many sampled faces, of each feature.", Ge(1), Le(24)] = 8
    n_near: Annotated[int, "Nearest features by the cosine of decoder rows, of each feature.", Ge(0), Le(50)] = 6
    max_megabytes: Annotated[float, "Size of a page; more features make further pages.", Gt(0), Le(1000)] = 40.0
    force: Annotated[bool, "Go on although SAE, templates and readings do not belong together.", EXECUTION] = False
    output: Annotated[str, "Folder to write to; empty: outputs/browse/FINGERPRINT.", EXECUTION] = ""

    @property
    def explanations(self) -> list[str]:
        """The files of explanations."""
        return names_in(self.explanation)
