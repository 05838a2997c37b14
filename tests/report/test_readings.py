import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from fsae_mlflow.errors import UserError
from fsae_mlflow.report import style
from fsae_mlflow.report.dictionary import DictionaryRow, write_dictionary
from fsae_mlflow.report.grid import Tile
from fsae_mlflow.report.readings import BAR, Reading, ReadingRow, strongest, write_readings

EYEGLASSES = Reading(
    feature=17,
    sentence="Eyeglasses (87 % of its top faces, 6 % of all); pose-invariant; fires more on sharp faces.",
    kind="Eyeglasses",
    confirmed=True,
    strong=True,
    share=0.87,
    base=0.004,
    p=3.14e-12,
    q=0.049,
    n_faces=2554,
    n_people=577,
    rho={"yaw": -0.02, "sharpness": 0.21},
)
TURNED = replace(EYEGLASSES, sentence="Faces turned to the left.", kind="pose", strong=False, share=math.nan)
UNREAD = replace(TURNED, sentence="unread", kind="", confirmed=False, p=math.nan, q=math.nan)
COUNTS = {
    "headline": "143 of 1,024 features have a confirmed reading: 12 of a person",
    "n_confirmed": 143,
    "n_alive": 1024,
    "n_found_on": 612,
    "n_confirmed_on": 613,
}


