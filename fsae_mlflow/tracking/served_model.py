"""The registered SAE as MLflow loads it (models-from-code): templates in, features or reconstructions out."""

from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.numbers import feature_numbers
from fsae_mlflow.sae.saved import load_sae


class ServedSAE(PythonModel):
    """Features (n, d_sae) of templates (n, d_in); with `output="reconstruction"` reconstructions (n, d_in).

    `without="17,42"` sets these features to 0, also before templates are decoded.
    """

    def load_context(self, context: PythonModelContext) -> None:
        self.sae = load_sae(context.artifacts["sae"])

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        params = params or {}
        output, without = params.get("output", "features"), params.get("without", "")
        if output not in ("features", "reconstruction"):
            raise UserError(f"output must be features or reconstruction; it is {output!r}.")
        if ":" in without:
            raise UserError(
                f"without={without} names what features mean, which a registered model does not know; give their "
                "numbers, the column feature of features.parquet."
            )
        words = [word.strip() for word in without.split(",")] if without else []
        left_out = feature_numbers(words, self.sae.d_sae, must="without must be ")
        templates = torch.as_tensor(np.asarray(model_input), dtype=torch.float32)
        with torch.no_grad():
            features = self.sae.encode(templates)
            features[:, left_out] = 0
            return (features if output == "features" else self.sae.decode(features)).numpy()


set_model(ServedSAE())
