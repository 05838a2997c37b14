"""Synthetic faces with features of known meaning: what a reading must find, and what it must not find.

    faces                people, properties, attributes, which are known                    PlantedFaces
    score                strength · signal + √(1 − strength²) · noise                       (n, d_sae)
    activation           ReLU(score − level), the level that `density` of the faces exceed  (n, d_sae)

The signal is what the feature means (a standardized attribute, property or person), and the noise is in part a person's
own: `noise_of_people` is that share of its variance. A feature of strength 0 means nothing, but where its noise is a
person's own, a test that takes faces for independent calls it significant.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.stats import norm, rankdata

from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.variants.relu import ReluSAE
from fsae_mlflow.sae.variants.settings import ReluSettings
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.templates.writing import finish, write_shard
from tests.template_sets import face_row

Kind = Literal["attribute", "number", "pose", "quality", "identity", "noise", "dead"]

ATTRIBUTES = ("Male", "Heavy_Makeup", "Beard", "Bald", "Smiling", "Eyeglasses", "Daylight")
POSES = ("right", "left", "turned", "frontal")
QUALITIES = ("sharpness +", "sharpness -", "interocular +", "interocular -", "norm +", "norm -")


@dataclass(frozen=True, kw_only=True)
class PlantedFaces:
    """Faces, sorted by person.

    `properties` are a face's pose and quality; sharpness, interocular and norm fall with |yaw|, and norm rises with
    sharpness. `attributes` are 0 or 1: Male (45 %), Heavy_Makeup (of women only) and Beard (of men only) are a pair
    each with it, Bald is rare (3 %), Daylight common (80 %); Smiling, Eyeglasses and Daylight vary within people.
    `unknown` marks the faces whose attributes and age are not known, `half_known` those where Smiling is not.
    """

    people: np.ndarray
    properties: dict[str, np.ndarray]
    attributes: dict[str, np.ndarray]
    age: np.ndarray
    unknown: np.ndarray
    half_known: np.ndarray

    @property
    def confirm(self) -> np.ndarray:
        """The faces of the second half of the people."""
        return self.people > self.people[-1] // 2

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The attributes as far as they are known, else nan."""
        hidden = {name: self.unknown | (self.half_known & (name == "Smiling")) for name in self.attributes}
        return {name: np.where(hidden[name], np.nan, values) for name, values in self.attributes.items()}

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """The age as far as it is known, else nan."""
        return {"age": np.where(self.unknown, np.nan, self.age)}


@dataclass(frozen=True)
class Truth:
    """What a feature means: its kind, and the attribute, the property with its sign, the pose or the person's code."""

    kind: Kind
    name: str = ""
    strength: float = 0.0
    density: float = 0.1
    noise_of_people: float = 0.0


@dataclass(frozen=True)
class PlantedFeatures:
    """Scores of features on faces, and the level above which each fires."""

    truths: tuple[Truth, ...]
    scores: np.ndarray
    levels: np.ndarray

    @property
    def activations(self) -> np.ndarray:
        return np.maximum(self.scores - self.levels, 0)

    @property
    def entries(self) -> Entries:
        return Entries.of(self.activations)

    def of(self, kind: Kind) -> np.ndarray:
        """A mask of the features of one kind."""
        return np.array([truth.kind == kind for truth in self.truths])


