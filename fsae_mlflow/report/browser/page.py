"""The pages of the browser: data and pictures of as many features as one page has room for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.table import Description
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.progress import progress
from fsae_mlflow.report.browser.data import feature_entries, nearest
from fsae_mlflow.report.browser.images import FeatureImages
from fsae_mlflow.report.browser.settings import BrowseSettings
from fsae_mlflow.report.browser.sprites import AT_ONCE, COLUMNS, sheets
from fsae_mlflow.report.grid import cut
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.registry import VARIANT
from fsae_mlflow.templates.set import TemplateSet

FACE, IMAGE = 80, 112
"""Pixels of a face's and of an optimized image's side in the page."""
MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Browsed:
    """The pages that were written, the first of them the one to open, and how many features they show."""

    pages: list[Path]
    n_features: int

    @property
    def n_bytes(self) -> int:
        """The size of all pages."""
        return sum(page.stat().st_size for page in self.pages)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Everything that pages are made of. `about`: lines of a heading, each a name and a value."""

    settings: BrowseSettings
    templates: TemplateSet
    entries: list[dict[str, Any]]
    images: FeatureImages
    explanations: list[dict[str, Any]]
    about: list[tuple[str, str]]
    n_dead: int


def write_browser(
    settings: BrowseSettings,
    *,
    templates: TemplateSet,
    sae: SparseAutoencoder,
    description: Description,
    images: FeatureImages,
    about: Sequence[tuple[str, str]],
    output: Path,
) -> Browsed:
    """Write features.html, and where that would exceed `max_megabytes` features-2.html and so on.

    Raises: UserError where no feature fires, and for an explanation that cannot be read.
    """
    alive = np.flatnonzero(description.activity.counts > 0)
    if not len(alive):
        raise UserError("readings: no feature fires on these templates, so there is nothing to browse; train longer.")
    near = nearest(sae.W_dec.detach().cpu(), alive, most=settings.n_near) if settings.n_near else {}
    entries = feature_entries(
        description,
        alive.tolist(),
        near=near,
        images=images,
        real_faces=settings.real_faces,
        n_faces=settings.n_faces,
    )
    source = Source(
        settings=settings,
        templates=templates,
        entries=entries,
        images=images,
        explanations=[_explanation(Path(name), settings, templates, entries) for name in settings.explanations],
        about=list(about),
        n_dead=len(description.activity.counts) - len(alive),
    )
    parts, written = _parts(source), []
    names = [f"features{'' if place == 0 else f'-{place + 1}'}.html" for place in range(len(parts))]
    where = {one["id"]: name for name, part in zip(names, parts, strict=True) for one in part}
    for name, part in progress(zip(names, parts, strict=True), total=len(parts), label="browse", unit="pages"):
        with atomic_write(output / name) as path:
            path.write_text(_page(source, part, names=names, name=name, where=where), encoding="utf-8")
        written.append(output / name)
    return Browsed(pages=written, n_features=len(alive))


def heading(
    templates: TemplateSet, sae: SparseAutoencoder, description: Description, digest: str
) -> list[tuple[str, str]]:
    """What the page is about, each line a name and a value."""
    activity, fvu = description.activity, description.activity.fvu
    left = f"{fvu:.1%} of the variance" if fvu < 1 else f"everything (fvu {fvu:.4g}: worse than the mean template)"
    return [
        ("Recognizer", templates.origin.recognizer or "not recorded"),
        ("Faces", f"{len(templates):,} of {len(np.unique(templates.identities)):,} people"),
        ("SAE", f"{VARIANT.name_of(sae.settings)}, {sae.d_sae:,} features, {digest}"),
        ("A face fires", f"{activity.l0:.3g} features on average"),
        ("Unexplained", f"{left}, on these templates, which the SAE may have been trained on"),
        ("Meaning confirmed", f"of {int(description.columns['confirmed'].sum()):,} features"),
    ]


def _parts(source: Source) -> list[list[dict[str, Any]]]:
    """The features of each page: all, or so many that a page, as large as a sample says, stays below the limit."""
    limit, entries = source.settings.max_megabytes * MEGABYTE, source.entries
    n = len(entries)
    while True:
        parts = [entries[first : first + n] for first in range(0, len(entries), n)]
        largest = max(_size(source, part) for part in (parts[0], parts[-1]))
        if largest <= limit or n == 1:
            return parts
        n = max(1, min(n - 1, int(0.95 * n * limit / largest)))


