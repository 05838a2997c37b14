"""No value of any parameter ends in a traceback or hangs: it is taken, or refused in one sentence."""

import importlib
import math
from pathlib import Path

import click
import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.extraction import writing
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.extraction.stage import extract
from fsae_mlflow.faces.sources.tars import TarShards
from fsae_mlflow.machine.compute import choose_device
from fsae_mlflow.parameters import LARGEST, Option, flat, options, parse
from fsae_mlflow.recognizers.student import StudentArchitecture, StudentNetwork
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.sweep.settings import SweepSettings
from fsae_mlflow.sweep.stage import sweep
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.command import StageCommand
from fsae_mlflow.visualization.choosing import named_targets
from tests.sae.making import new_sae, train_settings
from tests.test_house import ENTRY_POINTS

TYPED = ["-1", "0", "nan", "inf", "", "word", "1e30", "1" + 30 * "0"]
GIVEN = [-1, math.nan, math.inf, "", "word", 1e30, 10**400, None, []]


def command(stage: str) -> StageCommand:
    return importlib.import_module(f"entrypoints.{stage}").main


def with_value(option: Option, value: object, settings_class: type) -> dict[str, object]:
    """Values for one option, the options without default, and the choice that the option belongs to."""
    values: dict[str, object] = {one.name: "x,y" for one in options(settings_class) if one.required and not one.choice}
    return values | ({option.choice: next(iter(option.defaults))} if option.choice else {}) | {option.name: value}