def planted_faces(n_people: int = 400, *, seed: int = 0) -> PlantedFaces:
    """Faces of `n_people` people, each with 1 to 30 faces, 6 on average."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(n_people), rng.geometric(1 / 6, n_people).clip(max=30))

    def own(share: float) -> np.ndarray:
        return mixture(rng, people, share)

    yaw = 0.2 * own(0.15)
    turn = np.abs(yaw)
    sharpness = own(0.4)
    interocular = np.exp(4 + 0.4 * own(0.4) - 0.8 * turn)
    properties = {
        "yaw": yaw,
        "sharpness": np.exp(5 + 0.6 * sharpness - 1.5 * turn),
        "interocular": interocular,
        "norm": 20 + sharpness + 2 * own(0.3) - 6 * turn,
        "face_size": 2.5 * interocular * np.exp(0.1 * own(0.1)),
        "roll": 8 * own(0.1),
        "brightness": 255 * norm.cdf(0.7 * own(0.3)),
        "grayness": norm.cdf(own(0.6)),
    }
    male = own(1) < norm.ppf(0.45)
    attributes = {
        "Male": male,
        "Heavy_Makeup": ~male & (own(0.8) < norm.ppf(0.6)),
        "Beard": male & (own(0.9) < norm.ppf(0.5)),
        "Bald": male & (own(1) < norm.ppf(0.07)),
        "Smiling": own(0.3) < norm.ppf(0.5),
        "Eyeglasses": own(0.7) < norm.ppf(0.1),
        "Daylight": own(0.2) < norm.ppf(0.8),
    }
    return PlantedFaces(
        people=people,
        properties=properties,
        attributes={name: values.astype(np.float64) for name, values in attributes.items()},
        age=(40 + 12 * own(0.9)).clip(1, 90),
        unknown=rng.random(len(people)) < 0.1,
        half_known=rng.random(len(people)) < 0.2,
    )


def mixture(rng: np.random.Generator, people: np.ndarray, share: float) -> np.ndarray:
    """Standard normal values, of whose variance `share` is common to the faces of a person."""
    of_people, of_faces = rng.normal(size=people[-1] + 1)[people], rng.normal(size=len(people))
    return np.sqrt(share) * of_people + np.sqrt(1 - share) * of_faces


def signal(faces: PlantedFaces, truth: Truth) -> np.ndarray:
    """What a feature means, with mean 0 and variance 1 over the faces; 0 everywhere for noise."""
    name, _, sign = truth.name.partition(" ")
    yaw = faces.properties["yaw"]
    direction = -1.0 if sign == "-" else 1.0
    signals: dict[str, Callable[[], np.ndarray]] = {
        "attribute": lambda: faces.attributes[name],
        "number": lambda: direction * normal_scores(faces.age),
        "pose": lambda: {"right": yaw, "left": -yaw, "turned": np.abs(yaw), "frontal": -np.abs(yaw)}[name],
        "quality": lambda: direction * normal_scores(faces.properties[name]),
        "identity": lambda: faces.people == int(name),
    }
    if truth.kind not in signals:
        return np.zeros(len(faces.people))
    values = signals[truth.kind]()
    return (values - values.mean()) / values.std()


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Values with the same order and a standard normal distribution."""
    return norm.ppf((rankdata(values) - 0.5) / len(values))


def planted_features(faces: PlantedFaces, truths: Sequence[Truth], *, seed: int = 0) -> PlantedFeatures:
    """A feature for each of `truths`."""
    rng = np.random.default_rng([seed, 1])
    scores = np.stack(
        [
            truth.strength * signal(faces, truth)
            + np.sqrt(1 - truth.strength**2) * mixture(rng, faces.people, truth.noise_of_people)
            for truth in truths
        ],
        axis=1,
    )
    densities = [0.0 if truth.kind == "dead" else truth.density for truth in truths]
    levels = np.array([level_of(scores[:, f], density) for f, density in enumerate(densities)])
    return PlantedFeatures(tuple(truths), scores, levels)


def level_of(scores: np.ndarray, density: float) -> float:
    """The level that about `density` of the scores exceed, in the middle between two scores."""
    different, counts = np.unique(scores, return_counts=True)
    n_above = counts[::-1].cumsum()[::-1] - counts
    highest_below = np.flatnonzero(n_above >= round(density * len(scores)))[-1]
    return different[highest_below : highest_below + 2].mean() if density else different[-1] + 1


