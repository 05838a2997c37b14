"""The parametrizations by name."""

from fsae_mlflow.visualization.parametrizations.base import Parametrization
from fsae_mlflow.visualization.parametrizations.dip import DeepImagePrior
from fsae_mlflow.visualization.parametrizations.fourier import FourierSpectrum
from fsae_mlflow.visualization.parametrizations.pixels import Pixels

PARAMETRIZATIONS: dict[str, type[Parametrization]] = {
    "dip": DeepImagePrior,
    "fourier": FourierSpectrum,
    "pixels": Pixels,
}
