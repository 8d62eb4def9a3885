"""Fused kernels: whether there are any, what they serve, and evaluating a row of the table with them.

Each reads x from memory once in each direction (twice where statistics are the batch's) and saves for backward x and
its statistics alone. docs/kernels.md shows how. Registered as torch.ops.evonorm.forward and .backward. Those for the
CPU are compiled C++ (`library`), those for the GPU are Triton's (`triton`).
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from evonorm.layers import running
from evonorm.layers.kernels import operators, triton
from evonorm.layers.kernels.call import Call
from evonorm.layers.kernels.cpu import library
from evonorm.layers.kernels.rows import ROWS
from evonorm.layers.row import NormAct
from evonorm.layers.statistics import exporting
from evonorm.layers.table import Setting

DTYPES = (torch.float32, torch.bfloat16)
# Whether backend="auto" and "kernel" take Triton's kernels on CUDA. Set it where figures from a GPU are in the docs.
TRITON_WHERE_CUDA = False
# Found out at import: a compiler that traces `supports` cannot follow ctypes.
_REASON: str | None = library.load()[1] or None


def available() -> bool:
    """Whether the kernels for the CPU were built and could be loaded."""
    return _REASON is None


def reason() -> str | None:
    """Why there are no kernels for the CPU here; None if there are."""
    return _REASON


def instructions() -> str:
    """The instruction set in use: avx512bf16, avx512, avx2 or baseline; `none` where there are no kernels."""
    return library.instructions()


def written(row: NormAct) -> bool:
    """Whether there is a kernel for this row at all, on a machine that can have it."""
    return row.kernel in ROWS


def serves(row: NormAct, device: torch.device, backend: str = "kernel") -> str | None:
    """None if there is a kernel for this row on this device, else the reason why not.

    backend: `triton` for Triton's on CUDA or, interpreted, on the CPU; otherwise those that the device has by default.
    """
    if not written(row):
        return f"{row.name} has no kernel"
    if backend == "triton":
        return triton.reason(device)
    if device.type == "cuda":
        if not TRITON_WHERE_CUDA:
            return "x on cuda, where Triton's kernels are not yet measured: ask for them with backend='triton'"
        return triton.reason(device)
    if device.type != "cpu":
        return f"x on {device.type}; the kernels are for the CPU and CUDA"
    return _REASON


def supports(row: NormAct, x: Tensor, setting: Setting, backend: str = "kernel") -> str | None:
    """None if the kernels serve this row for this x, else the reason why not; backend: as in `serves`."""
    why = serves(row, x.device, backend)
    if why is not None:
        return why
    dtypes = DTYPES if x.device.type == "cpu" and backend != "triton" else triton.DTYPES
    if x.dtype not in dtypes:
        known = [str(dtype).removeprefix("torch.") for dtype in dtypes]
        mine = str(x.dtype).removeprefix("torch.")
        return f"{mine} input; the kernels take {', '.join(known[:-1])} and {known[-1]}"
    if not setting.activate:
        return "activate=False"
    if x.numel() == 0:
        return "empty input"
    if backend == "triton" or x.is_cuda:
        positions = x.numel() // (x.shape[0] * x.shape[1])
        if positions > triton.POSITIONS:
            return f"{positions} positions in space; Triton's kernels take at most 2^30"
    if row.native == "batch_norm" and setting.training and x.numel() == x.shape[1]:
        return "one value a channel, which has no variance"
    if torch.compiler.is_compiling():
        if exporting():
            return "export, whose result other programs must run"
    elif exporting():
        return "torch.jit.trace, whose result other programs must run"
    elif _transformed():
        return "a torch.func transform"
    return None


def evaluate(
    row: NormAct, x: Tensor, parameters: dict[str, Tensor | None], setting: Setting, backend: str = "kernel"
) -> Tensor:
    """y of a row that `supports` grants; otherwise as `reference.evaluate`. Differentiable, twice too.

    The second derivative is the reference's, composed of tensor operations, and as slow.
    """
    extra = parameters.get(row.extra)
    given = _running_moments(parameters) if row.running and not setting.training else None
    index, room = ROWS.index(row.kernel), "triton" if backend == "triton" else ""
    weight, bias = parameters.get("weight"), parameters.get("bias")
    call = Call(x, weight, bias, extra, given, index, setting.groups, setting.eps, room)
    if row.running and setting.training and setting.replicas > 1:
        from evonorm.layers.kernels import replicas

        y, batch, count = replicas.evaluate(call)
    else:
        y, batch = operators.forward(call)
        count = x.numel() // x.shape[1]
    if row.running and setting.training:
        running.blend(row, parameters, batch[0], batch[1], count, setting.momentum)
    return y  # type: ignore[no-any-return]


_warned = False


def warn_once() -> None:
    """Says once that there are no kernels, and what it costs."""
    global _warned
    why = reason()
    if why is not None and not _warned and not torch.compiler.is_compiling():
        _warned = True
        warnings.warn(f"evonorm: {why}; layers are composed of tensor operations, several times slower", stacklevel=4)


def _transformed() -> bool:
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    return bool(active is not None and active())


def _running_moments(parameters: dict[str, Tensor | None]) -> Tensor:
    var = parameters["running_var"]
    assert var is not None, "norm_act checks that running statistics are there when not training"
    mean = parameters.get("running_mean")
    moments = torch.stack([torch.zeros_like(var) if mean is None else mean, var])
    return moments if moments.dtype is torch.float32 else moments.float()
