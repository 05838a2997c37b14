"""From a batch's entries to its loss."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.fused.blocks import Block
from fsae_mlflow.sae.terms import Activations, Loss, least_positive


class Forward:
    """What the blocks of a batch of scaled templates decode to, and its loss.

    `decoded` is W_dec f by prefix of the loss and channel; `errors`, the loss terms made of it, have a gradient with
    respect to `decoded` and to b_dec. `prefix` is each block's.
    """

    @torch.no_grad()
    def __init__(
        self,
        sae: SparseAutoencoder,
        x: Float[Tensor, "batch d_in"],
        blocks: list[Block],
        *,
        sparsity_weight: float,
        ranks: Ranks | None = None,
    ) -> None:
        ranks, n_prefixes = ranks or Ranks(), len(sae.prefixes)
        self.sparsity_weight = sparsity_weight / len(x)
        self.prefix = [next(g for g, stop in enumerate(sae.prefixes) if block.first < stop) for block in blocks]
        norms, counts = sae.norms(), torch.zeros(sae.d_sae, dtype=torch.int64)
        sparsity, least = x.new_zeros(()), x.new_full((), torch.inf)
        decoded: np.ndarray | None = None
        for block, prefix in zip(blocks, self.prefix, strict=True):
            activations = sae.activations(block.p, block.expand, norms)
            values = channels(block, activations)
            if decoded is None:
                decoded = np.zeros((n_prefixes, len(values), *x.shape), x.numpy().dtype)
            block.decode(values, decoder_rows(sae, block), decoded[prefix])
            sparsity += activations.sparsity
            if sae.competition is not None:
                least = torch.minimum(least, least_positive(values[0]))
            counts[block.first : block.last] = block.per_feature((values[0] > 0).to(x.dtype)).long()
        assert decoded is not None
        self.decoded = ranks.sum(torch.from_numpy(decoded)).requires_grad_()
        ranks.sum(sparsity)
        with torch.enable_grad():
            whole = self.decoded.cumsum(dim=0) if n_prefixes > 1 else self.decoded
            self.errors = sae.errors(x, whole[:, 0], whole[-1, 1] if whole.shape[1] == 2 else None)
        reconstruction, auxiliary = self.errors
        self.loss = Loss(
            reconstruction=reconstruction.detach(),
            sparsity=self.sparsity_weight * sparsity,
            auxiliary=auxiliary.detach(),
            counts=counts,
            least=least,
            x_hat=whole[-1, 0].detach() + sae.b_dec,
        )


def decoder_rows(sae: SparseAutoencoder, block: Block) -> np.ndarray:
    """The decoder's rows of a block's features."""
    return sae.W_dec.detach()[block.first : block.last].numpy()


def channels(block: Block, activations: Activations) -> Float[Tensor, "channels ..."]:
    """What decodes to x̂ and, where there is one, to the auxiliary estimate."""
    if activations.auxiliary is not None:
        return torch.stack([activations.features, activations.auxiliary])
    if block.auxiliary is not None:
        return torch.stack([activations.features * ~block.auxiliary, activations.features * block.auxiliary])
    return activations.features[None]
