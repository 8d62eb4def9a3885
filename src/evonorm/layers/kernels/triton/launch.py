"""Which kernels run, in which order, over which memory, forward and backward.

Nothing here reads from the device, and what is launched depends on sizes alone: a CUDA graph can capture it.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from evonorm.layers.kernels.call import APPLY, REDUCE, Call, Gradients
from evonorm.layers.kernels.rows import ROWS as NAMES
from evonorm.layers.kernels.triton import meetings, passes, plan, whole
from evonorm.layers.kernels.triton.plan import Sizes, Tiling
from evonorm.layers.kernels.triton.rows import ROWS, Row
from evonorm.layers.kernels.triton.tiles import ONE, OWN, SEVERAL

COLUMNS = 8  # channels a program that goes through samples: 32 bytes, what memory is read by


def forward(call: Call, given: bool, stats: Tensor | None, y: Tensor | None) -> None:
    """Fills y, stats and, unless given, batch; of those each that is there."""
    call = _both(call)
    x, batch, row = call.x, call.batch, ROWS[NAMES[call.row]]
    sizes = sizes_of(row, x, call.channels_last, call.groups)
    layout = {"LAST": sizes.channels_last, "EACH": call.conditional}
    layout |= {"SAMPLE": row.sample, "BATCH": row.batch, "CENTRED": row.centred}
    parameters = (x, *call.parameters, batch)
    takes_batch = row.batch and not given
    alone = plan.whole(sizes, plan.LIMITS, backward=False) if row.sample and not takes_batch else None
    with _on(x):
        if alone is not None:
            whole.whole_kernel[(sizes.n * alone.tiles,)](
                *parameters, stats, y, sizes.c, sizes.s, sizes.c // sizes.groups, alone.units, alone.tiles, call.eps,
                VALUE=row.value, MEAN=not row.squares_alone, MODE=_mode(sizes, alone), HELD=alone.held,
                **layout, **_tile(alone, 64 if alone.held else 16),
            )  # fmt: skip
            return
        cut = plan.split(sizes, plan.LIMITS)
        if row.sample or takes_batch:
            if stats is None:
                stats = x.new_empty((sizes.n, 2, sizes.c), dtype=torch.float32)
            _take_moments(row, x, stats, sizes, cut)
        if takes_batch:
            assert stats is not None
            meetings.batch_kernel[(plan.ceil(sizes.c, COLUMNS),)](
                stats, batch, sizes.n, sizes.c, CH=COLUMNS, K=_rows(sizes.n), num_warps=4
            )
        if y is not None:
            passes.apply_kernel[(sizes.n * cut.chunks * cut.tiles,)](
                *parameters, stats, y, sizes.c, sizes.s, cut.units, cut.tiles, cut.chunks, cut.length, call.eps,
                VALUE=row.value, **layout, **_tile(cut, 16),
            )  # fmt: skip


def _take_moments(row: Row, x: Tensor, stats: Tensor, sizes: Sizes, cut: Tiling) -> None:
    single = cut.chunks == 1 and sizes.groups == sizes.c
    partial = stats if single else x.new_empty((sizes.n * cut.chunks, 2, sizes.c), dtype=torch.float32)
    mean = not row.squares_alone
    passes.moments_kernel[(sizes.n * cut.chunks * cut.tiles,)](
        x, partial, sizes.c, sizes.s, cut.units, cut.tiles, cut.chunks, cut.length,
        MEAN=mean, ALONE=single, LAST=sizes.channels_last, **_tile(cut, 16),
    )  # fmt: skip
    if single:
        return
    meeting = plan.meeting(sizes, plan.LIMITS, chunks=cut.chunks)
    meetings.meet_kernel[(sizes.n * meeting.tiles,)](
        x, partial, stats, sizes.c, sizes.s, sizes.c // sizes.groups, meeting.units, meeting.tiles,
        cut.chunks, cut.length,
        MEAN=mean, MODE=_mode(sizes, meeting), LAST=sizes.channels_last,
        ALIGN=meeting.align, CH=meeting.channels, K=plan.up(cut.chunks), num_warps=4,
    )  # fmt: skip


def backward(call: Call, gradients: Gradients, phases: int) -> None:
    """Fills dx and the gradients that are there; in two phases, with sums and totals given, for replicas."""
    call = _both(call)
    x, row = call.x, ROWS[NAMES[call.row]]
    sizes = sizes_of(row, x, call.channels_last, call.groups)
    dy, stats, batch_count, dx, dweight, dbias, dextra, sums, totals = gradients
    through = row.batch and batch_count > 0
    both = phases == REDUCE | APPLY
    alone = None
    if both and not through:
        # Without statistics of a sample there is nothing to wait for: any cut is whole.
        alone = plan.whole(sizes, plan.LIMITS, backward=True) if row.sample else plan.split(sizes, plan.LIMITS)
    cut = alone or plan.split(sizes, plan.LIMITS, chunks=None if both else 1)
    if sums is None:
        sums = x.new_empty((sizes.n * cut.chunks, row.sums, sizes.c), dtype=torch.float32)
    if through and totals is None:
        totals = x.new_empty((2, sizes.c), dtype=torch.float32)
    layout = {"SLOPE": row.slope, "SAMPLE": row.sample, "BATCH": row.batch, "CENTRED": row.centred}
    layout |= {"SUMS": row.sums, "EACH": call.conditional, "LAST": sizes.channels_last}
    shares = {"EXTRA": row.extra, "FACTOR": row.extra_factor, "SCALED": row.extra_scaled}
    inputs = (x, dy, *call.parameters, call.batch, stats)
    shape = (sizes.c, sizes.s)
    place = (cut.units, cut.tiles, cut.chunks, cut.length)
    grid = (sizes.n * cut.chunks * cut.tiles,)
    with _on(x):
        if alone is not None:
            whole.whole_backward_kernel[grid](
                *inputs, dx, sums, *shape, sizes.c // sizes.groups, *place, call.eps,
                SUBTRACTS=row.subtracts, MODE=_mode(sizes, cut), HELD=cut.held, **layout, **shares,
                **_tile(cut, 32 if cut.held else 8),
            )  # fmt: skip
        elif phases & REDUCE:
            passes.sums_kernel[grid](*inputs, sums, *shape, *place, call.eps, **layout, **shares, **_tile(cut, 8))
        if phases & REDUCE:
            others = (dextra if row.extra else None, totals if through else None)
            _sum_up(call, row, sums, dweight, dbias, *others)
        if alone is not None or not phases & APPLY:
            return
        feedback = None
        if not row.batch:
            feedback = x.new_empty((sizes.n, 2, sizes.c), dtype=torch.float32)
            meeting = plan.meeting(sizes, plan.LIMITS, chunks=cut.chunks)
            meetings.meet_backward_kernel[(sizes.n * meeting.tiles,)](
                call.weight, stats, sums, feedback, *shape, sizes.c // sizes.groups, meeting.units, meeting.tiles,
                cut.chunks, call.eps,
                CENTRED=row.centred, SUBTRACTS=row.subtracts, SUMS=row.sums, MODE=_mode(sizes, meeting),
                EACH=call.conditional, ALIGN=meeting.align, CH=meeting.channels, K=plan.up(cut.chunks), num_warps=4,
            )  # fmt: skip
        passes.apply_backward_kernel[grid](
            *inputs, sums, feedback, totals, dx, *shape, *place, call.eps, float(batch_count),
            THROUGH=through, K=plan.up(cut.chunks), **layout, **_tile(cut, 8),
        )  # fmt: skip


def _sum_up(
    call: Call, row: Row, sums: Tensor, dweight: Tensor | None, dbias: Tensor | None, *others: Tensor | None
) -> None:
    """Gradients of weight, bias and extra, and totals, from sums: over the batch or, where (N, C), of each sample."""
    n, c = call.x.shape[:2]
    chunks = sums.shape[0] // n

    def columns(parts: int, *filled: Tensor | None) -> None:
        if all(tensor is None for tensor in filled):
            return
        rows = n // parts * chunks
        k = _rows(rows)
        ch = COLUMNS if parts == 1 else min(plan.up(c), 1024 // k)
        tiles = plan.ceil(c, ch)
        meetings.columns_kernel[(parts * tiles,)](
            sums, call.weight, *filled, rows, c, tiles, chunks,
            SUMS=row.sums, EACH=call.conditional, CH=ch, K=k, num_warps=4,
        )  # fmt: skip

    shared, own = ([g if g is not None and g.dim() == dim else None for g in (dweight, dbias)] for dim in (1, 2))
    columns(1, *shared, *others)
    columns(n, *own, None, None)


def _both(call: Call) -> Call:
    """The call, weight and bias both each sample's own if one of them is."""
    if not call.conditional:
        return call
    n, c = call.x.shape[:2]
    weight, bias = (None if p is None else p.expand(n, c).contiguous() for p in (call.weight, call.bias))
    return call._replace(weight=weight, bias=bias)


