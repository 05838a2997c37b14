"""What a trainer counts, chooses and refuses."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.sae.training import loop, stage
from fsae_mlflow.sae.training.checkpoint import Checkpoints
from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.sae.training.measures import measure
from fsae_mlflow.sae.training.start import start
from fsae_mlflow.sae.training.steps import trainer
from fsae_mlflow.sae.training.steps.resampling import NewDirections, draw_directions, revive
from fsae_mlflow.sae.training.steps.schedule import learning_rate
from fsae_mlflow.sae.training.steps.trainer import Trainer
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import train_settings


def made(templates: TemplateSet, **settings: Any) -> Trainer:
    chosen = train_settings(**{"expansion": 2, "batch_size": 64, "epochs": 2, **settings})
    data = TrainingData(templates, np.ones(len(templates), bool), 10**9)
    return Trainer(chosen, start(chosen, data)[1], data)


def test_an_epoch_reports_the_mean_over_its_templates(
    template_set: TemplateSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made(template_set, lr=1e-12, lr_end=0.0, batch_size=150, lam=0.1)
    now = 0.0

    def passing(seconds: float) -> None:
        nonlocal now
        now += seconds

    run_step = Trainer.run_step
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: now)
    monkeypatch.setattr(Trainer, "run_step", lambda self, batch: (passing(2), run_step(self, batch))[1])
    with torch.no_grad():
        one.sae.b_gate[5] = -1e6
    x = one.sae.scaled(torch.from_numpy(template_set.templates))
    expected = one.sae.loss(x).as_floats()
    assert one.templates_per_second == 0
    found = one.run_epoch(lambda: passing(100))
    for term, value in expected.items():
        assert found[f"train/step_loss_{term}"] == pytest.approx(value, rel=1e-5)
    assert (one.step, one.epoch, one.steps_since_resampling, one.n_steps) == (3, 1, 3, 6)
    assert one.seconds == 6 and one.templates_timed == 400
    assert found["templates_per_second"] == one.templates_per_second == 400 / 6
    assert found["n_resampled"] == 0 and found["n_dead"] == 1
    assert one.templates_since_fired[5] == 400 and one.templates_since_fired.min() == 0


def test_an_epoch_s_end_resamples_its_dead_features(template_set: TemplateSet) -> None:
    one = made(template_set, resample_every=1, resample_until=1.0, lam=0.0)
    with torch.no_grad():
        one.sae.b_gate[5] = -1e6
    found = one.run_epoch(lambda: None)
    assert found["n_resampled"] == found["n_dead"] == 1
    assert one.steps_since_resampling == 0 and one.sae.b_gate[5] == 0


def test_random_numbers_are_those_of_version_0_1(template_set: TemplateSet) -> None:
    """Else a checkpoint of that version would go on with other batches."""
    assert made(template_set, seed=2)._generator(3).initial_seed() == 2_000_009


def test_the_fused_step_is_chosen_by_the_work(template_set: TemplateSet, monkeypatch: pytest.MonkeyPatch) -> None:
    work = 7 * (2 * 7) * 64 * (32 * 16)  # 2 epochs of 7 steps
    monkeypatch.setattr(trainer, "FUSED_ABOVE", work)
    assert made(template_set)._fused is None
    assert made(template_set, step="fused")._fused is not None
    monkeypatch.setattr(trainer, "FUSED_ABOVE", work - 1)
    assert made(template_set)._fused is not None
    assert made(template_set, step="plain")._fused is None


def test_what_needs_the_cpu_is_refused_elsewhere(template_set: TemplateSet) -> None:
    data = TrainingData(template_set, np.ones(400, bool), 10**9)
    sae = GatedSAE(16, 32, GatedSettings())
    elsewhere = GatedSAE(16, 32, GatedSettings()).to("meta")
    with pytest.raises(UserError, match="step=fused runs on the CPU, and the device is meta"):
        Trainer(train_settings(step="fused"), elsewhere, data)
    assert Trainer(train_settings(), elsewhere, data)._fused is None
    two = Ranks(0, 2)
    with pytest.raises(UserError, match="needs the fused step"):
        Trainer(train_settings(step="plain"), sae, data, two)
    assert Trainer(train_settings(), sae, data, two)._fused is not None


def test_what_is_kept_is_said_in_words(template_set: TemplateSet, tmp_path: Path) -> None:
    one = made(template_set)
    checkpoints = Checkpoints(one, tmp_path, "digest")
    assert checkpoints.kept.startswith("no checkpoint was saved")
    for saved, step, words in (
        (3, 3, "the same command goes on from there"),
        (3, 5, "the steps up to 3 are kept, and"),
        (14, 14, "all steps are kept"),
    ):
        checkpoints.saved_step, one.step = saved, step
        assert checkpoints.kept.startswith(words)


def test_the_best_epoch_is_that_of_the_least_loss(template_set: TemplateSet, tmp_path: Path) -> None:
    for variant, own, name in (("gated", {"lam": 0.1}, "heldout/loss_total"), ("topk", {}, "heldout/mse")):
        one = made(template_set, keep="best", variant=variant, **own)
        checkpoints = Checkpoints(one, tmp_path, "digest")
        for epoch, loss in enumerate((3.0, 2.0, 2.0, 4.0)):
            one.step = 7 * epoch
            other = "heldout/mse" if variant == "gated" else "heldout/loss_total"
            checkpoints.after_epoch(one.sae, {name: loss, other: -float(epoch)})
        assert checkpoints.best is not None
        assert (checkpoints.best["epoch"], checkpoints.best["loss"]) == (1, 2.0)  # the first of equal ones


def test_an_eighth_of_a_side_is_measured_after_an_epoch(template_set: TemplateSet) -> None:
    sizes = {n: loop._n_measured(TrainingData(template_set, np.ones(n, bool), 1)) for n in (80, 16_000, 10**6)}
    assert sizes == {80: 1024, 16_000: 2000, 10**6: 10_000}


def test_memory_of_templates_and_of_an_sae(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(stage, "require_memory", lambda *arguments: asked.append(arguments))
    stage.require_room(3, template_set)
    assert asked[0][0] == 24 * 3 * 16 * 16  # W_enc and W_dec, each with two moments, four bytes a number
    bounds: list[int] = []

    def seen(settings: Any, data: dict[str, TrainingData], *_: Any) -> Any:
        bounds.extend(side.max_bytes for side in data.values())
        raise LookupError("seen")

    monkeypatch.setattr(stage, "_finished", seen)
    for memory in (1e12, 1e9):
        monkeypatch.setattr(stage, "machine_memory", lambda found=memory: found)
        with pytest.raises(LookupError, match="seen"):
            stage.train(
                train_settings(max_gigabytes=2.0), templates=template_set, output=tmp_path, on_metrics=lambda *_: None
            )
    assert bounds == 2 * [2**31] + 2 * [10**9]


def test_the_learning_rate_by_hand() -> None:
    constant = train_settings(lr=1e-2, lr_schedule="constant", lr_warmup=9)
    assert learning_rate(constant, 50, 101, 1000) == pytest.approx(1e-2)
    assert [learning_rate(constant, 50, 101, n) for n in (0, 4, 9, 10)] == pytest.approx([1e-3, 5e-3, 1e-2, 1e-2])
    cosine = train_settings(lr=1e-2, lr_end=1e-4)
    assert learning_rate(cosine, 0, 1, 0) == pytest.approx(1e-2)
    assert learning_rate(cosine, 25, 101, 0) == pytest.approx(1e-4 + 99e-4 * 0.5 * (1 + math.sqrt(0.5)))


def test_a_set_that_just_fits_is_in_memory(template_set: TemplateSet) -> None:
    rows = np.ones(400, bool)
    assert TrainingData(template_set, rows, 400 * 16 * 4).fits
    assert not TrainingData(template_set, rows, 400 * 16 * 4 - 1).fits
    for max_bytes, room in ((64 * 7 + 63, 7), (10, 1)):
        assert len(next(TrainingData(template_set, rows, max_bytes)._windows())) == room
    nobody = TrainingData(template_set, ~rows, 10**9)
    assert nobody.sample(5).shape == (0, 16) and not list(nobody.in_order())
    assert len(list(TrainingData(template_set, rows, 10**9).batches(400, torch.Generator()))) == 1


def test_new_directions_are_those_of_bad_reconstructions() -> None:
    sae = GatedSAE(2, 4, GatedSettings())
    with torch.no_grad():
        sae.b_gate.fill_(-100)  # every reconstruction is b_dec = 0
    pool = torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    generator = torch.Generator().manual_seed(0)
    dead = torch.tensor([True, False, True, True])
    new = draw_directions(sae, dead, pool, generator=generator)
    assert new.rows.tolist() == [0, 2] and sorted(new.directions.tolist()) == [[0, 1], [1, 0]]  # no direction twice
    assert new.encoder_norm == pytest.approx(0.2)
    for without in (
        draw_directions(sae, ~dead & dead, pool, generator=generator),
        draw_directions(sae, dead, torch.zeros(3, 2), generator=generator),
    ):
        assert without.rows.shape == (0,) and without.directions.shape == (0, 2)
    within = NewDirections(torch.tensor([1, 2, 4, 5]), torch.arange(8.0).reshape(4, 2), 0.5).within(slice(2, 5))
    assert within.rows.tolist() == [0, 2] and within.directions.tolist() == [[2, 3], [4, 5]]


def test_where_more_are_dead_than_the_pool_has_the_others_stay_dead(
    template_set: TemplateSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsae_mlflow.sae.training.steps.trainer.POOL", 3)
    one = made(template_set)
    with torch.no_grad():
        one.sae.b_gate.fill_(-100)
    one.templates_since_fired.fill_(10**9)
    one.steps_since_resampling = 7
    assert one._resample(1) == 3 == int((one.sae.b_gate == 0).sum()) and one.steps_since_resampling == 0
    one.templates_since_fired.zero_()
    one.steps_since_resampling = 7
    assert one._resample(1) == 0 and one.steps_since_resampling == 7


def test_losses_count_squared_when_directions_are_drawn() -> None:
    sae = GatedSAE(2, 4, GatedSettings())
    with torch.no_grad():
        sae.b_gate.fill_(-100)
    pool = torch.tensor([[1.0, 0.0], [0.0, 2**0.5]])  # losses 1 and 2, so 1 to 4 draws
    one, generator = torch.tensor([True, False, False, False]), torch.Generator().manual_seed(0)
    drawn = torch.cat([draw_directions(sae, one, pool, generator=generator).directions for _ in range(2000)])
    assert float(drawn[:, 1].mean()) == pytest.approx(0.8, abs=0.03)


def test_nothing_dead_changes_nothing(template_set: TemplateSet) -> None:
    one = made(template_set)
    before = {name: tensor.clone() for name, tensor in one.sae.state_dict().items()}
    nothing = NewDirections(torch.zeros(0, dtype=torch.long), torch.zeros(0, 16), 0.2)
    revive(one.sae, one.optimizer, nothing)
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.sae.state_dict().items())
    assert not one.optimizer.state


def test_nothing_cannot_be_measured() -> None:
    with pytest.raises(UserError, match="no templates to measure"):
        measure(GatedSAE(4, 8, GatedSettings()), torch.zeros(0, 4))
