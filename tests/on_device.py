"""Tells when the host has a part in what should be the device's alone, on `meta`: the device that holds no values.

A capture into a CUDA graph refuses the same: reading from the device, and copying to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = {torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal}


class _Looking(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in READS, f"{func} reads from the device"
        found = func(*args, **kwargs or {})
        devices = {t.device.type for t in tree_leaves((args, kwargs, found)) if isinstance(t, torch.Tensor)}
        assert devices <= {"meta"}, f"{func} on {devices}"
        return found


def _refused(*args: Any, **options: Any) -> Any:
    raise AssertionError("copied to the device: take torch.full or new_full")


@contextmanager
def on_device() -> Iterator[None]:
    """Inside, AssertionError or torch's own error for what reads or copies, and for tensors that are elsewhere."""
    with ExitStack() as stack:
        # Numbers that become tensors are made by the host and copied; the mode does not see it on meta.
        stack.enter_context(mock.patch.object(torch, "tensor", _refused))
        stack.enter_context(mock.patch.object(torch.Tensor, "new_tensor", _refused))
        stack.enter_context(_Looking())
        yield
