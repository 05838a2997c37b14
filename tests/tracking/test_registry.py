"""The model registry: what is registered, once, under which alias and with which card."""

import shutil
from pathlib import Path
from threading import Thread
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.utils.file_utils import local_file_uri_to_path

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.saved import digest, load_sae
from fsae_mlflow.tracking import registry
from fsae_mlflow.tracking.data.inputs import find_sae
from fsae_mlflow.tracking.models.logged import model_of
from fsae_mlflow.tracking.registry import check_registration, register_sae
from fsae_mlflow.tracking.runs.lifecycle import Run
from tests.tracking.models.made import GATED, make_sae, register


def aliases(name: str = "small") -> dict[str, str]:
    """The registered model's aliases and their versions."""
    return {alias: str(one) for alias, one in mlflow.MlflowClient().get_registered_model(name).aliases.items()}


@pytest.mark.usefixtures("store")
def test_the_alias_moves_only_to_a_better_version(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fsae_mlflow")
    number, run = register(make_sae(tmp_path / "first", 0.4))
    assert number == "1" and aliases() == {"champion": "1"}
    assert run.data.tags["fsae.model"] == "models:/small/1" and run.data.tags["fsae.alias"] == "champion"
    register(make_sae(tmp_path / "worse", 1.125))
    assert aliases() == {"champion": "1", "challenger": "2"}
    _, run = register(make_sae(tmp_path / "dense", 0.1, l0=245.0))
    assert aliases() == {"champion": "1", "challenger": "3"}
    reason = "its held-out L0 245 is above this model's limit 4.2 (tag fsae.max_l0)"
    assert run.data.tags["fsae.alias_reason"] == reason
    assert f"model_name: small version 3 is challenger: {reason}." in caplog.text
    register(make_sae(tmp_path / "other set", 0.1, templates="two", number=1))
    assert aliases() == {"champion": "1", "challenger": "4"}
    register(make_sae(tmp_path / "better", 0.3))
    assert aliases() == {"champion": "5", "champion_previous": "1", "challenger": "4"}
    assert (
        mlflow.MlflowClient().get_model_version("small", "5").tags["fsae.verdict"].startswith("champion: its held-out")
    )


@pytest.mark.usefixtures("store")
def test_a_champion_that_comes_meanwhile_is_judged_against(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(make_sae(tmp_path / "first", 0.4))
    waiting, judge = [make_sae(tmp_path / "best", 0.2)], registry.judge

    def while_another_registers(*given: Any, **more: Any) -> Any:
        if waiting:
            other = Thread(target=register, args=(waiting.pop(),))  # MLflow's active run belongs to a thread
            other.start()
            other.join()
        return judge(*given, **more)

    monkeypatch.setattr(registry, "judge", while_another_registers)
    register(make_sae(tmp_path / "better", 0.3))
    assert aliases() == {"champion": "3", "champion_previous": "1", "challenger": "2"}


@pytest.mark.usefixtures("store")
def test_a_search_states_the_limit_and_a_person_can_change_it(tmp_path: Path) -> None:
    register(make_sae(tmp_path / "first", 0.4), max_l0=105.0)
    register(make_sae(tmp_path / "denser", 0.3, l0=100.0), max_l0=105.0)
    assert aliases()["champion"] == "2"
    client = mlflow.MlflowClient()
    client.set_registered_model_tag("small", "fsae.max_l0", "50")
    register(make_sae(tmp_path / "denser still", 0.2, l0=90.0))
    assert aliases()["champion"] == "2"
    client.set_registered_model_tag("small", "fsae.max_l0", "few")
    with pytest.raises(UserError, match=r"the tag fsae\.max_l0 of small must be a number; it is 'few'"):
        register(make_sae(tmp_path / "last", 0.1))


@pytest.mark.usefixtures("store")
def test_a_deleted_version_or_model_does_not_stand_in_the_way(tmp_path: Path) -> None:
    client = mlflow.MlflowClient()
    first = make_sae(tmp_path / "first", 0.4)
    register(first)
    client.delete_model_version("small", "1")
    assert register(first)[0] == "2" and aliases() == {"champion": "2"}
    assert client.get_model_version("small", "2").description.startswith("# Sparse autoencoder")
    client.delete_logged_model(model_of(client.get_model_version("small", "2")))
    register(make_sae(tmp_path / "better", 0.3))
    assert aliases() == {"champion": "3", "champion_previous": "2"}


@pytest.mark.usefixtures("store")
def test_a_model_registered_by_an_earlier_version_keeps_its_limit_and_format(tmp_path: Path) -> None:
    client, first = mlflow.MlflowClient(), make_sae(tmp_path / "first", 0.4)
    register(first)
    client.delete_registered_model_tag("small", "fsae.max_l0")
    client.delete_model_version_tag("small", "1", "fsae.format")
    client.delete_logged_model_tag(model_of(client.get_model_version("small", "1")), "fsae.format")
    register(make_sae(tmp_path / "dense", 0.3, l0=245.0), max_l0=300.0)
    assert aliases() == {"champion": "1", "challenger": "2"}
    assert register(first)[0] == "1"
    version = client.get_model_version("small", "1")
    assert "fsae.format" not in version.tags and '"output": "top"' not in version.description


@pytest.mark.usefixtures("store")
def test_equal_weights_are_logged_and_registered_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fsae_mlflow")
    sae, better = make_sae(tmp_path / "sae", 0.4), make_sae(tmp_path / "better", 0.3)
    assert register(sae, name="")[0] == ""
    assert [register(one)[0] for one in (sae, better)] == ["1", "2"] and register(sae, name="other")[0] == "1"
    assert "already" not in caplog.text
    number, run = register(sae)
    assert number == "1" and aliases() == {"champion": "2", "champion_previous": "1"}
    assert "small version 1 has these weights already; no other version is made" in caplog.text
    assert run.data.tags["fsae.alias"] == "champion_previous"
    models = mlflow.search_logged_models(output_format="list")
    assert sorted(one.tags["fsae.digest"] for one in models) == sorted(map(digest, (sae, better)))
    version = mlflow.MlflowClient().get_model_version("small", "1")
    assert [one.model_id for one in run.outputs.model_outputs] == [model_of(version)]


@pytest.mark.usefixtures("store")
def test_a_registration_that_is_killed_is_finished_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, place = make_sae(tmp_path / "first", 0.4), registry._place

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "_place", killed)  # what follows the version's creation at once
    with pytest.raises(KeyboardInterrupt):
        register(folder)
    monkeypatch.setattr(registry, "_place", place)
    number, _ = register(folder)
    assert number == "1" and aliases() == {"champion": "1"}
    assert len(mlflow.MlflowClient().search_model_versions("name = 'small'")) == 1
    assert "version" not in capsys.readouterr().err  # MLflow's own lines


@pytest.mark.usefixtures("store")
def test_an_address_that_is_not_there_names_what_is(tmp_path: Path) -> None:
    _, done = register(make_sae(tmp_path / "sae", 0.4))
    run = Run(mlflow.MlflowClient().create_run(done.info.experiment_id), "describe", tmp_path)
    for address, known in (
        ("models:/small/9", "; small has the versions 1 and the aliases champion"),
        ("models:/small@best", "; small has the versions 1 and the aliases champion"),
        ("models:/nobody/1", ")"),
    ):
        with pytest.raises(UserError) as refusal:
            find_sae(run, address)
        assert str(refusal.value).startswith(f"sae: {address} is not in the model registry (")
        assert str(refusal.value).endswith(known)


@pytest.mark.usefixtures("store")
def test_a_version_has_a_card_and_tags_and_a_text_of_a_person_stays(tmp_path: Path) -> None:
    _, run = register(make_sae(tmp_path / "sae", 0.4))
    client = mlflow.MlflowClient()
    version = client.get_model_version("small", "1")
    for line in (
        "# Sparse autoencoder · gated, 32 features of face templates",
        "| Trained on | &emsp;48 templates of synthetic (digest one) |",
        "| Its license | &emsp;research only |",
        "| heldout/fvu | &emsp;0.4 | &emsp;synthetic |",
        "- On people that it has not seen it leaves 40.0 % of the templates' variance unexplained.",
        'model = mlflow.pyfunc.load_model("models:/small/1")',
    ):
        assert line in version.description.splitlines()
    assert f"runs/{run.info.run_id}" in version.description
    tags = {name: version.tags[f"fsae.{name}"] for name in ("variant", "fvu", "l0", "templates.digest", "recognizer")}
    assert tags == {"variant": "gated", "fvu": "0.4", "l0": "4", "templates.digest": "one", "recognizer": "a"}
    assert "models:/small@champion" in client.get_registered_model("small").description

    register(make_sae(tmp_path / "useless", 1.125))
    worse = "- On people that it has not seen it is worse than the mean template (fvu 1.125)."
    assert worse in client.get_model_version("small", "2").description.splitlines()

    client.update_model_version("small", "1", "Mine.")
    client.update_registered_model("small", "Ours.")
    register(make_sae(tmp_path / "sae", 0.4))
    assert client.get_model_version("small", "1").description == "Mine."
    assert client.get_registered_model("small").description == "Ours."


@pytest.mark.usefixtures("store")
def test_registration_is_checked_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
        run = Run(active, "test")
        check_registration(run, "small")
        for name in ("a/b", "a:1", "  ", ".."):
            with pytest.raises(UserError, match="model_name must be a name without / and :"):
                check_registration(run, name)
        monkeypatch.setattr(type(run.client), "search_registered_models", refuse)
        with pytest.raises(
            UserError,
            match=r"model registry .* cannot be used .*; correct its address",
        ):
            check_registration(run, "small")
        check_registration(run, "")


def refuse(*_: Any, **__: Any) -> Any:
    raise MlflowException("not allowed", PERMISSION_DENIED)


@pytest.mark.usefixtures("store")
def test_a_refused_registration_keeps_the_sae_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "log_model", refuse)
    sentence = f"The trained SAE is kept in {GATED}; the same command only registers it."
    with pytest.raises(UserError, match=sentence):
        register(GATED)


@pytest.mark.usefixtures("store")
def test_a_run_is_registered_once() -> None:
    with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
        numbers = {register_sae(Run(active, "test"), load_sae(GATED), GATED, name="small") for _ in range(2)}
    assert numbers == {"1"}


@pytest.mark.usefixtures("store")
def test_a_champion_without_files_is_named(tmp_path: Path) -> None:
    client = mlflow.MlflowClient()
    register(make_sae(tmp_path / "first", 0.4))
    model = client.get_logged_model(model_of(client.get_model_version("small", "1")))
    shutil.rmtree(local_file_uri_to_path(model.artifact_location))
    with pytest.raises(UserError, match=r"champion of small, version 1, cannot be read .*; delete that version"):
        register(make_sae(tmp_path / "second", 0.3))
