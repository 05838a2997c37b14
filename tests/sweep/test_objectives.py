"""What a sweep can look for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.sweep.objectives import DIRECTIONS, Objective, measured, read_objectives
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import new_sae, train_settings
from tests.template_sets import TemplateWriter, face_row, labeled_set


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"objective: heldout/fvuu is not known; the nearest is heldout/fvu\."):
        read_objectives("heldout/l0,heldout/fvuu")
    with pytest.raises(UserError, match=r"each metric must be named once; it is .* Remove the second one"):
        read_objectives("heldout/l0, heldout/l0")


def test_less_cost_is_better() -> None:
    assert Objective("heldout/fvu").cost(0.1) < Objective("heldout/fvu").cost(0.2)
    assert Objective("verification/auc").cost(0.9) < Objective("verification/auc").cost(0.8)


def test_every_metric_that_is_offered_is_measured(tmp_path: Path, jpeg: bytes) -> None:
    templates = labeled_set(tmp_path, jpeg)
    sae = new_sae("topk", templates.width, 16, k=4)
    named = [Objective(name) for name in DIRECTIONS]
    found = measured(named, sae=sae, templates=templates, settings=train_settings(holdout=0.2))
    assert {one.name for one in named if not one.known_each_epoch} <= found.keys()


def test_people_who_differ_are_told_apart_by_decoded_templates(tmp_path: Path, jpeg: bytes) -> None:
    rng = np.random.default_rng(0)
    with TemplateWriter(tmp_path, width=8, metadata={}) as writer:
        for person, center in enumerate(rng.normal(size=(20, 8))):
            for face in range(3):
                template = center + 0.05 * rng.normal(size=8)
                writer.write([face_row(f"p{person:02d}/{face}.jpg", template, jpeg)])
    sae = new_sae("topk", 8, 64, k=64)
    found = measured(
        [Objective("verification/auc")],
        sae=sae,
        templates=TemplateSet.open(tmp_path),
        settings=train_settings(holdout=0.5),
    )
    assert found["verification/auc"] > 0.9 and found["verification/accuracy"] > 0.8


def test_only_what_is_asked_for_is_measured(template_set: TemplateSet) -> None:
    sae = new_sae("topk", template_set.width, 16, k=4)
    given: dict[str, Any] = {"sae": sae, "templates": template_set}
    assert measured([Objective("heldout/l0")], settings=train_settings(), **given) == {}
    auc = measured([Objective("verification/auc")], settings=train_settings(), **given)
    assert auc.keys() == {"verification/auc", "verification/accuracy"}
    with pytest.raises(UserError, match="readings/n_kinds cannot be measured on these templates"):
        measured([Objective("readings/n_kinds")], settings=train_settings(), **given)
    with pytest.raises(UserError, match=r"holdout=0.03 gives 1, 1 of them with two. Increase it."):
        measured([Objective("verification/auc")], settings=train_settings(holdout=0.03), **given)
