"""Random features of people with one to six faces each, with equal activations among them."""

import numpy as np

from fsae_mlflow.sae.entries import Entries


def people_of(n_people: int, seed: int) -> np.ndarray:
    """The person of each face, in no order."""
    numbers = np.random.default_rng(seed)
    return numbers.permutation(np.repeat(np.arange(n_people), numbers.integers(1, 7, n_people)))


def dense_features(people: np.ndarray, d_sae: int, seed: int, *, density: float = 0.3) -> np.ndarray:
    """Features that depend on the person in part; few distinct activations. Feature 0 is dead, feature 1 always 1."""
    numbers = np.random.default_rng(seed)
    level = numbers.normal(size=(people.max() + 1, d_sae))[people] + numbers.normal(size=(len(people), d_sae))
    features = np.round((level - np.quantile(level, 1 - density)).clip(0), 1)
    features[:, :2] = [0, 1]
    return features.astype(np.float32)


def sample(n_people: int = 60, d_sae: int = 12, seed: int = 0) -> tuple[np.ndarray, Entries, np.ndarray]:
    """Dense features, their entries, and people."""
    people = people_of(n_people, seed)
    features = dense_features(people, d_sae, seed + 1)
    return features, Entries.of(features), people
