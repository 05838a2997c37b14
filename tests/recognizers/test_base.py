"""What holds for every recognizer, on networks small enough to foretell."""

import dataclasses

import pytest
import torch
from torch import nn

from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from tests.recognizers.networks import Tones, small_network

CARD = RecognizerCard(name="tones", template_width=6)


def faces_of_tone(*tone: int, size: int = 112) -> torch.Tensor:
    return (torch.tensor(tone) / 255).view(1, 3, 1, 1).expand(1, 3, size, size)


def test_pixels_are_normalized_as_the_card_says() -> None:
    card = dataclasses.replace(CARD, mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0))
    templates = Recognizer(Tones(), card)(faces_of_tone(14, 28, 46))
    torch.testing.assert_close(templates, torch.tensor([[2.0, 2.0, 2.0] * 2]), rtol=0, atol=1e-4)


def test_mean_and_std_are_in_the_order_of_the_channels() -> None:
    card = dataclasses.replace(CARD, channels="bgr", mean=(30.0, 20.0, 10.0), std=(1.0, 1.0, 1.0))
    templates = Recognizer(Tones(), card)(faces_of_tone(11, 22, 33))
    torch.testing.assert_close(templates, torch.tensor([[3.0, 2.0, 1.0] * 2]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [80, 112, 250])
def test_faces_are_brought_to_the_card_s_size(size: int) -> None:
    seen = []
    network = Tones()
    network.register_forward_pre_hook(lambda _, images: seen.append(images[0].shape))
    Recognizer(network, dataclasses.replace(CARD, input_size=160))(torch.rand(2, 3, size, size))
    assert seen == [(2, 3, 160, 160)]


def test_it_stays_frozen_in_evaluation_mode() -> None:
    recognizer = Recognizer(nn.Sequential(Tones(6), nn.BatchNorm1d(6)), CARD)
    nn.Sequential(recognizer).train()
    assert not any(module.training for module in recognizer.modules())
    assert not any(parameter.requires_grad for parameter in recognizer.parameters())


def test_templates_do_not_depend_on_the_batch() -> None:
    recognizer = Recognizer(small_network(), dataclasses.replace(CARD, template_width=8))
    faces = torch.rand(5, 3, 112, 112)
    together = recognizer(faces)
    torch.testing.assert_close(together, torch.cat([recognizer(face[None]) for face in faces]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_wrong_channel_count_is_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"tones takes RGB faces of 3 channels; these have {channels}"):
        Recognizer(Tones(), CARD)(torch.rand(2, channels, 112, 112))


def test_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width 6, as its card says; it returns \[9\]"):
        Recognizer(Tones(9), CARD)(torch.rand(2, 3, 112, 112))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_template_that_is_no_number_is_refused(value: float) -> None:
    network = nn.Sequential(Tones(), nn.Linear(6, 6))
    nn.init.constant_(network[1].bias, value)
    with pytest.raises(ValueError, match="tones returned NaN or infinite templates"):
        Recognizer(network, CARD)(torch.rand(2, 3, 112, 112))
