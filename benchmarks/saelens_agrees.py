"""Whether SAELens loads what `export_saelens` writes, and computes the same: every variant, random weights.

    outputs/peers/bin/python benchmarks/saelens_agrees.py

Run with the environment that `benchmarks/train_step.py --peers` makes. It sees this environment's packages, and the
project itself by this file's place.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from sae_lens import SAE  # pyright: ignore[reportMissingImports]

from fsae_mlflow.sae.export import export_saelens
from fsae_mlflow.sae.variants.registry import VARIANTS, untrained
from fsae_mlflow.sae.variants.settings import TopKSettings

for variant, kind in VARIANTS.items():
    torch.manual_seed(0)
    sae: Any = untrained(kind(**({"k": 8} if issubclass(kind, TopKSettings) else {})), 64, 512)
    x = 3 * torch.randn(100, 64)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        sae.scale.fill_(0.3)
        sae.center.normal_()
        for parameter in sae.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        if hasattr(sae, "threshold"):
            sae.threshold.fill_(0.5)
        export_saelens(sae, Path(folder) / variant)
        peer = SAE.load_from_disk(Path(folder) / variant)
        features = peer.encode(x)
        features = features.to_dense() if features.is_sparse else features
        apart = float((features - sae.encode(x)).abs().max()), float((peer.decode(features) - sae(x)).abs().max())
        print(f"{variant:12} as {peer.cfg.architecture():9} features: {apart[0]:.1e} apart, templates: {apart[1]:.1e}")
        if max(apart) > 1e-3:
            raise SystemExit(f"{variant}: SAELens disagrees.")