@pytest.mark.parametrize("stage", ENTRY_POINTS)
def test_every_value_is_taken_or_refused_in_one_sentence(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main = command(stage)
    listed = main.get_params(click.Context(main))
    monkeypatch.setattr(StageCommand, "get_params", lambda *_: listed)  # else listed once more for every value
    n_refused = 0
    own = [option for option in options(main.settings_class) if not option.parts]  # those of parts are other stages'
    for option in own:
        for value in TYPED:
            values = with_value(option, value, main.settings_class)
            arguments = [str(word) for name, one in values.items() for word in (f"--{name}", one)]
            try:
                taken = flat(main.make_context(stage, arguments).obj)
            except click.UsageError as refusal:
                assert option.name in refusal.format_message()
                n_refused += 1
            else:
                assert all(one <= LARGEST for one in taken.values() if isinstance(one, int))
                assert all(math.isfinite(one) for one in taken.values() if isinstance(one, float))
        for value in GIVEN:
            try:
                parse(main.settings_class, with_value(option, value, main.settings_class))
            except UserError as refusal:
                assert option.name in str(refusal) and "\n" not in str(refusal)
    assert n_refused >= len(own)


@pytest.mark.parametrize(
    ("stage", "values", "sentence"),
    [
        ("train_recognizer", {"head_width": 10**6}, "head_width must be less than or equal to 65536"),
        ("train_recognizer", {"batch_size": 10**6}, "batch_size must be less than or equal to 65536"),
        ("train_recognizer", {"teacher": ""}, "teacher is required."),
        ("train_recognizer", {"faces": ""}, "faces is required."),
        ("visualize", {"noise": 2.0}, "noise must be less than or equal to 1"),
        ("visualize", {"jitter": 10**4}, "jitter must be less than or equal to 56"),
        ("visualize", {"n_features": 10**4}, "n_features must be less than or equal to 300"),
        ("visualize", {"n_images": 10**4}, "n_images must be less than or equal to 100"),
        ("visualize", {"n_top_faces": 10**4}, "n_top_faces must be less than or equal to 100"),
        ("evaluate_lfw", {"pairs_per_fold": 10**9}, "pairs_per_fold must be less than or equal to 1000000"),
        ("extract", {"workers": 10**4}, "workers must be less than or equal to 256"),
        ("sweep", {"space": "expansion:4|1" + 30 * "0"}, "space: expansion must be at most 2147483647"),
        ("train_sae", {"seed": 10**30}, "seed must be at most 2147483647; it is far more."),
    ],
)
def test_a_value_that_no_machine_can_use_is_a_usage_error(stage: str, values: dict[str, object], sentence: str) -> None:
    required = {} if stage != "train_recognizer" else {"teacher": "x", "faces": "x"}
    arguments = [str(word) for name, value in (required | values).items() for word in (f"--{name}", value)]
    with pytest.raises(click.UsageError) as refusal:
        command(stage).make_context(stage, arguments)
    assert sentence in refusal.value.format_message()


@pytest.mark.parametrize("device", ["meta", "mps", "word", "", "cuda:-1", "cuda:99999999999", "1e30", "xla:0", "cpu:3"])
def test_another_device_than_cpu_and_cuda_is_refused(device: str) -> None:
    with pytest.raises(UserError, match="device must be auto, cpu or cuda"):
        choose_device(device)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"expansion": LARGEST}, r"expansion=2147483647 of d_in 16 needs [\d,]+ GiB of memory, and the machine has"),
        ({"variant": "matryoshka", "k": 4, "n_prefixes": LARGEST}, "n_prefixes must be at most 8 for 128 features"),
        ({"lr": 1e30, "batch_size": LARGEST}, "The loss is not finite after the last step; lower lr"),
    ],
)
def test_training_refuses_what_the_machine_or_the_sae_cannot_hold(
    values: dict[str, object], sentence: str, template_set: TemplateSet, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        settings = train_settings(epochs=1, **values)
        train(settings, templates=template_set, output=tmp_path / "sae", on_metrics=lambda *_: None)
    assert not (tmp_path / "sae" / "config.json").exists()


def test_more_gigabytes_than_the_machine_has_are_no_fault(template_set: TemplateSet, tmp_path: Path) -> None:
    settings = train_settings(epochs=1, max_gigabytes=1e300)
    trained = train(settings, templates=template_set, output=tmp_path, on_metrics=lambda *_: None)
    assert trained.metrics["epoch_kept"] == 1


def test_the_smallest_prefix_may_be_one_feature() -> None:
    assert new_sae("matryoshka", 8, 16, k=4, n_prefixes=5).prefixes == [1, 2, 4, 8, 16]


def test_a_sweep_refuses_its_largest_expansion_before_the_first_trial(
    template_set: TemplateSet, tmp_path: Path
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a trial began")

    settings = SweepSettings(space="expansion:1|999999999", output=str(tmp_path / "study"))
    with pytest.raises(UserError, match="expansion=999999999 of d_in 16 needs"):
        sweep(settings, templates=template_set, start_run=never, journals=list)
    assert not (tmp_path / "study").exists()


def test_a_range_of_tars_ends_at_its_first_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*x-0\.tar"):
        TarShards(f"{tmp_path}/x-{{0..999999999}}.tar")


def test_no_more_workers_start_than_have_a_task(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def decoded(pictures: object, *, workers: int) -> object:
        started.append(workers)
        return real(pictures, workers=0)

    real = writing.decoded
    monkeypatch.setattr(writing, "decoded", decoded)
    settings = ExtractSettings(faces=str(faces), aligned=True, workers=40, output=str(tmp_path))
    assert len(extract(settings, on_metrics=lambda *_: None).templates) == 24
    assert started == [4]  # for 25 pictures in tasks of 8


@pytest.mark.parametrize("arguments", ["[]", "1e30", "NaN", '{"channels": -1}', '{"layers": []}', '{"layers": [0]}'])
def test_backbone_arguments_that_timm_cannot_use_are_refused(arguments: str) -> None:
    with pytest.raises(UserError, match="backbone"):
        StudentNetwork(StudentArchitecture(backbone="resnet18", backbone_args=arguments))


def test_features_to_make_images_of_are_numbers() -> None:
    for features in ("²", "-1", "nan", "1e30", "64", 5000 * "1", "1,,2", "1+", "1--2"):
        with pytest.raises(UserError, match=r"^features(: .-1. must begin| must be best, all, or numbers)"):
            named_targets(features, 64)
    assert [target.name for target in named_targets("7, 3,7", 64)] == ["7", "3"]


def test_a_misspelt_parameter_names_the_nearest() -> None:
    settings_class = command("train_sae").settings_class
    for name, nearest in (
        ("epoks", "epochs"),
        ("lamm", "lam"),
        ("n_prefix", "n_prefixes"),
        ("batchsize", "batch_size"),
    ):
        with pytest.raises(UserError, match=f"^{name} is not known; the nearest is {nearest}.$"):
            parse(settings_class, {name: 1})
    with pytest.raises(UserError, match="the nearest is holdout"):
        settings_class(hold_out=0.2)
    with pytest.raises(UserError, match="zzzz is not known; known are templates, "):
        parse(settings_class, {"zzzz": 1})
    with pytest.raises(click.UsageError) as refusal:
        command("train_sae").make_context("train_sae", ["--epoks", "1"])
    assert "--epochs" in refusal.value.format_message()
