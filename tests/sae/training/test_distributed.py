"""Two ranks with half of the features each do what one process does."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.sae.training.checkpoint import CHECKPOINT
from fsae_mlflow.sae.training.distributed import cut, is_per_feature, part_of
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.registry import VARIANTS, untrained
from fsae_mlflow.sae.variants.settings import GatedSettings, TopKSettings
from fsae_mlflow.sae.variants.topk import TopKSAE
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import train_settings
from tests.servers import free_port

SETTINGS = {
    "expansion": 32, "lam": 1.0, "epochs": 6, "batch_size": 64, "lr": 5e-3, "resample_every": 2, "resample_until": 1.0,
    "weight_decay": 0.1, "step": "fused", "checkpoint_seconds": 1e9,
}  # fmt: skip
SCRIPT = """
import json, os, signal, sys, torch
from pathlib import Path
from fsae_mlflow.sae.training.steps import trainer
from fsae_mlflow.parameters import parse
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.templates.set import TemplateSet
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
stop_at = int(sys.argv[4])
if stop_at and os.environ["RANK"] == "1":
    original = trainer.Trainer.run_step
    def run_step(self, batch):
        if self.step == stop_at:
            os.kill(os.getpid(), 2)
        return original(self, batch)
    trainer.Trainer.run_step = run_step
logged = []
settings, templates, output = parse(TrainSettings, eval(sys.argv[1])), TemplateSet.open(sys.argv[2]), Path(sys.argv[3])
train(settings, templates=templates, output=output, on_metrics=lambda metrics, _: logged.append(metrics))
if os.environ["RANK"] == "0":
    (output / "logged.json").write_text(json.dumps(logged))
"""


def torchrun(settings: dict[str, object], templates: TemplateSet, output: Path, *, stop_at: int = 0) -> list[int]:
    """Two processes started as torchrun starts them; gives their exit codes."""
    port = str(free_port())
    command = [sys.executable, "-c", SCRIPT, repr(settings), str(templates.folder), str(output), str(stop_at)]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(command, env=shared | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=180)[1] for rank in ranks]
    codes = [rank.returncode for rank in ranks]
    assert stop_at or codes == [0, 0], outputs
    return codes


@pytest.fixture(scope="module")
def alone(
    template_set: TemplateSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    logged: list[dict[str, float]] = []
    output = tmp_path_factory.mktemp("alone") / "sae"
    result = train(
        train_settings(**SETTINGS),
        templates=template_set,
        output=output,
        on_metrics=lambda metrics, _: logged.append(metrics),
    )
    return result.sae.state_dict(), logged


def test_two_ranks_equal_one_process(template_set: TemplateSet, alone, tmp_path: Path) -> None:
    import json

    from fsae_mlflow.sae.saved import load_sae

    weights, logged = alone
    assert any(metrics["n_resampled"] for metrics in logged)
    torchrun(SETTINGS, template_set, tmp_path / "two")
    for one, two in zip(logged, json.loads((tmp_path / "two" / "logged.json").read_text()), strict=True):
        for name in ("train/loss_total", "heldout/loss_total", "n_resampled", "n_dead"):
            assert two[name] == pytest.approx(one[name], rel=1e-5), name
    for name, tensor in load_sae(tmp_path / "two").state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-5, msg=name)


def test_two_ranks_find_the_same_lam(template_set: TemplateSet, tmp_path: Path) -> None:
    from fsae_mlflow.sae.saved import load_sae

    settings = {**SETTINGS, "lam": None, "target_l0": 8.0}
    one = train(train_settings(**settings), templates=template_set, output=tmp_path / "one", on_metrics=lambda *_: None)
    torchrun(settings, template_set, tmp_path / "two")
    found = load_sae(tmp_path / "two")
    assert found.settings.lam == pytest.approx(one.metrics["lam"], rel=1e-3)
    assert abs(math.log(one.metrics["lam"] / found.settings.first_lam(8.0))) > 0.1
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, one.sae.state_dict()[name], rtol=1e-3, atol=1e-4, msg=name)


def test_one_process_goes_on_with_the_checkpoint_of_two(template_set: TemplateSet, alone, tmp_path: Path) -> None:
    codes = torchrun(SETTINGS, template_set, tmp_path / "sae", stop_at=20)
    assert all(codes) and (tmp_path / "sae" / CHECKPOINT).is_file()
    assert torch.load(tmp_path / "sae" / CHECKPOINT, weights_only=True)["step"] == 21
    result = train(
        train_settings(**SETTINGS), templates=template_set, output=tmp_path / "sae", on_metrics=lambda *_: None
    )
    for name, tensor in result.sae.state_dict().items():
        torch.testing.assert_close(tensor, alone[0][name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_names_its_per_feature_tensors(variant: str) -> None:
    sae = untrained(VARIANTS[variant](), 3, 1024)
    of_features = {name for name, tensor in sae.state_dict().items() if tensor.ndim and len(tensor) == 1024}
    assert of_features == {name for name, tensor in sae.state_dict().items() if is_per_feature(sae, name, tensor)}


def test_ranks_share_the_features_out() -> None:
    sae = GatedSAE(3, 10, GatedSettings())
    parts = [part_of(sae, Ranks(rank, 3)) for rank in range(3)]
    assert [part.d_sae for part in parts] == [3, 3, 4]
    assert torch.equal(torch.cat([part.W_enc for part in parts]), sae.W_enc)
    others = {"b_dec": sae.b_dec, "of_ten": torch.zeros(10)}  # a length is no sign
    assert all(cut(others, sae, Ranks(1, 3), 10)[name] is tensor for name, tensor in others.items())
    with pytest.raises(ValueError, match="trains in one process only"):
        part_of(TopKSAE(3, 10, TopKSettings(k=2)), Ranks(0, 2))
