"""SwinFace (arXiv 2308.11509): the recognition part of the released checkpoint, on timm's Swin Transformer."""

import re
from pathlib import Path
from typing import Any

from jaxtyping import Float
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.checkpoint import load_exactly, read_checkpoint, state_dict, with_digest

ARCHITECTURE: dict[str, Any] = {
    "img_size": FACE_SIZE,
    "patch_size": 2,
    "embed_dim": 96,
    "depths": (2, 2, 6, 2),
    "num_heads": (3, 6, 12, 24),
    "window_size": 7,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
}
TEMPLATE_WIDTH = 512
NOT_WEIGHTS = re.compile(r"(^head\.(weight|bias)|\.attn_mask|\.relative_position_index)$")
MERGING = re.compile(r"^layers\.(\d+)\.downsample\.")


class SwinFace(nn.Module):
    """Swin Transformer → mean over its normalized tokens → `feature`, two linear layers with batch norm: a template."""

    def __init__(self, **architecture: Any) -> None:
        super().__init__()
        self.backbone = SwinTransformer(**{**ARCHITECTURE, **architecture}, num_classes=0, global_pool="avg")
        width = self.backbone.num_features
        self.feature = nn.Sequential(
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width, eps=2e-5),
            nn.Linear(width, TEMPLATE_WIDTH, bias=False),
            nn.BatchNorm1d(TEMPLATE_WIDTH, eps=2e-5),
        )

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch d"]:
        """Templates of normalized images, not L2-normalized."""
        return self.feature(self.backbone(images))


def load_swinface(argument: str, card: RecognizerCard | None) -> Recognizer:
    """SwinFace with the weights of the released checkpoint at a path, or of its `state_dict_backbone` saved alone.

    Raises: UserError naming missing or unexpected keys.
    """
    weights = state_dict(read_checkpoint(argument), argument)
    network = SwinFace()
    load_exactly(network, from_microsoft(weights), argument)
    card = card or RecognizerCard(
        name="swinface",
        licence="see the authors' repository; the training faces are for non-commercial research: research only",
        source="SwinFace, arXiv 2308.11509, released checkpoint",
        training_data="MS1MV2 and the attribute sets named in the paper",
        notes="LFW 0.9987 by references; not measured here.",
    )
    return Recognizer(network, with_digest(card, Path(argument)))


def from_microsoft(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights by this module's names, without buffers and head.

    Microsoft's Swin merges patches at the end of layer I, timm at the start of layer I + 1.
    """
    mapped = {}
    for name, value in weights.items():
        if NOT_WEIGHTS.search(name):
            continue
        name = MERGING.sub(lambda layer: f"layers.{int(layer[1]) + 1}.downsample.", name)
        mapped[name if name.startswith("feature.") else f"backbone.{name}"] = value
    return mapped
