"""Training end to end on small synthetic templates."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.sae.saved import load_sae, save_sae
from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.sae.training.measures import measure
from fsae_mlflow.sae.training.stage import Trained, train
from fsae_mlflow.sae.training.start import start
from fsae_mlflow.sae.training.steps.resampling import draw_directions, revive
from fsae_mlflow.sae.training.steps.schedule import learning_rate
from fsae_mlflow.sae.training.steps.trainer import Trainer
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import train_settings

SETTINGS = train_settings(expansion=4, lam=0.2, epochs=30, batch_size=64, lr=5e-3, resample_every=5)


@pytest.fixture(scope="module")
def trained(
    template_set: TemplateSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trained, list[dict[str, float]]]:
    logged: list[dict[str, float]] = []
    output = tmp_path_factory.mktemp("run") / "sae"
    result = train(
        SETTINGS, templates=template_set, output=output, on_metrics=lambda metrics, _: logged.append(metrics)
    )
    return result, logged


def test_training_explains_templates_sparsely(trained: tuple[Trained, list[dict[str, float]]]) -> None:
    result, logged = trained
    assert len(logged) == SETTINGS.epochs
    assert logged[-1]["train/loss_total"] < logged[0]["train/loss_total"]
    assert logged[-1]["train/step_loss_total"] == pytest.approx(logged[-1]["train/loss_total"], rel=0.05)
    assert result.metrics["train/fvu"] < 0.15
    assert result.metrics["train/l0"] < result.sae.d_sae / 3
    assert result.metrics["heldout/fvu"] > 0


def test_mean_l0_is_the_sum_of_densities(
    trained: tuple[Trained, list[dict[str, float]]], template_set: TemplateSet
) -> None:
    result, _ = trained
    held = holdout_rows(template_set.identities, SETTINGS.holdout, seed=SETTINGS.seed)
    for rows, part in ((~held, "train"), (held, "heldout")):
        fired = [
            int((result.sae.encode(template[None]) > 0).sum())
            for template in torch.from_numpy(template_set.templates[rows])
        ]
        assert result.metrics[f"{part}/l0"] == pytest.approx(np.mean(fired), rel=1e-12)
    assert result.metrics["train/l0"] == pytest.approx(float(result.sae.density.double().sum()), rel=1e-6)


def test_decoder_directions_keep_unit_norm(trained: tuple[Trained, list[dict[str, float]]]) -> None:
    torch.testing.assert_close(trained[0].sae.W_dec.norm(dim=1), torch.ones(trained[0].sae.d_sae))


def test_same_seed_same_weights(
    trained: tuple[Trained, list[dict[str, float]]], template_set: TemplateSet, tmp_path: Path
) -> None:
    again = train(SETTINGS, templates=template_set, output=tmp_path / "sae", on_metrics=lambda *_: None)
    for name, tensor in trained[0].sae.state_dict().items():
        assert torch.equal(tensor, again.sae.state_dict()[name]), name


def test_the_epoch_of_least_heldout_loss_can_be_kept(template_set: TemplateSet, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, keep="best", lr=0.2, lr_schedule="constant", epochs=30)
    losses: list[float] = []
    result = train(
        settings,
        templates=template_set,
        output=tmp_path,
        on_metrics=lambda metrics, _: losses.append(metrics["heldout/loss_total"]),
    )
    assert result.metrics["epoch_kept"] == int(np.argmin(losses)) + 1 < 30
    assert result.metrics["heldout/loss_total"] == pytest.approx(min(losses), rel=1e-4)
    with pytest.raises(ValueError, match="holdout"):
        dataclasses.replace(settings, holdout=0.0)


def test_saved_sae_gives_identical_outputs(
    trained: tuple[Trained, list[dict[str, float]]], template_set: TemplateSet
) -> None:
    result, _ = trained
    templates = torch.from_numpy(template_set.templates)
    loaded = load_sae(result.folder)
    assert torch.equal(loaded.encode(templates), result.sae.encode(templates))
    assert torch.equal(loaded(templates), result.sae(templates))
    assert json.loads((result.folder / "config.json").read_text())["settings"]["lam"] == 0.2


def test_measures_follow_their_formulas() -> None:
    torch.manual_seed(0)
    sae, x = GatedSAE(6, 24, GatedSettings(lam=0.1)), torch.randn(50, 6) + 1
    with torch.no_grad():
        for parameter in (sae.b_dec, sae.r_mag, sae.b_gate, sae.b_mag):
            parameter.copy_(0.3 * torch.randn_like(parameter))
    weights = {name: tensor.detach().double().numpy() for name, tensor in sae.named_parameters()}
    found = measure(sae, x, batch_size=7)
    data = x.double().numpy()
    projected = (data - weights["b_dec"]) @ weights["W_enc"].T
    gate = np.maximum(projected + weights["b_gate"], 0)
    features = (gate > 0) * np.maximum(np.exp(weights["r_mag"]) * projected + weights["b_mag"], 0)
    x_hat, estimate = (values @ weights["W_dec"] + weights["b_dec"] for values in (features, gate))
    error = ((data - x_hat) ** 2).sum()
    assert found.sparsity.l0 == pytest.approx((features > 0).sum(axis=1).mean())
    assert found.fidelity.fvu == pytest.approx(error / ((data - data.mean(axis=0)) ** 2).sum(), rel=1e-5)
    assert found.fidelity.mse == pytest.approx(error / 50, rel=1e-5)
    cosine = (data * x_hat).sum(axis=1) / np.linalg.norm(data, axis=1) / np.linalg.norm(x_hat, axis=1)
    assert found.fidelity.cosine == pytest.approx(cosine.mean(), rel=1e-5)
    terms = {
        "reconstruction": error / 50,
        "sparsity": 0.1 * gate.sum() / 50,
        "auxiliary": ((data - estimate) ** 2).sum() / 50,
    }
    assert found.losses == pytest.approx(terms | {"total": sum(terms.values())}, rel=1e-5)


@pytest.mark.parametrize("step", ["plain", "fused"])
def test_the_dead_compete_in_the_auxiliary_term(step: str, template_set: TemplateSet) -> None:
    own = {"variant": "topk", "k": 2, "dead_after": 0.5, "step": step}
    settings = train_settings(expansion=4, epochs=3, batch_size=50, lr=5e-3, **own)
    data = TrainingData(template_set, np.ones(len(template_set), bool), 2**30)
    trainer = Trainer(settings, start(settings, data)[1], data)
    silence, n_dead = torch.zeros(64, dtype=torch.long), []
    for batch in data.batches(50, torch.Generator().manual_seed(0)):
        dead = silence >= 0.5 * len(data)
        n_dead.append(int(dead.sum()))
        loss = trainer.run_step(trainer.sae.scaled(batch))
        assert (loss.auxiliary > 0) == dead.any() and trainer.n_dead is not None
        silence = torch.where(loss.fired, 0, silence + len(batch))
        assert torch.equal(trainer.templates_since_fired, silence)
    assert n_dead[0] == 0 and n_dead[-1] > 0
    state = trainer.state()
    trainer.n_dead = 0  # as another state may have it
    trainer.load_state(state)
    assert torch.equal(trainer._competing_dead(), (silence >= 0.5 * len(data)).nonzero().squeeze(1))


def test_resampling_revives_exactly_the_dead(template_set: TemplateSet) -> None:
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(40, 8), dim=1)
    sae = GatedSAE(8, 64, GatedSettings())
    trainer = Trainer(train_settings(epochs=1, lam=0.1), sae, TrainingData(template_set, np.ones(400, bool), 10**9))
    trainer.run_step(x)
    dead = torch.zeros(64, dtype=torch.bool)
    dead[10:40] = True
    with torch.no_grad():
        sae.b_gate[dead] = -100
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    moments = {name: trainer.optimizer.state[p]["exp_avg_sq"].clone() for name, p in sae.named_parameters()}
    alive_norm = float(sae.W_enc[~dead].detach().norm(dim=1).mean())

    new = draw_directions(sae, dead, x, generator=torch.Generator().manual_seed(0))
    assert len(new.rows) == 30
    revive(sae, trainer.optimizer, new)

    for name, tensor in sae.named_parameters():
        state = trainer.optimizer.state[tensor]["exp_avg_sq"]
        if name == "b_dec":
            assert torch.equal(tensor, before[name]) and torch.equal(state, moments[name])
            continue
        assert torch.equal(tensor[~dead], before[name][~dead]) and torch.equal(state[~dead], moments[name][~dead])
        assert not state[dead].any() and not trainer.optimizer.state[tensor]["exp_avg"][dead].any()
    drawn = sae.W_dec[dead] @ x.T
    torch.testing.assert_close(drawn.max(dim=1).values, torch.ones(30))  # each direction is a pool row
    torch.testing.assert_close(sae.W_enc[dead].norm(dim=1), torch.full((30,), 0.2 * alive_norm))
    assert not sae.b_gate[dead].any() and not sae.b_mag[dead].any()
    assert ((sae.features(x) > 0).any(dim=0))[dead].float().mean() > 0.9


def test_schedule_is_a_cosine_with_warm_up() -> None:
    settings = train_settings(lr=1e-2, lr_end=1e-4, lr_warmup=9)
    assert learning_rate(settings, 0, 101, 1000) == pytest.approx(1e-2)
    assert learning_rate(settings, 50, 101, 1000) == pytest.approx((1e-2 + 1e-4) / 2)
    assert learning_rate(settings, 100, 101, 1000) == pytest.approx(1e-4)
    assert learning_rate(settings, 0, 101, 0) == pytest.approx(1e-3)


def test_no_person_is_on_both_sides(template_set: TemplateSet) -> None:
    held = holdout_rows(template_set.identities, 0.25, seed=3)
    people, others = set(template_set.identities[held]), set(template_set.identities[~held])
    assert len(people) == 10 and not people & others
    with pytest.raises(ValueError, match="nobody to train on"):
        holdout_rows(np.array(["a", "a"]), 0.1, seed=0)


def test_loss_that_is_not_finite_stops_with_step_and_term(template_set: TemplateSet, tmp_path: Path) -> None:
    settings = train_settings(expansion=2, epochs=5, lr=1e30, lam=1.0)
    with pytest.raises(UserError, match=r"not finite at step .*lower lr"):
        train(settings, templates=template_set, output=tmp_path / "sae", on_metrics=lambda *_: None)
    assert not any((tmp_path / "sae").iterdir())


def test_an_sae_of_another_kind_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no trained SAE"):
        load_sae(tmp_path)
    save_sae(GatedSAE(4, 8, GatedSettings()), tmp_path / "sae", settings={}, templates={})
    weights = tmp_path / "sae" / "sae.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"sae\.safetensors is not a readable safetensors file"):
        load_sae(tmp_path / "sae")
