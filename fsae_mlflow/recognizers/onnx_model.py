"""Recognizers in ONNX files, such as those of the InsightFace zoo, converted to torch modules by onnx2torch."""

import warnings
from pathlib import Path

from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.checkpoint import with_digest


def load_onnx(path: str, card: RecognizerCard | None) -> Recognizer:
    """The recognizer in the ONNX file `path`: one image input (batch, 3, size, size), one template output.

    Without a card: RGB, (x − 127.5) / 127.5, size and template width as the file says.

    Raises: ValueError for a file that is missing, broken or of another shape, and for a card that contradicts it.
    """
    import onnx

    if not Path(path).is_file():
        raise ValueError(f"ONNX recognizer {path} does not exist; write recognizer=onnx:/path/to/model.onnx.")
    try:
        model = onnx.load(path)
    except Exception as error:  # onnx raises protobuf's DecodeError, which has no public name
        raise ValueError(f"ONNX recognizer {path} is not a readable ONNX file ({error}).") from error
    size, width = _shapes(model, path)
    card = card or RecognizerCard(
        name=Path(path).stem, input_size=size or FACE_SIZE, template_width=width or 512, source=Path(path).name
    )
    if size and size != card.input_size:
        raise ValueError(f"input_size in the card of {path} must be {size}, the file's input; it is {card.input_size}.")
    if width and width != card.template_width:
        raise ValueError(
            f"template_width in the card of {path} must be {width}, the file's output; it is {card.template_width}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import onnx2torch

            network = onnx2torch.convert(model)
    except NotImplementedError as error:
        raise ValueError(
            f"ONNX recognizer {path} uses an operation that onnx2torch cannot convert ({error}); export the model "
            "with standard operations."
        ) from error
    return Recognizer(network, with_digest(card, Path(path)))


def _shapes(model, path: str) -> tuple[int, int]:
    """Input size and template width as the file declares them; 0 where it leaves them open."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise ValueError(
            f"ONNX recognizer {path} must have one input and one output; it has {len(inputs)} and "
            f"{len(model.graph.output)}."
        )
    taken = [axis.dim_value for axis in inputs[0].type.tensor_type.shape.dim]
    given = [axis.dim_value for axis in model.graph.output[0].type.tensor_type.shape.dim]
    if len(taken) != 4 or taken[1] not in (0, 3):
        raise ValueError(
            f"ONNX recognizer {path} must take (batch, 3, size, size) images; its input is {taken} (0 = open)."
        )
    return taken[2], given[1] if len(given) == 2 else 0
