"""What tests of readings share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fsae_mlflow.templates.set import TemplateSet
from tests.template_sets import labeled_set


@pytest.fixture
def labeled(tmp_path: Path, jpeg: bytes) -> Callable[..., TemplateSet]:
    """Makes a template set with the attribute glasses."""
    return lambda **options: labeled_set(tmp_path / "labeled", jpeg, **options)
