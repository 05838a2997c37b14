"""What a registered SAE answers: templates in, features and what they mean out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.readings.names import KINDS, named_features
from fsae_mlflow.sae.saved import load_sae
from fsae_mlflow.tracking.models.readings import READINGS_FILE, Shipped
from fsae_mlflow.tracking.models.served_inputs import RECOGNIZER, pictures_of, templates_of

OUTPUTS = ("features", "top", "readings", "reconstruction", "match")
ADVICE = "this model has no readings: run describe with sae=models:/NAME/VERSION of this model to add them, or "


class ServedSAE:
    """What templates (n, d_in), or those of pictures, consist of: the parameter `output` says in which form.

        features        array (n, d_sae)
        top             table, a row for each template: `features`, the numbers of the `k` strongest that fire, in
                        descending order, and their `activations`
        readings        the same with `readings`, what each of these features means
        reconstruction  array (n, d_in), decoded from the features
        match           of two templates or pictures: why they match (see `match`)

    `without`: features that are set to 0 first, also before templates are decoded: numbers and, where the model knows
    what features mean, attribute:NAME, identity:NAME and pose:NAME, by commas. `k`: 0 for all that fire.
    """

    def __init__(self, folder: Path) -> None:
        """Of the SAE in `folder`, with the readings and the recognizer beside it, if there are any."""
        self.sae = load_sae(folder)
        path = folder.with_name(READINGS_FILE)
        self.shipped = Shipped.read(path) if path.is_file() else None
        self.recognizer = None
        if folder.with_name(RECOGNIZER).is_dir():
            # What it imports is only required where a recognizer is carried.
            from fsae_mlflow.tracking.models.embedded import EmbeddedRecognizer

            self.recognizer = EmbeddedRecognizer(folder.with_name(RECOGNIZER))

    @torch.no_grad()
    def answer(self, given: Any, *, output: str = "features", without: str = "", k: int = 10) -> Any:
        """The output for templates or pictures in any of the forms of `templates_of` and `pictures_of`.

        Raises: UserError for an input or a parameter that it does not take.
        """
        if output not in OUTPUTS:
            raise UserError(f"output must be one of {', '.join(OUTPUTS)}; it is {output!r}.")
        if k < 0:
            raise UserError(f"k must be at least 0; it is {k}.")
        templates = self._templates(given)
        features = self.sae.encode(templates)
        if without:
            known = {kind: np.array(getattr(self.shipped, kind)) for kind in KINDS} if self.shipped else None
            named = named_features(without, self.sae.d_sae, known, advice=f"{ADVICE}give their numbers.")
            features[:, torch.from_numpy(named.features)] = 0
        if output == "features":
            return features.numpy()
        if output == "reconstruction":
            return self.sae.decode(features).numpy()
        if output == "match":
            if len(templates) != 2:
                raise UserError(f"output=match takes two templates or pictures; there are {len(templates)}.")
            return self._match(templates, features, k)
        return self._strongest(features, k, with_readings=output == "readings")

    def _templates(self, given: Any) -> Float[Tensor, "n d_in"]:
        pictures = pictures_of(given)
        if pictures is None:
            return templates_of(given, self.sae.d_in)
        if self.recognizer is None:
            raise UserError(
                "The input is text or bytes, thus pictures, and this model carries no recognizer for them; train with "
                "embed_recognizer=true, or give templates."
            )
        return self.recognizer.templates(pictures)

    def _strongest(self, features: Float[Tensor, "n d_sae"], k: int, *, with_readings: bool) -> pd.DataFrame:
        strongest = features.topk(min(k or self.sae.d_sae, self.sae.d_sae), dim=1)
        n_firing = (strongest.values > 0).sum(dim=1).tolist()
        rows = {
            "features": [row[:n] for row, n in zip(strongest.indices.tolist(), n_firing, strict=True)],
            "activations": [row[:n] for row, n in zip(strongest.values.tolist(), n_firing, strict=True)],
        }
        if with_readings:
            rows["readings"] = [[self._reading(feature) for feature in row] for row in rows["features"]]
        return pd.DataFrame(rows)

    def _reading(self, feature: int) -> str:
        if self.shipped is None:
            raise UserError(f"output=readings needs to know what the features mean; {ADVICE}ask for output=top.")
        return self.shipped.reading[feature]

    def _match(self, templates: Float[Tensor, "2 d_in"], features: Float[Tensor, "2 d_sae"], k: int) -> dict[str, Any]:
        """Why two templates match: their cosine `similarity`; `decoded`, that of their reconstructions, which is the
        sum of `constant`, what all reconstructions have in common, and of each feature's `contribution`
        (explanation/contributions.py); and the `k` features that contribute most.
        """
        decoded = self.sae.decode(features).double()
        directions = (self.sae.W_dec / self.sae.scale).double()
        constant = (self.sae.b_dec / self.sae.scale + self.sae.center).double()
        size = 2 * decoded.norm(dim=1).prod().clamp(min=1e-300)
        first, second = features.double()
        contributions = (first * (directions @ decoded[1]) + second * (directions @ decoded[0])) / size
        firing = int((features > 0).any(dim=0).sum())
        order = contributions.where((features > 0).any(dim=0), -torch.inf).argsort(descending=True)[
            : min(k or firing, firing)
        ]
        return {
            "similarity": float(torch.cosine_similarity(*templates.double(), dim=0)),
            "decoded": float(torch.cosine_similarity(*decoded, dim=0)),
            "constant": float(constant @ decoded.sum(dim=0) / size),
            "features": [
                {
                    "feature": feature,
                    "contribution": float(contributions[feature]),
                    "first": float(first[feature]),
                    "second": float(second[feature]),
                    "reading": self.shipped.reading[feature] if self.shipped else "",
                }
                for feature in order.tolist()
            ],
        }
