"""The rivals as their users have them: torch's own batch_norm and group_norm, then the activation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from evonorm.layers.row import NormAct
from evonorm.layers.running import unwatched
from evonorm.layers.statistics import by_channel, cast, exporting
from evonorm.layers.table import Setting


def evaluate(row: NormAct, x: Tensor, parameters: dict[str, Tensor | None], setting: Setting) -> Tensor:
    """y of a row that torch has itself; as `reference.evaluate`, but with torch's conventions.

    torch's running variance is the unbiased one, and it refuses to train on a single value a channel. Where torch does
    not mix the dtypes of x and parameters, all are float32 on the way or, for float64 x, float64.
    """
    given = {tensor.dtype for tensor in parameters.values() if tensor is not None}
    exact, dtype = x, None
    if not _mixes(row, x, given):
        dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
        exact = cast(x, dtype)
    weight, bias = (_in(parameters.get(name), dtype) for name in ("weight", "bias"))
    within = (None, None) if setting.conditional else (weight, bias)  # torch's own take one weight a channel alone
    if row.native == "batch_norm":
        y = _batch_norm(exact, *within, parameters, setting, dtype)
    else:
        y = F.group_norm(exact, setting.groups, *within, setting.eps)
    if setting.conditional:
        y = y if weight is None else y * by_channel(weight, y)
        y = y if bias is None else y + by_channel(bias, y)
    return cast(row.activation(y) if setting.activate and row.activation is not None else y, x.dtype)


def _mixes(row: NormAct, x: Tensor, others: set[torch.dtype]) -> bool:
    """Whether torch takes x and tensors of these dtypes together: all alike or, for half precision, float32."""
    if others <= {x.dtype}:
        return True
    halves = x.dtype in (torch.float16, torch.bfloat16) and others == {torch.float32}
    # Its group_norm wants one dtype everywhere but on the CPU.
    return halves and (row.native == "batch_norm" or x.device.type == "cpu")


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    parameters: dict[str, Tensor | None],
    setting: Setting,
    dtype: torch.dtype | None,
) -> Tensor:
    running = (parameters.get("running_mean"), parameters.get("running_var"))
    # The backward in evaluation reads them, and a call in training may come first and change the layer's own.
    apart = not setting.training and torch.is_grad_enabled() and not exporting()
    mean, var = (_in(t, dtype, copy=apart) for t in running)
    y = F.batch_norm(x, mean, var, weight, bias, setting.training, setting.momentum, setting.eps)
    if setting.training:
        for kept, new in zip(running, (mean, var), strict=True):
            if kept is not None and new is not None and new is not kept:
                unwatched(kept).copy_(new)
    return y


def _in(t: Tensor | None, dtype: torch.dtype | None, *, copy: bool = False) -> Tensor | None:
    if t is None:
        return None
    return t.to(dtype or t.dtype, copy=True) if copy else cast(t, dtype or t.dtype)
