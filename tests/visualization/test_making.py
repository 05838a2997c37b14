from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.visualization.making.dial import POSITIONS, dials
from fsae_mlflow.visualization.making.optimization import Job, Record, optimize
from fsae_mlflow.visualization.making.saved import (
    CAPTION,
    contact_sheet,
    missing,
    picture_of,
    read_record,
    save_picture,
)
from fsae_mlflow.visualization.making.transforms import Transforms
from fsae_mlflow.visualization.objectives.registry import load_objective
from fsae_mlflow.visualization.parametrizations.registry import PARAMETRIZATIONS, load_parametrization
from fsae_mlflow.visualization.real_faces.prior import FacePrior
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.targets import Target

TRANSFORMS = Transforms(jitter=1, noise=0.01)


def job(feature: int, seed: int = 0) -> Job:
    return Job(target=Target((feature,)), seed=seed)


def run(
    jobs: list[Job],
    recognizer: nn.Module,
    sae: GatedSAE,
    real: RealTemplates,
    prior: FacePrior,
    *,
    name: str = "pixels",
    steps: int = 12,
    objective: str = "gate",
    transforms: Transforms = TRANSFORMS,
) -> tuple[torch.Tensor, list[Record]]:
    kind, generators = load_parametrization(name), [one.generator() for one in jobs]
    given = {"prior": prior} if kind.needs_prior else {}
    if kind.default_start:
        given["start"] = prior.mean.expand(len(jobs), -1, -1, -1)
    return optimize(
        kind(generators, **given),
        generators=generators,
        objective=load_objective(objective)(sae, [one.target for one in jobs], real),
        recognizer=recognizer,
        steps=steps,
        lr=1e-2,
        transforms=transforms,
        record_every=5,
    )


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_the_objective_rises_and_is_recorded(
    name: str, recognizer: nn.Module, sae: GatedSAE, real: RealTemplates, prior: FacePrior
) -> None:
    images, records = run([job(3), job(9)], recognizer, sae, real, prior, name=name)
    assert [record.step for record in records] == [0, 5, 10, 12]
    assert (records[-1].objective > records[0].objective).all()
    templates = recognizer(images)
    np.testing.assert_allclose(records[-1].norm, templates.norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(records[-1].activation, sae.encode(templates)[[0, 1], [3, 9]], rtol=1e-5)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")  # AdamW's first steps follow the sign of a gradient, even if it is a rounding error
@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_an_image_comes_out_the_same_in_any_company(
    name: str, recognizer: nn.Module, sae: GatedSAE, real: RealTemplates, prior: FacePrior
) -> None:
    recognizer, sae, prior = deepcopy(recognizer).double(), deepcopy(sae).double(), in_double(prior)
    given = {
        "name": name,
        "steps": 6,
        "transforms": Transforms(jitter=1, scale=0.1, rotation=5.0, noise=0.01, jpeg=0.01, gray=0.5),
    }
    together, _ = run([job(9), job(3, 1), job(3, 2)], recognizer, sae, real, prior, **given)
    alone, _ = run([job(3, 1)], recognizer, sae, real, prior, **given)
    torch.testing.assert_close(together[1], alone[0], rtol=0, atol=1e-6)
    assert (together[1] - together[2]).abs().max() > 1e-3


def in_double(prior: FacePrior) -> FacePrior:
    """The prior in double precision, past the class' shape and dtype hints."""
    made = deepcopy(prior)
    for name in ("mean", "components", "std", "magnitude", "coefficients"):
        object.__setattr__(made, name, getattr(prior, name).double())
    return made


def test_the_same_job_gives_the_same_image(
    recognizer: nn.Module, sae: GatedSAE, real: RealTemplates, prior: FacePrior
) -> None:
    first, second = (run([job(1, 4)], recognizer, sae, real, prior, steps=3)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_target_and_seed_choose_the_start() -> None:
    targets = [Target((feature,)) for feature in range(4)] + [Target((0, 1)), Target((0,), (1,))]
    draws = {
        float(torch.randn(1, generator=Job(target=target, seed=seed).generator()))
        for target in targets
        for seed in range(4)
    }
    assert len(draws) == 4 * len(targets)


class Broken(nn.Module):
    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return faces.flatten(1)[:, :12] * torch.nan


def test_an_objective_that_is_not_finite_is_reported(sae: GatedSAE, real: RealTemplates, prior: FacePrior) -> None:
    with pytest.raises(UserError, match="step 1; lower lr"):
        run([job(0)], Broken(), sae, real, prior)


def test_jitter_shifts_each_image_by_its_own_generator() -> None:
    image = torch.arange(36.0).reshape(1, 1, 6, 6).expand(2, 3, 6, 6)
    change = Transforms(jitter=2)
    shifted = change(image, [torch.Generator().manual_seed(seed) for seed in (0, 3)])
    again = change(image[:1], [torch.Generator().manual_seed(3)])
    torch.testing.assert_close(shifted[1], again[0])
    offsets = {float(one[0, 3, 3] - image[0, 0, 3, 3]) for one in shifted}
    assert offsets <= {6.0 * dy + dx for dy in range(-2, 3) for dx in range(-2, 3)} and len(offsets) == 2


def test_without_transforms_an_image_stays_as_it_is() -> None:
    image = torch.rand(2, 3, 8, 8)
    assert Transforms()(image, []) is image


def test_rotation_turns_and_scale_resizes() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[:, :, :, 16:] = 1
    turned = Transforms(rotation=90.0)(image, [torch.Generator().manual_seed(1)])
    assert (turned - image).abs().mean() > 0.05
    assert turned.min() >= 0 and turned.max() <= 1
    disc = ((torch.arange(32)[:, None] - 15.5).square() + (torch.arange(32) - 15.5).square() < 64).float()
    sizes = [
        float(Transforms(scale=0.4)(disc.expand(1, 3, 32, 32), [torch.Generator().manual_seed(seed)]).mean())
        for seed in range(8)
    ]
    assert min(sizes) < 0.9 * float(disc.mean()) and max(sizes) > 1.1 * float(disc.mean())


def test_jpeg_noise_leaves_the_mean_of_a_block_and_changes_its_detail() -> None:
    image = torch.full((1, 3, 32, 32), 0.5)
    changed = Transforms(jpeg=0.1)(image, [torch.Generator().manual_seed(0)])
    blocks = changed.unfold(2, 8, 8).unfold(3, 8, 8)
    torch.testing.assert_close(blocks.mean(dim=(4, 5)), torch.full((1, 3, 4, 4), 0.5), rtol=0, atol=1e-5)
    assert 0.02 < float((changed - image).std()) < 0.1


def test_gray_takes_the_color_of_some_images() -> None:
    image = torch.rand(40, 3, 4, 4)
    changed = Transforms(gray=0.5)(image, [torch.Generator().manual_seed(seed) for seed in range(40)])
    is_gray = (changed[:, 0] == changed[:, 1]).flatten(1).all(dim=1)
    assert 8 < int(is_gray.sum()) < 32
    torch.testing.assert_close(changed[~is_gray], image[~is_gray])


def test_a_picture_carries_its_record(tmp_path: Path) -> None:
    path = save_picture(picture_of(torch.rand(3, 8, 8)), tmp_path / "a.png", {"made": "so"})
    assert read_record(path) == {"made": "so"}
    (tmp_path / "b.png").write_bytes(path.read_bytes()[:60])
    Image.new("RGB", (8, 8)).save(tmp_path / "c.png")
    others = [tmp_path / name for name in ("b.png", "c.png", "d.png")]
    assert missing([path, *others], made="so") == others
    assert missing([path], made="otherwise") == [path]


def test_a_contact_sheet_has_words_under_each_image() -> None:
    sheet = np.asarray(contact_sheet(torch.zeros(3, 3, 32, 32), ["1", "2", ""], columns=2))
    assert sheet.shape == (2 * (32 + CAPTION), 64, 3)
    under = [
        sheet[top + 32 : top + 32 + CAPTION, left : left + 32] for top, left in ((0, 0), (0, 32), (32 + CAPTION, 0))
    ]
    assert [(part < 128).any() for part in under] == [True, True, False]


def test_a_dial_reaches_its_positions(
    recognizer: nn.Module, sae: GatedSAE, real: RealTemplates, prior: FacePrior
) -> None:
    targets = [Target((3,)), Target((9,))]
    start = prior.mean.expand(2, -1, -1, -1)
    made = dials(targets, typical=start, prior=prior, real=real, recognizer=recognizer, sae=sae)
    assert [one.target for one in made] == targets
    for dial in made:
        assert dial.images.shape == (7, 3, 112, 112)
        assert (np.diff(dial.reached) > 0).all()
        assert np.corrcoef(dial.reached, POSITIONS)[0, 1] > 0.98
        activation = sae.encode(recognizer(dial.images))[:, dial.target.feature]
        np.testing.assert_allclose(dial.activation, activation, rtol=1e-4, atol=1e-5)
