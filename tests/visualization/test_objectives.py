import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.visualization.objectives.registry import OBJECTIVES, load_objective
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.targets import Target
from tests.visualization.conftest import COMBINED


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_image_is_valued_by_its_own_template_and_target(name: str, sae: GatedSAE, real: RealTemplates) -> None:
    templates = torch.randn(4, sae.d_in, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = [Target((4,)), *COMBINED, Target((4,))]
    together = load_objective(name)(sae, targets, real)(templates)
    for place, target in enumerate(targets):
        alone = load_objective(name)(sae, [target], real)(templates[place : place + 1])
        torch.testing.assert_close(together[place], alone[0])
    together[1].backward()
    assert templates.grad is not None
    assert [bool(row.any()) for row in templates.grad] == [False, True, False, False]


def test_the_gate_objective_is_the_gate_without_its_bias(sae: GatedSAE, real: RealTemplates) -> None:
    templates = torch.randn(3, sae.d_in, generator=torch.Generator().manual_seed(0))
    sae = GatedSAE(sae.d_in, sae.d_sae, GatedSettings(), scale=0.3).requires_grad_(False)
    sae.b_gate.fill_(0.7)
    sae.b_dec.copy_(torch.linspace(-1, 1, sae.d_in))
    gates = sae.gate_preactivation(templates) - 0.7
    found = load_objective("gate")(sae, [Target((4,)), *COMBINED], real)(templates)
    torch.testing.assert_close(found, torch.stack([gates[0, 4], gates[1, 3] + gates[1, 9], gates[2, 3] - gates[2, 9]]))


def test_activation_counts_shares_of_the_largest_real_ones(sae: GatedSAE, real: RealTemplates) -> None:
    templates = torch.randn(1, sae.d_in, generator=torch.Generator().manual_seed(2))
    features, target = sae.encode(templates)[0], COMBINED[1]
    x = sae.scaled(templates)
    projected = (sae.projected(x)[0, 3] - sae.projected(x)[0, 9]) / real.reach[target].largest
    expected = (features[3] - features[9]) / 0.5 + 0.1 * projected
    torch.testing.assert_close(load_objective("activation")(sae, [target], real)(templates)[0], expected)


def test_the_direction_objective_stops_rewarding_what_no_face_reaches(sae: GatedSAE, real: RealTemplates) -> None:
    target = Target((5,))
    objective = load_objective("direction")(sae, [target], real)
    mean = torch.from_numpy(real.mean).float() / sae.scale
    direction = torch.nn.functional.normalize(sae.W_enc[5], dim=0) / sae.scale
    steps = torch.linspace(0.1, 60, 80)
    templates = mean + steps[:, None] * direction
    templates = templates * (real.mean_norm / templates.norm(dim=1, keepdim=True))
    reach = ((sae.scaled(templates) - sae.b_dec) * sae.W_enc[5]).sum(dim=1) / real.reach[target].largest
    values = torch.cat([objective(one[None]) for one in templates])
    cosine = torch.nn.functional.cosine_similarity(sae.scaled(templates) - objective.mean, sae.W_dec[5])
    torch.testing.assert_close(values - cosine, reach.clamp(max=1.1) - 2 * (reach - 1.6).clamp(min=0))


def test_the_direction_objective_holds_the_norm(real: RealTemplates) -> None:
    torch.manual_seed(0)
    sae = GatedSAE(12, 24, GatedSettings(), normalize=True).requires_grad_(False)
    objective = load_objective("direction")(sae, [Target((0,))], real)
    template = torch.nn.functional.normalize(torch.randn(1, 12), dim=1) * real.mean_norm
    held, half, double = (float(objective(factor * template)) for factor in (1.0, 0.5, 2.0))
    assert held - half == pytest.approx(0.25, abs=1e-4) and held - double == pytest.approx(1.0, abs=1e-4)


def test_words_name_targets() -> None:
    assert Target.of("17", 64) == Target((17,))
    assert Target.of("17+40", 64) == Target((17, 40))
    assert Target.of("17-40+3", 64) == Target((17, 3), (40,))
    target = Target((17, 3), (40,))
    assert (target.name, target.stem, target.feature) == ("17+3-40", "feature-00017+00003-00040", 17)
    assert target.signed == [(17, 1.0), (3, 1.0), (40, -1.0)]


@pytest.mark.parametrize("word", ["", "64", "x", "17+", "17--3", "-17", "17+17", "17-17", "1.5"])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(UserError, match="features"):
        Target.of(word, 64)
