"""SAEs with metrics of held-out people, and registered ones."""

from pathlib import Path
from typing import Any

import mlflow

from fsae_mlflow.sae.saved import load_sae, read_config, save_sae
from fsae_mlflow.tracking.registry import register_sae
from fsae_mlflow.tracking.runs.lifecycle import Run

FIXTURES = Path(__file__).parents[2] / "fixtures" / "version_0_1"
GATED = FIXTURES / "saes" / "gated"


def make_sae(
    folder: Path,
    fvu: float | None,
    *,
    l0: float = 4.0,
    templates: str = "one",
    recognizer: str = "a",
    seed: int = 0,
    number: int = 0,
) -> Path:
    """Save an SAE in `folder`, with weights of its own for each fvu and `number`; without fvu nobody was held out."""
    sae, config = load_sae(GATED), read_config(GATED)
    sae.b_dec.data = sae.b_dec + (fvu or 0.0) + number
    made_of = {"name": recognizer, "weights_sha256": recognizer * 64, "licence": "research only", "input_size": 112}
    metrics = {"train/fvu": 0.1, "train/l0": l0}
    save_sae(
        sae,
        folder,
        settings=config["settings"] | {"seed": seed},
        templates=config["templates"] | {"digest": templates, "recognizer": made_of},
        training={"metrics": metrics | ({} if fvu is None else {"heldout/fvu": fvu, "heldout/l0": l0})},
    )
    return folder


def register(folder: Path, name: str = "small", **more: Any) -> tuple[str, mlflow.entities.Run]:
    """Register the SAE in `folder` from a run of its own; the version's number and the run."""
    with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
        run = Run(active, "test")
        run.on_metrics(read_config(folder).get("metrics", {}), 7)
        number = register_sae(run, load_sae(folder), folder, name=name, **more)
        run.journal.flush(10.0)
    return number, mlflow.get_run(active.info.run_id)
