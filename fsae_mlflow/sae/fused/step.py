"""A training step on the CPU whose only dense product is the encoder's, as far as the features are sparse.

Every gradient with respect to a projection p = W_enc (x − b_dec) is zero where a feature does not fire. Therefore p is
computed for one block of features at a time and kept only where it matters. Decoding, the backward pass and the
gradients of both weight matrices use these entries alone, and a row's gradient meets its AdamW update while it is still
in the cache. Losses and updates equal those of `SparseAutoencoder.loss` under torch's AdamW up to rounding.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.fused.blocks import Block
from fsae_mlflow.sae.fused.entries import above_floor, joined, largest, screening_pays
from fsae_mlflow.sae.fused.forward import Forward, channels, decoder_rows
from fsae_mlflow.sae.fused.row_update import RowUpdate
from fsae_mlflow.sae.optimizer import AdamW
from fsae_mlflow.sae.terms import Loss


class FusedStep:
    """The two halves of a training step on one batch: `forward` gives the loss, `update` changes the weights."""

    def __init__(self, sae: SparseAutoencoder, optimizer: AdamW, ranks: Ranks | None = None) -> None:
        self.sae = sae
        self.ranks = ranks or Ranks()
        self.optimizer = optimizer
        self.screened = screening_pays(sae.W_enc.dtype)

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "batch d_in"], *, sparsity_weight: float, dead: Int[Tensor, " n_dead"] | None = None
    ) -> Loss:
        """The loss of a batch of scaled templates."""
        sae = self.sae
        self.centered = (x - sae.b_dec).contiguous()
        self.blocks = (
            joined(above_floor(sae, self.centered, screened=self.screened), sae.prefixes)
            if sae.competition is None
            else largest(sae, sae.competition, self.centered, dead)
        )
        self.found = Forward(sae, x, self.blocks, sparsity_weight=sparsity_weight, ranks=self.ranks)
        return self.found.loss

    def update(self) -> None:
        """One optimizer step down the gradient of the loss that `forward` gave last."""
        sae = self.sae
        for parameter in sae.parameters():
            parameter.grad = None
        torch.stack(self.found.errors).sum().backward()
        assert self.found.decoded.grad is not None and sae.b_dec.grad is not None
        inputs = self.found.decoded.grad.numpy()
        update_decoder = RowUpdate(self.optimizer, sae.W_dec, unit=sae.unit_decoder)
        update_encoder = RowUpdate(self.optimizer, sae.W_enc, unit=False)
        norms = sae.norms()
        through_encoder = torch.zeros_like(sae.b_dec)
        for block, prefix in zip(self.blocks, self.found.prefix, strict=True):
            values, to_p, to_norms = self._backward(block, inputs[prefix], norms)
            still = np.zeros(block.last - block.first, inputs.dtype)
            radial = still if norms is None else (to_norms / norms.detach()[block.first : block.last]).numpy()
            through_encoder -= block.per_feature(to_p) @ sae.W_enc.detach()[block.first : block.last]
            n_learned = 1 if sae.auxiliary_is_frozen else len(values)
            block.update(update_decoder, values[:n_learned], inputs[prefix, :n_learned], radial)
            block.update(update_encoder, to_p[None], self.centered[None].numpy(), still)
        sae.b_dec.grad += self.ranks.sum(through_encoder)
        self.optimizer.step()
        self.blocks = []

    def _backward(self, block: Block, inputs: np.ndarray, norms: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """What the entries are worth, and the loss's gradient with respect to their projections and the decoder's
        norms.
        """
        p = block.p.requires_grad_()
        leaf = norms.detach().clone().requires_grad_() if norms is not None else None
        activations = self.sae.activations(p, block.expand, leaf)
        to_values = block.dots(inputs, decoder_rows(self.sae, block))
        if block.auxiliary is not None:
            to_values = torch.where(block.auxiliary, to_values[1], to_values[0])[None]
        outputs = [output for output in (activations.features, activations.auxiliary) if output is not None]
        gradients = list(to_values)
        if activations.sparsity.requires_grad:
            outputs.append(activations.sparsity)
            gradients.append(torch.full_like(activations.sparsity, self.found.sparsity_weight))
        torch.autograd.backward(outputs, gradients)
        assert p.grad is not None
        to_norms = (
            leaf.grad[block.first : block.last] if leaf is not None and leaf.grad is not None else p.new_zeros(())
        )
        return channels(block, activations).detach(), p.grad, to_norms
