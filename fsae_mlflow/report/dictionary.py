"""Figure that compares the readings of an SAE's features with those of controls."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fsae_mlflow.errors import UserError
from fsae_mlflow.report import style


@dataclass(frozen=True, kw_only=True)
class DictionaryRow:
    """One SAE or control: the shares, 0…1, of its `n_judged` features whose reading is confirmed and strong, and the
    number of different strong attributes. Shares are nan where no feature was judged.
    """

    label: str
    n_judged: int
    confirmed: float
    strong: float
    n_kinds: int
    is_control: bool


def write_dictionary(path: Path, rows: Sequence[DictionaryRow]) -> Path:
    """Draw a pair of bars per row, shares of judged features confirmed and strong, and beside them the number of kinds.

    Raises: UserError without rows.
    """
    if not rows:
        raise UserError("dictionaries: there is none to compare; give at least one.")
    with style.canvas(path, 9.6, 1.5 + 0.55 * len(rows)) as figure:
        shares, kinds = figure.subplots(1, 2, width_ratios=(2, 1), sharey=True)
        colors = [style.GRAY if row.is_control else style.BLUE for row in rows]
        places = range(len(rows))
        for axes, values, form, height, look in (
            (shares, [100 * row.confirmed for row in rows], "%.1f %%", -0.36, {"alpha": 0.4}),
            (shares, [100 * row.strong for row in rows], "%.1f %%", 0.36, {}),
            (kinds, [row.n_kinds for row in rows], "%d", 0.6, {}),
        ):
            align = "center" if axes is kinds else "edge"
            axes.bar_label(axes.barh(places, values, height, align=align, color=colors, **look), fmt=form, padding=4)
        shares.set_yticks(places, [f"{row.label}\n{row.n_judged:,} judged" for row in rows])
        shares.set_ylim(len(rows) - 0.4, -0.6)
        shares.set_xlabel("pale: reading confirmed; dark: strong (almost all top faces have the attribute)")
        shares.set_title("Share of judged features, %")
        kinds.set_title("Different strong attributes")
        for axes in (shares, kinds):
            axes.set_xlim(0, 1.15 * max(axes.dataLim.x1, 1.0))
            axes.tick_params(axis="y", length=0)
    return path
