"""The whole way through click's runner on a handful of faces, and the sentences that users' mistakes end in."""

import importlib
import json
import math
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from mlflow.artifacts import load_dict

from fsae_mlflow.features.table import read_description
from fsae_mlflow.sae.saved import load_sae, save_sae
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.groups import GROUPS
from tests.conftest import N_PEOPLE, N_PICTURES
from tests.sae.making import new_sae
from tests.template_sets import labeled_set


def invoke(name: str, **parameters: object) -> Result:
    arguments = [word for key, value in parameters.items() for word in (f"--{key}", str(value))]
    return CliRunner().invoke(importlib.import_module(f"entrypoints.{name}").main, arguments)


def succeed(name: str, **parameters: object) -> mlflow.entities.Run:
    result = invoke(name, **parameters)
    assert result.exit_code == 0, result.output
    run = newest(name)
    assert {metric.split("/")[0] for metric in run.data.metrics} <= GROUPS.keys()
    assert run.info.run_name.startswith(name)
    headline, files, page = result.stdout.splitlines()[-3:]
    assert headline.startswith(f"{run.info.run_name}: ") and Path(files.removeprefix("files: ")).is_dir()
    assert page.startswith(f"page: http://127.0.0.1:5000/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
    note = run.data.tags["mlflow.note.content"]
    assert headline.removeprefix(f"{run.info.run_name}: ") in note and f"python -m entrypoints.{name}" in note
    return run


def refuse(name: str, **parameters: object) -> str:
    """The one sentence that a call ends in, its run FAILED for that reason."""
    result = invoke(name, **parameters)
    assert result.exit_code == 1, result.output
    sentence = result.output.splitlines()[-1].removeprefix("Error: ")
    run = newest(name)
    assert run.info.status == "FAILED"
    assert " ".join(run.data.tags["fsae.reason"].split()) == sentence
    return sentence


def newest(stage: str) -> mlflow.entities.Run:
    return mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.`fsae.stage` = '{stage}'",
        order_by=["start_time DESC"],
        output_format="list",
    )[0]


def artifacts(run: mlflow.entities.Run, folder: str = "") -> set[str]:
    return {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(run.info.run_id, folder)}


