"""The file that MLflow runs to load a registered model (models-from-code).

Where this package is imported already, it runs with that version of the package and not with the copy that the model
carries: what it imports has to stay, and has to load what former versions saved.
"""

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from fsae_mlflow.errors import UserError
from fsae_mlflow.tracking.models.served import ServedSAE


class Model(PythonModel):
    """What templates consist of; `ServedSAE` says what `model_input` and `params` may be."""

    def load_context(self, context: PythonModelContext) -> None:
        self.served = ServedSAE(Path(context.artifacts["sae"]))

    # An array is one of the things that it takes; MLflow warns at a wider type here.
    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> Any:
        try:
            return self.served.answer(model_input, **(params or {}))
        except UserError as error:
            # A server answers this with the sentence and status 400, anything else with a traceback.
            raise MlflowException.invalid_parameter_value(str(error)) from error


set_model(Model())
