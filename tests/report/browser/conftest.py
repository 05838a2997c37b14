import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fsae_mlflow.features.activity.survey import survey
from fsae_mlflow.features.readings.judgments import PROPERTIES
from fsae_mlflow.features.table import Description
from fsae_mlflow.report.browser.images import FeatureImages, read_images
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.registry import untrained
from fsae_mlflow.sae.variants.settings import TopKSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.pictures import encoded
from tests.template_sets import TemplateWriter, face_row

HOSTILE = "</script><script>document.title='broken'</script>"
D_IN, D_SAE, N_FACES = 12, 40, 60


def color_of(index: int) -> tuple[int, int, int]:
    """The color that the face of a row is filled with."""
    return (40 + 3 * index, 250 - 3 * index, 128)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> TemplateSet:
    """Sixty faces, each of one color, of twenty people, one of whom has a name that is markup."""
    rng = np.random.default_rng(0)
    with TemplateWriter(tmp_path_factory.mktemp("set"), width=D_IN, metadata={}) as writer:
        for index in range(N_FACES):
            content = encoded(Image.new("RGB", (112, 112), color_of(index)), "JPEG", quality=95)
            person = HOSTILE.replace("/", "∕") if index < 3 else f"p{index // 3:02d}"
            writer.write([face_row(f"{person}/{index}.jpg", rng.normal(size=D_IN), content)])
    return TemplateSet.open(writer.folder)


@pytest.fixture(scope="session")
def sae() -> SparseAutoencoder:
    torch.manual_seed(0)
    made = untrained(TopKSettings(k=6), D_IN, D_SAE).eval().requires_grad_(False)
    made.W_enc[7] = 0  # it never fires
    return made


@pytest.fixture(scope="session")
def description(templates: TemplateSet, sae: SparseAutoencoder) -> Description:
    """A description with made readings: every third feature is read, one of them by markup."""
    activity = survey(sae, templates, most=12).activity
    n = np.arange(D_SAE)
    confirmed = n % 3 == 0
    reading = np.where(confirmed, [f"Glasses ({feature} % of its top faces)." for feature in n], "unread").astype(
        object
    )
    reading[3] = f"Person {HOSTILE} (90 % of its strongest faces)."
    identity = np.full(D_SAE, "", dtype=object)
    identity[3] = HOSTILE
    nan = np.full(D_SAE, np.nan)
    columns = {
        "cluster": np.where(n % 2 == 0, "high", "low").astype(object),
        "n_people": np.full(D_SAE, 5),
        "reading": reading,
        "confirmed": confirmed,
        "attribute": np.where(confirmed, "Glasses", "").astype(object),
        "attribute_confirmed": confirmed & (n != 3),
        "attribute_strong": n % 6 == 0,
        "attribute_share": np.where(confirmed, 0.9, np.nan),
        "attribute_base": np.where(confirmed, 0.1, np.nan),
        "attribute_p": np.where(confirmed, 1e-4 * (1 + n), 1.0),
        "attribute_q": np.where(confirmed, 1e-3, 1.0),
        "attribute_rho": nan,
        "identity": identity,
        "identity_confirmed": n == 3,
        "purity": np.where(n == 3, 0.9, np.nan),
        "identity_base": np.where(n == 3, 0.05, np.nan),
        "identity_p": np.where(n == 3, 1e-5, np.nan),
        "identity_q": np.where(n == 3, 1e-4, np.nan),
        "pose": np.full(D_SAE, "undetermined", dtype=object),
        "quality": np.full(D_SAE, "invariant", dtype=object),
        "yaw_rho": np.full(D_SAE, 0.3),
    }
    for name in PROPERTIES:
        columns |= {f"{name}_rho": nan, f"{name}_confirmed": np.zeros(D_SAE, bool)}
    return Description(activity=activity, columns=columns, about={"sae": "abc", "templates": "def"})


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> FeatureImages:
    """Images of features 0 and 3, red and blue, and a dial of feature 3, as visualize writes them."""
    folder = tmp_path_factory.mktemp("images")
    rows, dials = [], []
    for feature, color in ((0, "red"), (3, "blue")):
        file = f"feature_images/feature-{feature:05d}-seed-0.png"
        (folder / file).parent.mkdir(exist_ok=True)
        Image.new("RGB", (112, 112), color).save(folder / file)
        measured = {"activation": 1.5, "to_maximum": 1.1, "percentile": 99.95, "face_probability": 0.99}
        about = {"target": str(feature), "feature": feature, "seed": 0, "file": file}
        rows.append(
            {**about, **measured, "judge_auc": 0.9, "probe_percentile": float("nan"), "confirmed": feature == 3}
            | {"doubts": "" if feature == 3 else "MTCNN sees no face"}
        )
    rows.append(rows[-1] | {"target": "3+5"})
    (folder / "dials").mkdir()
    strip = Image.new("RGB", (7 * 112, 112), "white")
    strip.paste("black", (6 * 112, 0, 7 * 112, 112))
    strip.save(folder / "dials" / "feature-00003.png")
    for place in range(7):
        about = {"target": "3", "feature": 3, "file": "dials/feature-00003.png", "place": place}
        dials.append({**about, "step": place - 3, "reached": place - 3.0, "activation": 0.1 * place})
    table = pa.Table.from_pylist(rows)
    metadata = {b"fsae_mlflow": json.dumps({"sae": "abc", "rule": "An image is confirmed if."}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), folder / "images.parquet")
    pq.write_table(pa.Table.from_pylist(dials), folder / "dials.parquet")
    return read_images(Path(folder), sae="abc")