def every_truth(
    faces: PlantedFaces,
    *,
    strengths: Sequence[float] = (0.8, 0.4),
    densities: Sequence[float] = (0.02, 0.1, 0.3),
    n_people: int = 8,
    n_noise: int = 20,
) -> list[Truth]:
    """Every meaning at every strength and density, `n_people` identities, noise of all kinds, and a dead feature.

    A person's feature fires a little more often than the person has faces, of which there are at least 10.
    """
    meanings: list[tuple[Kind, str]] = [
        *(("attribute", name) for name in ATTRIBUTES),
        *(("number", name) for name in ("age +", "age -")),
        *(("pose", name) for name in POSES),
        *(("quality", name) for name in QUALITIES),
    ]
    found = [
        Truth(kind, name, strength, density, noise_of_people)
        for kind, name in meanings
        for strength in strengths
        for density in densities
        for noise_of_people in (0.0, 0.5)
    ]
    n_faces = np.bincount(faces.people)
    for person in np.flatnonzero(n_faces >= 10)[:n_people]:
        share = 1.3 * n_faces[person] / len(faces.people)
        found += [Truth("identity", str(person), strength, share, 0.5) for strength in strengths]
    found += [
        Truth("noise", "", 0.0, density, noise_of_people)
        for density in (0.005, 0.02, 0.1, 0.3, 0.6)
        for noise_of_people in (0.0, 0.5, 1.0)
        for _ in range(n_noise)
    ]
    return [*found, Truth("dead")]


def planted_templates(
    faces: PlantedFaces, features: PlantedFeatures, *, d_in: int, seed: int = 0
) -> tuple[np.ndarray, ReluSAE]:
    """Templates (n, d_in) of the planted norms, and a ReLU SAE whose features of them are the planted ones.

    Scores stand along orthonormal directions, and what is left up to the norm stands in a random direction of their
    complement, so d_in must be above the number of features.
    """
    rng = np.random.default_rng([seed, 2])
    scores = features.scores
    n, d_sae = scores.shape
    basis = np.linalg.qr(rng.normal(size=(d_in, d_in)))[0]
    directions, complement = basis[:d_sae], basis[d_sae:]
    squares = (scores**2).sum(axis=1)
    radius = 1.05 * np.sqrt(squares.max())
    rest = rng.normal(size=(n, len(complement)))
    rest *= (np.sqrt(radius**2 - squares) / np.linalg.norm(rest, axis=1))[:, None]
    templates = (faces.properties["norm"] / radius)[:, None] * (scores @ directions + rest @ complement)
    sae = ReluSAE(d_in, d_sae, ReluSettings(), normalize=True)
    with torch.no_grad():
        sae.W_enc.copy_(torch.from_numpy(directions * radius))
        sae.W_dec.copy_(torch.from_numpy(directions / radius))
        sae.b_enc.copy_(torch.from_numpy(-features.levels))
    return templates.astype(np.float32), sae.eval().requires_grad_(False)


def planted_set(folder: Path, faces: PlantedFaces, templates: np.ndarray, jpeg: bytes) -> TemplateSet:
    """A template set with the faces' attributes and age as columns; what is not known is null.

    Yaw, roll and interocular stand in the keypoints, face_size is the box's side; all pictures are `jpeg`.
    """
    columns = faces.labels | faces.numbers
    kinds = dict.fromkeys(faces.labels, "bool") | {"age": "float"}
    casts = {name: bool if kind == "bool" else float for name, kind in kinds.items()}
    known = {name: [None if np.isnan(v) else casts[name](v) for v in values] for name, values in columns.items()}
    rows = []
    for i, person in enumerate(faces.people):
        own = {name: float(values[i]) for name, values in faces.properties.items()}
        side = own["face_size"]
        rows.append(
            replace(
                face_row(f"p{person:04d}/{i:05d}.jpg", templates[i], jpeg),
                keypoints=keypoints(own["yaw"], own["roll"], own["interocular"]),
                box=np.array([0, 0, side, side], np.float32),
                yaw=own["yaw"],
                sharpness=own["sharpness"],
                interocular=own["interocular"],
                attributes=tuple(known[name][i] for name in kinds),
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    width = templates.shape[1]
    write_shard(folder, 0, rows, [], width=width, n_pictures=len(rows), attributes=kinds)
    return finish(folder, n_shards=1, width=width, metadata={"name": "planted"}, attributes=kinds)


def keypoints(yaw: float, roll: float, interocular: float) -> np.ndarray:
    """The five keypoints of a face of that pose, in pixels; roll in degrees, clockwise in the image."""
    upright = np.array([[-0.5, 0], [0.5, 0], [yaw, 0.6], [-0.4, 1.15], [0.4, 1.15]])
    cosine, sine = np.cos(np.deg2rad(roll)), np.sin(np.deg2rad(roll))
    return (200 + interocular * upright @ np.array([[cosine, sine], [-sine, cosine]])).astype(np.float32)
