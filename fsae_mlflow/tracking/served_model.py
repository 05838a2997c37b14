"""The registered SAE as MLflow loads it (models-from-code): templates in, features or reconstructions out."""

from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from fsae_mlflow.sae.saved import load_sae


class ServedSAE(PythonModel):
    """Features (n, d_sae) of templates (n, d_in); with `output="reconstruction"` reconstructions (n, d_in)."""

    def load_context(self, context: PythonModelContext) -> None:
        self.sae = load_sae(context.artifacts["sae"])

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        output = (params or {}).get("output", "features")
        if output not in ("features", "reconstruction"):
            raise ValueError(f"output must be features or reconstruction; it is {output!r}.")
        templates = torch.as_tensor(np.asarray(model_input), dtype=torch.float32)
        with torch.no_grad():
            return (self.sae.encode(templates) if output == "features" else self.sae(templates)).numpy()


set_model(ServedSAE())
