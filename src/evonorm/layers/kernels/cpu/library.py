"""The compiled kernels as ctypes sees them: loading, what this processor runs, and the two calls."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from evonorm.layers.kernels.call import APPLY, REDUCE, Call, Gradients
from evonorm.layers.kernels.rows import ROWS

INTERFACE = 3
# Another library in the place of the installed one, for one built with sanitizers.
PLACE = "EVONORM_KERNELS"

_INT, _LONG, _FLOAT, _DOUBLE, _POINTER = (
    ctypes.c_int,
    ctypes.c_int64,
    ctypes.c_float,
    ctypes.c_double,
    ctypes.c_void_p,
)
_SHAPE = (_INT, _INT, _INT, _LONG, _LONG, _LONG, _INT, _FLOAT, _INT, _LONG, _LONG)  # row ... bias_step
_FAILURES = {1: "out of memory", 2: "no such row"}


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and the reason why there is none."""
    place = os.environ.get(PLACE) or str(Path(__file__).with_name("evonorm_kernels.so"))
    if not Path(place).exists():
        return None, "the kernels were not built at installation (a C++ compiler was missing, or the build failed)"
    try:
        library = ctypes.CDLL(place)
        found = library.evonorm_interface()
        if found != INTERFACE:
            return None, f"the kernels are of another version (interface {found}, not {INTERFACE}): install again"
        library.evonorm_forward.argtypes = (*_SHAPE, _INT, *[_POINTER] * 7)
        library.evonorm_backward.argtypes = (*_SHAPE, _INT, _DOUBLE, *[_POINTER] * 13)
        for named in (library.evonorm_instructions, library.evonorm_variant, library.evonorm_row):
            named.restype = ctypes.c_char_p
        named_rows = map(library.evonorm_row, itertools.count())
        there = tuple(name.decode() for name in itertools.takewhile(bool, named_rows))
        if there != ROWS:
            return None, f"the kernels are of other rows ({', '.join(there)}): install again"
    except (OSError, AttributeError) as error:
        return None, f"the kernels could not be loaded: {error}"
    return library, ""


def instructions() -> str:
    """The variant in use: avx512bf16, avx512, avx2 or baseline; `none` where there are no kernels."""
    library, _ = load()
    return library.evonorm_instructions().decode() if library else "none"


def variants() -> dict[str, int]:
    """The variants that this processor runs, best first, with their numbers."""
    library, _ = load()
    found: dict[str, int] = {}
    index = 0
    while library and (name := library.evonorm_variant(index)) is not None:
        if name:
            found[name.decode()] = index
        index += 1
    return found


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Takes the variant of this name for a while; for tests and measurements. Not safe beside other threads' calls."""
    library, _ = load()
    before = instructions()
    assert library is not None
    library.evonorm_choose(variants()[name])
    try:
        yield
    finally:
        library.evonorm_choose(variants()[before])


def forward(call: Call, given: bool, stats: Tensor | None, y: Tensor | None) -> None:
    """As Kernels has it."""
    _call("evonorm_forward", call, (given,), (call.x, *call.parameters, stats, call.batch, y))


def backward(call: Call, gradients: Gradients, phases: int = REDUCE | APPLY) -> None:
    """As Kernels has it."""
    dy, stats, batch_count, *filled = gradients
    tensors = (call.x, dy, *call.parameters, stats, call.batch, *filled)
    _call("evonorm_backward", call, (phases, batch_count), tensors)


def _call(name: str, call: Call, own: tuple[float, ...], tensors: tuple[Tensor | None, ...]) -> None:
    library, why = load()
    if library is None:
        raise RuntimeError(why)
    shape = call.x.shape
    status = getattr(library, name)(
        call.row,
        call.x.dtype is torch.bfloat16,
        call.channels_last,
        shape[0],
        shape[1],
        call.x.numel() // (shape[0] * shape[1]),
        call.groups,
        call.eps,
        torch.get_num_threads(),
        *(shape[1] if p is not None and p.dim() == 2 else 0 for p in (call.weight, call.bias)),
        *own,
        *[None if tensor is None else tensor.data_ptr() for tensor in tensors],
    )
    if status:
        raise RuntimeError(f"evonorm kernel for x of shape {tuple(shape)}: {_FAILURES.get(status, status)}")
