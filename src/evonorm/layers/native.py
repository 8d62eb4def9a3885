"""The rivals as their users have them: torch's own batch_norm and group_norm, then the activation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from evonorm.layers.table import NormAct, Setting


def evaluate(row: NormAct, x: Tensor, parameters: dict[str, Tensor | None], setting: Setting) -> Tensor:
    """y of a row that torch has itself; as `reference.evaluate`, but with torch's conventions.

    torch's running variance is the unbiased one, and it refuses to train on a single value a channel.
    """
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if row.native == "batch_norm":
        running = parameters.get("running_mean"), parameters.get("running_var")
        y = F.batch_norm(x, *running, weight, bias, setting.training, setting.momentum, setting.eps)
    else:
        y = F.group_norm(x, setting.groups, weight, bias, setting.eps)
    return row.activation(y) if setting.activate and row.activation is not None else y
