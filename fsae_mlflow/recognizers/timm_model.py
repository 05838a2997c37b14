"""Any timm model as a recognizer: face models of the Hugging Face hub, ImageNet models, checkpoints of your own."""

from pathlib import Path

import timm
from torch import nn

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.checkpoint import load_exactly, read_checkpoint, state_dict, with_digest

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin")


def load_timm(argument: str, card: RecognizerCard | None) -> Recognizer:
    """Any timm model (also `hf_hub:OWNER/NAME`) with its published weights, or `NAME@/path` with weights from a file.

    The template is the model's output where its width equals the card's template_width, or, without a card, where the
    weights come from the hub or a file; else the pooled features before the classifier. Without a card, size and
    normalization are the model's own.

    Raises: UserError for a name that timm does not know, weights that cannot be loaded, and a card whose
    template_width is neither of the two widths.
    """
    name, path = split_checkpoint(argument)
    network = _create(name, pretrained=not path)
    if path:
        weights = state_dict(read_checkpoint(path), path)
        head = weights.get("head.weight", weights.get("classifier.weight", weights.get("fc.weight")))
        network.reset_classifier(0 if head is None or not head.ndim else len(head))  # pyright: ignore[reportCallIssue]
        load_exactly(network, weights, path)
    outputs, features = int(network.num_classes), _feature_width(network)  # pyright: ignore[reportArgumentType]
    own = outputs > 0 and (card.template_width == outputs if card else bool(path) or name.startswith("hf"))
    card = card or _card(network, name, width=outputs if own else features)
    if not own:
        if card.template_width != features:
            widths = " or ".join(str(width) for width in (outputs, features) if width)
            raise UserError(f"template_width in the card of timm:{name} must be {widths}; it is {card.template_width}.")
        network.reset_classifier(0)  # pyright: ignore[reportCallIssue]
    return Recognizer(network, with_digest(card, Path(path)) if path else card)


def split_checkpoint(argument: str) -> tuple[str, str]:
    """`NAME@/path/weights.pt` as NAME and path; a hub revision after @ stays with the name."""
    name, at, path = argument.partition("@")
    return (name, path) if at and path.endswith(CHECKPOINTS) else (argument, "")


def _create(name: str, *, pretrained: bool) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained)
    except Exception as error:  # the hub client raises errors of its own and of the network library
        raise UserError(
            f"recognizer timm:{name} cannot be created ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
            "give a name of timm.list_models(pretrained=True), hf_hub:OWNER/NAME, or NAME@/path/weights.safetensors."
        ) from error


def _feature_width(network: nn.Module) -> int:
    return int(getattr(network, "head_hidden_size", None) or network.num_features)  # pyright: ignore[reportArgumentType]


def _card(network: nn.Module, name: str, *, width: int) -> RecognizerCard:
    own: dict = network.pretrained_cfg  # pyright: ignore[reportAssignmentType]
    mean, std = (tuple(255 * value for value in own.get(key, (0.5, 0.5, 0.5))) for key in ("mean", "std"))
    return RecognizerCard(
        name=name,
        input_size=int(own.get("input_size", (3, FACE_SIZE, FACE_SIZE))[-1]),
        mean=mean,  # pyright: ignore[reportArgumentType]
        std=std,  # pyright: ignore[reportArgumentType]
        template_width=width,
        licence=str(own.get("license") or "unknown: treat as research only"),
        source=f"timm {name}",
    )