def sizes_of(row: Row, x: Tensor, channels_last: bool, groups: int) -> Sizes:
    """What the cut depends on. Where each channel has one position both formats are the same memory."""
    n, c = x.shape[:2]
    s = x.numel() // (n * c)
    return Sizes(n, c, s, groups if row.grouped else c, x.element_size(), channels_last)


def _mode(sizes: Sizes, tiling: Tiling) -> Any:
    if sizes.c == sizes.groups:
        return OWN
    return ONE if tiling.span == sizes.c // sizes.groups else SEVERAL


def _tile(tiling: Tiling, values: int) -> dict[str, int]:
    return {
        "ALIGN": tiling.align,
        "CH": tiling.channels,
        "P": tiling.positions,
        "num_warps": tiling.warps(values),
    }


def _rows(count: int) -> int:
    return min(256, plan.up(count))


def _on(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be that of x."""
    elsewhere = x.is_cuda and x.device.index != torch.cuda.current_device()
    return torch.cuda.device(x.device) if elsewhere else contextlib.nullcontext()


def chosen(name: str, x: Tensor, channels_last: bool, groups: int, *, training: bool) -> dict[str, str]:
    """How forward and backward of x would be cut, in words."""
    row, sizes = ROWS[name], sizes_of(ROWS[name], x, channels_last, groups)
    waits = row.batch and training
    said = {}
    for direction in ("forward", "backward"):
        alone = None
        if row.sample and not waits:
            alone = plan.whole(sizes, plan.LIMITS, backward=direction == "backward")
        cut = alone or plan.split(sizes, plan.LIMITS)
        way = "one kernel" if alone or not (row.sample or waits) else "passes that meet"
        said[direction] = f"{way}, {sizes.n * cut.chunks * cut.tiles} programs, each {cut}"
    return said
