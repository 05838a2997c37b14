"""FaceNet from facenet-pytorch: InceptionResnetV1, 160 × 160 images, L2-normalized templates."""

import os
import warnings
from pathlib import Path

from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.checkpoint import load_exactly, read_checkpoint, state_dict, with_digest

PRETRAINED = {
    "vggface2": ("20180402-114759-vggface2.pt", "VGGFace2"),
    "casia-webface": ("20180408-102900-casia-webface.pt", "CASIA-WebFace"),
}


def load_facenet(argument: str, card: RecognizerCard | None) -> Recognizer:
    """FaceNet with the weights `vggface2` (the default) or `casia-webface`, downloaded once, or those of a checkpoint.

    The classifier's weights (`logits.*`) are ignored.

    Raises: ValueError when the download fails, and for a checkpoint with missing or unexpected keys.
    """
    from facenet_pytorch import InceptionResnetV1

    name, data = argument or "vggface2", "unknown"
    path = Path(name)
    if name in PRETRAINED:
        file, data = PRETRAINED[name]
        path = _cache() / file
        if not path.is_file():
            _download(name, path)
    elif not path.is_file():
        raise ValueError(
            f"recognizer facenet takes vggface2, casia-webface or the path of a checkpoint; it is {name!r}."
        )
    weights = state_dict(read_checkpoint(str(path)), str(path))
    network = InceptionResnetV1(pretrained=None)
    load_exactly(network, {key: value for key, value in weights.items() if not key.startswith("logits.")}, str(path))
    card = card or RecognizerCard(
        name=f"facenet-{path.stem if data == 'unknown' else name}",
        input_size=160,
        std=(128.0, 128.0, 128.0),
        l2_normalized=True,
        licence="code MIT; the training faces are for non-commercial research: research only",
        source="facenet-pytorch InceptionResnetV1 (arXiv 1503.03832, 1602.07261)",
        training_data=data,
        notes="Trained on MTCNN crops with a margin, not on the 5-point alignment: expect less than its figures.",
    )
    return Recognizer(network, with_digest(card, path))


def _cache() -> Path:
    """The folder of facenet-pytorch's downloads."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "checkpoints"


def _download(name: str, path: Path) -> None:
    from facenet_pytorch import InceptionResnetV1

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            InceptionResnetV1(pretrained=name)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ValueError(
            f"FaceNet's {name} weights could not be downloaded ({error}); fetch {path.name} from facenet-pytorch's "
            "releases and write recognizer=facenet:/path/to/it."
        ) from error
