"""Which pairs a stage verifies or explains: those of a file, or some that are made from identities."""

from typing import Protocol, runtime_checkable

from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.pairs import RowPairs, find_rows, make_pairs, pairs_path, read_pairs


@runtime_checkable
class PairSettings(Protocol):
    """Which pairs a stage is asked for: a file, or, where `pairs` is empty, what is made from identities."""

    @property
    def pairs(self) -> str: ...
    @property
    def folds(self) -> int: ...
    @property
    def pairs_per_fold(self) -> int: ...
    @property
    def seed(self) -> int: ...


def choose_pairs(settings: PairSettings, templates: TemplateSet) -> RowPairs:
    """The pairs that the settings ask for, as rows of `templates`.

    Raises: UserError for a faulty pairs file, an image without a template, or too few identities to make pairs of.
    """
    if settings.pairs:
        path = pairs_path(settings.pairs)
        return find_rows(read_pairs(path), templates, source=path)
    return make_pairs(
        templates.image_ids,
        templates.identities,
        folds=settings.folds,
        pairs_per_fold=settings.pairs_per_fold,
        seed=settings.seed,
    )
