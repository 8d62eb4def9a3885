"""torch.ops.evonorm: the kernels as torch's own operators, so that compilers, autograd and tools know them.

    forward(x, weight?, bias?, extra?, batch?, row, groups, eps, room) -> (y, stats, batch)
    backward(dy, x, weight?, bias?, extra?, stats, batch?, row, groups, eps, batch_count, room)
        -> (dx, dweight, dbias, dextra)

x, y: (N, C, *), of a dtype the kernels take; what is in neither of the two memory formats is copied first. weight,
bias, extra (v or tau): (C,). stats: (N, 2, C), mean and biased variance of each sample, as the kernels of that device
keep them (of each channel on the CPU, of its group on a GPU); (0,) where a row needs none.
batch: (2, C), mean and biased variance of the batch; forward takes them from x if none are given, and returns (0,) if
they are given or not needed. row: its place in ROWS. batch_count: values a channel that the batch moments are
taken over; 0: constants, into which no gradient flows. Gradients of what was not given are (0,). room: "" for the
kernels of x's device; "triton" for those of the GPU, which Triton's interpreter runs on CPU tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evonorm.layers import reference
from evonorm.layers.kernels import triton
from evonorm.layers.kernels.cpu import library
from evonorm.layers.kernels.rows import ROWS
from evonorm.layers.table import Setting, get

_library: Any = torch.library.Library("evonorm", "DEF")  # type: ignore[no-untyped-call]
_library.define(
    "forward(Tensor x, Tensor? weight, Tensor? bias, Tensor? extra, Tensor? batch, int row, int groups, float eps,"
    " str room='') -> (Tensor, Tensor, Tensor)"
)
_library.define(
    "backward(Tensor dy, Tensor x, Tensor? weight, Tensor? bias, Tensor? extra, Tensor stats, Tensor? batch, int row,"
    " int groups, float eps, float batch_count, str room='') -> (Tensor, Tensor, Tensor, Tensor)"
)
BOTH_PHASES = 3


_OF_BATCH = tuple(bool(get(name).running) for name in ROWS)
_OF_SAMPLE = tuple(get(name).reading.of_sample for name in ROWS)


def of_batch(row: int) -> bool:
    """Whether the row has statistics over the batch."""
    return _OF_BATCH[row]


def of_sample(row: int) -> bool:
    """Whether the row has statistics of each sample."""
    return _OF_SAMPLE[row]


def of(x: Tensor, room: str) -> Any:
    """The module whose forward and backward compute for x."""
    return triton if x.is_cuda or room == "triton" else library


def _is_channels_last(x: Tensor) -> bool:
    if x.dim() == 4:
        return x.is_contiguous(memory_format=torch.channels_last)
    return x.movedim(1, -1).is_contiguous()


def dense(x: Tensor) -> tuple[Tensor, bool]:
    """x, copied if it is in neither memory format, and whether it is channels-last."""
    if x.is_contiguous():
        return x, False
    if _is_channels_last(x):
        return x, True
    return x.contiguous(), False


def alike(dy: Tensor, x: Tensor, channels_last: bool) -> Tensor:
    """dy in the memory format and dtype of x."""
    dy = dy.to(x.dtype)
    if channels_last:
        return dy if _is_channels_last(dy) else dy.movedim(1, -1).contiguous().movedim(-1, 1)
    return dy.contiguous()


def float32(parameter: Tensor | None, x: Tensor) -> Tensor | None:
    """A parameter as the kernels read it. Raises ValueError if it is not on the device of x."""
    if parameter is not None and parameter.device != x.device:
        raise ValueError(f"x is on {x.device}, a parameter on {parameter.device}: move the layer to the device of x")
    if parameter is None or (parameter.dtype is torch.float32 and parameter.is_contiguous()):
        return parameter
    return parameter.detach().to(torch.float32).contiguous()


def infer(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    extra: Tensor | None,
    batch: Tensor | None,
    row: int,
    groups: int,
    eps: float,
    room: str,
) -> Tensor:
    """y alone, of plain tensors in evaluation: forward without the dispatcher, which costs as much as a small map."""
    x, channels_last = dense(x)
    y = torch.empty_like(x)
    parameters = (float32(weight, x), float32(bias, x), float32(extra, x))
    of(x, room).forward(x, channels_last, row, groups, eps, batch is not None, *parameters, None, batch, y)
    return y


def _forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    extra: Tensor | None,
    batch: Tensor | None,
    row: int,
    groups: int,
    eps: float,
    room: str = "",
) -> tuple[Tensor, Tensor, Tensor]:
    x, channels_last = dense(x)
    y, stats, taken = _forward_like(x, weight, bias, extra, batch, row, groups, eps)
    moments = batch if batch is not None else (taken if of_batch(row) else None)
    own = stats if of_sample(row) else None
    parameters = (float32(weight, x), float32(bias, x), float32(extra, x))
    of(x, room).forward(x, channels_last, row, groups, eps, batch is not None, *parameters, own, moments, y)
    return y, stats, taken


def _forward_like(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    extra: Tensor | None,
    batch: Tensor | None,
    row: int,
    groups: int,
    eps: float,
    room: str = "",
) -> tuple[Tensor, Tensor, Tensor]:
    n, c = x.shape[:2]
    takes = batch is None and of_batch(row)
    return (
        torch.empty_like(x),
        x.new_empty((n, 2, c) if of_sample(row) else (0,), dtype=torch.float32),
        x.new_empty((2, c) if takes else (0,), dtype=torch.float32),
    )


def _forward_fake(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _forward_like(dense(x)[0], *others)


def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    extra: Tensor | None,
    stats: Tensor,
    batch: Tensor | None,
    row: int,
    groups: int,
    eps: float,
    batch_count: float,
    room: str = "",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, channels_last = dense(x)
    dy = alike(dy, x, channels_last)
    dx = torch.empty_like(x)
    given = (weight, bias, extra)
    found = [None if p is None else x.new_empty(p.shape, dtype=torch.float32) for p in given]
    of(x, room).backward(
        x,
        channels_last,
        row,
        groups,
        eps,
        BOTH_PHASES,
        batch_count,
        dy,
        *[float32(p, x) for p in given],
        stats if of_sample(row) else None,
        batch,
        dx,
        *found,
        None,
        None,
    )
    kept = [x.new_empty(0) if p is None or g is None else g.to(p.dtype) for p, g in zip(given, found, strict=True)]
    return dx, kept[0], kept[1], kept[2]


def _backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, extra: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kept = [x.new_empty(0) if p is None else torch.empty_like(p) for p in (weight, bias, extra)]
    return torch.empty_like(dense(x)[0]), kept[0], kept[1], kept[2]


for _key in ("CPU", "CUDA"):
    _library.impl("forward", _forward, _key)
    _library.impl("backward", _backward, _key)
FORWARD = torch.ops.evonorm.forward.default
BACKWARD = torch.ops.evonorm.backward.default
torch.library.register_fake("evonorm::forward", _forward_fake, lib=_library)
torch.library.register_fake("evonorm::backward", _backward_fake, lib=_library)


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, extra, given, ctx.row, ctx.groups, ctx.eps, ctx.room = inputs
    _, stats, taken = output
    of = of_batch(ctx.row)
    ctx.batch_count = float(x.numel() // x.shape[1]) if of and given is None else 0.0
    ctx.save_for_backward(x, weight, bias, extra, stats, (taken if given is None else given) if of else None)
    ctx.mark_non_differentiable(stats, taken)
    ctx.set_materialize_grads(False)


def _backward_of_forward(ctx: Any, dy: Tensor | None, *unused: Any) -> tuple[Any, ...]:
    if dy is None:
        return (None,) * 9
    x, weight, bias, extra, stats, batch = ctx.saved_tensors
    gradients = BACKWARD(
        dy, x, weight, bias, extra, stats, batch, ctx.row, ctx.groups, ctx.eps, ctx.batch_count, ctx.room
    )
    kept = [None if p is None else g for p, g in zip((x, weight, bias, extra), gradients, strict=True)]
    return (*kept, *[None] * 5)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    dy, x, weight, bias, extra, _, batch, ctx.row, ctx.groups, ctx.eps, ctx.batch_count, _ = inputs
    ctx.save_for_backward(dy, x, weight, bias, extra, batch)
    ctx.set_materialize_grads(False)


def _backward_of_backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    """By the reference: second derivatives are asked for too seldom for a kernel of their own."""
    dy, x, weight, bias, extra, batch = ctx.saved_tensors
    row = get(ROWS[ctx.row])
    training = ctx.batch_count > 0
    with torch.enable_grad():
        dy, x, weight, bias, extra = (
            None if t is None else t.detach().requires_grad_() for t in (dy, x, weight, bias, extra)
        )
        parameters = {"weight": weight, "bias": bias, next(iter(row.parameters), "none"): extra}
        if batch is not None and not training:
            parameters |= {"running_mean": batch[0], "running_var": batch[1]}
        assert x is not None
        y = reference.evaluate(row, x, parameters, Setting(groups=ctx.groups, eps=ctx.eps, training=training))
        inputs = [t for t in (x, weight, bias, extra) if t is not None]
        first = torch.autograd.grad(y, inputs, dy, create_graph=True)
        wanted = [c for t, c in zip((x, weight, bias, extra), cotangents, strict=True) if t is not None]
        pairs = [(g, c) for g, c in zip(first, wanted, strict=True) if c is not None and g.requires_grad]
        second = torch.autograd.grad([g for g, _ in pairs], [dy, *inputs], [c for _, c in pairs], allow_unused=True)
    found = iter(second[1:])
    kept = [None if t is None else next(found) for t in (x, weight, bias, extra)]
    return (second[0], *kept, *[None] * 7)


torch.library.register_autograd("evonorm::forward", _backward_of_forward, setup_context=_save_forward, lib=_library)
torch.library.register_autograd("evonorm::backward", _backward_of_backward, setup_context=_save_backward, lib=_library)
