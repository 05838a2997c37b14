"""Students, the small recognizers of train_recognizer: a timm backbone with a head that weighs places in the face."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import timm
import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from safetensors.torch import save_file
from torch import Tensor, nn

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.files.documents import parse_json, read_tensors
from fsae_mlflow.parameters import sentence
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.checkpoint import check_exactly, load_exactly, with_digest


@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(strict=True, extra="forbid"))
class StudentArchitecture:
    """Everything that is needed to build a student again; stored in its weights file."""

    backbone: str
    backbone_args: str = "{}"
    stem_stride: Annotated[int, Ge(0), Le(4)] = 0
    head: Literal["depthwise", "mean"] = "depthwise"
    head_width: Annotated[int, Ge(1)] = 512
    template_width: Annotated[int, Ge(2)] = 512
    input_size: Annotated[int, Ge(8), Le(4096)] = FACE_SIZE


class WeightedPool(nn.Module):
    """Global depthwise convolution (MobileFaceNet, arXiv 1804.07573, section 3.2): a weight per channel and place."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, height, width), 1 / (height * width)))

    def forward(self, maps: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c"]:
        """One number per channel."""
        # A product and a sum, because a convolution's backward pass takes ten times as long on a CPU.
        return (maps * self.weight).sum((2, 3))


class MeanPool(nn.Module):
    """Global mean over places, which most backbones were designed for."""

    def forward(self, maps: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c"]:
        """One number per channel."""
        return maps.mean((2, 3))


class StudentNetwork(nn.Module):
    """Backbone → 1 × 1 convolution to `head_width` → pooling → linear → batch norm: a template, not L2-normalized.

    Raises: UserError for a backbone that timm does not know or that does not return feature maps.
    """

    def __init__(self, architecture: StudentArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = _backbone(architecture)
        width = architecture.head_width
        maps = _maps(self.backbone, architecture)
        if maps.ndim != 4:
            raise UserError(
                f"backbone must be a timm network whose features are maps (batch, channels, height, width); "
                f"{architecture.backbone} returns {list(maps.shape)}: choose a convolutional one."
            )
        _, channels, height, breadth = maps.shape
        self.expand = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width))
        self.pool = WeightedPool(width, height, breadth) if architecture.head == "depthwise" else MeanPool()
        self.to_template = nn.Sequential(
            nn.BatchNorm1d(width),
            nn.Linear(width, architecture.template_width, bias=False),
            nn.BatchNorm1d(architecture.template_width),
        )

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch d"]:
        """Templates of images normalized as the card says."""
        maps = self.backbone.forward_features(images)  # pyright: ignore[reportCallIssue]
        return self.to_template(self.pool(self.expand(maps)).float())


def _backbone(architecture: StudentArchitecture) -> nn.Module:
    try:
        arguments = json.loads(architecture.backbone_args or "{}")
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"backbone_args must be a JSON object; it is {architecture.backbone_args!r} ({error})."
        ) from error
    try:
        if not timm.is_model(architecture.backbone) or "checkpoint_path" in arguments:
            # A name of the hub, or a path, would let a weights file open other files and addresses.
            raise ValueError("it must be in timm.list_models(), without a checkpoint_path")
        backbone = timm.create_model(
            architecture.backbone, pretrained=False, num_classes=0, global_pool="", **arguments
        )
    except Exception as error:  # whatever timm raises, it raises for these two values
        raise UserError(_refusal(architecture, error)) from error
    stem = next((module for module in backbone.modules() if isinstance(module, nn.Conv2d)), None)
    if architecture.stem_stride and stem is not None:
        stem.stride = (architecture.stem_stride, architecture.stem_stride)
    return backbone


@torch.no_grad()
def _maps(backbone: nn.Module, architecture: StudentArchitecture) -> Tensor:
    """The backbone's features of one blank face."""
    size = architecture.input_size
    try:
        return backbone.eval().forward_features(torch.zeros(1, 3, size, size))  # pyright: ignore[reportCallIssue]
    except Exception as error:  # timm builds networks that cannot run
        raise UserError(_refusal(architecture, error)) from error
    finally:
        backbone.train()


def _refusal(architecture: StudentArchitecture, error: Exception) -> str:
    return (
        f"backbone must be a name that timm knows, with backbone_args that it accepts; {architecture.backbone!r} "
        f"with {architecture.backbone_args} fails: {error}."
    )


def write_student(network: StudentNetwork, path: Path) -> None:
    """Write a student's weights (float16) and its architecture as safetensors, whole or not at all."""
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    with atomic_write(path) as temporary:
        save_file(weights, temporary, metadata={"architecture": json.dumps(asdict(network.architecture))})


def read_student(path: Path) -> StudentNetwork:
    """The student in a safetensors file that `write_student` wrote, in float32.

    Raises: UserError for a missing or broken file, and for a file without a student.
    """
    if not path.is_file():
        raise UserError(f"Student weights {path} do not exist; give the path of a file that train_recognizer wrote.")
    remedy = "give a file that train_recognizer wrote"
    weights, metadata = read_tensors(path, "Student weights", remedy=remedy)
    if "architecture" not in metadata:
        raise UserError(
            f"Student weights {path} must name their architecture, and do not; give a file that train_recognizer wrote."
        )
    described = parse_json(metadata["architecture"], f"The architecture in student weights {path}", remedy=remedy)
    try:
        architecture = StudentArchitecture(**described)
    except (TypeError, pydantic.ValidationError) as error:
        reason = sentence(error) if isinstance(error, pydantic.ValidationError) else str(error)
        raise UserError(
            f"Student weights {path} have an architecture of another version ({reason}); distill them again."
        ) from error
    try:
        with torch.device("meta"):  # without memory: the file may name any size
            outline = StudentNetwork(architecture)
    except Exception as error:  # timm raises errors of many kinds on arguments that it does not know
        raise UserError(
            f"Student weights {path} describe a network that cannot be built ({error}); distill them again."
        ) from error
    check_exactly(outline, weights, str(path))
    network = StudentNetwork(architecture)
    load_exactly(network, {name: value.float() for name, value in weights.items()}, str(path))
    return network


def load_student(path: str, card: RecognizerCard | None) -> Recognizer:
    """The student at `path`; without a card, the `card.json` beside it.

    Raises: UserError for unreadable weights and for a card of other weights.
    """
    weights = Path(path)
    network = read_student(weights)
    if card is None:
        card = RecognizerCard.from_json(weights.with_name("card.json"))
    return Recognizer(network, with_digest(card, weights))