@pytest.fixture(scope="module")
def extracted(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> TemplateSet:
    """Those faces as a template set, made once."""
    from fsae_mlflow.extraction.settings import ExtractSettings
    from fsae_mlflow.extraction.stage import extract

    output = str(tmp_path_factory.mktemp("extracted"))
    settings = ExtractSettings(faces=str(faces), enlarge=2, workers=0, output=output)
    return extract(settings, on_metrics=lambda *_: None).templates


@pytest.mark.usefixtures("store")
def test_the_whole_way(faces: Path, tmp_path: Path) -> None:
    run = succeed("extract", faces=faces, enlarge=2, workers=0)
    assert run.data.metrics["faces/n_faces"] == N_PEOPLE * N_PICTURES
    assert run.data.metrics["faces/n_failures"] == 1
    assert 1 < run.data.metrics["spectrum/dimensions_99.99"] < N_PEOPLE * N_PICTURES
    assert {"accepted.png", "rejected.png", "config.json", "recognizer.json", "templates"} <= artifacts(run)
    templates = TemplateSet.open(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/templates"))
    assert templates.failures[0][0] == "s1/broken.jpg"

    run = succeed("train_sae", epochs=2, expansion=2, batch_size=8, holdout=0.25)
    assert run.inputs.dataset_inputs[0].dataset.digest == templates.digest
    assert {"train/fvu", "heldout/fvu", "train/alive", "per_epoch/train/lr", "train/lam"} <= run.data.metrics.keys()
    assert run.info.run_name == "train_sae gated ×2"
    series = sorted(name for name in artifacts(run, "images") if "densities" in name and name.endswith(".png"))
    assert len(series) == 2 and "density.png" in run.data.tags["mlflow.note.content"]
    assert {"spectrum/participation_ratio", "spectrum/dimensions_99"} <= run.data.metrics.keys()
    assert len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "per_epoch/train/loss_total")) == 2
    check_registered_model(templates, Path(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/sae")))

    run = succeed("evaluate_lfw", folds=2)
    table = load_dict(f"{run.info.artifact_uri}/table.json")
    assert [row[0] for row in table["data"]] == [
        "Original templates",
        "Decoded from the high-density cluster",
        "Decoded from the low-density cluster",
        "Decoded from all features",
    ]
    assert {"table.png", "table.md", "density.png"} <= artifacts(run)

    run = succeed("visualize", n_features=2, n_images=1, steps=2, n_top_faces=2)
    assert "features.png" in artifacts(run)
    assert len(artifacts(run, "visualization/feature_images")) == 2


def check_registered_model(templates: TemplateSet, folder: Path) -> None:
    sae = load_sae(folder)
    model = mlflow.pyfunc.load_model("models:/fsae/1")
    features = model.predict(templates.templates)
    assert features.shape == (len(templates), sae.d_sae) and (features >= 0).all()
    reconstruction = model.predict(templates.templates, params={"output": "reconstruction"})
    np.testing.assert_allclose(sae.decode(torch.from_numpy(features)).numpy(), reconstruction, atol=1e-4)


@pytest.mark.usefixtures("store")
def test_a_sweep_goes_on_and_registers_its_champion(template_set: TemplateSet) -> None:
    space = "lam:1e-3..1:log,expansion:1|2"
    search = {"epochs": 2, "space": space, "max_l0": 1000, "templates": template_set.folder}
    first = succeed("sweep", n_trials=2, **search)
    second = succeed("sweep", n_trials=3, **search)
    children = {
        run.info.run_id: mlflow.search_runs(
            search_all_experiments=True,
            filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}'",
            output_format="list",
        )
        for run in (first, second)
    }
    assert [len(found) for found in children.values()] == [2, 1]
    for child in children[first.info.run_id]:
        assert child.info.status == "FINISHED"
        lam = float(child.data.params["lam"])
        assert float(child.data.params["log10_lam"]) == pytest.approx(math.log10(lam))
        assert int(child.data.params["expansion"]) in (1, 2) and f"lam={lam:.4g} " in child.info.run_name
        assert child.inputs.dataset_inputs[0].dataset.digest == template_set.digest
        assert "heldout/fvu" in child.data.metrics and "config.json" in artifacts(child)
    trials = {run.info.run_id: run for found in children.values() for run in found}
    assert second.data.tags["fsae.study_runs"].split(",") == sorted(run.info.run_id for run in (first, second))
    assert second.data.tags["fsae.study"] == first.data.tags["fsae.study"]
    assert mlflow.get_run(first.info.run_id).data.tags["fsae.study_runs"] == second.data.tags["fsae.study_runs"]
    note = second.data.tags["mlflow.note.content"]
    for linked in (first.info.run_id, *second.data.tags["fsae.front"].split(",")):
        assert f"/runs/{linked}?" in note
    front = second.data.tags["fsae.front"].split(",")
    assert second.data.tags["fsae.best_trial"] == front[0] and set(front) <= trials.keys()
    assert all("sae" in artifacts(trials[run_id]) for run_id in front)
    assert len(load_dict(f"{second.info.artifact_uri}/trials.json")["data"]) == 3
    best = min(run.data.metrics["heldout/fvu"] for found in children.values() for run in found)
    assert second.data.metrics["heldout/fvu"] == pytest.approx(best)
    champion = mlflow.pyfunc.load_model("models:/fsae@champion")
    assert champion.predict(template_set.templates[:3]).shape[0] == 3
    assert {"front.png", "sae"} <= artifacts(second)
    assert second.data.metrics["heldout/fvu"] == trials[front[0]].data.metrics["heldout/fvu"]
    fourth = succeed("sweep", n_trials=4, **search)
    figures = {"history.png", "parallel.png", "slice.png", "contour.png", "importances.png", "study.html"}
    assert figures <= artifacts(fourth)
    page = mlflow.artifacts.load_text(f"{fourth.info.artifact_uri}/study.html")
    assert page.count("<img src='data:image/png") == 1 and "Best Value" in page
    assert page.count("plotly.js v") == 1 and page.count('class="plotly-graph-div"') == 5
    before = len(mlflow.MlflowClient().search_model_versions("name = 'fsae'"))
    succeed("sweep", n_trials=4, **search)
    assert len(mlflow.MlflowClient().search_model_versions("name = 'fsae'")) == before


@pytest.mark.usefixtures("store")
def test_a_pruned_trial_is_a_killed_run(template_set: TemplateSet) -> None:
    listed = "lr:0.01|0.009|0.008|0.007|1e-5"
    search = {"space": listed, "sampler": "grid", "pruner": "median", "variant": "topk", "k": 4, "expansion": 1}
    succeed("sweep", n_trials=5, epochs=4, templates=template_set.folder, register=False, **search)
    pruned = newest("trial")
    assert pruned.info.status == "KILLED" and pruned.data.tags["fsae.reason"].startswith("pruned after epoch ")
    assert "per_epoch/heldout/fvu" in pruned.data.metrics and pruned.data.params["lr"] == "1e-05"


@pytest.mark.usefixtures("store")
def test_a_sweep_keeps_what_is_still_to_be_logged(template_set: TemplateSet) -> None:
    listed = {"space": "lr:0.01|1e-5", "sampler": "grid", "variant": "topk", "k": 4, "expansion": 1, "epochs": 4}
    search = {"templates": template_set.folder, "register": False, **listed}
    succeed("sweep", n_trials=1, **search)
    worse = next(Path("outputs/sweep").glob("*/trial-0000")).resolve().with_name("trial-0001")
    journal = Path("outputs/sweep/unlogged-1.jsonl")
    journal.write_text(json.dumps({"do": "path", "path": str(worse / "config.json")}))
    succeed("sweep", n_trials=2, **search)
    assert worse.is_dir()
    journal.unlink()
    succeed("sweep", n_trials=2, **search)
    assert not worse.exists()


@pytest.mark.usefixtures("store")
def test_readings_are_read_in_place_of_encoding(
    extracted: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("fsae_mlflow.features.describe.FEWEST_PEOPLE", N_PEOPLE)
    for name in ("one", "other"):
        save_sae(new_sae("topk", extracted.width, 64, k=8), tmp_path / name, settings={}, templates={})
    used = {"templates": extracted.folder, "sae": "one"}
    described = succeed("describe", controls="none", **used)
    assert {"readings/features.parquet", "readings/top_faces.parquet"} <= artifacts(described, "readings")

    stages = {"visualize": {"n_features": 2, "n_images": 1, "steps": 1}, "evaluate_lfw": {"folds": 2}}
    for name, parameters in stages.items():
        assert "fsae.readings" not in succeed(name, **used, **parameters).data.tags
    monkeypatch.delattr("fsae_mlflow.visualization.controls.survey")
    monkeypatch.delattr("fsae_mlflow.verification.evaluation.survey")
    for name, parameters in stages.items():
        run = succeed(name, readings="latest", **used, **parameters)
        assert run.data.tags["fsae.readings"] == f"runs:/{described.info.run_id}/readings"
        assert "readings" in [one.dataset.name for one in run.inputs.dataset_inputs]
        sentence = refuse(name, readings="latest", **(used | {"sae": "other"}), **parameters)
        assert sentence.startswith("readings: they describe sae ") and "force=true" in sentence
        forced = succeed(name, readings="latest", force=True, **(used | {"sae": "other"}), **parameters)
        assert forced.data.tags["fsae.force"] == "true"
        # Without readings, with those of this SAE, and with those of another one: three results, each in its folder.
        assert len(list((tmp_path / "outputs" / name).iterdir())) == 3


@pytest.mark.usefixtures("store")
def test_what_is_left_of_an_attribute_and_what_features_are_good_for(tmp_path: Path, jpeg: bytes) -> None:
    templates = labeled_set(tmp_path / "labeled", jpeg)
    training = {"templates": templates.folder, "variant": "topk", "k": 4, "epochs": 20, "expansion": 3, "lr": 0.01}
    succeed("train_sae", **training)
    described = succeed("describe", templates=templates.folder, controls="none")
    readings = Path(mlflow.artifacts.download_artifacts(f"{described.info.artifact_uri}/readings"))
    columns = read_description(readings).columns
    assert (columns["attribute"][columns["attribute_confirmed"]] == "glasses").any()

    given = {"templates": templates.folder, "readings": "latest", "folds": 4}
    run = succeed(
        "evaluate_lfw", without="attribute:glasses", labeled_templates=templates.folder, ablation=True, **given
    )
    files = {"suppression.csv", "suppression.md", "suppression.png", "ablation.csv", "ablation_readings.csv"}
    assert files | {"ablation.png"} <= artifacts(run)
    assert run.data.metrics["lfw/without/glasses/original/auroc_linear"] > 0.95
    assert abs(run.data.metrics["lfw/without/glasses/leace/auroc_linear"] - 0.5) < 0.2
    names = {"lfw/without/accuracy", "lfw/ablation/glasses/eer", "lfw/ablation/features/eer_highest"}
    assert names <= run.data.metrics.keys()
    assert run.data.tags["fsae.labeled_templates.digest"] == templates.digest
    assert load_dict(f"{run.info.artifact_uri}/table.json")["data"][-1][0].startswith("Decoded without ")

    assert "no feature has the confirmed attribute 'hat'; there are glasses." in refuse(
        "evaluate_lfw", without="attribute:hat", **given
    )
    assert "d_sae is 24" in refuse("evaluate_lfw", without="24", **given)
    given.pop("readings")
    assert "give readings" in refuse("evaluate_lfw", without="attribute:glasses", **given)


@pytest.mark.usefixtures("store")
def test_features_are_found_again_in_the_sae_of_another_seed(template_set: TemplateSet, tmp_path: Path) -> None:
    used = {"templates": template_set.folder, "variant": "topk", "k": 4, "epochs": 3, "expansion": 2, "lr": 0.01}
    runs = [succeed("train_sae", seed=seed, register=False, **used).info.run_id for seed in (0, 1)]
    succeed("describe", templates=template_set.folder, sae=runs[0], controls="none")
    given = {"saes": f"{runs[0]}, {runs[1]}", "templates": template_set.folder}
    run = succeed("compare", readings="latest", **given)
    names = {"cosine/pw_mcc", "cosine/found_again", "correlation/mcc", "initial/cosine/pw_mcc"}
    assert {f"stability/{name}" for name in names} <= run.data.metrics.keys()
    assert run.data.metrics["stability/n_faces"] == len(template_set)
    assert {"stability.parquet", "stability.png", "matches.png", "pairs.json", "readings"} <= artifacts(run)
    assert run.data.tags["fsae.saes.1"] == f"runs:/{runs[1]}/sae"
    assert len(load_dict(f"{run.info.artifact_uri}/pairs.json")["data"]) == 1

    readings = Path(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/readings"))
    found = read_description(readings).columns
    alive = ~np.isnan(found["antipode"])
    assert ((found["stability"][alive] >= 0) & (found["stability"][alive] <= 1)).all()
    assert {"stability_correlation", "reading"} <= found.keys() and (readings / "faces.parquet").is_file()
    succeed("evaluate_lfw", templates=template_set.folder, sae=runs[0], readings=run.info.run_id, folds=2)

    swapped = refuse("compare", readings="latest", **(given | {"saes": f"{runs[1]},{runs[0]}"}))
    assert swapped.startswith("readings: they describe sae ")


@pytest.mark.usefixtures("store")
def test_a_training_on_labeled_faces_logs_its_readings(tmp_path: Path, jpeg: bytes) -> None:
    templates = labeled_set(tmp_path / "labeled", jpeg)
    training = {"templates": templates.folder, "variant": "topk", "k": 4, "epochs": 2, "expansion": 3, "lr": 0.01}
    run = succeed("train_sae", **training)
    names = {"readings/confirmed_of_alive", "readings/strong_of_alive", "readings/n_kinds", "probes/auroc_k5"}
    assert names <= run.data.metrics.keys()
    described = succeed("describe", templates=templates.folder, controls="none")
    for name, value in run.data.metrics.items():
        if name.startswith(("readings/", "probes/")):
            assert value == pytest.approx(described.data.metrics[name])
    silent = succeed("train_sae", describe=False, **training)
    assert not names & silent.data.metrics.keys() and "heldout/fvu" in silent.data.metrics

    search = {
        "templates": templates.folder,
        "epochs": 2,
        "expansion": 2,
        "space": "lam:0.01",
        "max_l0": 1000,
        "n_trials": 1,
    }
    assert names <= succeed("sweep", **search).data.metrics.keys()
    assert not names & succeed("sweep", describe=False, **search).data.metrics.keys()


@pytest.mark.usefixtures("store")
def test_controls_and_an_audit_are_logged(tmp_path: Path, jpeg: bytes) -> None:
    templates = labeled_set(tmp_path / "labeled", jpeg)
    torch.manual_seed(0)
    save_sae(new_sae("topk", templates.width, 32, k=6), tmp_path / "sae", settings={}, templates={})
    labels = tmp_path / "labels.csv"
    given = {"templates": templates.folder, "sae": tmp_path / "sae", "attributes": labels, "folds": 2, "far": 0.1}
    for every in (2, 5):  # other labels in the file of the same name
        lines = [f"{name},{int(place % every == 0)}" for place, name in enumerate(templates.image_ids)]
        labels.write_text("\n".join(["path,Hat", *lines]))
        if every == 2:
            succeed("describe", templates=templates.folder, sae=tmp_path / "sae", attributes=labels, controls="none")
        run = succeed("evaluate_lfw", readings="latest", controls="random,energy,pca,mean", **given)
    assert len(list((tmp_path / "outputs" / "evaluate_lfw").iterdir())) == 2
    assert {"audit.csv", "audit.md", "audit.png", "audit_features.csv", "audit_readings.csv"} <= artifacts(run)
    names = {"audit/fmr", "audit/fnmr", "audit/n_groups", "random_high/accuracy", "pca_low/mcnemar_p", "mean/n_lost"}
    assert {f"lfw/{name}" for name in names} <= run.data.metrics.keys() and run.data.metrics["lfw/audit/n_groups"] == 4
    assert len(load_dict(f"{run.info.artifact_uri}/table.json")["data"]) == 11
    labels.write_text("path,Hat\nnobody.jpg,1")
    assert "no path in" in refuse("evaluate_lfw", **given)
    assert "attributes: nowhere.csv cannot be read" in refuse("evaluate_lfw", **(given | {"attributes": "nowhere.csv"}))


@pytest.mark.usefixtures("store")
def test_a_sweep_without_a_feasible_trial_says_so(template_set: TemplateSet) -> None:
    search = {"space": "lam:0.01", "expansion": 2, "max_l0": 0.001, "templates": template_set.folder, "n_trials": 1}
    assert refuse("sweep", epochs=1, **search).startswith("No trial has an fvu below 1, that of the mean template;")
    sentence = refuse("sweep", epochs=40, lr=0.01, **search)
    assert sentence.startswith("max_l0=0.001: of the trials with an fvu below 1 the smallest L0 is ")
    assert sentence.endswith("(lam=0.01); take a larger max_l0, a larger lam, a smaller k, or more trials or epochs.")


@pytest.mark.usefixtures("store")
def test_the_demo_names_the_folder_that_it_runs_in(tmp_path: Path) -> None:
    sentence = refuse("demo")
    assert sentence == f"demo runs in the project's root, where MLproject is, but was started in {tmp_path}; cd there."


@pytest.mark.usefixtures("store")
def test_latest_without_a_run_names_the_way(tmp_path: Path) -> None:
    assert "make one with `mlflow run . -e extract`" in refuse("train_sae")
    assert "neither a folder nor a run" in refuse("train_sae", templates="nowhere")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("name", "parameters", "part"),
    [
        ("extract", {"faces": "nowhere"}, "nowhere"),
        ("extract", {"faces": "empty"}, "holds no picture"),
        ("extract", {"recognizer": "facenot"}, "recognizer must be one of tiny, onnx:"),
        ("train_sae", {"device": "cuda:9"}, "device cuda:9 is not on this machine"),
        ("evaluate_lfw", {"sae": "models:/nobody@champion"}, "models:/nobody@champion is not in the model registry"),
        ("evaluate_lfw", {"sae": "none", "pairs": "pairs.txt"}, "pairs.txt, line 2"),
        ("evaluate_lfw", {"sae": "wide", "folds": "2"}, "Template width 512 differs from the SAE's d_in 16"),
        ("compare", {"saes": "narrow,wide"}, "Template width 512 differs from the SAE's d_in 16"),
        ("compare", {"saes": "narrow,foreign"}, "do not belong together; give one template set for each SAE"),
        ("visualize", {"sae": "wide"}, "Template width 512 differs from the SAE's d_in 16"),
        ("visualize", {"sae": "narrow", "features": "7,x"}, "features must be best, all, or numbers"),
    ],
)
def test_mistakes_end_in_one_sentence(
    name: str, parameters: dict[str, str], part: str, extracted: TemplateSet, tmp_path: Path
) -> None:
    from fsae_mlflow.sae.variants.gated import GatedSAE
    from fsae_mlflow.sae.variants.settings import GatedSettings

    (tmp_path / "empty").mkdir()
    (tmp_path / "pairs.txt").write_text("1\t1\ns1\t1\n")
    for folder, width in (("wide", 16), ("narrow", 512)):
        save_sae(GatedSAE(width, 8, GatedSettings()), tmp_path / folder, settings={}, templates={})
    card = {"name": "another", "weights_sha256": "1"}
    save_sae(GatedSAE(512, 8, GatedSettings()), tmp_path / "foreign", settings={}, templates={"recognizer": card})
    if name != "extract":
        parameters = {"templates": str(extracted.folder)} | parameters
    before = set(tmp_path.rglob("set.json"))
    sentence = refuse(name, **parameters)
    assert part in sentence and sentence.endswith((".", ")"))
    assert set(tmp_path.rglob("set.json")) == before


def test_lam_below_zero_is_a_usage_error() -> None:
    result = invoke("train_sae", lam=-1)
    assert result.exit_code == 2 and "Error: lam must be greater than or equal to 0; it is -1.0." in result.output


@pytest.mark.usefixtures("store")
def test_pairs_and_pictures_are_explained(
    extracted: TemplateSet, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("fsae_mlflow.features.describe.FEWEST_PEOPLE", N_PEOPLE)
    for name in ("one", "other"):
        save_sae(new_sae("topk", extracted.width, 64, k=8), tmp_path / name, settings={}, templates={})
    used = {"templates": extracted.folder, "sae": "one"}
    quick = {"folds": 2, "far": 0.2, "n_copies": 1, "n_deleted": 8, "n_hidden": 3}
    described = succeed("describe", controls="none", **used)

    run = succeed("explain", **used, **quick)
    names = {"genuine-typical", "genuine-hardest", "impostor-typical", "impostor-hardest"}
    files = {f"{name}.{kind}" for name in names for kind in ("png", "json")}
    assert files | {"contributions.parquet", "deletion.png"} <= artifacts(run)
    assert run.data.tags["fsae.readings"] == f"runs:/{described.info.run_id}/readings"
    assert 0 < run.data.metrics["explanation/original/far"] <= 0.2
    measured = {"deletion/genuine/random_lead", "maps/blur/random_lead_low", "genuine/unexplained"}
    assert {f"explanation/{name}" for name in measured} <= run.data.metrics.keys()
    table = pq.read_table(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/contributions.parquet"))
    for name in sorted(names):
        told = load_dict(f"{run.info.artifact_uri}/{name}.json")
        assert told["genuine"] == name.startswith("genuine")
        assert told["accepted"] == (told["similarity"] > told["threshold"]["cosine"])
        parts = sum(part["contribution"] for part in told["features"]) + told["constant"]
        assert parts == pytest.approx(told["decoded"], abs=1e-6)
        assert parts + told["unexplained"] == pytest.approx(told["similarity"], abs=1e-6)
        of_pair = table.filter((pc.field("image_id_a") == told["first"]) & (pc.field("image_id_b") == told["second"]))
        assert sorted(of_pair["feature"].to_pylist()) == sorted(part["feature"] for part in told["features"])

    stored, picture = extracted.image_ids[0], faces / extracted.image_ids[1]
    run = succeed("explain", first=stored.removesuffix(".pgm"), second=picture, **used, **quick)
    plain = quick | {"maps": False, "n_hidden": 0}
    same = succeed("explain", first=stored, second=extracted.image_ids[1], **used, **plain)
    told, expected = (load_dict(f"{one.info.artifact_uri}/pair.json") for one in (run, same))
    assert (told["second"], expected["second"]) == (picture.name, extracted.image_ids[1])
    assert told["genuine"] is None and expected["genuine"] is True
    assert told["similarity"] == pytest.approx(expected["similarity"], abs=1e-3)

    broken, beside = faces / "s1" / "broken.jpg", {"first": stored, **used, **quick}
    assert refuse("explain", second=broken, **beside).startswith(f"{broken} gives no template: ")
    assert "is neither an image of" in refuse("explain", second="nobody.pgm", **beside)
    named = succeed("explain", second=picture, without="0,1,2", **beside | plain)
    assert len(load_dict(f"{named.info.artifact_uri}/pair.json")["counterfactual"]) <= 1
    assert "needs at least 1,000 impostor pairs" in refuse("explain", **used | quick | {"far": 0.001})
    assert refuse("explain", **used | quick | {"sae": "other"}).startswith("readings: they describe sae ")
    assert "first names a face, and second must name one too" in invoke("explain", **beside).output
