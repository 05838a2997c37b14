"""λ that is found: L0 reaches its target on people who were not trained on, and the state goes on to the same bits."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.sae.saved import load_sae, read_config
from fsae_mlflow.sae.training import loop
from fsae_mlflow.sae.training.checkpoint import Checkpoints
from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.sae.training.start import start
from fsae_mlflow.sae.training.steps import sparsity
from fsae_mlflow.sae.training.steps.sparsity import steering_rows
from fsae_mlflow.sae.training.steps.trainer import Trainer
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import train_settings
from tests.template_sets import TemplateWriter, face_row

N, WIDTH = 12_000, 32


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, jpeg: bytes) -> TemplateSet:
    """12,000 templates of 3,000 people: sparse mixtures of 64 directions, with a little noise."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(64, WIDTH))
    folder = tmp_path_factory.mktemp("planted")
    weights = rng.uniform(0.5, 1.5, (N, 64)) * (rng.random((N, 64)).argsort(axis=1) < 5)
    templates = weights @ directions + 0.3 * rng.normal(size=(N, WIDTH))
    with TemplateWriter(folder, width=WIDTH, metadata={"name": "planted"}) as writer:
        writer.write([face_row(f"p{i // 4}/{i}.jpg", template, jpeg) for i, template in enumerate(templates)])
    return TemplateSet.open(folder)


@pytest.mark.parametrize(
    ("variant", "own"),
    [
        ("gated", {}),
        ("gated", {"mixup": 1.0}),
        ("relu", {}),
        ("jumprelu", {"bandwidth": 0.1, "initial_threshold": 0.1}),
    ],
)
def test_l0_reaches_its_target_on_people_never_seen(
    variant: str, own: dict[str, float], planted: TemplateSet, tmp_path: Path
) -> None:
    shared = {"target_l0": 8.0, "expansion": 4, "epochs": 10, "batch_size": 128, "lr": 4e-3, "holdout": 0.2}
    settings = train_settings(variant=variant, **shared, **own)
    logged: list[float] = []
    found = train(
        settings,
        templates=planted,
        output=tmp_path,
        on_metrics=lambda metrics, _: logged.append(metrics["lam"]),
    )
    assert found.metrics["heldout/l0"] == pytest.approx(8, rel=0.05)
    assert len(logged) == 10 and found.metrics["lam"] == logged[-1] > 0
    config, loaded = read_config(tmp_path), load_sae(tmp_path)
    assert config["metrics"]["lam"] == config["hyperparameters"]["lam"] == loaded.settings.lam == logged[-1]
    assert config["settings"]["lam"] is None and config["settings"]["target_l0"] == 8
    x = loaded.scaled(torch.from_numpy(planted.templates))
    assert loaded.loss(x).sparsity > 0 and loaded.settings.sparsity_weight() == logged[-1]


def made(templates: TemplateSet, *, steering: TrainingData | None = None, **own: Any) -> Trainer:
    settings = train_settings(**{"expansion": 4, "batch_size": 64, "epochs": 2, **own})
    data = TrainingData(templates, np.ones(len(templates), bool), 10**9)
    return Trainer(settings, start(settings, data)[1], data, steering=steering)


def test_a_correction_by_hand(template_set: TemplateSet) -> None:
    found = made(template_set, target_l0=4.0, epochs=30).sparsity  # 210 steps, corrected every second one
    assert found.n_steps == 210 and found.lam == found.base == 0.25
    found.correct(1, 64.0, 1.0)
    assert found.lam == 0.25
    step = 22
    limit = 4 * 8 ** ((1 - step / 84) ** 2)
    for l0, deviation in (
        (limit * 1.5, math.log(1.5)),
        (limit * 9, 1.0),
        (5.0, 0.0),
        (3.0, math.log(3 / 4)),
        (0.0, -1.0),
    ):
        found.base = 0.25
        found.correct(step, l0, 0.25)
        assert found.base == pytest.approx(0.25 * math.exp(10 * 0.5 * 2 / 210 * deviation))
        assert found.lam == pytest.approx(found.base * math.exp(0.5 * deviation))
    found.base = 0.25
    found.correct(200, 5.0, 1.0)
    assert found.lam > found.base > 0.25
    # JumpReLU's thresholds are slow: what counts is where L0 will be ten corrections later.
    slow = made(template_set, variant="jumprelu", target_l0=4.0, epochs=30).sparsity
    slow.base, slow.former = 0.25, 6.0
    slow.correct(200, 5.9, 1.0)
    deviation = math.log(5.9 * (5.9 / 6) ** 10 / 4)
    assert slow.base == pytest.approx(0.25 * math.exp(20 * 2 / 210 * deviation)) and slow.former == 5.9


