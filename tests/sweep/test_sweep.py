"""A sweep: what names its study, which study it continues, and which SAEs stay."""

import sqlite3
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.locks import only_writer
from fsae_mlflow.parameters import deciding, fingerprint, flat
from fsae_mlflow.sweep.settings import SweepSettings
from fsae_mlflow.sweep.stage import FINGERPRINT, Sweep, sweep
from fsae_mlflow.templates.set import TemplateSet

SMALL: dict[str, Any] = {"epochs": 1, "expansions": "1,2", "max_l0": 1000.0}
DIGEST = "0123456789abcdef"
# As version 0.1 computed them.
KNOWN = [
    (SweepSettings(), "52e3cdf78cc9"),
    (
        SweepSettings(
            **SMALL | {"epochs": 2, "max_l0": 64.0},
            templates="set",
            n_trials=3,
            objective="pareto",
            lam_min=0.01,
            lam_max=0.5,
            register=False,
            model_name="other",
            seed=7,
            device="cpu",
            output="x",
        ),
        "b1afaca3acca",
    ),
]


def search(templates: TemplateSet, **settings: Any) -> Sweep:
    return sweep(
        SweepSettings(**SMALL | settings), templates=templates, trial_run=lambda *_: nullcontext(lambda *_: None)
    )


def study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="sweep", storage=f"sqlite:///{folder / 'study.db'}")


@pytest.mark.parametrize(("settings", "name"), KNOWN)
def test_the_fingerprint_is_that_of_version_0_1(settings: SweepSettings, name: str) -> None:
    assert fingerprint(deciding(settings) | {"digest": DIGEST}) == name


def test_a_trial_has_the_settings_of_its_sweep() -> None:
    settings = SweepSettings(epochs=3, lr=0.01, batch_size=5, holdout=0.2, seed=4, device="cpu", output="x")
    values = flat(settings.trial(0.5, 2))
    assert values["lam"] == 0.5 and values["expansion"] == 2 and values["output"] == ""
    same = ("epochs", "lr", "batch_size", "holdout", "seed", "device", "templates")
    assert {name: values[name] for name in same} == {name: flat(settings)[name] for name in same}


def test_the_default_folder_is_named_by_the_search(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = search(template_set, n_trials=1)
    name = fingerprint(deciding(SweepSettings(**SMALL)) | {"digest": template_set.digest})
    assert found.folder == Path("outputs/sweep") / name and (found.folder / "study.db").is_file()


def test_only_saes_on_the_front_stay(template_set: TemplateSet, tmp_path: Path) -> None:
    found = search(template_set, n_trials=4, output=str(tmp_path))
    assert found.folder == tmp_path and len(found.trials) == len(found.rows) == len(found.points) == 4
    assert {path.name for path in tmp_path.glob("trial-*")} == {trial.folder.name for trial in found.front}
    for trial in found.trials:
        dominated = any(other.fvu < trial.fvu and other.l0 <= trial.l0 for other in found.trials)
        assert (trial in found.front) == (not dominated)
    assert found.best == min(found.trials, key=lambda trial: trial.fvu)
    assert search(template_set, n_trials=4, output=str(tmp_path), max_l0=1000.0) == found


def test_a_folder_with_the_study_of_another_search_is_refused(template_set: TemplateSet, tmp_path: Path) -> None:
    search(template_set, n_trials=1, output=str(tmp_path))
    with pytest.raises(ValueError) as refusal:
        search(template_set, n_trials=2, output=str(tmp_path), epochs=2)
    assert str(refusal.value) == (
        f"output: {tmp_path} holds the study of another search (other settings or templates); "
        "choose another folder, or leave output empty."
    )
    assert len(study(tmp_path).trials) == 1


def test_a_study_of_version_0_1_is_continued(template_set: TemplateSet, tmp_path: Path) -> None:
    first = search(template_set, n_trials=2, output=str(tmp_path))
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("delete from study_user_attributes")
        database.execute("update trial_user_attributes set key = 'figures' where key = 'metrics'")
    assert "figures" in study(tmp_path).trials[0].user_attrs and FINGERPRINT not in study(tmp_path).user_attrs
    second = search(template_set, n_trials=3, output=str(tmp_path))
    assert second.trials[:2] == first.trials and len(second.trials) == 3
    assert FINGERPRINT in study(tmp_path).user_attrs


def test_two_sweeps_do_not_write_to_one_study(template_set: TemplateSet, tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(UserError, match="is being written by process"):
        search(template_set, n_trials=1, output=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
