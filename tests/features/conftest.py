"""What tests of readings share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fsae_mlflow.templates.set import TemplateSet
from tests.template_sets import labelled_set


@pytest.fixture
def labelled(tmp_path: Path, jpeg: bytes) -> Callable[..., TemplateSet]:
    """Makes a template set with the attribute glasses."""
    return lambda **options: labelled_set(tmp_path / "labelled", jpeg, **options)