def test_l0_is_that_of_the_people_who_steer(template_set: TemplateSet) -> None:
    rows = np.arange(400) < 90
    steering = TrainingData(template_set, rows, 10**9)
    one = made(template_set, steering=steering, target_l0=4.0)
    batch = one.sae.scaled(torch.from_numpy(template_set.templates[200:]))
    people = one.sae.encode(torch.from_numpy(template_set.templates[rows]))
    loss = one.sae.loss(batch)
    found = one.sparsity.l0(0, one.sae, loss, len(batch), Ranks())
    assert float(found) == pytest.approx(float((people > 0).sum() / 90))
    few = dataclasses.replace(loss, counts=torch.full_like(loss.counts, 20))
    assert float(one.sparsity.l0(0, one.sae, few, 200, Ranks())) == pytest.approx(2 * 64 * 20 / 200)
    rare = made(template_set, steering=steering, target_l0=4.0, epochs=30)
    assert rare.sparsity.l0(1, one.sae, loss, len(batch), Ranks()) == 0


def test_who_steers_is_neither_trained_on_nor_held_out(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, np.ndarray] = {}

    def keep(settings: Any, sae: Any, data: TrainingData, ranks: Any, *, space: Any, steering: TrainingData) -> Any:
        seen.update(train=data.rows, steering=steering.rows)
        raise LookupError("seen")

    monkeypatch.setattr(loop, "Trainer", keep)
    for own, n_people in (({}, 4), ({"holdout": 0.0}, 0), ({"lam": 0.1}, 0), ({"variant": "topk", "k": 2}, 0)):
        settings = train_settings(expansion=2, **own)
        with pytest.raises(LookupError):
            train(settings, templates=template_set, output=tmp_path, on_metrics=lambda *_: None)
        held = holdout_rows(template_set.identities, settings.holdout, seed=0)
        assert len(set(template_set.identities[seen["steering"]])) == n_people  # a tenth of 36
        assert (held.astype(int) + seen["steering"] + seen["train"] == 1).all()
    two = np.array(["a", "a", "b"])
    assert not steering_rows(GatedSettings(), two, two == "a", width=16, seed=0).any()


def test_a_target_that_is_none_is_refused_in_one_sentence(template_set: TemplateSet) -> None:
    with pytest.raises(UserError) as refusal:
        made(template_set, target_l0=65.0)
    assert str(refusal.value) == "target_l0 must be at most the number of features, 64; it is 65."
    assert made(template_set, target_l0=64.0).sparsity.target == 64
    with pytest.raises(
        UserError, match=r"lam \(0\.1\) fixes λ, and target_l0 \(8\.0\) finds it; leave one of them out\."
    ):
        train_settings(lam=0.1, target_l0=8.0)


def test_the_best_epoch_has_the_wanted_l0(template_set: TemplateSet, tmp_path: Path) -> None:
    one = made(template_set, target_l0=4.0, keep="best")
    checkpoints = Checkpoints(one, tmp_path, "digest")
    for epoch, (l0, mse) in enumerate([(9.0, 0.1), (4.3, 0.2), (4.19, 0.4), (3.81, 0.3), (3.9, 0.35)]):
        one.step, one.sparsity.lam = 7 * epoch, 0.1 + epoch
        checkpoints.after_epoch(one.sae, {"heldout/l0": l0, "heldout/mse": mse, "heldout/loss_total": -l0})
        assert (checkpoints.best is None) == (epoch < 2)
    assert checkpoints.best is not None
    assert (checkpoints.best["epoch"], checkpoints.best["loss"]) == (3, 0.3)
    assert checkpoints.best["sparsity"]["lam"] == 3.1


def test_the_sae_has_the_lam_of_the_epoch_that_is_kept(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparsity, "TOLERANCE", 0.3)
    logged: list[dict[str, float]] = []
    settings = train_settings(target_l0=6.0, expansion=4, epochs=20, batch_size=64, lr=0.02, keep="best")
    result = train(settings, templates=template_set, output=tmp_path, on_metrics=lambda m, _: logged.append(m))
    near = {epoch: m for epoch, m in enumerate(logged, 1) if abs(m["heldout/l0"] / 6 - 1) <= 0.3}
    best = min(near, key=lambda epoch: near[epoch]["heldout/mse"])
    assert result.metrics["epoch_kept"] == best < 20
    assert result.sae.settings.lam == result.metrics["lam"] == near[best]["lam"] != logged[-1]["lam"]
    assert result.metrics["heldout/loss_total"] == pytest.approx(near[best]["heldout/loss_total"], rel=1e-4)


def test_an_l0_that_is_not_reached_is_said(
    template_set: TemplateSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = train_settings(target_l0=2.0, expansion=4, epochs=1, batch_size=64)
    train(settings, templates=template_set, output=tmp_path, on_metrics=lambda *_: None)
    assert "and not target_l0 2; take more steps" in caplog.text


def test_a_state_without_its_lam_is_not_taken(template_set: TemplateSet) -> None:
    one = made(template_set, target_l0=4.0)
    one.run_epoch(lambda: None)
    state = one.state()
    one.require_own(state)
    own = state["sparsity"]
    assert own["base"] != own["lam"] and own["former"] > 0
    for damaged in ({}, {"base": 0.1}, own | {"base": 0.0}, own | {"lam": math.nan}, own | {"former": "1"}):
        with pytest.raises(ValueError, match="λ"):
            one.require_own(state | {"sparsity": damaged})
    with pytest.raises(ValueError, match="λ"):
        made(template_set, lam=0.1).require_own(state)
    other = made(template_set, target_l0=4.0)
    other.load_state(state)
    assert other.sparsity.state() == state["sparsity"]
