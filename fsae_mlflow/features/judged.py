"""Another recognizer's templates of a set's aligned faces."""

from itertools import islice

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import nn
from torch.nn import functional as F

from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.progress import progress
from fsae_mlflow.templates.set import TemplateSet

JUDGED_AT_ONCE = 64


@torch.no_grad()
def judged_templates(
    judge: nn.Module, templates: TemplateSet, rows: Int64[np.ndarray, " n"], device: torch.device
) -> Float32[np.ndarray, "n d"]:
    """The judge's L2-normalized templates of the aligned faces."""
    judge, found = judge.to(device), []
    faces = templates.faces_in_order(rows)
    batches = iter(lambda: list(islice(faces, JUDGED_AT_ONCE)), [])
    for batch in progress(batches, total=len(rows), label="judge", unit="faces", size=len):
        pixels = to_float(np.stack([np.asarray(face) for _, face in batch])).to(device)
        found.append(F.normalize(judge(pixels), dim=1).cpu().numpy())
    return np.concatenate(found)
