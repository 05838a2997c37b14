"""The parametrizations by name, each as "module:Class"; the module is imported when used, so `--help` stays fast."""

from pkgutil import resolve_name

HERE = "fsae_mlflow.visualization.parametrizations"
PARAMETRIZATIONS = {
    "dip": f"{HERE}.dip:DeepImagePrior",
    "fourier": f"{HERE}.fourier:FourierSpectrum",
    "pixels": f"{HERE}.pixels:Pixels",
}


def load_parametrization(name: str) -> type:
    """The class (a Parametrization) called `name`."""
    return resolve_name(PARAMETRIZATIONS[name])
