"""Whether readings find what was planted in synthetic faces, and how often they claim what was not.

    python benchmarks/planted.py --seeds 5

tests/features/planted.py makes the faces and features of known meaning, tests/features/verdicts.py says which claims of
a reading are true. Found: the reading has the planted meaning, by its name. Wrong: it has at least one claim that does
not hold. "faces for people" are the wrong readings of the same rules where every face is taken for a person of its own,
as a test does that knows nothing of people.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.features.planted import Truth, every_truth, planted_faces, planted_features
from tests.features.verdicts import Verdict, read_planted, verdicts

STRENGTHS, N_NOISE = (0.8, 0.4, 0.2), 60


@dataclass(frozen=True)
class Judged:
    """The verdict on one feature, and that of rules that take every face for a person."""

    own: Verdict
    by_faces: Verdict

    @property
    def truth(self) -> Truth:
        return self.own.truth


def judged(n_people: int, seed: int) -> list[Judged]:
    faces = planted_faces(n_people, seed=seed)
    features = planted_features(faces, every_truth(faces, strengths=STRENGTHS, n_noise=N_NOISE), seed=seed)
    alone = replace(faces, people=np.arange(len(faces.people)))
    both = (verdicts(read_planted(given, features).columns, features) for given in (faces, alone))
    return [Judged(*pair) for pair in zip(*both, strict=True)]


def share(flags: Iterable[bool]) -> str:
    flags = list(flags)
    return f"{sum(flags)} of {len(flags)}"


def meanings(found: list[Judged]) -> None:
    """The table of what was planted, by kind and name, and by strength."""
    heads = [f"found at {strength}" for strength in STRENGTHS]
    print(f"\n| planted | {' | '.join(heads)} | wrong | wrong, faces for people |")
    print("|---" * (3 + len(STRENGTHS)) + "|")
    names = {(one.truth.kind, "" if one.truth.kind == "identity" else one.truth.name): None for one in found}
    for kind, name in names:
        if kind in ("noise", "dead"):
            continue
        rows = [one for one in found if one.truth.kind == kind and name in ("", one.truth.name)]
        cells = [share(one.own.found for one in rows if one.truth.strength == strength) for strength in STRENGTHS]
        cells += [share(bool(one.own.wrong) for one in rows), share(bool(one.by_faces.wrong) for one in rows)]
        print(f"| {' '.join(filter(None, (kind, name)))} | {' | '.join(cells)} |")


def noise(found: list[Judged]) -> None:
    """The table of noise, by density and by the share of its variance that is a person's own."""
    noises = [one for one in found if one.truth.kind == "noise"]
    shares = sorted({one.truth.noise_of_people for one in noises})
    heads = [f"wrong, {part:.0%} of people{of}" for of in ("", ", faces for people") for part in shares]
    print(f"\n| noise at density | {' | '.join(heads)} |")
    print("|---" * (1 + len(heads)) + "|")
    for density in sorted({one.truth.density for one in noises}):
        rows = [[o for o in noises if (o.truth.density, o.truth.noise_of_people) == (density, part)] for part in shares]
        cells = [share(bool(one.own.wrong) for one in some) for some in rows]
        cells += [share(bool(one.by_faces.wrong) for one in some) for some in rows]
        print(f"| {density} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--people", type=int, default=1000, help="People of each seed, with 6 faces each on average.")
    given = parser.parse_args()
    found = [one for seed in range(given.seeds) for one in judged(given.people, seed)]
    meanings(found)
    noise(found)
    wrong = Counter((one.truth.name, *claim) for one in found for claim in one.own.wrong)
    print("\nWrong claims:", ", ".join(f"{' '.join(claim)} ({n})" for claim, n in wrong.most_common(12)) or "none")


if __name__ == "__main__":
    main()
