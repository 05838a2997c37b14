"""A registered model that carries its recognizer: pictures in, features and why they match out."""

import base64
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from onnx import TensorProto, helper, numpy_helper

from fsae_mlflow.errors import UserError
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.extraction.stage import extract
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.sae.saved import load_sae
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.models.embedded import EmbeddableRecognizer, EmbeddedRecognizer
from fsae_mlflow.tracking.models.logged import PICTURE_REQUIREMENTS, REQUIREMENTS
from tests.sae.making import train_settings
from tests.tracking.models.made import register
from tests.tracking.models.serving import post, served
from tests.tracking.models.test_served_model import imported

SCRIPT = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model("models:/small/1")
answer = model.predict(json.load(open("pictures.json")), params={"output": "match"})
files = [m.__file__ for m in list(sys.modules.values()) if m.__name__.split(".")[0] == "fsae_mlflow"]
print(json.dumps({"similarity": answer["similarity"], "files": files}))
"""


@dataclass(frozen=True)
class Made:
    """Templates of ORL by the recognizer tiny, an SAE of them, and the pictures' bytes by row."""

    templates: TemplateSet
    sae: Path
    pictures: list[bytes]


@pytest.fixture(scope="module")
def made(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("embedded")
    settings = ExtractSettings(faces=str(faces), enlarge=2, pad=0.2, workers=0, output=str(folder / "extract"))
    templates = extract(settings, on_metrics=lambda *_: None).templates
    training = train_settings(variant="topk", k=8, expansion=1, epochs=1, batch_size=8)
    train(training, templates=templates, output=folder / "sae", on_metrics=lambda *_: None)
    return Made(templates, folder / "sae", [(faces / name).read_bytes() for name in templates.image_ids])


@pytest.fixture
def model(made: Made, store: str) -> mlflow.pyfunc.PyFuncModel:
    # The same weights without the recognizer come first: there is one version all the same.
    assert [register(made.sae, recognizer=one)[0] for one in (None, EmbeddableRecognizer.of(made.templates))] == [
        "1",
        "1",
    ]
    return mlflow.pyfunc.load_model("models:/small/1")


def test_pictures_give_what_their_templates_give(made: Made, model: mlflow.pyfunc.PyFuncModel, tmp_path: Path) -> None:
    expected = load_sae(made.sae).encode(torch.from_numpy(made.templates.templates[:2])).detach().numpy()
    pictures = made.pictures[:2]
    text = [base64.encodebytes(one).decode() for one in pictures]
    for given in (pictures, text, np.array(text), {"picture": text}, pd.DataFrame({"picture": pictures})):
        np.testing.assert_allclose(model.predict(given), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(model.predict(made.templates.templates[:2]), expected, rtol=1e-5, atol=1e-5)
    for given, sentence in (
        ([pictures[0], b"no picture"], "Picture 1 gives no template: The file is not a picture in a format"),
        (["no base64!"], "Picture 0 is not base64 text"),
    ):
        with pytest.raises(MlflowException, match=sentence):
            model.predict(given)

    # A process of its own runs the code, the recognizer and the detector that the model and its requirements bring.
    (tmp_path / "pictures.json").write_text(json.dumps(text))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    first, second = made.templates.templates[:2]
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert answer["similarity"] == pytest.approx(cosine, abs=1e-3)
    files = [Path(one) for one in answer["files"] if one]
    assert all(path.is_relative_to(tmp_path) for path in files)
    packages = {name.replace("-", "_") for name in (*REQUIREMENTS, *PICTURE_REQUIREMENTS)}
    assert set().union(*map(imported, files)) <= sys.stdlib_module_names | packages | {
        "fsae_mlflow",
        "PIL",
        "pydantic_core",
    }
    root = Path(mlflow.artifacts.download_artifacts("models:/small/1"))
    for name in ("requirements.txt", "conda.yaml"):
        assert all(f"{package}==" in (root / name).read_text() for package in (*REQUIREMENTS, *PICTURE_REQUIREMENTS))


@pytest.mark.usefixtures("model")
def test_a_server_answers_two_pictures_with_why_they_match(made: Made) -> None:
    text = [base64.b64encode(one).decode() for one in made.pictures[:2]]
    first, second = made.templates.templates[:2]
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    with served("models:/small/1") as address:
        status, answer = post(address, json.dumps({"inputs": text, "params": {"output": "match", "k": 3}}).encode())
        assert status == 200 and answer["predictions"]["similarity"] == pytest.approx(cosine, abs=1e-3)
        assert len(answer["predictions"]["features"]) == 3
        status, answer = post(address, json.dumps({"inputs": ["no base64!"]}).encode())
        assert status == 400 and "Picture 0 is not base64 text" in answer["message"]


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"recognizer": "facenet"}, "takes the recognizers tiny, student:… and onnx:…, .* are of 'facenet'"),
        ({}, "do not belong together; put the weights that made the templates back"),
    ],
)
def test_a_recognizer_that_cannot_be_carried_is_refused(made: Made, change: dict[str, Any], sentence: str) -> None:
    metadata = made.templates.metadata
    card = metadata["recognizer"] | {"weights_sha256": "0" * 64}
    changed = {"recognizer": card, "settings": metadata["settings"] | change}
    with pytest.raises(UserError, match=sentence):
        EmbeddableRecognizer.of(replace(made.templates, metadata=metadata | changed))


@pytest.mark.parametrize("in_one_file", [True, False])
def test_an_onnx_recognizer_is_carried_as_one_file(made: Made, tmp_path: Path, *, in_one_file: bool) -> None:
    path = tmp_path / "mean.onnx"
    weight = numpy_helper.from_array(np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1), "weight")
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["a"]),
        helper.make_node("Mul", ["a", "weight"], ["b"]),
        helper.make_node("Flatten", ["b"], ["template"]),
    ]
    shapes = {"input": ["n", 3, 112, 112], "template": ["n", 3]}
    given, taken = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    model = helper.make_model(
        helper.make_graph(nodes, "mean", [given], [taken], [weight]), opset_imports=[helper.make_opsetid("", 13)]
    )
    onnx.save(model, path, save_as_external_data=not in_one_file, location="weights.data", size_threshold=0)

    metadata = made.templates.metadata
    name = f"onnx:{path}"
    changed = {
        "recognizer": asdict(load_recognizer(name).card),
        "settings": metadata["settings"] | {"recognizer": name},
    }
    templates = replace(made.templates, metadata=metadata | changed)
    if not in_one_file:
        with pytest.raises(UserError, match=r"mean\.onnx has its weights in files beside it; export it as one file"):
            EmbeddableRecognizer.of(templates)
        return
    folder = EmbeddableRecognizer.of(templates).write(tmp_path / "carried")
    path.unlink()
    assert {one.name for one in folder.iterdir()} == {"about.json", "card.json", "weights.onnx"}
    assert EmbeddedRecognizer(folder).templates(made.pictures[:2]).shape == (2, 3)
