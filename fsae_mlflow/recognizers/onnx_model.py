"""Recognizers in ONNX files, such as those of the InsightFace zoo, converted to torch modules by onnx2torch."""

import warnings
from pathlib import Path

import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.checkpoint import with_digest

LARGEST_FILE = 2 << 30  # of protobuf


def load_onnx(path: str, card: RecognizerCard | None) -> Recognizer:
    """The recognizer in the ONNX file `path`: one image input (batch, 3, size, size), one template output.

    Without a card: RGB, (x − 127.5) / 127.5, size and template width as the file says.

    Raises: UserError for a file that is missing, broken or of another shape, and for a card that contradicts it.
    """
    import onnx

    if not Path(path).is_file():
        raise UserError(f"ONNX recognizer {path} does not exist; write recognizer=onnx:/path/to/model.onnx.")
    if Path(path).stat().st_size > LARGEST_FILE:
        raise UserError(f"ONNX recognizer {path} must have at most 2 GiB, as ONNX says; keep its weights beside it.")
    try:
        model = onnx.load(path)
    except Exception as error:  # onnx raises protobuf's DecodeError, which has no public name
        raise UserError(
            f"ONNX recognizer {path} is not a readable ONNX file, or a file of its weights beside it is missing or "
            f"damaged ({error}); give intact files."
        ) from error
    size, width = _shapes(model, path)
    _check_names(model, path)
    card = card or RecognizerCard(
        name=Path(path).stem, input_size=size or FACE_SIZE, template_width=width or 512, source=Path(path).name
    )
    if size and size != card.input_size:
        raise UserError(f"input_size in the card of {path} must be {size}, the file's input; it is {card.input_size}.")
    if width and width != card.template_width:
        raise UserError(
            f"template_width in the card of {path} must be {width}, the file's output; it is {card.template_width}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import onnx2torch

            network = onnx2torch.convert(model)
    except NotImplementedError as error:
        raise UserError(
            f"ONNX recognizer {path} uses an operation that onnx2torch cannot convert ({error}); export the model "
            "with standard operations."
        ) from error
    except Exception as error:  # onnx2torch raises errors of many kinds on graphs that are not sound
        raise _unsound(path, error) from error
    recognizer = Recognizer(network, with_digest(card, Path(path)))
    noise = torch.rand(1, 3, card.input_size, card.input_size, generator=torch.Generator().manual_seed(0))
    try:
        recognizer(noise)
    except UserError:
        raise
    except Exception as error:  # weights of shapes that the graph does not take
        raise _unsound(path, error) from error
    return recognizer


def _unsound(path: str, error: Exception) -> UserError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return UserError(f"ONNX recognizer {path} is damaged or cannot be computed ({reason}); export the model again.")


def _check_names(model, path: str) -> None:
    """Refuse a graph that uses a value which neither a file nor an operation before it gives."""
    graph = model.graph
    given = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    given |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in graph.node:
        if missing := [name for name in node.input if name not in given]:
            raise UserError(
                f"ONNX recognizer {path} must hold every input of its operations; {node.op_type} takes {missing[0]!r}, "
                "which is neither stored nor computed before: export the model again."
            )
        given |= set(node.output)
    if missing := [value.name for value in graph.output if value.name not in given]:
        raise UserError(f"ONNX recognizer {path} must compute its output {missing[0]!r}; export the model again.")


def _shapes(model, path: str) -> tuple[int, int]:
    """Input size and template width as the file declares them; 0 where it leaves them open."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise UserError(
            f"ONNX recognizer {path} must have one input and one output; it has {len(inputs)} and "
            f"{len(model.graph.output)}."
        )
    taken = [axis.dim_value for axis in inputs[0].type.tensor_type.shape.dim]
    given = [axis.dim_value for axis in model.graph.output[0].type.tensor_type.shape.dim]
    if len(taken) != 4 or taken[1] not in (0, 3):
        raise UserError(
            f"ONNX recognizer {path} must take (batch, 3, size, size) images; its input is {taken} (0 = open)."
        )
    size, width = taken[2], given[1] if len(given) == 2 else 0
    if (size and not 8 <= size <= 4096) or (width and width < 2):
        raise UserError(
            f"ONNX recognizer {path} must take images of 8 to 4096 pixels and give 2 values or more; it says {size} "
            f"pixels and {width} values (0 = open)."
        )
    return size, width
