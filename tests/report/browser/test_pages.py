import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.table import Description
from fsae_mlflow.report.browser.data import nearest
from fsae_mlflow.report.browser.images import NO_IMAGES, FeatureImages, read_images
from fsae_mlflow.report.browser.page import Browsed, heading, write_browser
from fsae_mlflow.report.browser.settings import BrowseSettings
from fsae_mlflow.report.browser.sprites import sheets
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet
from tests.report.browser.conftest import HOSTILE, N_FACES, color_of


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def picture_of(page: Path, name: str) -> Image.Image:
    found = re.search(rf'id="{name}">data:image/webp;base64,(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found is not None
    return Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")


@pytest.fixture(scope="module")
def given(templates: TemplateSet, sae: SparseAutoencoder, description: Description) -> dict[str, Any]:
    about = heading(templates, sae, description, "abc")
    return {"templates": templates, "sae": sae, "description": description, "about": about}


@pytest.fixture(scope="module")
def browsed(given: dict[str, Any], images: FeatureImages, tmp_path_factory: pytest.TempPathFactory) -> Browsed:
    return write_browser(BrowseSettings(), **given, images=images, output=tmp_path_factory.mktemp("browse"))


def test_every_feature_that_fires_is_in_the_page(browsed: Browsed, description: Description) -> None:
    alive = np.flatnonzero(description.activity.counts)
    data = data_of(browsed.pages[0])
    assert [one["id"] for one in data["features"]] == alive.tolist() and browsed.n_features == len(alive) < 40
    one = data["features"][alive.tolist().index(4)]
    rows, activations = description.activity.top_of(4)
    assert [row for row, _ in one["top"]] == rows[:8].tolist()
    assert [value for _, value in one["top"]] == pytest.approx(activations[:8].tolist(), rel=6e-3)
    assert one["density"] == pytest.approx(description.activity.density[4], rel=6e-3)


def test_a_curve_falls_from_all_that_fire_to_the_hardest_face(browsed: Browsed) -> None:
    for one in data_of(browsed.pages[0])["features"]:
        shares, values = np.array(one["curve"]).T
        assert (np.diff(shares) <= 0).all() and (np.diff(values) >= 0).all()
        assert shares[0] == one["density"] and shares[-1] == pytest.approx(1 / N_FACES, rel=6e-3)
        assert (values[0], values[-1]) == (0, one["max"])


def test_faces_lie_in_their_places(browsed: Browsed) -> None:
    data, sheet = data_of(browsed.pages[0]), picture_of(browsed.pages[0], "face-0")
    for place, row in enumerate(data["rows"]):
        line, column = divmod(place, 16)
        found = sheet.getpixel((column * 80 + 40, line * 80 + 40))
        assert np.abs(np.subtract(found, color_of(row))).max() < 16
    red = picture_of(browsed.pages[0], "image-0").getpixel((56, 56))
    assert red[0] > 200 and red[2] < 60
    dial = picture_of(browsed.pages[0], "dial-0")
    assert dial.size == (7 * 112, 112) and max(dial.getpixel((6 * 112 + 56, 56))) < 30 < min(dial.getpixel((56, 56)))


def test_images_and_dials_of_single_features_are_shown(browsed: Browsed) -> None:
    features = {one["id"]: one for one in data_of(browsed.pages[0])["features"]}
    assert [image["confirmed"] for image in features[3]["images"]] == [True]
    assert features[3]["imagesConfirmed"] and not features[0]["imagesConfirmed"]
    assert features[3]["images"][0]["probe_percentile"] is None
    assert features[3]["dial"]["steps"] == list(range(-3, 4)) and "dial" not in features[0]
    assert "images" not in features[4]


def test_nothing_is_fetched_and_no_name_becomes_markup(browsed: Browsed) -> None:
    text = browsed.pages[0].read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=[\"']?https?:", text) and "@import" not in text and "fetch(" not in text
    assert HOSTILE not in text
    one = next(one for one in data_of(browsed.pages[0])["features"] if one["id"] == 3)
    assert HOSTILE in one["reading"] and one["identity"] == HOSTILE


def test_without_real_faces_no_face_and_no_name_is_left(
    given: dict[str, Any], images: FeatureImages, tmp_path: Path
) -> None:
    part = {"feature": 3, "reading": "Person p05 (90 %).", "contribution": 0.3, "first": 1.0, "second": 2.0}
    pair = {"first": "p05/15.jpg", "second": "p05/16.jpg", "similarity": 0.5, "decoded": 0.4, "constant": 0.1}
    pair |= {"unexplained": 0.1, "accepted": True, "threshold": {"cosine": 0.3}, "features": [part]}
    (tmp_path / "pair.json").write_text(json.dumps(pair))
    settings = BrowseSettings(real_faces=False, explanation=str(tmp_path / "pair.json"))
    page = write_browser(settings, **given, images=images, output=tmp_path).pages[0]
    data, text = data_of(page), page.read_text(encoding="utf-8")
    assert data["rows"] == data["people"] == [] and 'id="face-0"' not in text and 'id="image-0"' in text
    assert "p05" not in text and "document.title='broken'" not in text
    one = next(one for one in data["features"] if one["id"] == 3)
    assert one["reading"].startswith("One person (90 %") and "top" not in one and "identity" not in one


def test_what_has_no_room_makes_further_pages(
    given: dict[str, Any], images: FeatureImages, browsed: Browsed, tmp_path: Path
) -> None:
    whole = browsed.pages[0].stat().st_size / 1e6
    settings = BrowseSettings(max_megabytes=round(0.9 * whole, 4))
    split = write_browser(settings, **given, images=images, output=tmp_path)
    assert len(split.pages) > 1 and [page.name for page in split.pages[:2]] == ["features.html", "features-2.html"]
    parts = [data_of(page) for page in split.pages]
    together = [one["id"] for part in parts for one in part["features"]]
    assert together == [one["id"] for one in data_of(browsed.pages[0])["features"]]
    other = parts[1]["features"][0]["id"]
    assert parts[0]["elsewhere"][str(other)] == "features-2.html"
    assert all(page.stat().st_size < 1.1 * whole * 1e6 for page in split.pages)


def test_neighbors_have_the_largest_cosines(sae: SparseAutoencoder) -> None:
    features = np.arange(0, 40, 2)
    found = nearest(sae.W_dec, features, most=3)
    rows = torch.nn.functional.normalize(sae.W_dec, dim=1)
    cosines = (rows @ rows.T)[4][features]
    order = [int(features[place]) for place in cosines.argsort(descending=True) if features[place] != 4]
    assert [feature for feature, _ in found[4]] == order[:3]
    assert found[4][0][1] == pytest.approx(float(rows[4] @ rows[order[0]]), abs=2e-3)


def test_sheets_hold_at_most_so_many_pictures() -> None:
    pictures = [Image.new("RGB", (8, 8), (index, index, index)) for index in range(20)]
    found = list(sheets(pictures, width=8, height=8, at_once=18))
    sizes = [Image.open(io.BytesIO(base64.b64decode(sheet.split(",")[1]))).size for sheet in found]
    assert sizes == [(128, 16), (16, 8)]


def test_other_images_and_explanations_are_refused(
    given: dict[str, Any], images: FeatureImages, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="images: they are of the SAE abc, but this run uses xyz; run visualize"):
        read_images(images.folder, sae="xyz")
    with pytest.raises(UserError, match=r"images: .* holds no readable images.parquet"):
        read_images(tmp_path, sae="abc")
    (tmp_path / "pair.json").write_text("{}")
    settings = BrowseSettings(explanation=str(tmp_path / "pair.json"))
    with pytest.raises(UserError, match=r"explanation: .*pair.json is no JSON file of explain"):
        write_browser(settings, **given, images=NO_IMAGES, output=tmp_path)
