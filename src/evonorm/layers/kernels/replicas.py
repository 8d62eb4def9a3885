"""Rows with statistics over the batch, where the batch is spread over the processes of torch.distributed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evonorm.layers.kernels import operators
from evonorm.layers.kernels.rows import ROWS
from evonorm.layers.statistics import moments_over_replicas
from evonorm.layers.table import NormAct, Setting

REDUCE, APPLY = 1, 2
SUMS = 5  # at most, of any row


@torch.compiler.disable  # type: ignore[untyped-decorator]
def evaluate(
    row: NormAct, x: Tensor, parameters: dict[str, Tensor | None], extra: Tensor | None, setting: Setting, room: str
) -> tuple[Tensor, Tensor, int]:
    """y, the moments of the whole batch (2, C), and how many values a channel has in it."""
    y, batch, count = _Synchronized.apply(
        x,
        parameters.get("weight"),
        parameters.get("bias"),
        extra,
        ROWS.index(row.kernel),
        setting.groups,
        setting.eps,
        room,
    )
    return y, batch, int(count)


class _Synchronized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        extra: Tensor | None,
        row: int,
        groups: int,
        eps: float,
        room: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, channels_last = operators.dense(x)
        n, c = x.shape[:2]
        own = x.new_empty((n, 2, c), dtype=torch.float32)
        batch = x.new_empty((2, c), dtype=torch.float32)
        kernels = operators.of(x, room)
        given = [operators.float32(p, x) for p in (weight, bias, extra)]
        kernels.forward(x, channels_last, row, groups, eps, False, *given, own, batch, None)
        mean, var, count = moments_over_replicas(batch[0], batch[1], x.numel() // c)
        batch = torch.stack([mean, var])
        y = torch.empty_like(x)
        stats = own if operators.of_sample(row) else None
        kernels.forward(x, channels_last, row, groups, eps, True, *given, stats, batch, y)
        ctx.save_for_backward(x, weight, bias, extra, stats, batch)
        ctx.setting = channels_last, row, groups, eps, count, room
        counted = torch.tensor(count)
        ctx.mark_non_differentiable(batch, counted)
        return y, batch, counted

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, *unused: Any) -> tuple[Any, ...]:
        x, weight, bias, extra, stats, batch = ctx.saved_tensors
        channels_last, row, groups, eps, count, room = ctx.setting
        kernels = operators.of(x, room)
        dy = operators.alike(dy, x, channels_last)
        dx = torch.empty_like(x)
        given = (weight, bias, extra)
        found = [None if p is None else x.new_empty(p.shape, dtype=torch.float32) for p in given]
        n, c = x.shape[:2]
        sums = x.new_empty((n, SUMS, -(-c // 16) * 16), dtype=torch.float32)
        totals = x.new_empty((2, c), dtype=torch.float32)
        tensors = (dy, *[operators.float32(p, x) for p in given], stats, batch, dx, *found, sums, totals)
        kernels.backward(x, channels_last, row, groups, eps, REDUCE, count, *tensors)
        torch.distributed.all_reduce(totals)
        kernels.backward(x, channels_last, row, groups, eps, APPLY, count, *tensors)
        kept = [None if p is None or g is None else g.to(p.dtype) for p, g in zip(given, found, strict=True)]
        return (dx, *kept, None, None, None, None)
