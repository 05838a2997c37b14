"""A run's warnings, kept for its description: who opens the run's page later has not seen the terminal."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

PACKAGE = "fsae_mlflow"
OF_SERVER = f"{PACKAGE}.tracking.runs"  # what concerns the server is nothing that a reader of the run needs


class _Keeper(logging.Handler):
    """Appends each new warning to a list, unless a keeper that was added later does."""

    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.into = into

    def emit(self, record: logging.LogRecord) -> None:
        keepers = [one for one in logging.getLogger(PACKAGE).handlers if isinstance(one, _Keeper)]
        text = " ".join(record.getMessage().split())
        if keepers[-1:] == [self] and not record.name.startswith(OF_SERVER) and text not in self.into:
            self.into.append(text)


@contextmanager
def warnings_kept(into: list[str]) -> Iterator[None]:
    """Append to a list what the package warns of, each sentence once; a run within the run keeps its own."""
    keeper, logger = _Keeper(into), logging.getLogger(PACKAGE)
    logger.addHandler(keeper)
    try:
        yield
    finally:
        logger.removeHandler(keeper)
