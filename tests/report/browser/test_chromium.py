"""The page in headless Chromium: from disk, and in the artifact viewer of a running MLflow UI."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from fsae_mlflow.features.table import Description
from fsae_mlflow.report.browser.images import FeatureImages
from fsae_mlflow.report.browser.page import heading, write_browser
from fsae_mlflow.report.browser.settings import BrowseSettings
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet
from tests.report.browser.conftest import HOSTILE
from tests.report.browser.driver import Chromium, chromium, missing
from tests.servers import free_port, until_answered

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"{missing()} is not installed (Debian: apt-get install chromium chromium-driver)"
)
VISIBLE = "return [...document.querySelectorAll('main')].filter((one) => !one.hidden).map((one) => one.id).join()"
IDS = "return [...document.querySelectorAll('tbody a')].map((one) => Number(one.textContent))"


@pytest.fixture(scope="module")
def page(
    templates: TemplateSet,
    sae: SparseAutoencoder,
    description: Description,
    images: FeatureImages,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("page")
    part = {"feature": 4, "reading": "Glasses.", "contribution": 0.3, "first": 1.0, "second": 2.0, "without": 0.1}
    pair = {"first": templates.image_ids[5], "second": templates.image_ids[6], "similarity": 0.5, "decoded": 0.4}
    pair |= {"constant": 0.1, "unexplained": 0.1, "accepted": True, "threshold": {"cosine": 0.3}, "features": [part]}
    (folder / "pair.json").write_text(json.dumps(pair))
    settings = BrowseSettings(explanation=str(folder / "pair.json"))
    about = heading(templates, sae, description, "abc")
    given = {"templates": templates, "sae": sae, "description": description, "images": images, "about": about}
    return write_browser(settings, **given, output=folder).pages[0]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        opened.resize(1300, 1000)
        yield opened


@pytest.fixture
def opened(window: Chromium, page: Path) -> Iterator[Chromium]:
    """The list, opened from disk; whatever a test does, the console stays without an error."""
    window.open("about:blank")
    window.complaints()
    window.open(page.as_uri())
    window.until("return document.querySelector('tbody a') !== null")
    yield window
    assert window.complaints() == []


def test_the_list_is_sorted_filtered_and_searched(opened: Chromium) -> None:
    assert opened.run("return document.title") == "What the features of a face template mean"
    assert opened.run(IDS)[:3] == [0, 6, 12]  # strong readings, the smallest p first
    click = "[...document.querySelectorAll('thead button')].find((one) => one.textContent === arguments[0]).click()"
    opened.run(click, "Feature")
    assert opened.run(IDS)[:4] == [0, 1, 2, 3]
    opened.run(click, "Feature")
    assert opened.run(IDS)[0] == 39
    assert opened.run("return document.querySelector('th').getAttribute('aria-sort')") == "descending"
    enter = (
        "const field = document.getElementById(arguments[0]);"
        "field.value = arguments[1]; field.dispatchEvent(new Event('input'))"
    )
    opened.run(enter, "search", "glasses 12")
    assert opened.run(IDS) == [12]
    assert opened.run("return document.getElementById('count').textContent").startswith("1 of ")
    opened.run(enter, "search", "")
    opened.run(enter, "kind", "identity")
    assert opened.run(IDS) == [3]
    opened.run(enter, "kind", "")
    opened.run(
        "const it = document.getElementById('confirmed'); it.checked = true; it.dispatchEvent(new Event('input'))"
    )
    found = opened.run(IDS)
    assert found and all(one % 3 == 0 for one in found)


def test_a_feature_is_opened_and_left_by_keys(opened: Chromium) -> None:
    opened.run("document.querySelector('tbody tr:nth-child(2)').click()")
    opened.until("return document.querySelector('#feature h1')?.textContent === 'Feature 0'")
    assert opened.run(VISIBLE) == "feature"
    assert opened.run("return document.querySelectorAll('#feature .row figure').length") > 10
    opened.keys("ArrowRight")
    opened.until("return document.querySelector('#feature h1')?.textContent === 'Feature 6'")
    opened.keys("ArrowLeft")
    opened.until("return document.querySelector('#feature h1')?.textContent === 'Feature 0'")
    opened.keys("Escape")
    opened.until("return !document.getElementById('overview').hidden")


def test_a_shared_link_leads_to_its_feature_and_hostile_names_are_text(opened: Chromium, page: Path) -> None:
    opened.open("about:blank")
    opened.open(f"{page.as_uri()}#feature-3")
    opened.until("return document.querySelector('#feature h1')?.textContent === 'Feature 3'")
    assert opened.run("return document.title") == "Feature 3"
    assert HOSTILE in opened.run("return document.querySelector('#feature .reading').textContent")
    labels = (
        "return [...document.querySelectorAll('#feature [role=img]')].every((one) => one.getAttribute('aria-label'))"
    )
    assert opened.run(labels)
    assert "confirmed" in opened.run("return document.querySelector('#feature .row.large').textContent")
    assert opened.run("return document.querySelectorAll('#feature .dial figure').length") == 7


def test_an_image_that_is_not_confirmed_says_why(opened: Chromium, page: Path) -> None:
    opened.open(f"{page.as_uri()}#feature-0")
    opened.until("return document.querySelector('#feature .row.large') !== null")
    said = opened.run("return document.querySelector('#feature .row.large').textContent")
    assert "not confirmed (MTCNN sees no face)" in said and "with probability 0.99" in said


@pytest.mark.parametrize("address", ["#feature-", "#feature-7", "#person-nobody", "#person-%", "#explanation-9"])
def test_an_address_of_nothing_leads_to_the_list(opened: Chromium, page: Path, address: str) -> None:
    opened.open("about:blank")
    opened.open(f"{page.as_uri()}{address}")
    opened.until("return document.querySelector('tbody a') !== null")
    assert opened.run(VISIBLE) == "overview"


@pytest.mark.parametrize(
    ("typed", "seen"), [("4", "feature"), ("", "overview"), ("7", "overview"), ("4e0", "overview")]
)
def test_a_number_that_is_typed_opens_its_feature(opened: Chromium, page: Path, typed: str, seen: str) -> None:
    opened.open(page.as_uri())
    opened.until("return document.querySelector('tbody a') !== null")
    opened.run("document.getElementById('go').value = arguments[0]", typed)
    opened.run("document.querySelector('.find').requestSubmit()")
    assert opened.run(VISIBLE) == seen


def test_a_face_leads_to_its_person_and_a_pair_to_its_explanation(opened: Chromium, page: Path) -> None:
    opened.open(f"{page.as_uri()}#feature-4")
    opened.until("return document.querySelector('#feature .row a') !== null")
    opened.run("document.querySelector('#feature .row a').click()")
    opened.until("return document.querySelector('#person h1') !== null")
    assert opened.run("return document.querySelectorAll('#person .near a').length") > 0
    opened.open(f"{page.as_uri()}#explanation-0")
    opened.until("return document.querySelector('#explanation h1') !== null")
    text = opened.run("return document.getElementById('explanation').textContent")
    assert "Why these two faces match" in text and "+0.300" in text
    assert opened.run("return document.querySelectorAll('#explanation .tile').length") == 2


def test_narrow_and_wide_light_and_dark(opened: Chromium, page: Path) -> None:
    backgrounds = set()
    for width, dark in ((420, True), (1300, False)):
        opened.resize(width, 900)
        opened.dark(dark)
        for address in ("", "#feature-3"):
            opened.open(f"{page.as_uri()}{address}")
            opened.until("return document.readyState === 'complete'")
            overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert opened.run(overflow) <= 0
        backgrounds.add(opened.run("return getComputedStyle(document.documentElement).backgroundColor"))
        assert contrast(opened) >= 4.5
    assert len(backgrounds) == 2


def contrast(opened: Chromium) -> float:
    """The smallest contrast of the colors of text with the paper, after WCAG 2."""
    colors = opened.run(
        "const style = getComputedStyle(document.documentElement);"
        "return ['--paper', '--ink', '--soft', '--accent', '--good'].map((one) => style.getPropertyValue(one).trim())"
    )

    def luminance(color: str) -> float:
        parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper, *text = map(luminance, colors)
    return min((max(paper, one) + 0.05) / (min(paper, one) + 0.05) for one in text)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a running MLflow UI, whose store is used."""
    store = f"sqlite:///{tmp_path}/mlflow.db"
    port = free_port()
    mlflow.set_tracking_uri(store)
    mlflow.create_experiment("browser", artifact_location=(tmp_path / "artifacts").as_uri())
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        store,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until_answered(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_the_page_works_in_the_artifact_viewer(window: Chromium, page: Path, server: str) -> None:
    mlflow.set_experiment("browser")
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(page))
    window.resize(1500, 1000)
    window.open(f"{server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/{page.name}")
    window.until("return document.querySelector('iframe') !== null", seconds=60)
    window.enter_frame("iframe")
    window.until("return document.querySelector('tbody a') !== null")
    window.run("document.querySelector('tbody tr:nth-child(2)').click()")
    window.until("return document.querySelector('#feature h1')?.textContent === 'Feature 0'")
    shown = "return getComputedStyle(document.querySelector('#feature .tile')).backgroundImage.startsWith('url')"
    assert window.run(shown)
    loaded = (
        "const address = getComputedStyle(document.querySelector('#feature .tile')).backgroundImage.slice(5, -2);"
        "window.picture = window.picture || Object.assign(new Image(), { src: address });"
        "return window.picture.complete && window.picture.naturalWidth"
    )
    assert window.until(loaded) > 80
