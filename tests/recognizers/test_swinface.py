"""SwinFace's mapping against a plain restatement of Microsoft's Swin (arXiv 2103.14030), without timm."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from fsae_mlflow.recognizers.registry import load_recognizer
from tests.recognizers.networks import gradient_share

DEPTHS, HEADS, WINDOW, WIDTH = (2, 2, 6, 2), (3, 6, 12, 24), 7, 96
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Random weights under the released checkpoint's names."""
    generator = torch.Generator().manual_seed(0)
    made: Weights = {}

    def linear(name: str, n_in: int, n_out: int, *, bias: bool = True) -> None:
        made[f"{name}.weight"] = torch.randn(n_out, n_in, generator=generator) / n_in**0.5
        if bias:
            made[f"{name}.bias"] = torch.randn(n_out, generator=generator) / 2

    def norm(name: str, width: int) -> None:
        made[f"{name}.weight"] = 1 + torch.randn(width, generator=generator) / 4
        made[f"{name}.bias"] = torch.randn(width, generator=generator) / 4

    def batch_norm(name: str, width: int) -> None:
        norm(name, width)
        made[f"{name}.running_mean"] = torch.randn(width, generator=generator) / 4
        made[f"{name}.running_var"] = 1 + torch.rand(width, generator=generator)
        made[f"{name}.num_batches_tracked"] = torch.tensor(7)

    made["patch_embed.proj.weight"] = torch.randn(WIDTH, 3, 2, 2, generator=generator) / 3
    made["patch_embed.proj.bias"] = torch.randn(WIDTH, generator=generator)
    norm("patch_embed.norm", WIDTH)
    for layer, (depth, n_heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        width = WIDTH * 2**layer
        for block in range(depth):
            name = f"layers.{layer}.blocks.{block}"
            norm(f"{name}.norm1", width)
            linear(f"{name}.attn.qkv", width, 3 * width)
            linear(f"{name}.attn.proj", width, width)
            table = torch.randn((2 * WINDOW - 1) ** 2, n_heads, generator=generator)
            made[f"{name}.attn.relative_position_bias_table"] = table
            made[f"{name}.attn.relative_position_index"] = torch.zeros(WINDOW**2, WINDOW**2, dtype=torch.long)
            if block % 2 and layer < 3:
                made[f"{name}.attn_mask"] = torch.zeros(4, WINDOW**2, WINDOW**2)
            norm(f"{name}.norm2", width)
            linear(f"{name}.mlp.fc1", width, 4 * width)
            linear(f"{name}.mlp.fc2", 4 * width, width)
        if layer < 3:
            linear(f"layers.{layer}.downsample.reduction", 4 * width, 2 * width, bias=False)
            norm(f"layers.{layer}.downsample.norm", 4 * width)
    norm("norm", 768)
    linear("head", 768, 512)
    linear("feature.0", 768, 768, bias=False)
    batch_norm("feature.1", 768)
    linear("feature.2", 768, 512, bias=False)
    batch_norm("feature.3", 512)
    return made


@pytest.fixture
def checkpoint(weights: Weights, tmp_path: Path) -> Path:
    path = tmp_path / "swinface.pt"
    torch.save({"epoch": 3, "state_dict_backbone": weights, "state_dict_fam": {}, "state_dict_om": {}}, path)
    return path


def restated(images: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Attention window by window, shifted windows by region labels, merging at a layer's end."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(()))

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        centered = x - x.mean(-1, keepdim=True)
        scaled = centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def batch_norm(name: str, x: torch.Tensor) -> torch.Tensor:
        scaled = (x - weights[f"{name}.running_mean"]) / (weights[f"{name}.running_var"] + 2e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attention(name: str, x: torch.Tensor, n_heads: int, shift: int) -> torch.Tensor:
        n, side, _, width = x.shape
        places = torch.arange(side)
        rolled = (places + shift) % side  # the pixel that stands at each place once the map is rolled by −shift
        # Pixels that became neighbors by wrapping round the edge belong to another region and do not see each other.
        region = (
            torch.where(places < side - WINDOW, 0, torch.where(places < side - shift, 1, 2)) if shift else places * 0
        )
        out = torch.empty_like(x)
        for top in range(0, side, WINDOW):
            for left in range(0, side, WINDOW):
                rows = torch.arange(top, top + WINDOW).repeat_interleave(WINDOW)
                columns = torch.arange(left, left + WINDOW).repeat(WINDOW)
                tokens = x[:, rolled[rows], rolled[columns]]
                q, k, v = linear(f"{name}.qkv", tokens).view(n, -1, 3, n_heads, width // n_heads).unbind(2)
                scores = torch.einsum("nihd,njhd->nhij", q, k) / (width // n_heads) ** 0.5
                down = rows[:, None] - rows[None] + WINDOW - 1
                right = columns[:, None] - columns[None] + WINDOW - 1
                table = weights[f"{name}.relative_position_bias_table"]
                scores = scores + table[down * (2 * WINDOW - 1) + right].permute(2, 0, 1)
                labels = 3 * region[rows] + region[columns]
                scores = scores.masked_fill(labels[:, None] != labels[None], -torch.inf)
                seen = torch.einsum("nhij,njhd->nihd", scores.softmax(-1), v).reshape(n, -1, width)
                out[:, rolled[rows], rolled[columns]] = linear(f"{name}.proj", seen)
        return out

    x = functional.conv2d(images, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=2)
    x = norm("patch_embed.norm", x.permute(0, 2, 3, 1))
    for layer, (depth, n_heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        for block in range(depth):
            name = f"layers.{layer}.blocks.{block}"
            shift = WINDOW // 2 if block % 2 and x.shape[1] > WINDOW else 0
            x = x + attention(f"{name}.attn", norm(f"{name}.norm1", x), n_heads, shift)
            hidden = functional.gelu(linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", x)))
            x = x + linear(f"{name}.mlp.fc2", hidden)
        if layer < 3:
            quarters = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
            name = f"layers.{layer}.downsample"
            x = linear(f"{name}.reduction", norm(f"{name}.norm", torch.cat(quarters, -1)))
    x = norm("norm", x).mean((1, 2))
    return batch_norm("feature.3", linear("feature.2", batch_norm("feature.1", linear("feature.0", x))))


def test_templates_equal_the_restatement(weights: Weights, checkpoint: Path) -> None:
    faces = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    recognizer = load_recognizer(f"swinface:{checkpoint}")
    with torch.no_grad():
        expected = restated((faces - 0.5) / 0.5, weights)
    torch.testing.assert_close(recognizer(faces), expected, rtol=1e-4, atol=1e-4)
    assert gradient_share(recognizer) > 0.9


def test_the_restatement_s_own_weights_may_come_alone(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "backbone.pt")
    assert load_recognizer(f"swinface:{tmp_path / 'backbone.pt'}").card.template_width == 512


def test_missing_and_unexpected_keys_are_named(weights: Weights, tmp_path: Path) -> None:
    changed = {name: value for name, value in weights.items() if name != "layers.1.downsample.norm.bias"}
    changed["layers.3.downsample.norm.bias"] = torch.zeros(3)
    torch.save({"state_dict_backbone": changed}, tmp_path / "wrong.pt")
    with pytest.raises(ValueError, match=r"missing: \S*layers.2.downsample.norm.bias; unexpected: \S*layers.4.down"):
        load_recognizer(f"swinface:{tmp_path / 'wrong.pt'}")
