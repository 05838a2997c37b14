"""Trainings that are killed at random moments, also while they save, over an SAE that stood in their folder before.

FSAE_KILLS=500 python -m pytest tests/faults/test_kills.py kills 500 times.
"""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from fsae_mlflow.sae.saved import digest, load_sae, read_config, save_sae
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import new_sae, train_settings

N_KILLS = int(os.environ.get("FSAE_KILLS", "8"))


def test_a_kill_leaves_a_whole_sae_and_the_same_command_finishes(template_set: TemplateSet, tmp_path: Path) -> None:
    def run(output: Path, seed: int) -> dict[str, torch.Tensor]:
        settings = train_settings(expansion=2, epochs=2, batch_size=64, lr=5e-3, checkpoint_seconds=0.0, seed=seed)
        return train(settings, templates=template_set, output=output, on_metrics=lambda *_: None).sae.state_dict()

    run(tmp_path / "former", 0)
    started = time.monotonic()
    expected = run(tmp_path / "new", 1)
    seconds = time.monotonic() - started
    former, new = digest(tmp_path / "former"), digest(tmp_path / "new")
    rng, folder = random.Random(0), tmp_path / "sae"
    n_killed = 0
    for number in range(N_KILLS):
        if number % 4 == 0:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(tmp_path / "former", folder)
        child = os.fork()
        if child == 0:
            try:
                run(folder, 1)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        n_killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert load_sae(folder) and digest(folder) in (former, new)
        if number % 4 == 3:
            found = run(folder, 1)
            assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
            assert sorted(path.name for path in folder.iterdir()) == ["config.json", "sae.safetensors"]
    assert n_killed


@pytest.mark.parametrize("trained_next", [True, False])
@pytest.mark.parametrize("with_former", [True, False])
def test_a_kill_between_weights_and_config_leaves_the_new_sae(
    with_former: bool, trained_next: bool, template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former, new = (new_sae("topk", 4, d_sae, k=1) for d_sae in (8, 16))
    if with_former:
        save_sae(former, tmp_path, settings={}, templates={})
    if not (child := os.fork()):
        rename = Path.replace

        def rename_weights_and_die(self: Path, target: Path) -> None:
            rename(self, target)
            os._exit(9)

        monkeypatch.setattr(Path, "replace", rename_weights_and_die)
        save_sae(new, tmp_path, settings={"seed": 1}, templates={})
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".config.json")]
    if trained_next:  # another training, which is stopped before it has an SAE

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(train_settings(epochs=1, expansion=1), templates=template_set, output=tmp_path, on_metrics=stop)
        (tmp_path / "checkpoint.pt").unlink(missing_ok=True)
    assert torch.equal(load_sae(tmp_path).W_dec, new.W_dec) and read_config(tmp_path)["settings"] == {"seed": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "sae.safetensors"]
