"""A damaged checkpoint is set aside, and the training goes on from the one before it, or starts again."""

import logging
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fsae_mlflow.sae.training.checkpoint import CHECKPOINT, FORMER_CHECKPOINT, load_checkpoint, training_fingerprint
from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.sae.training.start import start
from fsae_mlflow.sae.training.steps.trainer import Trainer
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import TRAINED, train_settings

SETTINGS = train_settings(expansion=2, epochs=4, batch_size=64, lr=5e-3, lam=0.2, checkpoint_seconds=0.0, keep="best")
N_BITS = 60


def run(templates: TemplateSet, output: Path, *, stop_at: int = 0) -> dict[str, torch.Tensor]:
    steps = 0

    def interrupted(self, batch):
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise KeyboardInterrupt
        return run_step(self, batch)

    run_step = Trainer.run_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run_step", interrupted)
        return train(SETTINGS, templates=templates, output=output, on_metrics=lambda *_: None).sae.state_dict()


@pytest.fixture(scope="module")
def whole(template_set: TemplateSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return run(template_set, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def stopped(template_set: TemplateSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that was stopped in its second epoch, with two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        run(template_set, folder, stop_at=10)
    steps = [torch.load(folder / name, weights_only=True)["step"] for name in (CHECKPOINT, FORMER_CHECKPOINT)]
    assert steps == [9, 8]
    return folder


def forge(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Load a checkpoint, change its content, and save it."""

    def damage(path: Path) -> None:
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)

    return damage


def flip_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
    content[largest.header_offset + 200 + largest.file_size // 2] ^= 0x40
    path.write_bytes(content)


def put(path: Path, content: object) -> None:
    torch.save(content, path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "cut by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "bit of a weight": flip_a_weight,
    "no dict": lambda path: put(path, [1, 2]),
    "no keys": lambda path: put(path, {}),
    "fingerprint only": lambda path: put(
        path, {"fingerprint": torch.load(path, weights_only=True)["fingerprint"], "step": 3}
    ),
    "later step": forge(lambda state: state.update(step=20)),
    "step beyond the end": forge(lambda state: state.update(step=10**6)),
    "negative step": forge(lambda state: state.update(step=-1)),
    "step of a word": forge(lambda state: state.update(step="9")),
    "infinite seconds": forge(lambda state: state.update(seconds=float("inf"))),
    "weights of other shapes": forge(lambda state: state["weights"].update(W_enc=torch.zeros(3, 3))),
    "weights that are not finite": forge(lambda state: state["weights"]["W_enc"].fill_(float("nan"))),
    "moments of other shapes": forge(lambda state: state["exp_avg"].update(b_dec=torch.zeros(1))),
    "moments missing": forge(lambda state: state["exp_avg_sq"].clear()),
    "silence of other shape": forge(lambda state: state["silence"].update(templates_since_fired=torch.zeros(2))),
    "negative silence": forge(lambda state: state["silence"]["templates_since_fired"].sub_(10**6)),
    "negative seconds": forge(lambda state: state.update(seconds=-1.0)),
    "resampled before the start": forge(lambda state: state.update(steps_since_resampling=-1)),
    "best epoch before the first": forge(lambda state: state["best"].update(epoch=0)),
    "best epoch after the last": forge(lambda state: state["best"].update(epoch=5)),
    "best loss that is no number": forge(lambda state: state["best"].update(loss=float("nan"))),
    "best weights that are not finite": forge(lambda state: state["best"]["weights"]["b_dec"].fill_(float("inf"))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside(
    damage: str,
    stopped: Path,
    whole: dict[str, torch.Tensor],
    template_set: TemplateSet,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "sae"
    shutil.copytree(stopped, folder)
    DAMAGES[damage](folder / CHECKPOINT)
    damaged = (folder / CHECKPOINT).read_bytes()
    with caplog.at_level(logging.INFO):
        resumed = run(template_set, folder)
    assert "checkpoint.pt is damaged" in caplog.text
    assert (folder / f"{CHECKPOINT}.damaged").read_bytes() == damaged
    assert "Going on from the checkpoint at step 8 of" in caplog.text
    assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())
    assert not (folder / CHECKPOINT).exists() and not (folder / FORMER_CHECKPOINT).exists()


def test_two_damaged_checkpoints_start_the_training_again(
    stopped: Path, whole: dict[str, torch.Tensor], template_set: TemplateSet, tmp_path: Path
) -> None:
    folder = tmp_path / "sae"
    shutil.copytree(stopped, folder)
    for name in (CHECKPOINT, FORMER_CHECKPOINT):
        (folder / name).write_bytes(b"PK\x03\x04 half a file")
    resumed = run(template_set, folder)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())
    assert sorted(path.name for path in folder.glob("*.damaged")) == [
        f"{FORMER_CHECKPOINT}.damaged",
        f"{CHECKPOINT}.damaged",
    ]


def test_no_flipped_bit_changes_a_state_silently(stopped: Path, template_set: TemplateSet, tmp_path: Path) -> None:
    content = (stopped / CHECKPOINT).read_bytes()
    name, expected = training_fingerprint(SETTINGS, template_set.digest), (stopped / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(expected)
    sound = load_checkpoint(tmp_path, [name], lambda _: None)
    rng, refused = random.Random(0), 0
    for _ in range(N_BITS):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (tmp_path / CHECKPOINT).write_bytes(flipped)
        found = load_checkpoint(tmp_path, [name], lambda _: None)
        refused += found is None
        # A bit between the records, or of a date, changes nothing.
        assert found is None or same(found, sound)
    assert refused > N_BITS / 2


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("variant", TRAINED)
@pytest.mark.parametrize("step", ["plain", "fused"])
def test_every_variant_takes_its_own_state(variant: str, step: str, template_set: TemplateSet) -> None:
    settings = train_settings(variant=variant, expansion=4, epochs=2, batch_size=64, step=step)
    data = TrainingData(template_set, np.ones(400, bool), 10**9)
    trainer = Trainer(settings, start(settings, data)[1], data)
    trainer.require_own(trainer.state())
    trainer.run_epoch(lambda: None)
    trainer.require_own(trainer.state())
