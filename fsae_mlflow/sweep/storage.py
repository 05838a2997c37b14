"""Where a study is kept: a file of one process, a file of several, a database, or a server in front of one."""

import json
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fsae_mlflow.errors import UserError

SQLITE, JOURNAL = "sqlite", "journal"
POSTGRESQL, GRPC = r"postgresql(\+[a-z0-9]+)?://.+", r"grpc://(?P<host>[^:/]+):(?P<port>[0-9]{1,5})"
SECONDS_TO_ANSWER = 20.0
ATTEMPTS, SECONDS_BETWEEN = 5, 0.5


def check_storage(storage: str) -> None:
    """Check how a storage is written.

    Raises: UserError naming the ways that there are, and for an address with a password.
    """
    if storage not in (SQLITE, JOURNAL) and not re.fullmatch(f"{POSTGRESQL}|{GRPC}", storage):
        raise UserError(
            f"storage must be sqlite, journal, postgresql://USER@HOST/DATABASE or grpc://HOST:PORT; it is "
            f"{kind_of(storage)[:100]!r}."
        )
    if urlsplit(storage).password is not None:
        raise UserError(
            "storage must have no password, because runs show their parameters; give it as PGPASSWORD in the "
            "environment, or in ~/.pgpass."
        )


def kind_of(storage: str) -> str:
    """The storage without its address, which may have a password."""
    return storage.partition("://")[0]


def open_storage(storage: str, folder: Path) -> Any:
    """The Optuna storage that the settings name; `sqlite` and `journal` are files in `folder`.

    Raises: UserError for a damaged file, and where a database or a server cannot be reached or its driver is missing.
    """
    import optuna

    from fsae_mlflow.sweep.journal import open_journal

    if storage == SQLITE:
        return optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    if storage == JOURNAL:
        return open_journal(folder / "study.journal")
    try:
        if address := re.fullmatch(GRPC, storage):
            return _proxy(address["host"], int(address["port"]))
        return _database(storage)
    except ImportError as error:
        package = "grpcio" if storage.startswith("grpc") else "psycopg2-binary"
        raise UserError(f"storage={kind_of(storage)}://…: {error}. Install it: pip install {package}.") from error
    except Exception as error:
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        raise UserError(f"storage={kind_of(storage)}://… cannot be opened ({cause}); check the address.") from error


def _database(address: str) -> Any:
    """Optuna's storage in a database; the first processes of a study may create its tables at the same time, which the
    database refuses to all but one.
    """
    import optuna
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    # A connection that the database has closed meanwhile is replaced.
    given: dict[str, Any] = {"url": address, "engine_kwargs": {"pool_pre_ping": True}}
    for _ in range(ATTEMPTS - 1):
        with suppress(IntegrityError, ProgrammingError):
            return optuna.storages.RDBStorage(**given)
        time.sleep(SECONDS_BETWEEN)
    return optuna.storages.RDBStorage(**given)


@contextmanager
def answering(storage: str) -> Iterator[None]:
    """Turn the errors of a database or proxy that stops answering within the block, and of a journal that is damaged
    meanwhile, into a sentence.

    Raises: UserError, naming what is kept.
    """
    try:
        yield
    except UserError:
        raise
    except json.JSONDecodeError as error:
        raise UserError(
            f"storage={storage}: the file is damaged ({error}); give another output, or put back a copy of it."
        ) from error
    except Exception as error:
        # Optuna can fail while it handles such an error: the cause is behind what it raises.
        behind: BaseException | None = error
        while behind and not type(behind).__module__.startswith(("sqlalchemy.", "grpc")):
            behind = behind.__cause__ or behind.__context__
        if behind is None:
            raise
        cause = str(behind).partition("\n")[0]
        raise UserError(
            f"storage={kind_of(storage)} does not answer ({cause}). Finished trials are kept; the same command goes on "
            "with the study."
        ) from error


def _proxy(host: str, port: int) -> Any:
    import optuna

    with warnings.catch_warnings():
        # Optuna calls the proxy experimental since 4.2.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = optuna.storages.GrpcStorageProxy(host=host, port=port)
    try:
        proxy.wait_server_ready(timeout=SECONDS_TO_ANSWER)
    except ConnectionError:
        proxy.close()
        raise
    return proxy
