"""Send to the tracking server what stages could not log while it was away."""

import json
import os
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.files.documents import names_folder
from fsae_mlflow.sae.saved import digest, load_sae
from fsae_mlflow.tracking.process.owners import holder_of, is_gone
from fsae_mlflow.tracking.registry import register
from fsae_mlflow.tracking.runs.answers import is_refusal, said
from fsae_mlflow.tracking.runs.journal import PATTERN, REASON_TAG, not_logged
from fsae_mlflow.tracking.runs.sending import attempt


def upload(folder: Path, *, force: bool = False) -> list[str]:
    """Send every journal in `folder` and the folders in it, or of the run that wrote `folder`; give the ids of the runs
    that are complete now.

    The server is MLFLOW_TRACKING_URI where that is set, else the one that the stage used. A run whose process died
    without an end is ended KILLED. `force` says that the processes of other machines and containers, which cannot be
    seen from here, have ended.

    Raises: UserError where there is no journal, where a stage may still write one, and where the server still does not
    take all of it; what it did take is not sent again.
    """
    journals = sorted(folder.rglob(PATTERN)) or _journals_of(folder)
    if not journals:
        raise UserError(f"folder: {folder} has no {PATTERN}, so nothing waits to be logged there.")
    complete, troubles = [], []
    for path in journals:
        lock = path.with_name(f".{path.name}.lock")
        try:
            with FileLock(lock):
                if path.is_file():  # another upload may have sent it
                    complete.append(_upload(path, force=force))
                lock.unlink()
        except UserError as error:  # the other journals can arrive all the same
            troubles.append(str(error))
    if troubles:
        raise UserError(" ".join(troubles))
    return complete


def _journals_of(folder: Path) -> list[Path]:
    """The journals beside `folder` of which an entry names it: a stage begins one before it knows its folder."""
    return [path for path in sorted(folder.resolve().parent.glob(PATTERN)) if names_folder(path, folder)]


def _upload(path: Path, *, force: bool) -> str:
    try:
        header, *lines = path.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # a process that died may leave half a line
        written, *entries = [json.loads(line) for line in (header, *whole)]
        process = written["process"]
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"folder: {path} is damaged ({error}); delete it to give up what it held.") from error
    if process and not force and not is_gone(process):
        raise UserError(
            f"folder: {path} belongs to {holder_of(process)}, which may still run; run upload again when it has ended, "
            "or give --force true if that machine is gone."
        )
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(written["server"])
    client, run_id = MlflowClient(), written["run"]
    if process and not any(entry["do"] == "end" for entry in entries):
        entries.append({"do": "tags", "values": {REASON_TAG: "its process is gone; logged by upload"}})
        entries.append({"do": "end", "status": "KILLED", "time": int(path.stat().st_mtime * 1000)})
    left, trouble, away = [], "", False
    for entry in entries:
        if not away:
            error = _register(client, run_id, entry) if entry["do"] == "register" else attempt(client, run_id, [entry])
            if error is None:
                if entry.get("status") == "FINISHED":
                    _clear_reason(client, run_id)
                continue
            trouble, away = said(error), not is_refusal(error)
        left.append(json.dumps(entry) + "\n")
    if left:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({**written, "process": {}}) + "\n" + "".join(left))
        refused = "" if away else f" The server refuses these entries: delete {path} to give them up."
        raise UserError(not_logged(written["stage"], left, trouble, path.parent) + refused)
    path.unlink()
    return run_id


def _register(client: MlflowClient, run_id: str, entry: dict[str, Any]) -> Exception | None:
    folder = Path(entry["folder"])
    if digest(folder) != entry["digest"]:
        return UserError(f"{folder} holds another SAE than the one that the run trained, so it is not registered.")
    try:
        with mlflow.start_run(run_id=run_id):
            recognizer = Path(entry["recognizer"]) if entry.get("recognizer") else None
            given = {"name": entry["name"], "max_l0": entry.get("max_l0"), "recognizer": recognizer}
            register(client, run_id, load_sae(folder), folder, **given)
    except (MlflowException, OSError, UserError) as error:
        return error
    return None


def _clear_reason(client: MlflowClient, run_id: str) -> None:
    # The next run of the same host may have taken this one for dead.
    if REASON_TAG in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, REASON_TAG)
