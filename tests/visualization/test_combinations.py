import numpy as np
import pytest
import torch
from torch import nn

from fsae_mlflow.features.activity.survey import survey
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.dictionary import Dictionary
from fsae_mlflow.visualization.targets import Target
from fsae_mlflow.visualization.verdict.firing import Reference, firing

MAXIMA = torch.tensor([2.0, 4.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("target", "features", "found"),
    [
        (Target((1,)), [0.0, 3.0, 0.5, 0.0], 3.0),
        (Target((0, 1)), [1.0, 3.0, 0.0, 0.0], 0.5),
        (Target((0, 1)), [0.0, 3.0, 0.0, 0.0], 0.0),
        (Target((1,), (2,)), [0.0, 3.0, 0.5, 0.0], 0.25),
        (Target((1,), (0, 2)), [0.5, 3.0, 0.0, 0.0], 0.5),
        (Target((1,), (2,)), [0.0, 1.0, 0.5, 0.0], 0.0),
    ],
)
def test_a_combination_fires_as_its_weakest_part_less_what_must_be_silent(
    target: Target, features: list[float], found: float
) -> None:
    twice = torch.tensor([features, features])
    assert target.activation(twice, MAXIMA).tolist() == pytest.approx([found, found])


def test_combinations_are_surveyed_on_real_faces(templates: TemplateSet, sae: GatedSAE) -> None:
    targets = [Target((3,)), Target((3, 9)), Target((9,), (3,))]
    alone = survey(sae, templates, most=8).activity
    found = Dictionary.of(sae, targets, activity=alone, templates=templates, batch_size=7)
    features = sae.encode(torch.from_numpy(templates.templates))
    shares = (features / torch.from_numpy(alone.maxima).float())[:, [3, 9]].numpy()
    expected = [features[:, 3].numpy(), shares.min(axis=1), np.maximum(shares[:, 1] - shares[:, 0], 0)]
    assert [found.row(target) for target in targets] == [3, sae.d_sae, sae.d_sae + 1]
    for target, values in zip(targets, expected, strict=True):
        assert (values > 0).any()
        reference = Reference.of(found.activity, found.row(target))
        assert reference.maximum == pytest.approx(values.max(), rel=1e-5)
        assert reference.density == pytest.approx((values > 0).mean())
        rows, activations = found.activity.top_of(found.row(target))
        assert rows[0] == values.argmax() and activations == pytest.approx(values[rows], rel=1e-5)
    assert found.maxima.tolist() == alone.maxima.tolist()


def test_an_image_of_a_combination_is_ranked_by_its_weakest_feature(
    templates: TemplateSet, sae: GatedSAE, recognizer: nn.Module
) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    features = sae.encode(recognizer(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255))[0]
    order = features.argsort(descending=True).tolist()
    targets = [Target((order[0], order[2])), Target((order[0],), (order[1],))]
    found = Dictionary.of(
        sae, targets, activity=survey(sae, templates, most=8).activity, templates=templates, batch_size=64
    )
    references = [Reference.of(found.activity, found.row(target)) for target in targets]
    both, without = firing([picture, picture], targets, references, maxima=found.maxima, recognizer=recognizer, sae=sae)
    assert (both.rank, without.rank) == (2, 1)
    assert both.margin == pytest.approx(float(features[order[2]] / features[order[1]]), rel=1e-4)
    shares = features.double() / torch.from_numpy(found.maxima)
    assert both.activation == pytest.approx(float(shares[[order[0], order[2]]].min()), rel=1e-4)
    assert without.activation == pytest.approx(max(float(shares[order[0]] - shares[order[1]]), 0), abs=1e-5)
