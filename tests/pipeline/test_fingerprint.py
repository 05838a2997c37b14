"""What decides whether a stage runs again."""

from pathlib import Path

import pytest

from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.features.settings import DescribeSettings
from fsae_mlflow.pipeline.fingerprint import UnknownContentError, code_digest, stage_fingerprint
from fsae_mlflow.verification.settings import EvaluateSettings

MADE = {"run-1": "same", "run-2": "same", "run-3": "other", "run-4": "sae"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's root as working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "entrypoints").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["numpy>=2"]')
    return tmp_path


def described(templates: str = "run-1", **values: object) -> str:
    return stage_fingerprint("describe", DescribeSettings(templates=templates, sae="run-4", **values), MADE)


def test_inputs_count_by_content_and_settings_by_what_they_decide(project: Path) -> None:
    assert described("run-1") == described("run-2") != described("run-3")
    assert described(batch_size=7, device="cuda") == described() != described(seed=1)
    assert described(force=True) != described() != described(output="elsewhere")
    assert stage_fingerprint("compare", DescribeSettings(templates="run-1", sae="run-4"), MADE) != described()


def test_files_count_by_content_and_folders_by_their_files(project: Path) -> None:
    labels, weights, pairs = project / "labels.csv", project / "weights.onnx", project / "lfw"
    for path in (labels, weights, pairs / "pairs.txt"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("1")
    given = EvaluateSettings(templates="run-1", sae="run-4", attributes=str(labels), pairs=str(pairs))
    before = [described(judge=f"onnx:{weights}"), stage_fingerprint("evaluate_lfw", given, MADE)]
    labels.touch()
    assert before == [described(judge=f"onnx:{weights}"), stage_fingerprint("evaluate_lfw", given, MADE)]
    weights.write_text("2")
    assert described(judge=f"onnx:{weights}") != before[0]
    for path in (labels, pairs / "views.txt"):
        path.write_text("2")
        after = stage_fingerprint("evaluate_lfw", given, MADE)
        assert after != before[1]
        before[1] = after


@pytest.mark.parametrize("sae", ["latest", "models:/fsae@champion", "models:/fsae/latest", "s3://bucket/sae"])
def test_what_may_mean_another_thing_tomorrow_is_unknown(sae: str) -> None:
    with pytest.raises(UnknownContentError):
        stage_fingerprint("describe", DescribeSettings(templates="run-1", sae=sae), MADE)
    stage_fingerprint("describe", DescribeSettings(templates="run-1", sae="models:/fsae/1"), MADE)


def test_pictures_elsewhere_are_unknown(project: Path) -> None:
    (project / "faces.csv").write_text("path,identity\nfaces/1.png,a\nmemory://faces/2.png,b\n")
    (project / "faces").mkdir()
    (project / "faces" / "1.png").write_bytes(b"1")
    with pytest.raises(UnknownContentError):
        stage_fingerprint("extract", ExtractSettings(faces="faces.csv"), {})
    stage_fingerprint("extract", ExtractSettings(faces="faces"), {})


def test_code_counts(project: Path) -> None:
    before = code_digest()
    (project / "entrypoints" / "extract.py").write_text("pass")
    changed = code_digest()
    (project / "pyproject.toml").write_text('[project]\ndependencies = ["numpy>=2", "scipy[all]>=1"]')
    assert len({before, changed, code_digest()}) == 3
