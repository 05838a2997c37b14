"""A registered model behind HTTP, on the command line, and on a template set: as docs/serving.md shows it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from tests.tracking.models.made import FIXTURES, GATED
from tests.tracking.models.serving import post, served

EXPECTED = load_file(GATED / "expected.safetensors")["features"]
SHARDS = sorted((FIXTURES / "templates").glob("templates-*.parquet"))


@pytest.fixture(scope="module")
def command(registered: str) -> list[str]:
    """`mlflow models`, to be followed by a subcommand and its options."""
    return [sys.executable, "-m", "mlflow", "models"]


@pytest.fixture(scope="module")
def address(registered: str) -> Iterator[str]:
    with served(registered) as address:
        yield address


def test_a_server_answers(address: str) -> None:
    templates = np.concatenate([np.stack(pd.read_parquet(shard)["template"]) for shard in SHARDS])
    status, answer = post(address, json.dumps({"inputs": templates[:2].tolist()}).encode())
    assert status == 200
    np.testing.assert_allclose(answer["predictions"], EXPECTED[:2], rtol=1e-4, atol=1e-6)

    params = {"output": "top", "k": 2}
    _, answer = post(address, json.dumps({"inputs": templates[:2].tolist(), "params": params}).encode())
    assert [set(row) for row in answer["predictions"]] == [{"features", "activations"}] * 2
    assert [len(row["features"]) for row in answer["predictions"]] == [2, 2]

    params = {"output": "match", "k": 3}
    _, answer = post(address, json.dumps({"inputs": templates[:2].tolist(), "params": params}).encode())
    assert -1 <= answer["predictions"]["similarity"] <= 1 and len(answer["predictions"]["features"]) == 3

    status, answer = post(address, json.dumps({"inputs": [[1.0, 2.0]]}).encode())
    assert status == 400 and "The input has the shape (1, 2); give templates" in answer["message"]

    # A shard of a template set is a request as it is.
    status, answer = post(address, SHARDS[0].read_bytes(), "application/vnd.apache.parquet")
    assert status == 200
    np.testing.assert_allclose(answer["predictions"], EXPECTED[: len(answer["predictions"])], rtol=1e-4, atol=1e-6)


def test_the_command_line_predicts(registered: str, command: list[str], tmp_path: Path) -> None:
    given, answer = tmp_path / "templates.json", tmp_path / "features.json"
    given.write_text(json.dumps({"inputs": np.ones((2, 8)).tolist()}))
    subprocess.run(
        [*command, "predict", "-m", registered, "-i", given, "-o", answer, "-t", "json", "--env-manager", "local"],
        env=os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()},
        check=True,
    )
    predicted = json.loads(answer.read_text())["predictions"]
    features = mlflow.pyfunc.load_model(registered).predict(np.ones((2, 8)))
    np.testing.assert_allclose(predicted, features, rtol=1e-4, atol=1e-6)


def test_a_template_set_is_scored_with_pandas(registered: str) -> None:
    table = pd.concat(map(pd.read_parquet, SHARDS))
    top = mlflow.pyfunc.load_model(registered).predict(table, params={"output": "top", "k": 1})
    assert len(top) == len(EXPECTED)
    fires = (EXPECTED > 0).any(axis=1)
    assert [row[0] for row in top["features"][fires]] == EXPECTED[fires].argmax(axis=1).tolist()
