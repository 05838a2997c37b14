"""What train_sae does without parameters, and the values that it takes at all."""

import pytest

from fsae_mlflow.parameters import deciding, flat, parse
from fsae_mlflow.sae.settings import VariantSettings
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.variants.registry import VARIANTS
from fsae_mlflow.sae.variants.settings import GatedSettings
from tests.sae.making import train_settings

# A default decides what a command trains that leaves the parameter out: another one is a change for users.
DEFAULTS = {
    "templates": "latest",
    "preset": "default",
    "variant": "gated",
    "expansion": 8,
    "center": False,
    "normalize": False,
    "whiten": 0,
    "init": "random",
    "mixup": 0.0,
    "lr": 1e-3,
    "lr_end": 1e-6,
    "lr_schedule": "cosine",
    "lr_warmup": 0,
    "weight_decay": 1e-2,
    "beta1": 0.9,
    "beta2": 0.999,
    "batch_size": 256,
    "epochs": 100,
    "holdout": 0.1,
    "keep": "last",
    "register": True,
    "model_name": "fsae",
    "embed_recognizer": False,
    "seed": 0,
    "step": "auto",
    "checkpoint_seconds": 300.0,
    "max_gigabytes": 4.0,
    "device": "auto",
    "output": "",
    "describe": True,
}
PENALIZED = {"target_l0": None, "lam": None, "lam_warmup": 0, "resample_every": 10, "resample_until": 0.75}
TOPK = {"k": 32, "k_aux": None, "aux_weight": 1 / 32, "dead_after": 1.0}
OWN_DEFAULTS = {
    "gated": PENALIZED | {"decoder_norm": "held"},
    "relu": PENALIZED | {"decoder_norm": "weighted"},
    "jumprelu": PENALIZED | {"bandwidth": 0.01, "initial_threshold": 0.01},
    "topk": TOPK,
    "batchtopk": TOPK,
    "matryoshka": TOPK | {"n_prefixes": 4},
    **{computed: {"target_l0": None} for computed in ("pursuit", "ica", "pca", "kmeans")},
}
# The last value that is taken and one beyond; for open bounds one inside and the bound.
BOUNDS: dict[str, list[tuple[float, float]]] = {
    "expansion": [(1, 0)],
    "mixup": [(0.0, -0.1), (1.0, 1.1)],
    "lr": [(1e-3, 0.0)],
    "lr_end": [(0.0, -1e-9)],
    "lr_warmup": [(0, -1)],
    "weight_decay": [(0.0, -0.1)],
    "beta1": [(0.0, -0.1), (0.99, 1.0)],
    "beta2": [(0.0, -0.1), (0.99, 1.0)],
    "batch_size": [(1, 0)],
    "epochs": [(1, 0)],
    "holdout": [(0.0, -0.1), (0.9, 1.0)],
    "seed": [(0, -1)],
    "checkpoint_seconds": [(0.0, -1.0)],
    "max_gigabytes": [(0.5, 0.0)],
    "target_l0": [(0.5, 0.0)],
    "lam": [(0.0, -0.1)],
    "lam_warmup": [(0, -1)],
    "resample_every": [(0, -1)],
    "resample_until": [(0.0, -0.1), (1.0, 1.1)],
    "bandwidth": [(0.5, 0.0)],
    "initial_threshold": [(0.5, 0.0)],
    "k": [(1, 0)],
    "k_aux": [(1, 0)],
    "aux_weight": [(0.0, -0.1)],
    "dead_after": [(0.5, 0.0)],
    "n_prefixes": [(1, 0)],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_default_is_what_it_was(variant: str) -> None:
    assert flat(train_settings(variant=variant)) == DEFAULTS | {"variant": variant} | OWN_DEFAULTS[variant]


@pytest.mark.parametrize(("name", "inside", "outside"), [(name, *pair) for name in BOUNDS for pair in BOUNDS[name]])
def test_a_value_is_taken_up_to_its_bound(name: str, inside: float, outside: float) -> None:
    variant = next((variant for variant, own in OWN_DEFAULTS.items() if name in own), "gated")
    assert flat(train_settings(variant=variant, **{name: inside}))[name] == inside
    with pytest.raises(ValueError, match=f"{name} must be "):
        train_settings(variant=variant, **{name: outside})


def test_the_learning_rate_does_not_rise() -> None:
    assert train_settings(lr=1e-3, lr_end=1e-3).lr_end == 1e-3
    with pytest.raises(ValueError, match=r"lr_end must be at most lr \(0.001\); it is 0.002"):
        train_settings(lr=1e-3, lr_end=2e-3)


# What only a training that takes steps reads, each with another value than its default.
TRAINED_BY = {
    "whiten": 4,
    "init": "data",
    "mixup": 0.5,
    "lr": 0.01,
    "lr_end": 1e-4,
    "lr_schedule": "constant",
    "lr_warmup": 5,
    "weight_decay": 0.0,
    "beta1": 0.8,
    "beta2": 0.99,
    "batch_size": 64,
    "epochs": 3,
    "keep": "best",
    "step": "plain",
}


@pytest.mark.parametrize("variant", [name for name, kind in VARIANTS.items() if kind.directions])
@pytest.mark.parametrize(("name", "value"), TRAINED_BY.items())
def test_what_a_computed_dictionary_does_not_read_is_refused(variant: str, name: str, value: object) -> None:
    with pytest.raises(ValueError) as refusal:
        train_settings(variant=variant, **{name: value})
    assert str(refusal.value) == (
        f"{name} has no effect on variant={variant}, whose dictionary is computed, not trained; leave it out."
    )
    assert train_settings(variant=variant, **{name: DEFAULTS[name]}) == train_settings(variant=variant)
    assert flat(parse(TrainSettings, {"variant": variant}, preset={name: value}))[name] == DEFAULTS[name]
    assert flat(parse(TrainSettings, {"variant": "gated"}, preset={name: value}))[name] == value


def test_a_computed_dictionary_takes_what_it_reads_and_how_it_runs() -> None:
    others = {"expansion": 2, "center": True, "normalize": True, "holdout": 0.2, "seed": 1}
    execution = {"checkpoint_seconds": 1.0, "device": "cpu", "describe": False}
    for given in ({"variant": "ica"}, {}):
        made = flat(parse(TrainSettings, others | execution | given, preset={"variant": "ica", "lr": 0.01}))
        assert made == DEFAULTS | others | execution | {"variant": "ica", "target_l0": None}
    assert {"variant", *TRAINED_BY, *others} == deciding(train_settings()).keys() - OWN_DEFAULTS["gated"].keys()


def test_the_preset_holds_the_papers_settings() -> None:
    assert type(train_settings()).PRESETS["paper"] == {
        "variant": "gated",
        "expansion": 128,
        "lam": 1e-7,
        "lr": 5e-4,
        "lr_end": 1e-6,
        "weight_decay": 1e-2,
        "batch_size": 1024,
        "epochs": 100,
    }


def test_the_sparsity_weight_rises_from_the_first_step() -> None:
    warm = GatedSettings(lam=0.8, lam_warmup=3)
    assert [warm.sparsity_weight(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert warm.sparsity_weight() == 0.8
    assert GatedSettings(lam=0.8).sparsity_weight(0) == 0.8
    assert VARIANTS["topk"]().sparsity_weight(0) == VARIANTS["topk"]().sparsity_weight() == 0


def test_lam_is_given_or_found() -> None:
    assert [GatedSettings().l0_to_reach(d_in) for d_in in (512, 8)] == [32, 1]
    assert GatedSettings(target_l0=40.5).l0_to_reach(512) == 40.5
    given = GatedSettings(target_l0=40.5, lam_warmup=3).with_lam(0.8)
    assert given == GatedSettings(lam=0.8, lam_warmup=3) and given.l0_to_reach(512) is None
    assert VARIANTS["topk"]().l0_to_reach(512) is None and VARIANTS["topk"]().with_lam(0.8) == VARIANTS["topk"]()
    # λ is compared with activations (L1) or with their squares (L0).
    assert GatedSettings().first_lam(100.0) == pytest.approx(0.05) == VARIANTS["relu"]().first_lam(100.0)
    assert VARIANTS["jumprelu"]().first_lam(100.0) == pytest.approx(0.001)
    assert VARIANTS["topk"]().first_lam(100.0) == 0
    assert GatedSettings(target_l0=100.0).sparsity_weight() == pytest.approx(0.05)
    assert GatedSettings().sparsity_weight() == GatedSettings(target_l0=32.0).sparsity_weight()


def test_resampling_comes_every_few_epochs_until_its_share_of_the_training() -> None:
    every = GatedSettings(resample_every=3, resample_until=0.75)
    assert [epoch for epoch in range(13) if every.resampling_due(epoch, 12)] == [3, 6, 9]
    assert not any(GatedSettings(resample_every=0).resampling_due(epoch, 12) for epoch in range(13))
    assert [every.epochs_until_dead(epoch, 12) for epoch in range(1, 13)] == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]
    each = GatedSettings(resample_every=1, resample_until=0.5)
    assert [each.epochs_until_dead(epoch, 4) for epoch in range(1, 5)] == [1, 1, 1, 2]
    assert not VariantSettings().resampling_due(1, 2)
    assert VariantSettings().epochs_until_dead(1, 2) == 1
    assert VARIANTS["topk"](dead_after=0.5).epochs_until_dead(3, 12) == 0.5
