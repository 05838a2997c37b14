"""The served model: what it takes and gives, what it carries, and that those of earlier versions load."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from onnx import numpy_helper
from PIL import Image
from safetensors.numpy import load_file

import fsae_mlflow
from fsae_mlflow.explanation.contributions import Decoder, contributions
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.saved import digest, load_sae
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.models.card import add_readings
from fsae_mlflow.tracking.models.logged import REQUIREMENTS
from fsae_mlflow.tracking.models.readings import Shipped
from tests.pictures import encoded
from tests.tracking.models.made import FIXTURES, GATED

EXPECTED = load_file(GATED / "expected.safetensors")


@pytest.fixture(scope="module")
def templates() -> np.ndarray:
    return TemplateSet.open(FIXTURES / "templates").templates


@pytest.fixture(scope="module")
def model(registered: str) -> mlflow.pyfunc.PyFuncModel:
    return mlflow.pyfunc.load_model(registered)


@pytest.fixture(scope="module")
def model_that_reads(
    registered: str, model: mlflow.pyfunc.PyFuncModel, tmp_path_factory: pytest.TempPathFactory
) -> mlflow.pyfunc.PyFuncModel:
    """Feature 5 means Male; of all others no name is confirmed."""
    tmp_path, n = tmp_path_factory.mktemp("readings"), load_sae(GATED).d_sae
    known = {"reading": [f"feature {j}" for j in range(n)], "attribute": ["Male" if j == 5 else "" for j in range(n)]}
    Shipped(templates="set", identity=[""] * n, pose=[""] * n, **known).write(tmp_path / "readings.json")
    (logged,) = mlflow.search_logged_models(output_format="list")
    add_readings(mlflow.MlflowClient(), logged.model_id, tmp_path / "readings.json")
    return mlflow.pyfunc.load_model(registered)


@pytest.mark.parametrize("earlier", ["version_0_1", "models/format_1", "models/format_2"])
def test_a_model_of_an_earlier_version_loads(earlier: str, templates: np.ndarray) -> None:
    model = mlflow.pyfunc.load_model(str(FIXTURES.parent / earlier / "model"))
    np.testing.assert_allclose(model.predict(templates), EXPECTED["features"], rtol=1e-5, atol=1e-6)
    reconstruction = model.predict(templates, params={"output": "reconstruction"})
    np.testing.assert_allclose(reconstruction, EXPECTED["reconstruction"], rtol=1e-5, atol=1e-6)


def test_the_readings_of_a_model_of_format_2_are_read(templates: np.ndarray) -> None:
    model = mlflow.pyfunc.load_model(str(FIXTURES.parent / "models" / "format_2" / "model"))
    assert not model.predict(templates, params={"without": "attribute:Male, pose:left"})[:, [5, 7]].any()
    read = model.predict(templates, params={"output": "readings", "k": 1})
    assert read["readings"][0] == [f"Feature {read['features'][0][0]}."]


def test_a_model_of_format_2_takes_pictures() -> None:
    folder = FIXTURES.parent / "models" / "format_2_pictures" / "model"
    colors = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
    faces = colors.repeat(56, axis=1).repeat(56, axis=2)
    (weight,) = onnx.load(folder / "artifacts" / "recognizer" / "weights.onnx").graph.initializer
    templates = (colors.mean(axis=(1, 2)) / 127.5 - 1) @ numpy_helper.to_array(weight)[:, :, 0, 0].T
    expected = load_sae(GATED).encode(torch.from_numpy(templates).float()).numpy()
    features = mlflow.pyfunc.load_model(str(folder)).predict([encoded(Image.fromarray(face)) for face in faces])
    assert expected.any()
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


LOAD = """
import sys
import mlflow, numpy as np
model = mlflow.pyfunc.load_model("models:/small/1")
np.save("features.npy", model.predict(np.load("templates.npy")))
for module in list(sys.modules.values()):
    if module.__name__.split(".")[0] == "fsae_mlflow":
        print(module.__file__)
