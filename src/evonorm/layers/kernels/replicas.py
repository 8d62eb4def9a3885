"""Rows with statistics over the batch, where the batch is spread over the processes of torch.distributed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evonorm.layers.kernels import operators
from evonorm.layers.kernels.call import APPLY, REDUCE, Call, Gradients
from evonorm.layers.statistics import moments_over_replicas


@torch.compiler.disable  # type: ignore[untyped-decorator]
def evaluate(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """y, the moments of the whole batch (2, C), and how many values a channel has in it, which the device knows."""
    found: tuple[Tensor, Tensor, Tensor] = _Synchronized.apply(*call)
    return found


class _Synchronized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        given = Call(*arguments)
        call = given.prepared()
        n, c = call.x.shape[:2]
        own = call.x.new_empty((n, 2, c), dtype=torch.float32)
        batch = call.x.new_empty((2, c), dtype=torch.float32)
        kernels = operators.of(call)
        kernels.forward(call._replace(batch=batch), False, own, None)
        mean, var, count = moments_over_replicas(batch[0], batch[1], call.x.numel() // c)
        batch = torch.stack([mean, var])
        y = torch.empty_like(call.x)
        stats = own if operators.of_sample(call.row) else None
        kernels.forward(call._replace(batch=batch), True, stats, y)
        ctx.save_for_backward(call.x, *given.parameters, batch, stats, count)
        ctx.setting = call[5:]
        ctx.mark_non_differentiable(batch, count)
        return y, batch, count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, *unused: Any) -> tuple[Any, ...]:
        *tensors, stats, count = ctx.saved_tensors
        given = Call(*tensors, *ctx.setting)
        call = given.prepared()
        kernels = operators.of(call)
        # The count, which the device knows, is divided by here, and not by the kernels.
        gradients = Gradients.empty(call, dy, stats, 1.0, apart=True)
        kernels.backward(call, gradients, REDUCE)
        assert gradients.totals is not None
        torch.distributed.all_reduce(gradients.totals)
        gradients.totals.div_(count)
        kernels.backward(call, gradients, APPLY)
        return (gradients.dx, *gradients.like(given.parameters), *[None] * 5)
