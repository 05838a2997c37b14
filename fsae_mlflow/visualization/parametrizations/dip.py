"""Deep image prior (Ulyanov et al. 2018): the image is the output of a small U-Net for fixed white noise."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.visualization.parametrizations.base import Parametrization, normal

NOISE_CHANNELS = 8


class DeepImagePrior(Parametrization):
    """I = UNET(z): the parameters are the weights of the U-Net; the noise z is fixed (the paper, section 3).

    The U-Nets of all images run as one network of grouped convolutions, one group per image. Normalization is per image
    and channel.

    Raises: UserError for a size that cannot be halved len(channels) − 1 times.
    """

    # Four halvings: an aligned face has 112 = 2^4 · 7 pixels a side.
    channels: ClassVar[Sequence[int]] = (16, 32, 64, 64, 64)
    # Channels of each skip connection; None: all of the block's.
    n_skipped: ClassVar[int | None] = None

    def __init__(self, generators: Sequence[torch.Generator], *, size: int = FACE_SIZE) -> None:
        super().__init__(generators, size=size)
        channels = self.channels
        halvings = len(channels) - 1
        if size % 2**halvings:
            raise UserError(f"size must be a multiple of {2**halvings} for {halvings} halvings; it is {size}.")
        self.register_buffer("noise", normal(generators, NOISE_CHANNELS, size, size).flatten(0, 1)[None])
        self.entry = Block(generators, NOISE_CHANNELS, channels[0])
        pairs = list(pairwise(channels))
        self.down = nn.ModuleList(
            nn.Sequential(Block(generators, a, b, stride=2), Block(generators, b, b)) for a, b in pairs
        )
        self.skips = nn.ModuleList(
            nn.Identity() if self.n_skipped is None else Block(generators, a, self.n_skipped, kernel=1)
            for a, _ in pairs
        )
        self.up = nn.ModuleList(Block(generators, (self.n_skipped or a) + b, a) for a, b in reversed(pairs))
        self.exit = GroupedConv(generators, channels[0], 3, kernel=1)

    def forward(self) -> Float[Tensor, "images 3 size size"]:
        """The images, RGB in 0…1."""
        x = self.entry(self.noise)
        skipped = []
        for block, skip in zip(self.down, self.skips, strict=True):
            skipped.append(skip(x))
            x = block(x)
        for block in self.up:
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(self._joined(skipped.pop(), x))
        return self.exit(x).sigmoid().unflatten(1, (self.n_images, 3))[0]

    def _joined(self, *maps: Float[Tensor, "1 _ h w"]) -> Float[Tensor, "1 _ h w"]:
        """The channels of several maps, concatenated per image."""
        return torch.cat([x.unflatten(1, (self.n_images, -1)) for x in maps], dim=2).flatten(1, 2)


class WideDeepImagePrior(DeepImagePrior):
    """The deep image prior as its authors use it: wide, with thin skip connections (four channels)."""

    channels = (64, 64, 64, 64, 64)
    n_skipped = 4
    default_steps = 400
    default_lr = 1e-3


class GroupedConv(nn.Module):
    """A convolution with its own weights for every image; the channels of all images lie side by side."""

    def __init__(
        self, generators: Sequence[torch.Generator], n_in: int, n_out: int, *, kernel: int, stride: int = 1
    ) -> None:
        super().__init__()
        fan_in = n_in * kernel**2
        self.weight = nn.Parameter(normal(generators, n_out, n_in, kernel, kernel).flatten(0, 1) / math.sqrt(fan_in))
        self.bias = nn.Parameter(torch.zeros(len(generators) * n_out))
        self.groups, self.stride, self.padding = len(generators), stride, kernel // 2

    def forward(self, x: Float[Tensor, "1 channels h w"]) -> Float[Tensor, "1 more_channels h2 w2"]:
        """Each image's channels, convolved with the image's own weights."""
        return functional.conv2d(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding, groups=self.groups
        )


class Block(nn.Module):
    """Convolution, instance normalization, leaky ReLU."""

    def __init__(
        self, generators: Sequence[torch.Generator], n_in: int, n_out: int, *, kernel: int = 3, stride: int = 1
    ) -> None:
        super().__init__()
        self.convolution = GroupedConv(generators, n_in, n_out, kernel=kernel, stride=stride)
        self.gain = nn.Parameter(torch.ones(len(generators) * n_out))
        self.shift = nn.Parameter(torch.zeros(len(generators) * n_out))

    def forward(self, x: Float[Tensor, "1 channels h w"]) -> Float[Tensor, "1 more_channels h2 w2"]:
        """Each image's channels, convolved with the image's own weights."""
        return functional.leaky_relu(
            functional.instance_norm(self.convolution(x), weight=self.gain, bias=self.shift), 0.2
        )
