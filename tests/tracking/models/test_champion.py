"""The champion rule, both ways."""

import math
from dataclasses import replace

import pytest

from fsae_mlflow.tracking.models.champion import CHALLENGER, CHAMPION, Standing, judge

OLD = Standing(fvu=0.4, l0=44.0, templates="orl", recognizer="tiny", people="holdout=0.1, seed=0")
BETTER = replace(OLD, fvu=0.3)


def test_better_on_held_out_people_within_the_limit_takes_the_alias() -> None:
    verdict = judge(replace(BETTER, l0=46.0), OLD, max_l0=46.2)
    assert verdict.alias == CHAMPION
    assert verdict.reason == "its held-out fvu 0.3 is below the champion's 0.4"
    assert str(verdict) == f"champion: {verdict.reason}"


def test_the_first_takes_the_alias() -> None:
    assert judge(OLD, None, max_l0=None).alias == CHAMPION
    assert judge(OLD, None, max_l0=44.0).alias == CHAMPION


@pytest.mark.parametrize("fvu", [math.nan, 1.0, 1.125])
def test_one_that_is_no_better_than_the_mean_or_not_measured_never_wins(fvu: float) -> None:
    useless = replace(OLD, fvu=fvu)
    assert judge(useless, None, max_l0=None).alias == CHALLENGER
    assert judge(useless, replace(OLD, fvu=2.0), max_l0=None).alias == CHALLENGER
    assert judge(replace(OLD, people="others"), useless, max_l0=None).alias == CHAMPION


@pytest.mark.parametrize(
    "new, reason",
    [
        (replace(OLD, fvu=0.4), "0.4 is not below the champion's 0.4"),
        (replace(OLD, fvu=0.5), "0.5 is not below the champion's 0.4"),
        (replace(BETTER, l0=47.0), "its held-out L0 47 is above this model's limit 46"),
        (replace(BETTER, templates="celeba"), "is of another template set; give another model_name"),
        (replace(BETTER, recognizer="facenet"), "is of another recognizer; give another model_name"),
        (replace(BETTER, people="holdout=0.1, seed=1"), "other held-out people; train with its holdout=0.1, seed=0"),
        (replace(BETTER, fvu=math.nan), "it was not measured on held-out people; train with holdout above 0"),
    ],
)
def test_any_other_does_not_and_is_told_why(new: Standing, reason: str) -> None:
    verdict = judge(new, OLD, max_l0=46.0)
    assert verdict.alias == CHALLENGER and reason in verdict.reason


def test_the_limit_holds_without_a_champion_too() -> None:
    assert judge(OLD, None, max_l0=43.0).alias == CHALLENGER


def test_what_the_rule_reads_of_a_saved_sae() -> None:
    config = {
        "metrics": {"heldout/fvu": 0.4, "heldout/l0": 44.0},
        "settings": {"holdout": 0.1, "seed": 0},
        "templates": {"digest": "orl"},
    }
    assert Standing.of(config) == replace(OLD, recognizer="")
    assert not Standing.of(config | {"metrics": {"train/fvu": 0.1}}).counts
