import copy

import torch

from fsae_mlflow.sae.optimizer import AdamW
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings


def test_it_is_torchs_adamw_to_the_bit() -> None:
    own = GatedSAE(8, 32, GatedSettings())
    other = copy.deepcopy(own)
    matrices = [p for p in other.parameters() if p.ndim == 2]
    vectors = [p for p in other.parameters() if p.ndim == 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1, betas=(0.8, 0.99), fused=True)
    ours = AdamW.of(own, lr=1e-2, betas=(0.8, 0.99), weight_decay=0.1)
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    for rate in (1e-2, 5e-3, 1e-3):
        for sae, optimizer in ((own, ours), (other, theirs)):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            sae.loss(x).total.backward()
            sae.b_mag.grad = None  # a parameter without a gradient stays where it is
            optimizer.step()
    assert not own.b_mag.any()
    for name, tensor in own.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
