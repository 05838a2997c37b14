"""What describe writes is what later stages read, of the SAE and the faces that they name."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.features.activity.survey import survey
from fsae_mlflow.features.table import (
    FEATURES,
    TOP_FACES,
    Description,
    read_activity,
    readings_digest,
    write_description,
)
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import new_sae

D_SAE = 32


def activity_of(templates: TemplateSet) -> Activity:
    return survey(new_sae("relu", 16, D_SAE), templates, most=5).activity


def written(activity: Activity, templates: TemplateSet, folder: Path) -> Path:
    about = {"sae": "an SAE", "templates": templates.digest}
    write_description(Description(activity=activity, columns={}, about=about), templates, folder)
    return folder


def test_an_activity_is_read_as_it_was_written(template_set: TemplateSet, tmp_path: Path) -> None:
    activity = activity_of(template_set)
    written(activity, template_set, tmp_path)
    for templates in (template_set, None):
        found = read_activity(tmp_path, sae="an SAE", d_sae=D_SAE, templates=templates)
        assert (found.n_faces, found.mean_norm, found.fvu) == (400, activity.mean_norm, activity.fvu)
        for name in ("counts", "mean", "maxima", "percentile", "density"):
            np.testing.assert_array_equal(getattr(found, name), getattr(activity, name))
        for feature in range(D_SAE):
            for mine, theirs in zip(found.top_of(feature), activity.top_of(feature), strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_a_missing_column_is_named(template_set: TemplateSet, tmp_path: Path) -> None:
    path = written(activity_of(template_set), template_set, tmp_path) / FEATURES
    table = pq.read_table(path)
    pq.write_table(table.drop_columns("maximum"), path)
    with pytest.raises(UserError, match=r"features\.parquet has no column maximum; make it with describe\."):
        read_activity(tmp_path, sae="an SAE", d_sae=D_SAE)


def test_readings_of_something_else_are_refused_unless_forced(
    template_set: TemplateSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    activity = activity_of(template_set)
    folder = written(activity, template_set, tmp_path)
    with pytest.raises(UserError, match=r"describe sae an SAE, but this run uses another; run describe .* force=true"):
        read_activity(folder, sae="another", d_sae=D_SAE)
    other = Description(activity=activity, columns={}, about={"sae": "an SAE", "templates": "others"})
    with pytest.raises(UserError, match=f"describe templates others, but this run uses {template_set.digest};"):
        other.require_of(sae="an SAE", templates=template_set.digest)
    other.require_of(sae="an SAE")
    with caplog.at_level(logging.WARNING):
        read_activity(folder, sae="another", d_sae=D_SAE, templates=template_set, force=True)
        other.require_of(sae="an SAE", templates=template_set.digest, force=True)
    assert [line.endswith("continuing, because force=true.") for line in caplog.messages] == [True, True]


@pytest.mark.parametrize("force", [False, True])
def test_other_counts_of_features_or_faces_are_refused_always(
    force: bool, template_set: TemplateSet, tmp_path: Path, jpeg: bytes, labeled: Callable[..., TemplateSet]
) -> None:
    folder = written(activity_of(template_set), template_set, tmp_path / "readings")
    with pytest.raises(UserError, match="has 32 features on 400 faces, and this run needs 33 on 400; run describe"):
        read_activity(folder, sae="an SAE", d_sae=33, force=force)
    match = "and this run needs 32 on 240" if force else "describe templates"
    with pytest.raises(UserError, match=match):
        read_activity(folder, sae="an SAE", d_sae=D_SAE, templates=labeled(), force=force)


def test_the_digest_is_that_of_both_files(template_set: TemplateSet, tmp_path: Path) -> None:
    activity = activity_of(template_set)
    folder, same = (written(activity, template_set, tmp_path / name) for name in ("one", "two"))
    assert readings_digest(folder) == readings_digest(same)
    fewer = activity.with_top(activity.top.kept(activity.top.used, most=2))
    other = written(fewer, template_set, tmp_path / "fewer")
    assert (other / FEATURES).read_bytes() == (folder / FEATURES).read_bytes()
    assert readings_digest(other) != readings_digest(folder)
    shutil.copy(folder / TOP_FACES, other)
    assert readings_digest(other) == readings_digest(folder)
    shutil.copy(folder / TOP_FACES, other / FEATURES)
    assert readings_digest(other) != readings_digest(folder)
