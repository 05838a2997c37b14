"""The language in which a search is declared."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import flat
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.variants.registry import VARIANTS
from fsae_mlflow.sae.variants.settings import TopKSettings
from fsae_mlflow.sweep.space import Range, Values, read_space

BOTH = "lam:1e-3..1:log,expansion:4|8|16,variant:topk|gated,k:16..128"


def test_ranges_lists_and_fixed_values() -> None:
    space = read_space(f"{BOTH}, normalize:true, lr:1e-4..0.01", TrainSettings())
    assert space.dimensions == {
        "lam": Range(0.001, 1.0, log=True),
        "expansion": Values((4, 8, 16)),
        "variant": Values(("topk", "gated")),
        "k": Range(16, 128),
        "normalize": Values((True,)),
        "lr": Range(1e-4, 0.01),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lamm:1..2", "space: lamm is not known; the nearest is lam."),
        ("lam", "space: 'lam' must be a parameter and its values; write NAME:LOW..HIGH"),
        ("lam:", "space: 'lam:' must be a parameter and its values"),
        ("lam:1..2,,", "space: '' must be a parameter and its values"),
        ('{"lam": [1, 2]}', "space: '{\"lam\": [1' must be a parameter and its values; write NAME:LOW..HIGH"),
        ("learning-rate:1..2", "space: learning-rate is not known"),
        ("lam:2..1", "space: the range of lam must go from a smaller to a larger number; it is 2..1."),
        ("lam:0..1:log", "space: a log range must start above 0; lam starts at 0. Raise it, or leave :log out."),
        ("lam:1..2:linear", "space: lam has the scale 'linear'; it is log or left out."),
        ("lam:a..b", "space: lam must be a number; it is 'a'."),
        ("lam:inf|1", "space: lam must be a number; it is 'inf'."),
        ("expansion:1.5|2", "space: expansion must be a whole number; it is '1.5'."),
        ("expansion:0|2", "space: expansion must be greater than or equal to 1; it is 0."),
        ("expansion:4,expansion:8", "space: expansion is there twice; write its values with | between."),
        ("expansion:4|4", "space: the values of expansion must differ; they are 4|4. Remove the repeated one."),
        ("variant:topk|gatd", "space: variant:gatd is not known; the nearest is variant:gated."),
        ("variant:gated..topk", "space: a range needs a number, and variant is not one; write variant:A|B|C."),
        ("normalize:true|no", "space: normalize must be true or false; it is 'no'."),
        ("device:cpu", "space: device must be a parameter that changes the result of a training; leave it out."),
        ("k:16..32", "space: k is searched, but no variant of the search (gated) reads it; search variant:topk|batch"),
        (
            "variant:pca,lr:1e-3|1e-2",
            "space: lr is searched, but no variant of the search (pca) reads it; leave lr out",
        ),
        ("lr:1e-7..1e-2:log", "space: lr_end must be at most lr (1e-07)"),
    ],
)
def test_a_mistake_is_named(text: str, sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        read_space(text, TrainSettings())
    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_default_suits_each_variant(variant: str) -> None:
    searched = read_space("", TrainSettings(variant=VARIANTS[variant]())).dimensions.keys()
    assert "expansion" in searched
    assert ("lam" in searched, "k" in searched) == tuple(name in flat(VARIANTS[variant]()) for name in ("lam", "k"))


BASE = TrainSettings(variant=TopKSettings(k=5, aux_weight=1.0), epochs=3, mixup=0.5)
SPACE = read_space("lam:1e-3..1:log,expansion:4|8|16,variant:topk|gated|relu|pca,k:16..128", BASE)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_trial_can_be_trained_and_has_only_what_its_variant_has(seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    chosen = SPACE.chosen(trial)
    values = flat(SPACE.settings(chosen))
    assert {name: values[name] for name in chosen} == chosen
    assert ("k" in chosen) == (chosen["variant"] == "topk")
    assert ("lam" in chosen) == (chosen["variant"] in ("gated", "relu"))
    if chosen["variant"] == "topk":
        assert values["aux_weight"] == 1.0  # the base's own variant keeps what it was given
        assert 16 <= chosen["k"] <= 128
    if chosen["variant"] == "relu":
        assert values["decoder_norm"] == "weighted"  # another one takes its own defaults
    if chosen["variant"] != "pca":
        assert values["epochs"] == 3 and values["mixup"] == 0.5


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e3), st.booleans())
def test_a_range_is_read_as_it_is_written(low: float, factor: float, log: bool) -> None:
    text = f"lam:{low!r}..{low * factor!r}{':log' if log else ''}"
    assert read_space(text, TrainSettings()).dimensions == {"lam": Range(low, low * factor, log=log)}


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-6, 1e3), st.floats(1.0001, 1e3), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_drawn_number_is_short_and_in_its_range(low: float, factor: float, log: bool, seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    dimension = Range(low, low * factor, log=log)
    drawn, exact = dimension.suggest(trial, "lam"), trial.params["lam"]
    assert low <= drawn <= low * factor
    assert abs(drawn - exact) <= 1e-3 * min(exact, 10 * low * (factor - 1))  # also of a narrow range
    assert factor < 1.1 or drawn in dimension.ends or len(f"{drawn:e}".partition("e")[0].rstrip("0")) <= 6


@settings(deadline=None)
@given(st.text("lamk:.|,0123456789e- gtd", max_size=30))
def test_any_text_is_a_space_or_a_sentence(text: str) -> None:
    try:
        assert read_space(text, TrainSettings()).dimensions
    except UserError as error:
        assert len(str(error).splitlines()) == 1


def test_a_grid_has_every_combination_once() -> None:
    space = read_space("variant:topk|gated|pca,k:3..5,lam:0.1|0.2,init:random|ica,epochs:3", TrainSettings())
    grid = list(space.grid())
    assert len(grid) == 3 * 2 + 2 * 2 + 1 == len({tuple(sorted(point.items())) for point in grid})
    assert {"variant": "gated", "lam": 0.2, "init": "ica"} in grid and {"variant": "pca"} in grid
    for text in ("lam:0.1..0.2", "seed:0..2000000000"):
        with pytest.raises(UserError, match="sampler=grid tries listed values"):
            next(read_space(text, TrainSettings()).grid())


def test_the_largest_value_is_that_of_any_trial() -> None:
    assert read_space("expansion:4|16|8", TrainSettings()).largest("expansion") == 16
    assert read_space("lam:1..2", TrainSettings(expansion=3)).largest("expansion") == 3
