"""How an entry of the journal is sent to the tracking server."""

import json
import logging
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from PIL import Image

from fsae_mlflow.errors import UserError
from fsae_mlflow.tracking.models.card import add_readings, write_cards
from fsae_mlflow.tracking.models.logged import note_output
from fsae_mlflow.tracking.runs.answers import is_refusal, said

TABLES_TAG = "mlflow.loggedArtifacts"

logger = logging.getLogger(__name__)


def attempt(client: MlflowClient, run_id: str, entries: list[dict[str, Any]]) -> Exception | None:
    """Send one entry, or several of metrics, and give the error, if any."""
    try:
        _send(client, run_id, entries)
    except Exception as error:
        return error
    return None


def stamp_of(path: Path) -> list[int]:
    """Size and modification time, by which a file that was written again is told from the one that was logged."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _send(client: MlflowClient, run_id: str, entries: list[dict[str, Any]]) -> None:
    match entries[0]:
        case {"do": "metrics"}:
            client.log_batch(run_id, metrics=[Metric(*point) for entry in entries for point in entry["metrics"]])
        case {"do": "params", "values": values}:
            # MLflow refuses a second value of a parameter, even 0.0001 after 1e-4.
            known = client.get_run(run_id).data.params
            params = [Param(name, value) for name, value in values.items() if name not in known]
            client.log_batch(run_id, params=params)
        case {"do": "tags", "values": values}:
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in values.items()])
        case {"do": "tag_run", "run": other, "values": values}:
            try:
                client.log_batch(other, tags=[RunTag(name, value) for name, value in values.items()])
            except MlflowException as error:  # its owner may have deleted it
                if not is_refusal(error):
                    raise
                logger.info("Run %s gets no tags: %s", other, said(error))
        case {"do": "json", "value": value, "name": name}:
            client.log_dict(run_id, value, name)
        case {"do": "table", "text": text, "name": name}:
            # MLflow's log_table appends to a table that is there already.
            client.log_text(run_id, text, name)
            tables = json.loads(client.get_run(run_id).data.tags.get(TABLES_TAG, "[]"))
            table = {"path": name, "type": "table"}
            client.set_tag(run_id, TABLES_TAG, json.dumps(tables if table in tables else [*tables, table]))
        case {"do": "path", "path": path, "folder": folder, "stamp": stamp}:
            if stamp_of(Path(path)) != stamp:
                raise UserError(f"{path} has changed since the run logged it, so it is not sent.")
            client.log_artifact(run_id, path, folder)
        case {"do": "image", "path": path, "key": key, "step": step}:
            # MLflow names every picture anew, so one whose answer was lost would stand there twice.
            sent = f"images/{key.replace('/', '~')}+step+{step}+"
            if any(one.path.startswith(sent) for one in client.list_artifacts(run_id, "images")):
                return
            with Image.open(path) as image:
                client.log_image(run_id, image, key=key, step=step, synchronous=True)
        case {"do": "dataset", "dataset": dataset, "context": context}:
            client.log_inputs(run_id, [DatasetInput(Dataset(**dataset), [InputTag("mlflow.data.context", context)])])
        case {"do": "model", "model": model}:
            note_output(client, run_id, model)
        case {"do": "used_model", "model": model}:
            client.log_inputs(run_id, models=[LoggedModelInput(model)])
        case {"do": "card", "model": model, "readings": path}:
            if path:
                add_readings(client, model, Path(path))
            write_cards(client, model)
        case {"do": "end", "status": status, "time": milliseconds}:
            client.set_terminated(run_id, status, milliseconds)
