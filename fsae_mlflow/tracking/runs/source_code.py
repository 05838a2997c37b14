"""Which code a run used."""

import subprocess
from functools import cache
from pathlib import Path

import fsae_mlflow

SECONDS_TO_WAIT = 20


@cache
def code_tags() -> dict[str, str]:
    """Tags that name this package's version and, in a git checkout, its commit and whether files differ from it."""
    tags = {"fsae.version": fsae_mlflow.__version__}
    try:
        if _git("ls-files", "__init__.py"):  # else the package is installed inside of someone else's repository
            tags["mlflow.source.git.commit"] = _git("rev-parse", "HEAD")
            tags["mlflow.source.git.dirty"] = str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower()
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout
        pass
    return tags


def _git(*arguments: str) -> str:
    folder = Path(fsae_mlflow.__file__).parent
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=SECONDS_TO_WAIT
    )
    return done.stdout.strip()
