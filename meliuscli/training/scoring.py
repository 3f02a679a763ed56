"""A network's loss and top-1 on a split."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meliuscli.data.batches import Prepared
from meliuscli.training.processes import Processes

EVALUATED = 500
"""Images at a time in evaluation, of up to 64x64 pixels; fewer of larger ones, whose maps would not fit the memory."""


def evaluate(
    network: nn.Module,
    data: Prepared,
    split: tuple[Tensor, Tensor],
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> tuple[float, float]:
    """Mean cross-entropy and top-1 (0 to 1) over a split, in evaluation mode and float32."""
    images, labels = split
    network.eval()
    totals = [0.0, 0.0]
    step = max(1, min(EVALUATED, EVALUATED * 64**2 // data.input_size**2))
    with torch.no_grad():
        for start in range(step * processes.rank, len(labels), step * processes.count):
            chunk, wanted = images[start : start + step], labels[start : start + step].to(data.mean.device)
            logits = network(data.normalise(chunk.to(data.mean.device)))
            totals[0] += F.cross_entropy(logits, wanted, reduction="sum").item()
            totals[1] += (logits.argmax(1) == wanted).sum().item()
    if processes.count > 1:
        totals = processes.sum(torch.tensor(totals, dtype=torch.float32, device=data.mean.device)).tolist()
    return totals[0] / len(labels), totals[1] / len(labels)
