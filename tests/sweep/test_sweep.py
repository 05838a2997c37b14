"""A sweep: which study it continues, which SAEs stay, when it ends, and how trials are drawn and pruned."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.locks import only_writer
from fsae_mlflow.parameters import deciding, fingerprint, flat, parse
from fsae_mlflow.sweep.found import Sweep, dominates
from fsae_mlflow.sweep.settings import SweepSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.sweep.searching import SMALL, search


def test_a_trial_has_the_settings_of_its_sweep() -> None:
    shared: dict[str, Any] = {"epochs": 3, "lr": 0.01, "batch_size": 5, "holdout": 0.2, "seed": 4, "device": "cpu"}
    settings = parse(SweepSettings, shared | {"preset": "faithful", "variant": "topk", "k": 9, "output": "x"})
    values = flat(settings.search.settings({"expansion": 2}))
    assert values["expansion"] == 2 and values["k"] == 9 and values["output"] == ""
    assert {name: values[name] for name in shared} == shared


def test_settings_that_do_not_go_together_are_refused() -> None:
    for values, sentence in (
        ({"holdout": 0.0}, "holdout is 0, but trials are compared on held-out people"),
        ({"pruner": "median", "objective": "heldout/fvu,heldout/l0"}, "pruner=median compares one objective"),
        ({"pruner": "median", "objective": "verification/auc"}, "pruner=median compares one objective"),
        ({"sampler": "grid"}, "space: lam is a range, and sampler=grid tries listed values"),
        ({"storage": "postgresql://user:secret@host/x"}, "storage must have no password"),
        ({"storage": "mysql://user:secret@host/x"}, "storage must be sqlite, journal, postgresql://"),
    ):
        with pytest.raises(UserError) as refusal:
            SweepSettings(**values)
        assert str(refusal.value).startswith(sentence) and "secret" not in str(refusal.value)


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
    axes = found.settings.axes
    for trial in found.trials:
        others = [other for other in found.trials if other is not trial]
        assert (trial in found.front) == (not any(dominates(one.costs(axes), trial.costs(axes)) for one in others))
    assert found.best == min(found.trials, key=lambda trial: trial.metrics["heldout/fvu"])
    again = search(template_set, n_trials=4, output=str(tmp_path))
    assert again.trials == found.trials and again.headline == found.headline


def test_an_sae_that_is_still_to_be_logged_stays(template_set: TemplateSet, tmp_path: Path) -> None:
    given: dict[str, Any] = {"sampler": "grid", "space": "lr:0.01|1e-5|2e-5", "variant": "topk", "k": 4, "epochs": 3}
    folder, journal = tmp_path / "é", tmp_path / "é" / "unlogged-1.jsonl"
    folder.mkdir()
    journal.write_text(json.dumps({"do": "path", "path": str(folder / "trial-0001" / "weights.safetensors")}))
    search(template_set, n_trials=3, output=str(folder), **given)
    assert {path.name for path in folder.glob("trial-*")} == {"trial-0000", "trial-0001"}
    journal.unlink()
    search(template_set, n_trials=3, output=str(folder), **given)
    assert {path.name for path in folder.glob("trial-*")} == {"trial-0000"}


def test_the_best_keeps_to_the_limit_and_beats_the_mean(template_set: TemplateSet, tmp_path: Path) -> None:
    found = search(template_set, n_trials=4, output=str(tmp_path))
    l0s = sorted(trial.metrics["heldout/l0"] for trial in found.trials)
    within = Sweep.of(found.study, tmp_path, parse(SweepSettings, SMALL | {"max_l0": (l0s[0] + l0s[1]) / 2}))
    assert within.best is None or within.best.metrics["heldout/l0"] == l0s[0]
    assert found.best is not None and found.best.metrics["heldout/fvu"] < 1
    for trial in found.study.get_trials(deepcopy=False):
        trial.user_attrs["metrics"]["heldout/fvu"] = 1.0
    useless = Sweep.of(found.study, tmp_path, found.settings)
    assert useless.best is None and useless.front == []
    assert not useless.has_room_for({"heldout/fvu": 1.0, "heldout/l0": 0.0})


def test_a_folder_with_the_study_of_another_search_is_refused(template_set: TemplateSet, tmp_path: Path) -> None:
    first = search(template_set, n_trials=1, output=str(tmp_path))
    with pytest.raises(UserError) as refusal:
        search(template_set, n_trials=2, output=str(tmp_path), epochs=2)
    assert str(refusal.value) == (
        f"output: {tmp_path} holds the study of another search (other settings, templates or version); choose another "
        "folder, or leave output empty."
    )
    with pytest.raises(UserError, match="is kept in sqlite; give storage=sqlite to continue it, or another output"):
        search(template_set, n_trials=2, output=str(tmp_path), storage="journal")
    (tmp_path / "study.json").unlink()  # as in version 0.1
    with pytest.raises(UserError, match="another search"):
        search(template_set, n_trials=2, output=str(tmp_path))
    assert len(first.study.trials) == 1


def test_a_second_process_is_told_how_to_share_the_work(template_set: TemplateSet, tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(UserError, match=r"is being written by process .* storage=journal"):
        search(template_set, n_trials=1, output=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_several_objectives_give_their_front(template_set: TemplateSet, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "objective": "verification/auc,heldout/l0,heldout/fvu",
        "n_trials": 3,
        "output": str(tmp_path),
    }
    found = search(template_set, **given)
    assert [direction.name for direction in found.study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    assert found.best == max(found.front, key=lambda trial: trial.metrics["verification/auc"])


def test_a_grid_is_searched_to_its_end_and_no_further(template_set: TemplateSet, tmp_path: Path) -> None:
    given: dict[str, Any] = {"sampler": "grid", "space": "variant:topk|gated,k:2|4,lam:0.1", "output": str(tmp_path)}
    first = search(template_set, n_trials=2, **given)
    assert len(first.trials) == 2
    found = search(template_set, n_trials=9, **given)
    chosen = [trial.chosen for trial in found.trials]
    assert chosen == [{"variant": "topk", "k": 2}, {"variant": "topk", "k": 4}, {"variant": "gated", "lam": 0.1}]


@pytest.mark.parametrize("sampler", ["gp", "random"])
def test_other_samplers_draw_within_the_space(template_set: TemplateSet, tmp_path: Path, sampler: str) -> None:
    found = search(template_set, n_trials=3, sampler=sampler, output=str(tmp_path))
    assert all(1e-3 <= trial.chosen["lam"] <= 1 and trial.chosen["expansion"] in (1, 2) for trial in found.trials)
    assert len({trial.chosen["lam"] for trial in found.trials}) == 3


def test_a_bad_trial_is_pruned(template_set: TemplateSet, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ends: list[str] = []
    # Listed from good to bad: the last cannot keep up with the median of the first four.
    given: dict[str, Any] = {
        "sampler": "grid",
        "space": "lr:0.01|0.009|0.008|0.007|1e-5",
        "pruner": "median",
        "epochs": 6,
    }
    found = search(template_set, ends, n_trials=5, variant="topk", k=4, output=str(tmp_path), **given)
    assert found.n_pruned == 1 and len(found.trials) == 4
    assert ends[:4] == [""] * 4 and ends[4].startswith("pruned after epoch ") and "of 6 by pruner=median" in ends[4]
    assert not (tmp_path / "trial-0004").exists()
    assert f"trial 4 (lr=1e-05): {ends[4]}" in caplog.text


def test_a_search_ends_when_nothing_improves(template_set: TemplateSet, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "sampler": "grid",
        "space": "lr:0.01|1e-5|2e-5|3e-5|4e-5",
        "variant": "topk",
        "k": 4,
        "epochs": 3,
    }
    found = search(template_set, n_trials=5, patience=2, output=str(tmp_path), **given)
    assert [trial.chosen["lr"] for trial in found.trials] == [0.01, 1e-5, 2e-5]


def test_a_search_ends_after_its_minutes(template_set: TemplateSet, tmp_path: Path) -> None:
    assert len(search(template_set, n_trials=500, minutes=1e-9, output=str(tmp_path)).trials) == 0


def test_a_trial_that_fails_does_not_end_the_search(template_set: TemplateSet, tmp_path: Path) -> None:
    ends: list[str] = []
    given: dict[str, Any] = {"sampler": "grid", "variant": "topk", "k": 4, "output": str(tmp_path)}
    found = search(template_set, ends, n_trials=3, space="lr:0.01|1e30|0.02", **given)
    assert [trial.chosen["lr"] for trial in found.trials] == [0.01, 0.02]
    assert "The loss is not finite" in ends[1]


def test_a_search_of_failures_ends_at_once(template_set: TemplateSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="The loss is not finite"):
        search(template_set, n_trials=3, variant="topk", k=4, space="lr:1e30", output=str(tmp_path))


def test_trials_whose_objective_is_no_number_end_the_search(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsae_mlflow.sweep.stage.measured", lambda *_, **__: {"readings/n_kinds": float("nan")})
    with pytest.raises(UserError, match="readings/n_kinds of trial 0 is not a finite number"):
        search(template_set, n_trials=1, objective="readings/n_kinds", minutes=0.05, output=str(tmp_path))
