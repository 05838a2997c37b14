"""What a pipeline is told, and what it refuses before a stage runs."""

import click
import pytest

from entrypoints.pipeline import main
from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import flat, parse
from fsae_mlflow.pipeline.settings import PipelineSettings
from fsae_mlflow.sae.training.settings import TrainSettings


def test_a_stage_gets_what_is_shared_and_what_is_its_own() -> None:
    arguments = ["--attributes", "labels.csv", "--train_sae.k", "32", "--train_sae.variant", "topk"]
    settings = main.make_context("pipeline", arguments).obj
    assert settings.given("train_sae") == {"preset": "default", "variant": "topk", "k": 32}
    assert settings.given("describe") == {"attributes": "labels.csv"}
    assert flat(settings)["train_sae.k"] == 32 and parse(PipelineSettings, flat(settings)) == settings


def test_images_get_attributes_only_with_a_judge_and_readings() -> None:
    def given(inputs: dict[str, str], **values: str) -> dict[str, str]:
        return parse(PipelineSettings, {"attributes": "labels.csv"} | values).given("visualize", inputs)

    read = {"readings": "a-run"}
    assert given(read) == read and given({}, judge="facenet") == {"judge": "facenet"}
    assert given(read, judge="facenet") == {"attributes": "labels.csv", "judge": "facenet"} | read
    named = {"visualize.attributes": "other.csv"}
    assert given({}, **named) == {"attributes": "other.csv"}  # the stage itself says what it lacks


def test_a_stage_reads_its_preset() -> None:
    settings = parse(PipelineSettings, {"preset": "faithful", "train_sae.epochs": 3})
    trained = flat(parse(TrainSettings, settings.given("train_sae")))
    assert (trained["variant"], trained["k"], trained["epochs"]) == ("topk", 105, 3)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"train_sae.epoks": 1}, "train_sae.epoks is not known; the nearest is train_sae.epochs."),
        ({"train_sae.epochs": 0}, "train_sae.epochs must be greater than or equal to 1; it is 0."),
        ({"train_sae.k": 3}, "train_sae.k is a parameter of variant topk, batchtopk, matryoshka, and variant is gated"),
        ({"evaluate_lfw.controls": "pac"}, "evaluate_lfw.controls must be none or some of random, energy, pca, mean"),
        ({"skip": "explain,train_sae"}, "skip must name some of describe, explain"),
    ],
)
def test_mistakes_are_refused_by_the_stage_that_would_make_them(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse(PipelineSettings, values)
    assert str(refusal.value).startswith(sentence)


def test_a_misspelt_option_names_the_nearest() -> None:
    with pytest.raises(click.UsageError) as refusal:
        main.make_context("pipeline", ["--train_sae.epoks", "1"])
    assert "--train_sae.epochs" in refusal.value.format_message()
