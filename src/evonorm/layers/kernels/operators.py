"""torch.ops.evonorm: the kernels as torch's own operators, so that compilers, autograd and tools know them.

    forward(x, weight?, bias?, extra?, batch?, row, groups, eps, room) -> (y, stats, batch)
    backward(dy, x, weight?, bias?, extra?, stats, batch?, row, groups, eps, batch_count, room)
        -> (dx, dweight, dbias, dextra)

x, y: (N, C, *), of a dtype the kernels take; what is in neither of the two memory formats is copied first. weight,
bias: (C,), or each sample's own, (N, C); extra (v or tau): (C,). stats: (N, 2, C), mean and biased variance of each
sample, as the kernels of that device keep them (of each channel on the CPU, of its group on a GPU); (0,) where a row
needs none. batch: (2, C), mean and biased variance of the batch; forward takes them from x if none are given, and
returns (0,) if they are given or not needed. row: its place in ROWS. batch_count: values a channel that the batch
moments are taken over; 0: constants, into which no gradient flows. Gradients of what was not given are (0,). room: ""
for the kernels of x's device; "triton" for those of the GPU, which Triton's interpreter runs on CPU tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from evonorm.layers import reference
from evonorm.layers.kernels import triton
from evonorm.layers.kernels.call import Call, Gradients, Kernels, dense
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
_OF_BATCH = tuple(bool(get(name).running) for name in ROWS)
_OF_SAMPLE = tuple(get(name).reading.of_sample for name in ROWS)
_functorch: Any = torch._C._functorch
# How many modes of torch's dispatcher are on; a torch that does not tell may have one.
_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)


def of_batch(row: int) -> bool:
    """Whether the row has statistics over the batch."""
    return _OF_BATCH[row]


def of_sample(row: int) -> bool:
    """Whether the row has statistics of each sample."""
    return _OF_SAMPLE[row]


def of(call: Call) -> Kernels:
    """The kernels that compute for this call."""
    return triton if call.x.is_cuda or call.room == "triton" else library


def unwatched(*tensors: Tensor | None) -> bool:
    """Whether of tracers, modes of torch's dispatcher, kinds of tensors, forward-mode derivatives and profilers none
    must see torch.ops.evonorm.
    """
    return (
        all(t is None or _plain(t) for t in tensors)
        and not _modes()
        and not torch._C._autograd._profiler_enabled()
        and forward_ad._current_level < 0
    )


def _plain(t: Tensor) -> bool:
    """Whether its memory is its values: no subclass, no batch of vmap's, no sign or zero that is told beside."""
    return (
        (type(t) is Tensor or type(t) is nn.Parameter)
        and not _functorch.is_legacy_batchedtensor(t)
        and not _functorch.is_functorch_wrapped_tensor(t)
        and not t.is_neg()
        and not t._is_zerotensor()
    )


def forward(call: Call) -> tuple[Tensor, Tensor | None]:
    """y, and the batch's moments where they are taken.

    By the operator, or past torch's dispatcher where nothing but autograd must see it: the dispatcher and what Python
    registers with it cost more than a small map's arithmetic.
    """
    x, weight, bias, extra, batch, *_ = call
    if torch.compiler.is_compiling() or not unwatched(x, weight, bias, extra, batch):
        y, _, taken = FORWARD(*call)
        return y, taken
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias, extra)):
        y, taken = _Direct.apply(*call)
        return y, taken
    y, _, taken = _computed(call, keeps=False)
    return y, taken


def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    call = Call(*arguments)
    y, stats, taken = _computed(call, keeps=True)
    nothing = call.x.new_empty(0, dtype=torch.float32)
    return y, nothing if stats is None else stats, nothing.clone() if taken is None else taken


