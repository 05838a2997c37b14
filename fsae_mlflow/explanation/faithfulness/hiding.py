"""Whether maps are faithful: hiding the top tenth of a map must hurt its feature more than hiding other pixels.

Pixels are hidden in two ways: by the blurred face, which the maps are made for, and by gray, which they are not.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.explanation.faithfulness.bootstrap import interval_of_mean
from fsae_mlflow.explanation.saliency import Embed, blurred, saliency_maps, smoothed
from fsae_mlflow.progress import progress
from fsae_mlflow.sae.base import SparseAutoencoder

SHARE = 0.1
FACES_AT_ONCE = 64
OWN = "map"


@dataclass(frozen=True, kw_only=True)
class Hiding:
    """The share of the activation of each face's strongest feature that is lost when a tenth of the pixels is hidden.

    `lost` has it by how they are hidden (blur, gray) and by whose pixels they are: those of the feature's own map
    (map), of another feature's map (other_feature), of its map on the next face (other_face), and of a random map that
    is as smooth (random).
    """

    lost: Mapping[str, Mapping[str, Float64[np.ndarray, " faces"]]]

    @property
    def metrics(self) -> dict[str, float]:
        """The mean share lost, and how much more hiding the feature's own map costs than hiding each other, with the
        95 % interval of faces drawn again (bootstrap, 2,000 draws).
        """
        found = {}
        for hidden, by_map in self.lost.items():
            for name, lost in by_map.items():
                prefix = f"maps/{hidden}/{name}"
                found[prefix] = float(lost.mean())
                if name != OWN:
                    found |= interval_of_mean(by_map[OWN] - lost, f"{prefix}_lead")
        return found


def hiding(
    faces: Float[Tensor, "n 3 h w"],
    *,
    embed: Embed,
    sae: SparseAutoencoder,
    noise: float,
    n_copies: int,
    seed: int,
) -> Hiding:
    """Hide a tenth of each face (RGB, 0…1) and measure the feature that it fires most; faces without one are left out.

    Raises: UserError where fewer than two faces fire a feature.
    """
    maps, features, kept = [], [], []
    for number, face in enumerate(progress(list(faces), total=len(faces), label="maps", unit="faces")):
        with torch.no_grad():
            strongest = sae.encode(embed(face[None]))[0].topk(2)
        if not strongest.values[0] > 0:
            continue
        kept.append(number)
        features.append(strongest.indices.tolist())
        maps.append(
            saliency_maps(face, features[-1], embed=embed, sae=sae, noise=noise, n_copies=n_copies, seed=seed + number)
        )
    if len(kept) < 2:
        raise UserError(
            f"n_hidden needs two faces that fire a feature; {len(kept)} of {len(faces)} do. Increase n_hidden or give "
            "more pairs."
        )
    faces = faces[kept]
    own, other = torch.stack(maps).unbind(dim=1)
    generator = torch.Generator().manual_seed(seed)
    tried = {
        OWN: own,
        "other_feature": other,
        "other_face": own.roll(1, dims=0),
        "random": smoothed(torch.randn(own.shape, generator=generator)),
    }
    first = torch.tensor([one[0] for one in features], device=faces.device)
    before = _activation(faces, first, embed, sae)
    fillings = {"blur": blurred(faces), "gray": faces.mean(dim=(1, 2, 3), keepdim=True).expand_as(faces)}
    lost = {
        hidden: {
            name: 1
            - _activation(torch.where(top_share(one).to(faces.device), filling, faces), first, embed, sae) / before
            for name, one in tried.items()
        }
        for hidden, filling in fillings.items()
    }
    return Hiding(lost=lost)


def top_share(maps: Float[Tensor, "n h w"]) -> Bool[Tensor, "n 1 h w"]:
    """The tenth of the pixels with the largest values of each map."""
    flat = maps.flatten(1)
    chosen = flat.topk(round(SHARE * flat.shape[1]), dim=1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, True).view_as(maps)[:, None]


@torch.no_grad()
def _activation(
    faces: Float[Tensor, "n 3 h w"], features: Int64[Tensor, " n"], embed: Embed, sae: SparseAutoencoder
) -> Float64[np.ndarray, " n"]:
    """The activation of one feature on each face."""
    encoded = torch.cat([sae.encode(embed(part)) for part in faces.split(FACES_AT_ONCE)])
    return encoded.gather(1, features[:, None])[:, 0].double().cpu().numpy()
