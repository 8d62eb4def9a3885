"""Evaluates a row of the table in plain torch: reads like the paper, serves every device and dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from evonorm.layers import running
from evonorm.layers.row import NormAct
from evonorm.layers.statistics import Statistics, by_channel, cast
from evonorm.layers.table import Setting


def evaluate(row: NormAct, x: Tensor, parameters: dict[str, Tensor | None], setting: Setting) -> Tensor:
    """y of the row's formula for x: (N, C, *), in x's dtype, computed in float32 or, for float64 x, in float64.

    parameters: weight, bias, the row's own, running_mean, running_var by name, each (C,) or None, weight and bias also
    (N, C); a missing weight counts as 1, a missing bias as 0. Running statistics are updated in place when training.
    Raises ValueError if the formula, of an added row, gives another shape than x's.
    """
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    exact = cast(x, dtype)

    def shaped(name: str) -> Tensor | None:
        value = parameters.get(name)
        return None if value is None else by_channel(cast(value, dtype), x)

    weight, bias = shaped("weight"), shaped("bias")

    def affine(t: Tensor, /, *, over: Tensor | None = None) -> Tensor:
        if over is not None and weight is not None:
            scaled = t * (weight / over)  # the division on the small ones, one pass over t
        elif over is not None:
            scaled = t / over
        else:
            scaled = t if weight is None else t * weight
        return scaled if bias is None else scaled + bias

    statistics = Statistics(
        exact,
        eps=setting.eps,
        groups=setting.groups,
        training=setting.training,
        running_mean=parameters.get("running_mean"),
        running_var=parameters.get("running_var"),
        replicas=setting.replicas,
    )
    own = row.own(**{name: shaped(name) for name in row.parameters})
    formula = row.formula if setting.activate else row.linear
    y = formula(exact, statistics, own, affine)
    if row.added and y.shape != x.shape:
        raise ValueError(
            f"{row.name} must give one value for each of x: its formula gives {tuple(y.shape)} for x of "
            f"{tuple(x.shape)}"
        )
    if statistics.batch is not None:
        running.blend(row, parameters, *statistics.batch, setting.momentum)
    return cast(y, x.dtype)
