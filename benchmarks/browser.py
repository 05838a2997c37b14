"""Size of the feature browser's pages, and how long they take to make and to load, for more and more features.

    python benchmarks/browser.py --templates sets/b/templates
    python benchmarks/browser.py --features 500,5000 --max_megabytes 40

Every feature has 8 top and 8 sampled faces of the set, drawn at random (real features share faces more often), and a
sentence as long as usual. Loading is from disk in headless Chromium, until the list can be used. Without --templates
the set is 2,000 made faces of smooth noise.
"""

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fsae_mlflow.features.activity.summary import QUANTILES, Activity, FaceLists
from fsae_mlflow.features.readings.judgments import PROPERTIES
from fsae_mlflow.features.table import Description
from fsae_mlflow.report.browser.images import NO_IMAGES
from fsae_mlflow.report.browser.page import heading, write_browser
from fsae_mlflow.report.browser.settings import BrowseSettings
from fsae_mlflow.sae.variants.registry import untrained
from fsae_mlflow.sae.variants.settings import TopKSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.report.browser.driver import chromium, missing
from tests.template_sets import TemplateWriter, face_row

N_LISTED = 8
READY = "return document.querySelector('tbody a') !== null && performance.now()"


def made_set(folder: Path, *, n: int = 2000) -> TemplateSet:
    rng = np.random.default_rng(0)
    with TemplateWriter(folder, width=64, metadata={}) as writer:
        for index in range(n):
            small = Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8))
            content = io.BytesIO()
            small.resize((112, 112), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
            writer.write([face_row(f"p{index // 3}/{index}.jpg", rng.normal(size=64), content.getvalue())])
    return TemplateSet.open(folder)


def made_description(n_features: int, n_faces: int) -> Description:
    """Features that all fire, each read as an attribute."""
    rng = np.random.default_rng(1)

    def lists() -> FaceLists:
        rows = rng.integers(0, n_faces, (n_features, N_LISTED)).astype(np.int32)
        activations = -np.sort(-rng.random((n_features, N_LISTED)).astype(np.float32), axis=1)
        return FaceLists(rows=rows, activations=activations, n=np.full(n_features, N_LISTED, np.int32))

    counts = rng.integers(1, n_faces // 2, n_features)
    ones = rng.random(n_features) + 0.5
    activity = Activity(
        n_faces=n_faces,
        mean_norm=1.0,
        fvu=0.2,
        counts=counts,
        mean=ones,
        std=ones,
        maxima=3 * ones,
        quantiles=np.stack([(0.5 + q) * ones for q in QUANTILES]),
        percentile=2 * ones,
        top=lists(),
        sampled=lists(),
    )
    words = "Wearing Hat (95 % of its top faces, 5 % of all); pose-invariant; fires more on dark faces."
    nan, yes, no = np.full(n_features, np.nan), np.ones(n_features, bool), np.zeros(n_features, bool)
    shares = {"attribute_share": 0.95, "attribute_base": 0.05, "attribute_p": 1e-6, "attribute_q": 1e-4}
    columns = {
        "cluster": np.full(n_features, "high", dtype=object),
        "n_people": counts // 2,
        "reading": np.full(n_features, words, dtype=object),
        "attribute": np.full(n_features, "Wearing_Hat", dtype=object),
        "pose": np.full(n_features, "invariant", dtype=object),
        "quality": np.full(n_features, "equivariant", dtype=object),
        "confirmed": yes,
        "attribute_confirmed": yes,
        "attribute_strong": yes,
        "identity_confirmed": no,
        "attribute_rho": nan,
        **{name: np.full(n_features, value) for name, value in shares.items()},
        **{f"{name}_rho": rng.normal(size=n_features) for name in ("yaw", "turn", *PROPERTIES)},
        **{f"{name}_confirmed": no for name in PROPERTIES},
    }
    return Description(activity=activity, columns=columns, about={"sae": "made", "templates": "made"})


def main() -> None:
    """Make the pages, load the first of each, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", default="")
    parser.add_argument("--features", default="500,5000,65536")
    parser.add_argument("--max_megabytes", type=float, default=40.0)
    options = parser.parse_args()
    print(
        "| features | pages | MB in all | largest page, MB | made in, s | usable after, s |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        templates = TemplateSet.open(options.templates) if options.templates else made_set(Path(folder) / "set")
        for n in map(int, options.features.split(",")):
            sae = untrained(TopKSettings(), 64, n).eval().requires_grad_(False)
            description = made_description(n, len(templates))
            started = time.perf_counter()
            browsed = write_browser(
                BrowseSettings(max_megabytes=options.max_megabytes),
                templates=templates,
                sae=sae,
                description=description,
                images=NO_IMAGES,
                about=heading(templates, sae, description, "made"),
                output=Path(folder) / str(n),
            )
            seconds, usable = time.perf_counter() - started, "not measured"
            if not missing():
                with chromium(Path(folder) / f"profile-{n}") as window:
                    window.open(browsed.pages[0].as_uri())
                    usable = f"{window.until(READY, seconds=120) / 1000:.1f}"
            largest = max(page.stat().st_size for page in browsed.pages) / 1e6
            cells = (
                f"{n:,}",
                len(browsed.pages),
                f"{browsed.n_bytes / 1e6:.1f}",
                f"{largest:.1f}",
                f"{seconds:.0f}",
                usable,
            )
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
