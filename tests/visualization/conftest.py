from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from fsae_mlflow.faces.aligned import FACE_SIZE, to_float
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.real_faces.prior import FacePrior
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.targets import Target
from tests.pictures import encoded
from tests.template_sets import TemplateWriter, face_row

D_IN, D_SAE = 12, 24
COMBINED = [Target((3, 9)), Target((3,), (9,))]


class LinearRecognizer(nn.Module):
    """The template is a fixed linear map of the face shrunk to 4 × 4: cheap, differentiable, and invertible enough to
    optimize through.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.randn(48, D_IN, generator=torch.Generator().manual_seed(0)) / 4)

    def forward(self, faces: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch d"]:
        return nn.functional.adaptive_avg_pool2d(faces, 4).flatten(1) @ self.matrix


@pytest.fixture(scope="session")
def recognizer() -> Recognizer:
    card = RecognizerCard(name="linear", template_width=D_IN, mean=(127.5,) * 3, std=(255.0,) * 3)
    return Recognizer(LinearRecognizer(), card)


@pytest.fixture(scope="session")
def sae() -> GatedSAE:
    torch.manual_seed(1)
    return GatedSAE(D_IN, D_SAE, GatedSettings(), scale=0.7).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory, recognizer: Recognizer) -> TemplateSet:
    """Forty coarse random pictures and their true templates."""
    generator = np.random.default_rng(0)
    with TemplateWriter(tmp_path_factory.mktemp("templates"), width=D_IN, metadata={}) as writer:
        for index in range(40):
            picture = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(
                (FACE_SIZE, FACE_SIZE), Image.Resampling.NEAREST
            )
            face = to_float(np.array(picture)[None])
            content = encoded(picture, "JPEG", quality=95)
            writer.write([face_row(f"p{index // 4}/{index}.png", recognizer(face)[0].numpy(), content)])
    return TemplateSet.open(Path(writer.folder))


@pytest.fixture(scope="session")
def prior(templates: TemplateSet) -> FacePrior:
    return FacePrior.computed(templates, np.arange(len(templates)))


@pytest.fixture(scope="session")
def real(templates: TemplateSet, sae: GatedSAE) -> RealTemplates:
    targets = [Target((feature,)) for feature in range(sae.d_sae)]
    return RealTemplates.of(templates, sae, [*targets, *COMBINED], mean_norm=2.0, maxima=np.full(sae.d_sae, 0.5))
