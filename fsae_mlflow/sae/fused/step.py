"""A training step on the CPU whose only dense product is the encoder's, as far as the features are sparse.

Every gradient with respect to a projection p = W_enc (x − b_dec) is zero where a feature does not fire. So p is
computed a block of features at a time and kept only where it matters; decoding, all of the backward pass and the
gradients of both weight matrices go through those entries alone, and a row's gradient meets its AdamW update while
still in the cache. Losses and updates equal those of `SparseAutoencoder.loss` under torch's AdamW up to rounding.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fsae_mlflow.sae.base import Activations, Loss, SparseAutoencoder, least_positive
from fsae_mlflow.sae.fused.blocks import Block
from fsae_mlflow.sae.fused.entries import above_floor, joined, largest, screening_pays
from fsae_mlflow.sae.fused.row_update import RowUpdate
from fsae_mlflow.sae.training.distributed import Ranks
from fsae_mlflow.sae.training.optimizer import AdamW
from fsae_mlflow.sae.variants.topk import TopKSAE


class FusedStep:
    """The two halves of a training step on one batch: `forward` gives the loss, `update` moves the weights."""

    def __init__(self, sae: SparseAutoencoder, optimizer: AdamW, ranks: Ranks | None = None) -> None:
        self.sae = sae
        self.ranks = ranks or Ranks()
        self.optimizer = optimizer
        self.screened = screening_pays(sae.W_enc.dtype)

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "batch d_in"], *, lam_share: float = 1.0, dead: Bool[Tensor, " d_sae"] | None = None
    ) -> Loss:
        """The loss of a batch of scaled templates."""
        sae = self.sae
        self.sparsity_weight = sae.lam * lam_share / len(x)
        self.centerd = (x - sae.b_dec).contiguous()
        competing = isinstance(sae, TopKSAE)
        dead = dead if competing and dead is not None and bool(dead.any()) else None
        self.blocks = (
            largest(sae, self.centerd, dead)
            if competing
            else joined(above_floor(sae, self.centerd, screened=self.screened), sae.prefixes)
        )
        self.group = [next(g for g, stop in enumerate(sae.prefixes) if block.first < stop) for block in self.blocks]
        norms, fired = sae.norms(), torch.zeros(sae.d_sae, dtype=torch.bool)
        sparsity, least = x.new_zeros(()), x.new_full((), torch.inf)
        sums: list[np.ndarray] | None = None
        for block, group in zip(self.blocks, self.group, strict=True):
            codes = sae.codes(block.p, block.of, norms)
            values = _channels(block, codes)
            if sums is None:
                sums = [np.zeros((len(values), *x.shape), x.numpy().dtype) for _ in sae.prefixes]
            block.decode(values, self._rows(block), sums[group])
            sparsity += codes.sparsity
            least = torch.minimum(least, least_positive(values[0])) if competing else least
            fired[block.first : block.last] = block.per_feature((values[0] > 0).to(x.dtype)) > 0
        assert sums is not None
        estimates = self.ranks.sum(torch.from_numpy(np.stack(sums))).cumsum(dim=0)
        self.ranks.sum(sparsity)
        return self._losses(x, estimates, sparsity, fired, least)

    def _losses(
        self,
        x: Tensor,
        estimates: Float[Tensor, "prefixes channels batch d_in"],
        sparsity: Tensor,
        fired: Tensor,
        least: Tensor,
    ) -> Loss:
        sae, n = self.sae, len(x)
        errors = estimates[:, 0] + sae.b_dec - x
        # A feature of prefix g takes part in the reconstructions of g and of all longer prefixes.
        inputs = [(2 / n / len(errors) * errors).flip(0).cumsum(dim=0).flip(0)]
        auxiliary = x.new_zeros(())
        self.second_learns = False
        if estimates.shape[1] == 2:
            gated = sae.revival == "resampling"
            weight = sae.aux_weight if isinstance(sae, TopKSAE) else 1.0
            error = estimates[-1, 1] + (sae.b_dec - x if gated else errors[-1])
            auxiliary = weight * error.square().sum() / n
            inputs.append((2 * weight / n * error).expand_as(inputs[0]))
            self.second_learns = not gated or sae.decoder_norm == "weighted"
        self.inputs = torch.stack(inputs, dim=1).numpy()
        self.b_dec_gradient = inputs[0][0].sum(dim=0)
        if estimates.shape[1] == 2 and sae.revival == "resampling" and self.second_learns:
            self.b_dec_gradient = self.b_dec_gradient + inputs[1][0].sum(dim=0)
        return Loss(
            reconstruction=errors.square().sum(dim=(1, 2)).mean() / n,
            sparsity=self.sparsity_weight * sparsity,
            auxiliary=auxiliary,
            fired=fired,
            least=least,
        )

    def update(self) -> None:
        """One optimizer step down the gradient of the loss that `forward` gave last."""
        sae = self.sae
        for parameter in sae.parameters():
            parameter.grad = None
        held = sae.decoder_norm == "held"
        update_decoder = RowUpdate(self.optimizer, sae.W_dec, unit=held)
        update_encoder = RowUpdate(self.optimizer, sae.W_enc, unit=False)
        norms = None if held else sae.W_dec.detach().norm(dim=1)
        through_encoder = torch.zeros_like(sae.b_dec)
        for block, group in zip(self.blocks, self.group, strict=True):
            values, to_p, to_norms = self._backward(block, self.inputs[group], norms)
            still = np.zeros(block.last - block.first, self.inputs.dtype)
            radial = still if norms is None else (to_norms / norms[block.first : block.last]).numpy()
            through_encoder -= block.per_feature(to_p) @ sae.W_enc.detach()[block.first : block.last]
            learned = len(values) if self.second_learns else 1
            block.update(update_decoder, values[:learned], self.inputs[group, :learned], radial)
            block.update(update_encoder, to_p[None], self.centerd[None].numpy(), still)
        sae.b_dec.grad = self.b_dec_gradient + self.ranks.sum(through_encoder)
        self.optimizer.step()
        self.blocks = []

    def _backward(self, block: Block, inputs: np.ndarray, norms: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """What the entries carry, and the loss's gradient with respect to their projections and the decoder's norms."""
        p = block.p.requires_grad_()
        leaf = norms.clone().requires_grad_() if norms is not None else None
        codes = self.sae.codes(p, block.of, leaf)
        to_values = block.dots(inputs, self._rows(block))
        if block.auxiliary is not None:
            to_values = torch.where(block.auxiliary, to_values[1], to_values[0])[None]
        outputs = [output for output in (codes.features, codes.gate) if output is not None]
        gradients = list(to_values)
        if codes.sparsity.requires_grad:
            outputs.append(codes.sparsity)
            gradients.append(torch.full_like(codes.sparsity, self.sparsity_weight))
        torch.autograd.backward(outputs, gradients)
        assert p.grad is not None
        to_norms = (
            leaf.grad[block.first : block.last] if leaf is not None and leaf.grad is not None else p.new_zeros(())
        )
        return _channels(block, codes).detach(), p.grad, to_norms

    def _rows(self, block: Block) -> np.ndarray:
        return self.sae.W_dec.detach()[block.first : block.last].numpy()


def _channels(block: Block, codes: Activations) -> Float[Tensor, "channels ..."]:
    if codes.gate is not None:
        return torch.stack([codes.features, codes.gate])
    if block.auxiliary is not None:
        return torch.stack([codes.features * ~block.auxiliary, codes.features * block.auxiliary])
    return codes.features[None]
