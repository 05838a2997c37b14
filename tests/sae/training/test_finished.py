"""A finished training is not repeated, and what stands in its folder stays until there is better."""

import logging
import os
import resource
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.locks import only_writer
from fsae_mlflow.progress import progress
from fsae_mlflow.sae import saved
from fsae_mlflow.sae.saved import digest, load_sae, read_config
from fsae_mlflow.sae.training import checkpoint, stage
from fsae_mlflow.sae.training.checkpoint import CHECKPOINT
from fsae_mlflow.sae.training.stage import Trained, train
from fsae_mlflow.sae.training.steps.trainer import Trainer
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import train_settings

FIXTURES = Path(__file__).parents[2] / "fixtures" / "version_0_1"
SMALL: dict[str, Any] = {"expansion": 2, "epochs": 2, "batch_size": 64, "lr": 5e-3}
FILES = ["config.json", "sae.safetensors"]


def run(templates: TemplateSet, output: Path, **settings: Any) -> Trained:
    return train(train_settings(**SMALL | settings), templates=templates, output=output, on_metrics=lambda *_: None)


def no_step(*_: Any) -> None:
    raise AssertionError("a step was taken")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_training_is_not_repeated(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(template_set, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    (tmp_path / CHECKPOINT).write_bytes(b"left by a process that was killed right after it had saved the SAE")
    monkeypatch.setattr(Trainer, "run_step", no_step)
    with caplog.at_level(logging.INFO):
        second = run(template_set, tmp_path, checkpoint_seconds=7.0)
    assert "is finished already" in caplog.text
    assert second.metrics == first.metrics and second.folder == first.folder
    assert all(torch.equal(tensor, first.sae.state_dict()[name]) for name, tensor in second.sae.state_dict().items())
    assert names(tmp_path) == FILES and before == {name: (tmp_path / name).read_bytes() for name in FILES}


@pytest.mark.parametrize(("variant", "own"), [("gated", {"resample_every": 2}), ("topk", {})])
def test_an_sae_of_version_0_1_is_measured_and_not_trained(
    variant: str, own: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(FIXTURES / "saes" / variant, tmp_path / "sae")
    stored = read_config(tmp_path / "sae")["settings"]
    given = {"expansion": 4, "epochs": 4, "batch_size": 16, "lr": 5e-3, "holdout": 0.25, "variant": variant}
    given |= {"k": 5} if variant == "topk" else {"lam": stored["lam"]}
    monkeypatch.setattr(Trainer, "run_step", no_step)
    templates = TemplateSet.open(FIXTURES / "templates")
    found = run(templates, tmp_path / "sae", **given, **own)
    assert {"train/fvu", "heldout/fvu", "train/l0"} <= found.metrics.keys() and found.metrics["epoch_kept"] == 4
    assert found.metrics["train/l0"] == pytest.approx(float(load_sae(tmp_path / "sae").density.sum()), rel=1e-5)
    assert read_config(tmp_path / "sae")["settings"] == stored
    monkeypatch.setattr(stage, "measure", no_step)
    assert run(templates, tmp_path / "sae", **given, **own).metrics == found.metrics
    with pytest.raises(AssertionError, match="a step was taken"):
        monkeypatch.setattr(stage, "measure", lambda *_: None)
        run(templates, tmp_path / "sae", **given | {"lr": 4e-3}, **own)


def test_an_sae_of_other_settings_stays_until_the_new_one_is_complete(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(template_set, tmp_path)
    before = digest(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(template_set, tmp_path, seed=1)
    assert "holds the SAE of another training" in caplog.text
    assert digest(tmp_path) == before and load_sae(tmp_path)
    run(template_set, tmp_path, seed=1)
    assert digest(tmp_path) != before and names(tmp_path) == FILES


def test_a_damaged_sae_is_refused_and_trained_again(
    template_set: TemplateSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(template_set, tmp_path)
    content = bytearray((tmp_path / saved.WEIGHTS).read_bytes())
    content[-40] ^= 0x40
    (tmp_path / saved.WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match=r"is not the file that config\.json beside it was written for"):
        load_sae(tmp_path)
    again = run(template_set, tmp_path)
    assert "trained again" in caplog.text and torch.equal(again.sae.W_enc, first.sae.W_enc)


def test_two_trainings_do_not_write_to_one_folder(template_set: TemplateSet, tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(UserError, match=f"is being written by process {os.getpid()}"):
        run(template_set, tmp_path)


def test_full_disk_at_the_end_loses_no_step(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(template_set, tmp_path / "whole")
    limit, former = 4096, resource.getrlimit(resource.RLIMIT_FSIZE)
    measured = stage.measure

    def fill_disk(*arguments: Any, **more: Any) -> Any:
        if (tmp_path / "sae" / CHECKPOINT).is_file():  # the last step has been saved
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, former[1]))
        return measured(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "measure", fill_disk)
        try:
            with pytest.raises(OSError, match=r"could not be saved in .* free space there: all steps are kept") as full:
                run(template_set, tmp_path / "sae")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert "File too large" in str(full.value)
    assert names(tmp_path / "sae") == [CHECKPOINT]
    monkeypatch.setattr(Trainer, "run_step", no_step)
    resumed = run(template_set, tmp_path / "sae")
    assert all(torch.equal(tensor, whole.sae.state_dict()[name]) for name, tensor in resumed.sae.state_dict().items())
    assert names(tmp_path / "sae") == FILES


def test_a_first_checkpoint_is_written_within_the_first_minute(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, saved_at = 0.0, []

    def a_step_of_ten_seconds(self: Trainer, batch: torch.Tensor) -> Any:
        nonlocal now
        now += 10
        return run_step(self, batch)

    run_step = Trainer.run_step
    monkeypatch.setattr(Trainer, "run_step", a_step_of_ten_seconds)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    monkeypatch.setattr(checkpoint, "save_checkpoint", lambda *_: saved_at.append(now))
    run(template_set, tmp_path, epochs=10, checkpoint_seconds=200.0)
    assert saved_at[0] == 30
    assert [later - earlier for earlier, later in pairwise(saved_at)][:-1] == [200.0, 200.0]
    assert saved_at[-1] == now == 500  # the last step


def test_progress_counts_steps(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fsae_mlflow.progress.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO):
        run(template_set, tmp_path)
    lines = [record.message for record in caplog.records if record.message.startswith("train_sae: ")]
    assert len(lines) == 10 and lines[0].startswith("train_sae: 1 of 10 steps, ") and "s left" in lines[0]
    assert any(line.message.startswith("measure train: 320 of 320 templates") for line in caplog.records)


def test_progress_counts_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fsae_mlflow.progress.SECONDS_BETWEEN_LINES", 0.0)
    clock = iter(range(100))
    monkeypatch.setattr("fsae_mlflow.progress.time.monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO):
        assert list(progress(["aa", "bb"], total=10, label="x", unit="letters", done=4, size=len)) == ["aa", "bb"]
    assert [record.message for record in caplog.records] == [
        "x: 6 of 10 letters, 2/s, 2 s left",
        "x: 8 of 10 letters, 2/s, 1 s left",
    ]


def test_a_step_reads_the_device_once(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_reads = n_steps = 0

    def counted(method: Any) -> Any:
        def read(self: torch.Tensor) -> Any:
            nonlocal n_reads
            n_reads += 1
            return method(self)

        return read

    def run_step(self: Trainer, batch: torch.Tensor) -> Any:
        nonlocal n_steps
        n_steps += 1
        return original(self, batch)

    original, epoch = Trainer.run_step, Trainer.run_epoch

    def run_epoch(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("__float__", "item", "tolist", "__bool__", "__int__"):
                patch.setattr(torch.Tensor, name, counted(getattr(torch.Tensor, name)))
            return epoch(*arguments)

    monkeypatch.setattr(Trainer, "run_step", run_step)
    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    run(template_set, tmp_path, step="plain")
    assert n_steps == 10 and n_reads <= n_steps + 3 * SMALL["epochs"]
