"""PostgreSQL from Debian's packages, started by a test."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from tests.servers import free_port

# No test needs its rows after a power cut.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "unix_socket_directories": ""}


def programs() -> Path | None:
    """The folder of initdb and postgres, of the newest version that is installed; None where none is."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(found, key=lambda folder: float(folder.parent.name), default=None)


class Postgresql:
    """A running PostgreSQL at a port of the loopback interface, with a password."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self.password = secrets.token_hex(8)
        self.port = free_port()
        # PostgreSQL refuses to run as root; Debian's package makes the user postgres.
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self.user:
            shutil.chown(folder, "postgres", "postgres")
        password_file = folder / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o644)  # of a folder that only its owner can enter
        data = folder / "data"
        initdb = [bin_folder / "initdb", "--no-sync", "--username=fsae", "--auth=scram-sha-256", "--encoding=UTF8"]
        initdb += ["--locale=C", f"--pwfile={password_file}", data]
        subprocess.run(initdb, cwd=folder, check=True, stdout=subprocess.DEVNULL, **self.user)
        arguments = [bin_folder / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(self.port)]
        arguments += [f"--{name}={value}" for name, value in SETTINGS.items()]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(arguments, cwd=folder, stderr=log, **self.user)
        self._wait(folder / "log")

    def new_database(self, *, with_password: bool = True) -> str:
        """Make an empty database and give its SQLAlchemy URL, with the user's name and, if wanted, password."""
        name = f"test_{secrets.token_hex(4)}"
        self._execute(f"CREATE DATABASE {name}")
        user = f"fsae:{self.password}" if with_password else "fsae"
        return f"postgresql+psycopg2://{user}@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGQUIT)  # at once, whoever is connected
        self.process.wait()

    def _execute(self, statement: str) -> None:
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user="fsae", password=self.password, dbname="postgres"
        )
        connection.autocommit = True  # CREATE DATABASE cannot run inside a transaction
        connection.cursor().execute(statement)
        connection.close()

    def _wait(self, log: Path) -> None:
        end = time.monotonic() + 30
        while True:
            try:
                return self._execute("SELECT 1")
            except psycopg2.OperationalError:
                assert self.process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.05)


@contextmanager
def running_postgresql(bin_folder: Path) -> Iterator[Postgresql]:
    """A PostgreSQL with a new, empty folder; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        server = Postgresql(Path(folder), bin_folder)
        try:
            yield server
        finally:
            server.stop()
