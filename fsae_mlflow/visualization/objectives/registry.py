"""The objectives by name, each as "module:Class"; the module is imported when used, so `--help` stays fast."""

from pkgutil import resolve_name

HERE = "fsae_mlflow.visualization.objectives"
OBJECTIVES = {
    "gate": f"{HERE}.gate:Gate",
    "activation": f"{HERE}.activation:Activation",
    "direction": f"{HERE}.direction:Direction",
}


def load_objective(name: str) -> type:
    """The class (an Objective) called `name`."""
    return resolve_name(OBJECTIVES[name])