"""


def test_it_carries_its_version_its_code_and_its_requirements(
    model: mlflow.pyfunc.PyFuncModel, templates: np.ndarray, tmp_path: Path
) -> None:
    metadata = model.metadata.metadata
    known = {"fsae_mlflow": fsae_mlflow.__version__, "fsae.format": "2", "fsae.digest": digest(GATED)}
    assert known.items() <= metadata.items() and (metadata["d_in"], metadata["d_sae"]) == (8, 32)

    # A process of its own, in a folder without the project, runs the code that the model carries; pickle is forbidden.
    np.save(tmp_path / "templates.npy", templates)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), EXPECTED["features"], rtol=1e-5, atol=1e-6)
    files = [Path(line) for line in done.stdout.splitlines() if line.endswith(".py")]
    store = Path(mlflow.get_tracking_uri().removeprefix("sqlite:///")).parent
    assert files and all(path.is_relative_to(store) for path in files)
    standard = sys.stdlib_module_names | {"fsae_mlflow"} | {name.replace("-", "_") for name in REQUIREMENTS}
    assert set().union(*map(imported, files)) <= standard


@pytest.mark.parametrize(
    "given",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.tolist(),
        lambda x: pd.DataFrame(x),
        lambda x: pd.DataFrame({"image_id": "a", "template": list(x)}),
        lambda x: pd.DataFrame({"0": x.tolist()}),
        lambda x: {"template": x.tolist()},
    ],
)
def test_it_takes_templates_in_many_forms(model: mlflow.pyfunc.PyFuncModel, templates: np.ndarray, given: Any) -> None:
    np.testing.assert_allclose(model.predict(given(templates)), EXPECTED["features"], rtol=1e-5, atol=1e-6)


def test_it_takes_one_template(model: mlflow.pyfunc.PyFuncModel, templates: np.ndarray) -> None:
    np.testing.assert_allclose(model.predict(templates[3]), EXPECTED["features"][3:4], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "given, sentence",
    [
        (np.zeros((2, 9)), r"The input has the shape \(2, 9\); give templates as .* of shape \(n, 8\) or \(8,\), or a"),
        ([["a"] * 8], "The input is not a table of numbers"),
        ({"picture": [1]}, "The input has the keys picture; give templates"),
        ([b"picture"], "carries no recognizer for them; train with embed_recognizer=true, or give templates"),
        (np.full((2, 8), np.nan), "must be finite numbers; row 0 is not"),
    ],
)
def test_it_refuses_anything_else(model: mlflow.pyfunc.PyFuncModel, given: Any, sentence: str) -> None:
    with pytest.raises(MlflowException, match=sentence):
        model.predict(given)


def test_top_has_the_strongest_features_that_fire(model: mlflow.pyfunc.PyFuncModel, templates: np.ndarray) -> None:
    features = EXPECTED["features"]
    for k, most in ((3, 3), (0, features.shape[1])):
        top = model.predict(templates, params={"output": "top", "k": k})
        assert len(top) == len(templates)
        for row, numbers, activations in zip(features, top["features"], top["activations"], strict=True):
            assert len(numbers) == min(most, int((row > 0).sum()))
            np.testing.assert_allclose(activations, np.sort(row)[::-1][: len(numbers)], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(activations, row[numbers], rtol=1e-5, atol=1e-6)


def test_features_are_left_out_by_number(model: mlflow.pyfunc.PyFuncModel, templates: np.ndarray) -> None:
    features = model.predict(templates)
    fired = np.argsort(-(features > 0).sum(axis=0))[:2].tolist()
    without = {"without": f"{fired[0]}, {fired[1]}"}
    left = model.predict(templates, params=without)
    assert (features[:, fired] > 0).any() and not left[:, fired].any()
    features[:, fired] = 0
    np.testing.assert_array_equal(left, features)
    reconstruction = model.predict(templates, params=without | {"output": "reconstruction"})
    decoded = load_sae(GATED).decode(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(reconstruction, decoded, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "params, sentence",
    [
        ({"without": "attribute:Male"}, "needs to know what the features mean; this model has no readings: run desc"),
        ({"output": "readings"}, "output=readings needs to know what the features mean; .* or ask for output=top"),
        ({"without": "32"}, "or numbers from 0 to 31 .*d_sae is 32"),
        ({"output": "all"}, "output must be one of features, top, readings, reconstruction, match; it is 'all'"),
        ({"output": "match"}, "output=match takes two templates or pictures; there are 48"),
        ({"k": -1}, "k must be at least 0; it is -1"),
    ],
)
def test_it_refuses_parameters_in_a_sentence(
    model: mlflow.pyfunc.PyFuncModel, templates: np.ndarray, params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(MlflowException, match=sentence):
        model.predict(templates, params=params)


def test_it_says_what_features_mean(model_that_reads: mlflow.pyfunc.PyFuncModel, templates: np.ndarray) -> None:
    read = model_that_reads.predict(templates, params={"output": "readings", "k": 2})
    assert list(read["readings"]) == [[f"feature {j}" for j in row] for row in read["features"]]
    left = model_that_reads.predict(templates, params={"without": "attribute:Male"})
    assert EXPECTED["features"][:, 5].any() and not left[:, 5].any()
    with pytest.raises(MlflowException, match="no feature has the confirmed attribute 'Mele'; there are Male"):
        model_that_reads.predict(templates, params={"without": "attribute:Mele"})


def test_it_says_why_two_templates_match(model_that_reads: mlflow.pyfunc.PyFuncModel, templates: np.ndarray) -> None:
    sae, (first, second) = load_sae(GATED), ([0], [1])
    entries = Entries.of(sae.encode(torch.from_numpy(templates[:2])).numpy())
    expected = contributions(Decoder.of(sae), entries, templates[:2], np.array(first), np.array(second))
    match = model_that_reads.predict(templates[:2], params={"output": "match", "k": 0})
    for name in ("decoded", "constant"):
        assert match[name] == pytest.approx(getattr(expected, name)[0], rel=1e-4)
    assert match["similarity"] == pytest.approx(expected.original[0], rel=1e-4)
    by_feature = {one["feature"]: one for one in match["features"]}
    assert sorted(by_feature) == expected.feature.tolist()
    for place, feature in enumerate(expected.feature.tolist()):
        assert by_feature[feature]["contribution"] == pytest.approx(expected.value[place], rel=1e-3, abs=1e-6)
        assert by_feature[feature]["reading"] == f"feature {feature}"
    assert match["decoded"] == pytest.approx(
        match["constant"] + sum(one["contribution"] for one in match["features"]), rel=1e-5
    )
    most = model_that_reads.predict(templates[:2], params={"output": "match", "k": 2})["features"]
    assert most == match["features"][:2]


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {
        name.split(".")[0]
        for node in nodes
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