def _size(source: Source, part: list[dict[str, Any]]) -> float:
    """About how many bytes a page of these features has."""
    sample = part[:: max(1, len(part) // 64)]
    tiles = {row for one in sample for row, _ in one.get("top", []) + one.get("sampled", [])}
    every = {row for one in part for row, _ in one.get("top", []) + one.get("sampled", [])}
    pictures = sum(map(len, _face_sheets(source, sorted(tiles)))) * len(every) / max(len(tiles), 1)
    made = [one for one in part if "images" in one or "dial" in one]
    some = made[:: max(1, len(made) // 32)]
    shown = sum(map(len, _image_sheets(source, some)[0])) + sum(map(len, _dial_sheets(source, some)[0]))
    data = len(json.dumps(sample, ensure_ascii=False)) * len(part) / max(len(sample), 1)
    return pictures + shown * len(made) / max(len(some), 1) + data + 60_000


def _page(
    source: Source,
    part: list[dict[str, Any]],
    *,
    names: list[str],
    name: str,
    where: Mapping[int, str],
) -> str:
    rows = sorted({row for one in part for row, _ in one.get("top", []) + one.get("sampled", [])})
    rows = sorted({*rows, *_rows_of(source)})
    faces = _face_sheets(source, rows)
    (images, image_places), (dials, dial_places) = _image_sheets(source, part), _dial_sheets(source, part)
    people = [] if not rows else source.templates.take(["identity"], np.array(rows)).column("identity").to_pylist()
    data = {
        "features": part,
        "rows": rows,
        "people": [str(person) for person in people],
        "images": image_places,
        "dials": dial_places,
        "explanations": source.explanations,
        "rule": source.images.rule,
        "here": name,
        "elsewhere": {feature: page for feature, page in where.items() if page != name} if len(names) > 1 else {},
        "realFaces": source.settings.real_faces,
        "columns": COLUMNS,
        "atOnce": AT_ONCE,
    }
    kinds = {"face": faces, "image": images, "dial": dials}
    environment = Environment(
        loader=PackageLoader("fsae_mlflow.report.browser", "assets"), autoescape=True, undefined=StrictUndefined
    )
    assets = Path(__file__).parent / "assets"
    return environment.get_template("page.html").render(
        about=source.about,
        n_features=len(source.entries),
        n_dead=source.n_dead,
        names=names,
        name=name,
        real_faces=source.settings.real_faces,
        has_images=bool(source.images.images),
        style=(assets / "page.css").read_text(encoding="utf-8"),
        script=(assets / "page.js").read_text(encoding="utf-8"),
        data=_embedded(data),
        sheets=[(f"{kind}-{place}", sheet) for kind, found in kinds.items() for place, sheet in enumerate(found)],
    )


def _embedded(data: Any) -> str:
    """JSON that can stand in a script element: it cannot end the element, whatever names are in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _rows_of(source: Source) -> list[int]:
    """The rows of the faces that explanations are of."""
    return [row for one in source.explanations for row in one["rows"] if row is not None]


def _face_sheets(source: Source, rows: Sequence[int]) -> list[str]:
    if not rows:
        return []
    return list(sheets((face for _, face in source.templates.faces_in_order(rows)), width=FACE, height=FACE))


def _image_sheets(source: Source, part: list[dict[str, Any]]) -> tuple[list[str], dict[str, int]]:
    files = [image["file"] for one in part for image in one.get("images", [])]
    pictures = (source.images.picture(file) for file in files)
    return list(sheets(pictures, width=IMAGE, height=IMAGE)), {file: place for place, file in enumerate(files)}


def _dial_sheets(source: Source, part: list[dict[str, Any]]) -> tuple[list[str], dict[str, int]]:
    """The pictures of dials one by one; the place of a dial is that of its first picture."""
    files = {one["dial"]["file"]: len(one["dial"]["steps"]) for one in part if "dial" in one}
    places, pictures = {}, 0
    for file, n in files.items():
        places[file], pictures = pictures, pictures + n
    tiles = (tile for file, n in files.items() for tile in cut(source.images.picture(file), n))
    return list(sheets(tiles, width=IMAGE, height=IMAGE)), places


def _explanation(
    path: Path, settings: BrowseSettings, templates: TemplateSet, entries: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kept = {name: found[name] for name in ("first", "second", "similarity", "decoded", "constant", "unexplained")}
        kept |= {"accepted": found["accepted"], "threshold": found["threshold"]["cosine"], "rows": [None, None]}
        kept["features"] = [
            {name: one[name] for name in ("feature", "reading", "contribution", "first", "second")}
            for one in found["features"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"explanation: {path} is no JSON file of explain ({error}).") from error
    if not settings.real_faces:  # the readings of the file may name people, those of the page do not
        readings = {one["id"]: one["reading"] for one in entries if one["confirmed"]}
        kept["features"] = [one | {"reading": readings.get(one["feature"], "")} for one in kept["features"]]
        return kept | {"first": "the first face", "second": "the second face"}
    places = {image_id: row for row, image_id in enumerate(templates.image_ids)}
    kept["rows"] = [places.get(kept[name]) for name in ("first", "second")]
    return kept
