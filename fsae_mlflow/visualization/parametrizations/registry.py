"""The parametrizations by name, each as "module:Class"; the module is imported when used, so `--help` stays fast."""

from pkgutil import resolve_name

HERE = "fsae_mlflow.visualization.parametrizations"
PARAMETRIZATIONS = {
    "eigenfaces": f"{HERE}.eigenfaces:Eigenfaces",
    "dip": f"{HERE}.dip:DeepImagePrior",
    "dip_wide": f"{HERE}.dip:WideDeepImagePrior",
    "fourier": f"{HERE}.fourier:FourierSpectrum",
    "maco": f"{HERE}.maco:MagnitudeConstrained",
    "accentuate": f"{HERE}.accentuate:Accentuated",
    "pixels": f"{HERE}.pixels:Pixels",
}


def load_parametrization(name: str) -> type:
    """The class (a Parametrization) called `name`."""
    return resolve_name(PARAMETRIZATIONS[name])
