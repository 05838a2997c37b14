import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.real_faces.prior import FILE, FacePrior
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.real_faces.starts import Starts
from fsae_mlflow.visualization.targets import Target


def faces_of(templates: TemplateSet) -> torch.Tensor:
    return to_float(np.stack([np.asarray(face) for face in templates.faces(range(len(templates)))])).contiguous()


def test_the_prior_is_the_principal_components_of_the_faces(templates: TemplateSet, prior: FacePrior) -> None:
    faces = faces_of(templates).double()
    torch.testing.assert_close(prior.mean.double(), faces.mean(dim=0), rtol=0, atol=1e-5)
    centered = (faces - faces.mean(dim=0)).flatten(1)
    _, s, v = torch.linalg.svd(centered, full_matrices=False)
    k = len(prior.std)
    assert k == 20  # half of the 40 faces
    torch.testing.assert_close(prior.std.double(), s[:k] / 40**0.5, rtol=1e-3, atol=1e-5)
    same = (prior.components.flatten(1).double() * v[:k]).sum(dim=1).abs()
    assert same[:10].min() > 0.999
    expected = (centered @ prior.components.flatten(1).double().T) / prior.std
    torch.testing.assert_close(prior.coefficients.double(), expected, rtol=0, atol=1e-3)
    spectrum = torch.fft.rfft2(faces, norm="ortho").abs().mean(dim=0)
    torch.testing.assert_close(prior.magnitude.double(), spectrum, rtol=1e-4, atol=1e-4)


def test_the_prior_is_kept_beside_the_set_and_made_again_for_another(
    templates: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    copied = dataclasses.replace(templates, folder=tmp_path / "set")
    copied.folder.mkdir()
    for file in templates.folder.iterdir():
        (copied.folder / file.name).write_bytes(file.read_bytes())
    first = FacePrior.of(copied)
    assert (copied.folder / FILE).is_file()
    with monkeypatch.context() as patched:
        patched.setattr(FacePrior, "computed", lambda *_: pytest.fail("it is computed again"))
        torch.testing.assert_close(FacePrior.of(copied).components, first.components, rtol=0, atol=0)
        copied.__dict__["digest"] = "another"
        with pytest.raises(pytest.fail.Exception):
            FacePrior.of(copied)
    (copied.folder / FILE).write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        FacePrior.of(copied)
    assert "the eigenfaces are computed again" in caplog.text


def test_too_few_faces_are_refused(templates: TemplateSet) -> None:
    with pytest.raises(UserError, match=r"eigenfaces take at least 16 faces; .* has 15"):
        FacePrior.computed(templates, np.arange(15))


def test_a_typical_face_is_the_mean_moved_by_correlations_of_people_who_are_not_judged(
    templates: TemplateSet, prior: FacePrior, sae: GatedSAE
) -> None:
    confirm = np.arange(40) % 2 == 0
    start = Starts("typical", prior=prior, templates=templates, sae=sae, confirm=confirm)([Target((3,))])[0]
    x = sae.scaled(torch.from_numpy(templates.templates[~confirm]))
    projected = x @ sae.W_enc[3]
    coefficients = prior.coefficients[torch.from_numpy(~confirm)]
    covariance = ((projected - projected.mean())[:, None] * (coefficients - coefficients.mean(dim=0))).sum(dim=0)
    direction = covariance / covariance.norm() * 0.46 * len(prior.std) ** 0.5
    expected = prior.mean + torch.einsum("k,kchw->chw", direction * prior.std, prior.components)
    torch.testing.assert_close(start, expected.clamp(0, 1), rtol=0, atol=1e-4)


def test_other_starts_are_the_mean_and_a_real_face(templates: TemplateSet, prior: FacePrior, sae: GatedSAE) -> None:
    given = {"prior": prior, "templates": templates, "sae": sae, "confirm": np.zeros(40, bool)}
    targets = [Target((3,)), Target((4,))]
    torch.testing.assert_close(Starts("mean", **given)(targets)[1], prior.mean)
    torch.testing.assert_close(Starts("p1/4.png", **given)(targets)[1], faces_of(templates)[4])
    with pytest.raises(UserError, match=r"start must be typical, mean, or the image_id .*'nobody' is none of its 40"):
        Starts("nobody", **given)


def test_reach_is_that_of_all_real_templates(templates: TemplateSet, sae: GatedSAE) -> None:
    targets = [Target((2,)), Target((2, 5), (7,))]
    found = RealTemplates.of(templates, sae, targets, mean_norm=1.0, maxima=np.ones(sae.d_sae))
    x = sae.scaled(torch.from_numpy(templates.templates)).double()
    np.testing.assert_allclose(found.mean, x.mean(dim=0), rtol=1e-5, atol=1e-7)
    projected = (x - sae.b_dec) @ (sae.W_enc[2] + sae.W_enc[5] - sae.W_enc[7]).double()
    reach = found.reach[targets[1]]
    assert reach.mean == pytest.approx(float(projected.mean()), rel=1e-5, abs=1e-6)
    assert reach.std == pytest.approx(float(projected.std(correction=0)), rel=1e-5)
    assert reach.largest == pytest.approx(float(projected.max()), rel=1e-5)
