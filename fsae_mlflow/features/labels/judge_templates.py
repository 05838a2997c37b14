"""Another recognizer's templates of a set's aligned faces."""

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
def judge_templates(
    judge: nn.Module, templates: TemplateSet, rows: Int64[np.ndarray, " n"], device: torch.device
) -> Float32[np.ndarray, "n d"]:
    """The judge's L2-normalized templates of the aligned faces."""
    judge, found = judge.to(device), []
    batches = templates.pixels_in_order(rows, at_once=JUDGED_AT_ONCE)
    for pixels in progress(batches, total=len(rows), label="judge", unit="faces", size=len):
        found.append(F.normalize(judge(to_float(pixels).to(device)), dim=1).cpu().numpy())
    return np.concatenate(found)
