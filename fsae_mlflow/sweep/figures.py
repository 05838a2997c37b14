"""The figures of a study: its front, and Optuna's own, as one page to explore and as pictures."""

import logging
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import optuna
from matplotlib import pyplot, rc_context
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.visualization import matplotlib as pictures

from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.report import style
from fsae_mlflow.report.front import front_figure
from fsae_mlflow.sae.training.settings import SPARSITY
from fsae_mlflow.sweep.found import WORST_FVU, Sweep
from fsae_mlflow.sweep.objectives import FVU, L0

FEWEST_TRIALS = 4
HEAD = (
    '<meta name=viewport content="width=device-width">'
    "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}"
    "img{max-width:100%}</style>"
)
WORDS = {
    "front": "A point for each finished trial, those on the front joined by a line.",
    "history": "A point for each finished trial, in order. {better} is better; gray: an L0 above {max_l0:g}.",
    "parallel": "A line for each trial, through its values. {better} is better; trials with an L0 above {max_l0:g} "
    "cannot be the best, however good they are here.",
    "slice": "A point for each trial: what one value goes with, whatever the others were. Darker trials came later.",
    "contour": "Between the trials (points) the surface is interpolated. Regions with an L0 above {max_l0:g} cannot "
    "hold the best trial.",
    "importances": "How much each value decides whether a trial is among the better ones (PED-ANOVA). Of few trials it "
    "is a hint only.",
}
BETTER = {"minimize": "Lower", "maximize": "Higher"}
SIZES = {"parallel": (10.0, 4.4), "slice": (12.0, 4.0)}

logger = logging.getLogger(__name__)


def write_figures(found: Sweep, folder: Path) -> list[Path]:
    """Write front.png and, of four trials or more, study.html with all figures of each objective, and as pictures
    history.png, parallel.png, slice.png, contour.png and importances.png of the first objective, and with its name
    (history-heldout-l0.png) those of each other one; return what was written.

    The page needs no other file and no network. Importances are PED-ANOVA's.
    """
    up, across, *_ = found.settings.axes
    limit = found.settings.max_l0 if across.name == L0 else None
    worst = WORST_FVU if up.name == FVU else None
    written = [
        front_figure(found.points, folder / "front.png", across=across.name, up=up.name, max_l0=limit, worst=worst)
    ]
    if len(found.trials) < FEWEST_TRIALS:
        logger.info("sweep: figures of the study need %d finished trials.", FEWEST_TRIALS)
        return written
    with warnings.catch_warnings():
        # Optuna calls its matplotlib figures experimental since 2.2.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # The target below is a cost already.
        warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes")
        for place, objective in enumerate(found.settings.objectives):
            of = f"-{objective.name.replace('/', '-')}" if place else ""
            for name, draw in _figures(found, place, pictures).items():
                path = folder / f"{name}{of}.png"
                with _picture(path, SIZES.get(name, (6.4, 4.4))):
                    draw()
                written.append(path)
        return [*written, _page(found, folder / "study.html", front=written[0])]


def _figures(found: Sweep, place: int, library: Any) -> dict[str, Callable[[], Any]]:
    """What draws each figure of one objective, with Optuna's functions of a plotting library."""
    study, objective = found.study, found.settings.objectives[place]
    of = {"target": lambda trial: trial.values[place], "target_name": objective.name}
    cost = {"target": lambda trial: objective.cost(trial.values[place]), "target_name": objective.name}
    weights = _importances(found, place)
    # A parameter that some trials do not have (another variant's) has no importance over all of them.
    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    drawn = {parameter for trial in finished for parameter in trial.params}
    first = [*weights, *sorted(drawn - weights.keys())]
    sparsity = next((parameter for parameter in first if parameter in SPARSITY), None)
    pair = [sparsity, "expansion"] if sparsity and "expansion" in drawn else first[:2]
    # Without a target it draws the best value so far, too.
    past = of if len(found.settings.objectives) > 1 else {"target_name": objective.name}
    figures = {"history": partial(library.plot_optimization_history, study, **past)}
    if first:
        figures["parallel"] = partial(library.plot_parallel_coordinate, study, params=first, **of)
        figures["slice"] = partial(library.plot_slice, study, params=first, **of)
    if len(pair) > 1:
        figures["contour"] = partial(library.plot_contour, study, params=pair, **of)
    if weights:
        evaluator = PedAnovaImportanceEvaluator()
        figures["importances"] = partial(library.plot_param_importances, study, evaluator=evaluator, **cost)
    return figures


def _importances(found: Sweep, place: int) -> dict[str, float]:
    """PED-ANOVA's importance of each parameter that all trials have, the largest first; none where values are equal."""
    if len({trial.costs(found.settings.axes)[place] for trial in found.trials}) < 2:
        return {}
    cost = found.settings.objectives[place].cost
    return get_param_importances(
        found.study, evaluator=PedAnovaImportanceEvaluator(), target=lambda trial: cost(trial.values[place])
    )


@contextmanager
def _picture(path: Path, size: tuple[float, float]) -> Iterator[None]:
    """Write what Optuna draws within the block; it changes matplotlib's settings and leaves figures open."""
    with rc_context():
        yield
        figure = pyplot.gcf()
        figure.set_size_inches(*size)
        for axes in figure.axes:  # the title would cover the legend
            axes.set_title("")
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png", dpi=style.DPI, bbox_inches="tight")
        pyplot.close("all")


def _page(found: Sweep, path: Path, *, front: Path) -> Path:
    parts: list[str] = []
    limit = found.settings.max_l0
    picture = b64encode(front.read_bytes()).decode()
    shown = f"<img src='data:image/png;base64,{picture}' alt='The front of the trials'><p>{WORDS['front']}</p>"
    for place, objective in enumerate(found.settings.objectives):
        for name, draw in _figures(found, place, optuna.visualization).items():
            figure = draw()
            figure.update_layout(title_text=f"{figure.layout.title.text}: {objective.name}", margin_t=110)
            drawn = figure.to_html(full_html=False, include_plotlyjs=not parts)
            parts.append(f"{drawn}\n<p>{WORDS[name].format(better=BETTER[objective.direction], max_l0=limit)}</p>")
    title = escape(f"Sweep over {', '.join(found.settings.search.dimensions)}")
    body = "\n".join(parts)
    text = (
        f"<!doctype html><html lang=en><meta charset=utf-8>{HEAD}<title>{title}</title><h1>{title}</h1>\n"
        f"<p>{escape(found.headline)}.</p>\n{shown}\n{body}\n</html>"
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