def _computed(call: Call, *, keeps: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y, and what backward needs beside x: stats, if they are kept, and the batch's moments, if they are taken."""
    call = call.prepared()
    x, given = call.x, call.batch is not None
    n, c = x.shape[:2]
    taken = None
    if not given and _OF_BATCH[call.row]:
        taken = x.new_empty((2, c), dtype=torch.float32)
        call = call._replace(batch=taken)
    stats = x.new_empty((n, 2, c), dtype=torch.float32) if keeps and _OF_SAMPLE[call.row] else None
    y = torch.empty_like(x)
    of(call).forward(call, given, stats, y)
    return y, stats, taken


def _forward_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    call = Call(*arguments)
    x = dense(call.x)
    n, c = x.shape[:2]
    takes = call.batch is None and of_batch(call.row)
    return (
        torch.empty_like(x),
        x.new_empty((n, 2, c) if of_sample(call.row) else (0,), dtype=torch.float32),
        x.new_empty((2, c) if takes else (0,), dtype=torch.float32),
    )


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
) -> tuple[Tensor, ...]:
    call = Call(x, weight, bias, extra, batch, row, groups, eps, room).prepared()
    gradients = Gradients.empty(call, dy, stats if of_sample(row) else None, batch_count)
    of(call).backward(call, gradients)
    kept = gradients.like((weight, bias, extra))
    return (gradients.dx, *(x.new_empty(0) if g is None else g for g in kept))


def _backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, extra: Tensor | None, *others: Any
) -> tuple[Tensor, ...]:
    kept = [x.new_empty(0) if p is None else torch.empty_like(p) for p in (weight, bias, extra)]
    return (torch.empty_like(dense(x)), *kept)


for _key in ("CPU", "CUDA"):
    _library.impl("forward", _forward, _key)
    _library.impl("backward", _backward, _key)
FORWARD = torch.ops.evonorm.forward.default
BACKWARD = torch.ops.evonorm.backward.default
torch.library.register_fake("evonorm::forward", _forward_fake, lib=_library)
torch.library.register_fake("evonorm::backward", _backward_fake, lib=_library)


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    call = Call(*inputs)
    _, stats, taken = output
    moments = (taken if call.batch is None else call.batch) if of_batch(call.row) else None
    through = moments is not None and call.batch is None
    ctx.row, ctx.groups, ctx.eps, ctx.room = call[5:]
    ctx.batch_count = float(call.x.numel() // call.x.shape[1]) if through else 0.0
    kept = (
        stats if of_sample(call.row) else None
    )  # the same tensors as _Direct: a checkpoint may hold either to the other
    ctx.save_for_backward(call.x, *call.parameters, kept, moments)
    ctx.mark_non_differentiable(stats, taken)
    ctx.set_materialize_grads(False)


def _backward_of_forward(ctx: Any, dy: Tensor | None, *unused: Any) -> tuple[Any, ...]:
    if dy is None:
        return (None,) * 9
    x, weight, bias, extra, stats, batch = ctx.saved_tensors
    stats = x.new_empty(0, dtype=torch.float32) if stats is None else stats
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
        parameters = {"weight": weight, "bias": bias, row.extra: extra}
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


class _Direct(torch.autograd.Function):
    """The operator without the dispatcher. Its backward may be watched all the same, then it is the operator's."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor | None]:
        call = Call(*arguments)
        y, stats, taken = _computed(call, keeps=True)
        moments = taken if taken is not None else call.batch if of_batch(call.row) else None
        ctx.setting = arguments[5:]  # an older torch.compile cannot follow a slice of call
        ctx.batch_count = 0.0 if taken is None else float(call.x.numel() // call.x.shape[1])
        ctx.save_for_backward(call.x, call.weight, call.bias, call.extra, stats, moments)
        if taken is not None:
            ctx.mark_non_differentiable(taken)
        ctx.set_materialize_grads(False)
        return y, taken

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *unused: Any) -> tuple[Any, ...]:
        if dy is None:
            return (None,) * 9
        x, weight, bias, extra, stats, batch = ctx.saved_tensors
        seen = torch.compiler.is_compiling() or torch.is_grad_enabled() or not unwatched(dy)
        compute = BACKWARD if seen else _backward
        stats = x.new_empty(0, dtype=torch.float32) if stats is None else stats
        row, groups, eps, room = ctx.setting
        dx, *others = compute(dy, x, weight, bias, extra, stats, batch, row, groups, eps, ctx.batch_count, room)
        kept = [None if p is None else g for p, g in zip((weight, bias, extra), others, strict=True)]
        return (dx, *kept, None, None, None, None, None)
