"""What compare shows: how many features are found again, and faces of some of them beside those of their matches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from fsae_mlflow.features.comparison.matching import FOUND_AGAIN, Matches
from fsae_mlflow.features.comparison.stage import Comparison, Pair
from fsae_mlflow.report import style
from fsae_mlflow.report.grid import GridRow, Tile, feature_grid
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.templates.set import TemplateSet

N_MATCHES, N_FACES = 8, 6
SIMILARITIES = np.linspace(0, 1, 201)
LINES = (
    ("cosine", False, "same direction (cosine of decoder rows)", style.BLUE),
    ("correlation", False, "same faces (correlation of activations)", style.GREEN),
    ("correlation", True, "same faces, across recognizers", style.VERMILION),
)


def write_figures(comparison: Comparison, sets: Sequence[TemplateSet], folder: Path) -> list[Path]:
    """Draw stability.png, and matches.png where the first two SAEs have matches; `sets` are the SAEs' template sets."""
    written = [stability_figure(comparison, folder / "stability.png")]
    if len(comparison.pairs[0].correlation.first):
        written.append(matches_figure(comparison, sets, folder / "matches.png"))
    return written


def stability_figure(comparison: Comparison, path: Path) -> Path:
    """Draw the share of features that are found again at each similarity, dashed for the untrained SAEs."""
    with style.plot(path, 8.4, 5.4, grid="both") as axes:
        for kind, across, label, color in LINES:
            for pairs, look, of in ((comparison.pairs, "-", ""), (comparison.initial, "--", "untrained: ")):
                found = [getattr(pair, kind) for pair in pairs if across == (pair.cosine is None)]
                if found:
                    axes.plot(SIMILARITIES, 100 * found_at(SIMILARITIES, found), look, color=color, label=of + label)
        axes.axvline(FOUND_AGAIN, color=style.GRAY, linewidth=0.8)
        axes.annotate("found again", (FOUND_AGAIN, 101), ha="center", color=style.GRAY, annotation_clip=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 100)
        axes.set_xlabel("similarity of a feature with its match in another SAE, more than")
        axes.set_ylabel("share of features, %")
        axes.set_title(comparison.headline, pad=20)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)  # no curve runs there
    return path


def found_at(
    similarities: Float64[np.ndarray, " n_points"], found: Sequence[Matches]
) -> Float64[np.ndarray, " n_points"]:
    """The share, 0…1, of features that have a match of more than each similarity; the mean over pairs of SAEs."""
    return np.mean([(one.similarity[:, None] > similarities).sum(axis=0) / max(one.n, 1) for one in found], axis=0)


def matches_figure(comparison: Comparison, sets: Sequence[TemplateSet], path: Path) -> Path:
    """Draw, for some matches of the first two SAEs, the faces that fire either feature most, one of a person.

    They are the most similar one, the least similar one, and others between them, at ranks that grow geometrically.
    """
    pair = comparison.pairs[0]
    order = np.argsort(-pair.correlation.similarity, kind="stable")
    chosen = order[np.unique(np.geomspace(1, len(order), N_MATCHES).round().astype(int) - 1)]
    rows = [
        GridRow(
            heading=f"correlation {pair.correlation.similarity[one]:.2f}: feature {pair.correlation.first[one]} of "
            f"{comparison.names[pair.first]}, and {pair.correlation.second[one]} of {comparison.names[pair.second]}",
            faces=_tiles(comparison, sets, pair.first, int(pair.correlation.first[one])),
            images=_tiles(comparison, sets, pair.second, int(pair.correlation.second[one])),
        )
        for one in chosen.tolist()
    ]
    return feature_grid(rows, path, title="Matched features and the faces that fire them most, one of a person")


def pair_table(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each pair of SAEs, with the numbers of alive features and the metrics, trained and untrained."""
    rows = []
    for place, pair in enumerate(comparison.pairs):
        before = comparison.initial[place].metrics if comparison.initial else {}
        rows.append(
            {
                "first": comparison.names[pair.first],
                "second": comparison.names[pair.second],
                "alive_first": _n_alive(comparison.entries[pair.first]),
                "alive_second": _n_alive(comparison.entries[pair.second]),
                **pair.metrics,
                **{f"initial/{name}": value for name, value in before.items()},
                "left_out_below": max(one.left_out for one in _all(pair)),
            }
        )
    return rows


def _all(pair: Pair) -> list[Matches]:
    return [one for one in (pair.cosine, pair.correlation) if one is not None]


def _n_alive(entries: Entries) -> int:
    return int((entries.counts > 0).sum())


def _tiles(comparison: Comparison, sets: Sequence[TemplateSet], number: int, feature: int) -> list[Tile]:
    entries, rows = comparison.entries[number], comparison.rows[number]
    own = entries.place_of(feature)
    order = np.argsort(-entries.values[own], kind="stable")
    places, values = entries.rows[own][order], entries.values[own][order]
    people = sets[number].identities[rows[places]].astype(str)
    first = np.sort(np.unique(people, return_index=True)[1])[:N_FACES]
    pictures = sets[number].faces(rows[places[first]])
    return [
        Tile(picture=picture, caption=f"{value:.3g}")
        for picture, value in zip(pictures, values[first].tolist(), strict=True)
    ]
