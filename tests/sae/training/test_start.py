"""What a training starts with: its directions, and whitened space, of which nothing is left to see in the SAE."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.directions import DIRECTIONS, Whitening
from fsae_mlflow.sae.saved import load_sae
from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.sae.training.start import Space, start
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import TRAINED, train_settings

WHITEN = 5


def data_of(templates: TemplateSet) -> TrainingData:
    return TrainingData(templates, np.ones(len(templates), bool), max_bytes=2**40)


def start_of(templates: TemplateSet, **own: object) -> tuple[Space, torch.nn.Module]:
    return start(train_settings(expansion=2, **own), data_of(templates))


@pytest.mark.parametrize("init", ["data", "pca", "ica", "kmeans", "pursuit"])
@pytest.mark.parametrize("variant", ["topk", "gated"])
def test_a_training_can_start_with_computed_directions(variant: str, init: str, template_set: TemplateSet) -> None:
    space, sae = start_of(template_set, variant=variant, init=init, seed=3)
    found = DIRECTIONS[init](space.centered(data_of(template_set)), sae.d_sae, 3)
    size = np.linalg.norm(found.decoder, axis=1, keepdims=True)
    assert len(size) > 0
    assert sae.W_dec[: len(size)].detach().numpy() == pytest.approx(found.decoder / size, abs=1e-5)
    encoder = found.encoder * size * sae.initial_encoder_norm()
    assert sae.W_enc[: len(size)].detach().numpy() == pytest.approx(encoder, rel=1e-4, abs=1e-5)
    assert sae.W_dec.norm(dim=1).detach().numpy() == pytest.approx(np.ones(sae.d_sae), rel=1e-4)


def test_whitened_templates_have_equal_variance(template_set: TemplateSet) -> None:
    space, sae = start_of(template_set, whiten=WHITEN)
    x = space.scaled(torch.from_numpy(template_set.templates)).double()
    assert space.width == sae.d_in == WHITEN
    assert (x.T @ x / len(x)).numpy() == pytest.approx(np.eye(WHITEN) / WHITEN, abs=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("variant", TRAINED)
def test_an_sae_of_whitened_templates_becomes_one_of_templates(
    variant: str, normalize: bool, template_set: TemplateSet
) -> None:
    own = {"k": 3} if "topk" in variant or variant == "matryoshka" else {}
    space, sae = start_of(template_set, variant=variant, whiten=WHITEN, normalize=normalize, center=True, **own)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        if hasattr(sae, "threshold"):
            sae.threshold.fill_(0.01)
        whole = space.in_template_space(sae)
        templates = torch.from_numpy(template_set.templates)
        features = sae.features(space.scaled(templates))
        assert features.any()
        assert whole.encode(templates).numpy() == pytest.approx(features.numpy(), abs=1e-5)
        decoded = space.scaled(whole.decode(features))
        if not normalize:  # a decoded template has no unit length, which scaling would give it
            assert decoded.numpy() == pytest.approx((features @ sae.W_dec + sae.b_dec).numpy(), abs=1e-4)
    assert whole.hyperparameters["d_in"] == template_set.width and whole.d_sae == sae.d_sae


def test_a_whitened_training_gives_an_sae_of_templates(template_set: TemplateSet, tmp_path: Path) -> None:
    own = {"variant": "topk", "k": 4, "whiten": WHITEN, "init": "ica", "expansion": 1, "epochs": 10, "keep": "best"}
    logged: list[dict[str, float]] = []
    made = train(
        train_settings(**own, batch_size=32, lr=1e-2),
        templates=template_set,
        output=tmp_path,
        on_metrics=lambda metrics, _: logged.append(metrics),
    )
    assert load_sae(tmp_path).d_in == template_set.width
    # The components left out are a part of what is unexplained.
    x = template_set.templates - template_set.templates.mean(axis=0)
    held = Whitening.of(x.astype(np.float64), WHITEN).size
    left_out = 1 - np.square(held).sum() / np.square(x).sum(axis=1).mean()
    assert left_out < made.metrics["train/fvu"] < 1
    assert min(metrics["train/fvu"] for metrics in logged) > left_out


def test_more_components_than_dimensions_are_refused(template_set: TemplateSet) -> None:
    with pytest.raises(UserError, match=r"whiten must be at most \d+, the dimensions .* vary; it is 4000"):
        start_of(template_set, whiten=4000)