def row(reading: Reading, *, n: int = 2) -> ReadingRow:
    faces = [Tile(picture=Image.new("RGB", (112, 112), (9 * i, 100, 50)), caption=f"top {i}") for i in range(n)]
    return ReadingRow(reading=reading, top=faces, sampled=[replace(face, caption="sampled") for face in faces])


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that the test draws."""
    kept: list[Figure] = []
    canvas = style.canvas

    @contextmanager
    def keeping(path: Path, width: float, height: float) -> Iterator[Figure]:
        with canvas(path, width, height) as figure:
            yield figure
        kept.append(figure)

    monkeypatch.setattr(style, "canvas", keeping)
    return kept


def texts(figure: Figure) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in figure.findobj(Text)]


def images(figure: Figure) -> list[AxesImage]:
    return [one for one in figure.findobj(AxesImage) if isinstance(one, AxesImage)]


def bars(figure: Figure) -> list[tuple[float, float]]:
    """Start and length of the bars of a reading, as shares of the whole length."""
    found = [one for one in figure.axes[0].patches if isinstance(one, Rectangle)]
    tracks, values = found[::2], found[1::2]
    return [
        ((value.get_x() - track.get_x()) / BAR, value.get_width() / BAR)
        for track, value in zip(tracks, values, strict=True)
    ]


def test_a_confirmed_reading_stands_beside_its_numbers_and_faces(tmp_path: Path, figures: list[Figure]) -> None:
    path = write_readings(tmp_path / "readings.png", [row(EYEGLASSES)], **COUNTS)
    drawn = texts(figures[0])
    assert COUNTS["headline"] in drawn
    assert any("found on 612 people and holds on 613 other people" in text for text in drawn)
    assert "Feature 17, strong" in drawn
    assert EYEGLASSES.sentence in drawn
    assert {"87 %", "0.4 %", "top 0", "top 1", "sampled"} <= set(drawn)
    numbers = "fired by 2,554 faces of 577 people p = 3.1e-12, q = 0.049 ρ: yaw −0.02, sharpness +0.21"
    assert numbers in drawn
    assert np.allclose(bars(figures[0]), [(0, 0.87), (0, 0.004)])
    with Image.open(path) as image:
        assert image.format == "PNG"


def test_a_reading_without_shares_shows_correlations(tmp_path: Path, figures: list[Figure]) -> None:
    one = replace(TURNED, p=0.0, n_people=1)
    write_readings(tmp_path / "readings.png", [row(one)], **COUNTS)
    drawn = texts(figures[0])
    assert {"Feature 17", "ρ with yaw", "−0.02", "ρ with sharpness", "+0.21"} <= set(drawn)
    assert any(text == "fired by 2,554 faces of 1 person p < 1e-300, q = 0.049" for text in drawn)
    assert np.allclose(bars(figures[0]), [(0.5, -0.01), (0.5, 0.105)])


def test_unknown_correlations_are_left_out(tmp_path: Path, figures: list[Figure]) -> None:
    rows = [row(replace(one, rho={"yaw": math.nan, "sharpness": 0.21})) for one in (EYEGLASSES, TURNED)]
    write_readings(tmp_path / "readings.png", rows, **COUNTS)
    assert sum("sharpness" in text for text in texts(figures[0])) == 2
    assert not any("ρ: yaw" in text or "with yaw" in text for text in texts(figures[0]))


def test_without_confirmed_readings_the_figure_says_so(tmp_path: Path, figures: list[Figure]) -> None:
    write_readings(tmp_path / "readings.png", [row(UNREAD), row(UNREAD)], **COUNTS | {"n_confirmed": 0})
    drawn = texts(figures[0])
    assert "No reading was confirmed" in drawn
    assert any("found on 612 people holds on 613 other people. Below: the 2 of 1,024" in text for text in drawn)
    assert "fired by 2,554 faces of 577 people" in drawn


def test_rows_and_faces_beyond_the_figure_are_left_out(tmp_path: Path, figures: list[Figure]) -> None:
    rows = [row(replace(EYEGLASSES, feature=feature), n=1) for feature in range(13)]
    write_readings(tmp_path / "rows.png", rows, **COUNTS)
    write_readings(tmp_path / "faces.png", [row(EYEGLASSES, n=9)], **COUNTS)
    assert "Feature 11, strong" in texts(figures[0])
    assert "Feature 12, strong" not in texts(figures[0])
    assert len(images(figures[1])) == 8 + 4


def test_nothing_overlaps_and_all_is_inside(tmp_path: Path, figures: list[Figure]) -> None:
    wordy = replace(EYEGLASSES, sentence=" ".join(["Receding_Hairline (87 % of its top faces)"] * 6), share=1.0)
    many = replace(TURNED, rho=dict.fromkeys(("yaw", "|yaw|", "interocular", "sharpness"), -1.0))
    write_readings(tmp_path / "readings.png", [row(wordy, n=8), row(many, n=8), row(UNREAD)], **COUNTS)
    figure = figures[0]
    written = [
        text for text in figure.findobj(Text) if text.get_text() and text.axes is not None and text.get_visible()
    ]
    titles = {figure.axes[0].xaxis.label, figure.axes[0].yaxis.label}
    boxes = [one.get_window_extent() for one in [*written, *images(figure)] if one not in titles]
    assert len(boxes) > 60
    for one, other in combinations(boxes, 2):
        overlap = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(overlap) <= 1, (one, other)
    for line in figure.axes[0].lines:
        height = line.get_window_extent().y0
        assert not any(box.y0 < height < box.y1 for box in boxes)
    assert all(figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1) for box in boxes)
    assert all(figure.bbox.containsy(box.y0) and figure.bbox.containsy(box.y1) for box in boxes)


def test_dollar_signs_in_names_are_text(tmp_path: Path, figures: list[Figure]) -> None:
    write_readings(tmp_path / "readings.png", [row(replace(EYEGLASSES, sentence=r"A$AP \frac$"))], **COUNTS)
    assert r"A$AP \frac$" in texts(figures[0])


def test_the_best_of_each_kind_comes_first() -> None:
    weak, better = (replace(EYEGLASSES, strong=False, feature=1, p=1e-9), replace(EYEGLASSES, feature=2, p=1e-5))
    tied, pose = replace(better, feature=3, share=0.99), replace(TURNED, feature=4, p=0.001)
    unread = replace(UNREAD, feature=5, n_faces=10_000)
    order = strongest([unread, weak, pose, better, tied])
    assert [one.feature for one in order] == [3, 4, 2, 1]
    assert [one.feature for one in strongest([weak, pose, better], n=2)] == [2, 4]


def test_of_equal_p_the_larger_share_comes_first_and_no_share_last() -> None:
    small, large = (replace(EYEGLASSES, feature=feature, share=share) for feature, share in ((1, 0.8), (2, 0.9)))
    order = strongest([small, replace(EYEGLASSES, feature=3, share=math.nan), large])
    assert [one.feature for one in order] == [2, 1, 3]


def test_without_confirmed_readings_the_most_frequent_features_are_chosen() -> None:
    counted = [replace(UNREAD, feature=feature, n_faces=n) for feature, n in enumerate((3, 9, 5))]
    assert [one.feature for one in strongest(counted, n=2)] == [1, 2]


def test_dictionaries_are_compared_in_bars(tmp_path: Path, figures: list[Figure]) -> None:
    sae = DictionaryRow(label="SAE", n_judged=458, confirmed=0.31, strong=0.118, n_kinds=22, is_control=False)
    none = DictionaryRow(label="PCA", n_judged=0, confirmed=math.nan, strong=math.nan, n_kinds=0, is_control=True)
    write_dictionary(tmp_path / "dictionary.png", [sae, none])
    shares, kinds = figures[0].axes
    widths = [bar.get_width() for axes in (shares, kinds) for bar in axes.patches if isinstance(bar, Rectangle)]
    assert np.allclose(widths, [31, math.nan, 11.8, math.nan, 22, 0], equal_nan=True)
    assert {"SAE 458 judged", "PCA 0 judged", "31.0 %", "11.8 %", "22"} <= set(texts(figures[0]))
    colors = [bar.get_facecolor()[:3] for bar in kinds.patches]
    assert colors[0] != colors[1]
    assert shares.get_xlim()[1] > 31
    assert (tmp_path / "dictionary.png").is_file()


def test_figures_without_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no feature to draw"):
        write_readings(tmp_path / "readings.png", [], **COUNTS)
    with pytest.raises(UserError, match="there is none to compare"):
        write_dictionary(tmp_path / "dictionary.png", [])
