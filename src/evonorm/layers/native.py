"""The rivals as their users have them: torch's own batch_norm and group_norm, then the activation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from evonorm.layers.table import NormAct


def evaluate(
    row: NormAct,
    x: Tensor,
    parameters: dict[str, Tensor | None],
    *,
    groups: int,
    eps: float,
    momentum: float,
    training: bool,
    activate: bool,
) -> Tensor:
    """y of a row that torch has itself; as `reference.evaluate`, but with torch's conventions.

    torch's running variance is the unbiased one, and it refuses to train on a single value a channel.
    """
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if row.native == "batch_norm":
        running = parameters.get("running_mean"), parameters.get("running_var")
        y = F.batch_norm(x, *running, weight, bias, training, momentum, eps)
    else:
        y = F.group_norm(x, groups, weight, bias, eps)
    return row.activation(y) if activate and row.activation is not None else y
