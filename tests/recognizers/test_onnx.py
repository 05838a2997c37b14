"""ONNX recognizers against onnxruntime, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fsae_mlflow.errors import UserError
from fsae_mlflow.recognizers.registry import load_recognizer
from tests.recognizers.networks import gradient_share, small_network

WIDTH = 8


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """tests.recognizers.networks.small_network, written node by node."""
    convolution, norm, prelu, _, linear = small_network(WIDTH)
    weights = {
        "kernel": convolution.weight,
        "scale": norm.weight,
        "shift": norm.bias,
        "mean": norm.running_mean,
        "variance": norm.running_var,
        "slope": prelu.weight.view(-1, 1, 1),
        "matrix": linear.weight,
        "bias": linear.bias,
    }
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["a"], strides=[4, 4], kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["b"]),
        helper.make_node("PRelu", ["b", "slope"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "matrix", "bias"], ["template"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("template", TensorProto.FLOAT, ["n", WIDTH])],
        [numpy_helper.from_array(value.detach().numpy(), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.fixture
def path(model: onnx.ModelProto, tmp_path: Path) -> Path:
    onnx.save(model, tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


def by_onnxruntime(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def pixels(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, 112, 112)).astype(np.float32)


def test_templates_equal_onnxruntime_s(path: Path) -> None:
    faces = pixels(3)
    recognizer = load_recognizer(f"onnx:{path}")
    expected = by_onnxruntime(path, (faces - 127.5) / 127.5)
    np.testing.assert_allclose(recognizer(torch.from_numpy(faces) / 255), expected, rtol=1e-5, atol=1e-5)
    assert recognizer.card.template_width == WIDTH
    assert len(recognizer.card.weights_sha256) == 64
    assert gradient_share(recognizer) > 0.5


def test_card_beside_the_file_is_used(path: Path) -> None:
    path.with_suffix(".json").write_text(
        json.dumps({"channels": "bgr", "std": [128, 128, 128], "template_width": WIDTH})
    )
    faces = pixels(2)
    expected = by_onnxruntime(path, (faces[:, ::-1] - 127.5) / np.float32(128))
    templates = load_recognizer(f"onnx:{path}")(torch.from_numpy(faces) / 255)
    np.testing.assert_allclose(templates, expected, rtol=1e-5, atol=1e-5)


def test_given_card_goes_before_the_one_beside(path: Path, tmp_path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps({"name": "beside", "template_width": WIDTH}))
    (tmp_path / "given.json").write_text(json.dumps({"name": "given", "template_width": WIDTH}))
    assert load_recognizer(f"onnx:{path}").card.name == "beside"
    assert load_recognizer(f"onnx:{path}", card=str(tmp_path / "given.json")).card.name == "given"


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"template_width": 512}, f"template_width in the card of .* must be {WIDTH}"),
        ({"template_width": WIDTH, "input_size": 160}, "input_size in the card of .* must be 112"),
        ({"template_width": WIDTH, "weights_sha256": "0" * 64}, "must have the SHA-256 of their card"),
    ],
)
def test_card_of_another_model_is_refused(path: Path, card: dict, words: str) -> None:
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=words):
        load_recognizer(f"onnx:{path}")


def test_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match="not a readable ONNX file"):
        load_recognizer(f"onnx:{tmp_path / 'a.onnx'}")


def test_gray_model_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    gray = onnx.ModelProto()
    gray.CopyFrom(model)
    gray.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(gray, tmp_path / "gray.onnx")
    with pytest.raises(ValueError, match=r"must take \(batch, 3, size, size\)"):
        load_recognizer(f"onnx:{tmp_path / 'gray.onnx'}")


def test_operation_without_a_conversion_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    strange = onnx.ModelProto()
    strange.CopyFrom(model)
    strange.graph.node[2].op_type = "Mystery"
    onnx.save(strange, tmp_path / "strange.onnx")
    with pytest.raises(ValueError, match="onnx2torch cannot convert"):
        load_recognizer(f"onnx:{tmp_path / 'strange.onnx'}")


def lose_a_weight(model: onnx.ModelProto) -> None:
    del model.graph.initializer[0]


def lose_a_node(model: onnx.ModelProto) -> None:
    del model.graph.node[-1]


def reshape_a_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[6].dims[:] = [WIDTH // 2, 2 * 6 * 28 * 28]


def declare_a_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**40


def keep_a_weight_elsewhere(model: onnx.ModelProto) -> None:
    onnx.external_data_helper.set_external_data(model.graph.initializer[6], "absent.data")
    model.graph.initializer[6].ClearField("raw_data")
    model.graph.initializer[6].data_location = TensorProto.EXTERNAL


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lose_a_weight, "Conv takes 'kernel', which is neither stored nor computed"),
        (lose_a_node, "must compute its output 'template'"),
        (reshape_a_weight, "is damaged or cannot be computed"),
        (declare_a_size, "images of 8 to 4096 pixels"),
        (keep_a_weight_elsewhere, r"a file of its weights beside it is missing.*absent\.data"),
    ],
)
def test_a_graph_that_is_not_whole_is_refused(
    model: onnx.ModelProto, tmp_path: Path, change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    forged = onnx.ModelProto()
    forged.CopyFrom(model)
    change(forged)
    (tmp_path / "forged.onnx").write_bytes(forged.SerializeToString())
    with pytest.raises(UserError, match=words) as refusal:
        load_recognizer(f"onnx:{tmp_path / 'forged.onnx'}")
    assert "forged.onnx" in str(refusal.value)


@pytest.mark.parametrize("name", ["mobilefacenet_a", "mobilefacenet_b"])
def test_real_recognizers_equal_onnxruntime_s(shared_data: Path, name: str) -> None:
    path = shared_data / "recognizers" / f"{name}.onnx"
    faces = pixels(2)
    expected = by_onnxruntime(path, (faces - 127.5) / 127.5)
    recognizer = load_recognizer(f"onnx:{path}")
    scale = np.abs(expected).max()
    np.testing.assert_allclose(recognizer(torch.from_numpy(faces) / 255) / scale, expected / scale, rtol=0, atol=1e-5)
    assert gradient_share(recognizer) > 0.9
