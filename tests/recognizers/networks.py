"""Small networks that stand in for recognizers."""

import torch
from torch import nn

from fsae_mlflow.recognizers.base import Recognizer


class Tones(nn.Module):
    """The mean of each channel, repeated to a width: a template one can foretell."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.width = width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)).repeat(1, self.width // 3)


def small_network(width: int = 8) -> nn.Sequential:
    """A convolutional network in evaluation mode with random weights and statistics."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=4, bias=False),
        nn.BatchNorm2d(6),
        nn.PReLU(6),
        nn.Flatten(),
        nn.Linear(6 * 28 * 28, width),
    )
    network[1].running_mean.normal_()
    return network.eval()


def gradient_share(recognizer: Recognizer, size: int = 112) -> float:
    """Share of the image's values that a random direction of the template depends on."""
    faces = torch.rand(2, 3, size, size, requires_grad=True)
    templates = recognizer(faces)
    (templates * torch.randn_like(templates)).sum().backward()
    assert faces.grad is not None and torch.isfinite(faces.grad).all()
    return (faces.grad != 0).double().mean().item()
