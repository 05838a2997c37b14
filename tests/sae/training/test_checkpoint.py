"""Trainings that are stopped, killed or run out of disk lose nothing."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fsae_mlflow.sae.saved import load_sae
from fsae_mlflow.sae.training import checkpoint, loop
from fsae_mlflow.sae.training.checkpoint import CHECKPOINT, former_fingerprint, save_checkpoint, training_fingerprint
from fsae_mlflow.sae.training.interruption import deferred_interrupts
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.sae.training.steps import trainer
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import train_settings

FIXTURES = Path(__file__).parents[2] / "fixtures" / "version_0_1"
SHARED = {"expansion": 4, "epochs": 12, "batch_size": 64, "lr": 5e-3, "checkpoint_seconds": 0.0}
GATED = {"lam": 0.2, "resample_every": 3}
SETTINGS = SHARED | GATED
WAYS = [
    {"step": "plain", **GATED},
    {"step": "fused", **GATED},
    {"step": "fused", "variant": "batchtopk", "k": 4, "dead_after": 0.5},
    {"max_gigabytes": 1e-5, "mixup": 0.5, "keep": "best", **GATED},
    {"target_l0": 5.0, "mixup": 0.5, "keep": "best", "resample_every": 3},
]


def run(settings: TrainSettings, templates: TemplateSet, output: Path) -> dict[str, torch.Tensor]:
    return train(settings, templates=templates, output=output, on_metrics=lambda *_: None).sae.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_resumed_is_bit_identical(
    way: dict[str, object], template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = train_settings(**SHARED, **way)
    whole = run(settings, template_set, tmp_path / "whole")
    steps = iter([5, 1, 23, 12])
    left = next(steps)

    def interrupted(original):
        def run_step(self, batch):
            nonlocal left
            loss = original(self, batch)
            left -= 1
            if left == 0:
                left = next(steps, 10**6)
                raise KeyboardInterrupt
            return loss

        return run_step

    # An interrupt right after a step, where the deferred handler would let it act.
    monkeypatch.setattr(trainer.Trainer, "run_step", interrupted(trainer.Trainer.run_step))
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run(settings, template_set, tmp_path / "parts")
        assert (tmp_path / "parts" / CHECKPOINT).is_file()
    assert same(run(settings, template_set, tmp_path / "parts"), whole)
    assert not (tmp_path / "parts" / CHECKPOINT).exists()


def test_an_epoch_stopped_while_it_is_measured_can_still_be_the_best(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = train_settings(**(SETTINGS | {"keep": "best", "lr": 0.2, "lr_schedule": "constant", "epochs": 30}))
    whole = train(settings, templates=template_set, output=tmp_path / "whole", on_metrics=lambda *_: None)
    original, n_calls = loop.measure, 0

    def interrupted(*arguments, **named):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 2 * whole.metrics["epoch_kept"]:  # training people, then held-out people, every epoch
            raise KeyboardInterrupt
        return original(*arguments, **named)

    monkeypatch.setattr(loop, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(settings, template_set, tmp_path / "parts")
    resumed = train(settings, templates=template_set, output=tmp_path / "parts", on_metrics=lambda *_: None)
    assert resumed.metrics["epoch_kept"] == whole.metrics["epoch_kept"] < 30
    assert same(resumed.sae.state_dict(), whole.sae.state_dict())


SCRIPT = """
import sys, logging, signal, torch
from pathlib import Path
from fsae_mlflow.parameters import parse
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.templates.set import TemplateSet
torch.set_num_threads(1)
logging.basicConfig(level=logging.INFO)
signal.signal(signal.SIGTERM, signal.default_int_handler)
settings = parse(TrainSettings, eval(sys.argv[1]))
train(settings, templates=TemplateSet.open(sys.argv[2]), output=Path(sys.argv[3]), on_metrics=lambda _, epoch:
print(epoch, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_training_goes_on_where_it_was(
    number: signal.Signals, template_set: TemplateSet, tmp_path: Path
) -> None:
    chosen = SETTINGS | {"epochs": 100}
    whole = run(train_settings(**(chosen | {"checkpoint_seconds": 1e9})), template_set, tmp_path / "whole")
    command = [sys.executable, "-c", SCRIPT, repr(chosen), str(template_set.folder), str(tmp_path / "parts")]
    rng, reached = random.Random(0), [0]
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(rng.randint(2, 9))]
        assert lines[-1], process.communicate()[1]
        reached.append(int(lines[-1]))
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode, "the training ended before it was killed"
        assert number == signal.SIGKILL or "the same command goes on from there" in errors
    assert reached[2] > reached[1] > 0
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
    assert same(load_sae(tmp_path / "parts").state_dict(), whole)


def test_interrupts_wait_for_the_step_to_end() -> None:
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("end of step")
        interrupts.act()
        reached.append("never")
    assert reached == ["end of step"]
    assert signal.signal(signal.SIGINT, former) is signal.default_int_handler


def test_full_disk_is_said_and_leaves_the_former_checkpoint(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, {"fingerprint": "a", "step": 1})
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full(state, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match=r"No space left on device.*free space there.*intact"):
        save_checkpoint(tmp_path, {"fingerprint": "a", "step": 2})
    assert (tmp_path / CHECKPOINT).read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    run(train_settings(**(SETTINGS | {"epochs": 1})), template_set, tmp_path / "sae")
    assert "free space there" in caplog.text


def test_checkpoint_of_other_settings_is_not_used(template_set: TemplateSet, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "sae", {"fingerprint": "another"})
    settings = train_settings(**(SETTINGS | {"epochs": 1, "checkpoint_seconds": 1e9}))
    fresh = run(settings, template_set, tmp_path / "fresh")
    assert same(run(settings, template_set, tmp_path / "sae"), fresh)


def test_fingerprint_names_what_decides_the_result() -> None:
    one = training_fingerprint(train_settings(), "a")
    assert one == training_fingerprint(train_settings(output="x", register=False, checkpoint_seconds=1.0), "a")
    others = [training_fingerprint(train_settings(), "b"), training_fingerprint(train_settings(seed=1), "a")]
    assert len({one, *others, training_fingerprint(train_settings(variant="topk"), "a")}) == 4


@pytest.mark.parametrize(
    ("variant", "own"),
    [("gated", {"lam": 0.1, "resample_every": 2}), ("topk", {"k": 5, "dead_after": 0.5})],
)
def test_a_checkpoint_of_version_0_1_is_gone_on_with(variant: str, own: dict[str, object], tmp_path: Path) -> None:
    folder = tmp_path / variant
    shutil.copytree(FIXTURES / "checkpoints" / variant, folder)
    epochs: list[int] = []
    settings = train_settings(
        variant=variant, expansion=4, epochs=6, batch_size=16, lr=5e-3, holdout=0.25, keep="best", **own
    )
    resumed = train(
        settings,
        templates=TemplateSet.open(FIXTURES / "templates"),
        output=folder,
        on_metrics=lambda _, epoch: epochs.append(epoch),
    )
    assert epochs == [4, 5, 6]
    expected = load_file(folder / "expected.safetensors")
    for name, tensor in resumed.sae.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6, msg=name)


def test_what_version_0_1_could_not_do_is_no_training_of_its() -> None:
    assert former_fingerprint(train_settings(variant="topk"), "a") != ""
    assert former_fingerprint(train_settings(variant="topk", k_aux=3), "a") == ""
    assert former_fingerprint(train_settings(variant="jumprelu", initial_threshold=0.5), "a") == ""
    assert former_fingerprint(train_settings(lam=0.1), "a") != ""
    assert former_fingerprint(train_settings(), "a") == former_fingerprint(train_settings(target_l0=32.0), "a") == ""
