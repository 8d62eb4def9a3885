"""What kernels are asked, whatever the device: a call in each direction. Each room's module is Kernels."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

REDUCE, APPLY = 1, 2  # the phases of backward, between which replicas add their totals up
_SUMS = 5  # at most, of any row


class Call(NamedTuple):
    """A row at x: the arguments of torch.ops.evonorm.forward, in its order; operators tells them."""

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    extra: Tensor | None
    batch: Tensor | None
    row: int
    groups: int
    eps: float
    room: str = ""

    @property
    def parameters(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """weight, bias and extra."""
        return self.weight, self.bias, self.extra

    @property
    def conditional(self) -> bool:
        """Whether weight or bias is each sample's own."""
        return any(p is not None and p.dim() == 2 for p in (self.weight, self.bias))

    @property
    def channels_last(self) -> bool:
        """How x lies in memory, of a call that is prepared."""
        return not self.x.is_contiguous()

    def prepared(self) -> Call:
        """As kernels read it: x copied if it is in neither memory format, parameters in float32.

        Raises ValueError if a parameter is not on the device of x.
        """
        x, weight, bias, extra, batch, row, groups, eps, room = self
        x = dense(x)
        # Not _replace, which costs as much as a small map's moments.
        return Call(x, _float32(weight, x), _float32(bias, x), _float32(extra, x), batch, row, groups, eps, room)


class Gradients(NamedTuple):
    """What backward has beside its call; the rest it fills.

    dy: the cotangent of y, laid out as x. stats: as forward has left them. batch_count: see operators. dx: as x.
    weight, bias, extra: as the parameters, None where there is no such one. sums, totals: (N, 5, C padded to 16) and
    (2, C), where the two phases run apart.
    """

    dy: Tensor
    stats: Tensor | None
    batch_count: float
    dx: Tensor
    weight: Tensor | None
    bias: Tensor | None
    extra: Tensor | None
    sums: Tensor | None = None
    totals: Tensor | None = None

    @classmethod
    def empty(
        cls, call: Call, dy: Tensor, stats: Tensor | None, batch_count: float, *, apart: bool = False
    ) -> Gradients:
        """To be filled, of a call that is prepared. apart: in two phases."""
        x = call.x
        found = [None if p is None else x.new_empty(p.shape, dtype=torch.float32) for p in call.parameters]
        made = cls(_alike(dy, call), stats, batch_count, torch.empty_like(x), *found)
        if not apart:
            return made
        n, c = x.shape[:2]
        sums = x.new_empty((n, _SUMS, -(-c // 16) * 16), dtype=torch.float32)
        return made._replace(sums=sums, totals=x.new_empty((2, c), dtype=torch.float32))

    def like(self, given: tuple[Tensor | None, ...]) -> list[Tensor | None]:
        """Those of weight, bias and extra in the dtypes of these; None where one is None."""
        found = (self.weight, self.bias, self.extra)
        return [
            g if p is None or g is None or p.dtype is g.dtype else g.to(p.dtype)
            for p, g in zip(given, found, strict=True)
        ]


class Kernels(Protocol):
    """The kernels of a room."""

    def forward(self, call: Call, given: bool, stats: Tensor | None, y: Tensor | None) -> None:
        """Fills stats, y and, unless `given`, call.batch; of those each that is there. The call is prepared."""

    def backward(self, call: Call, gradients: Gradients, phases: int = REDUCE | APPLY) -> None:
        """Fills the gradients that are there. The call is prepared."""


def dense(x: Tensor) -> Tensor:
    """x, copied if it is in neither memory format."""
    return x if x.is_contiguous() or _is_channels_last(x) else x.contiguous()


def _is_channels_last(x: Tensor) -> bool:
    if x.dim() == 4:
        return x.is_contiguous(memory_format=torch.channels_last)
    return x.movedim(1, -1).is_contiguous()


def _alike(dy: Tensor, call: Call) -> Tensor:
    """dy in the memory format and dtype of x."""
    dy = dy.to(call.x.dtype)
    if call.channels_last:
        return dy if _is_channels_last(dy) else dy.movedim(1, -1).contiguous().movedim(-1, 1)
    return dy.contiguous()


def _float32(parameter: Tensor | None, x: Tensor) -> Tensor | None:
    if parameter is not None and parameter.device != x.device:
        raise ValueError(f"x is on {x.device}, a parameter on {parameter.device}: move the layer to the device of x")
    if parameter is None or (parameter.dtype is torch.float32 and parameter.is_contiguous()):
        return parameter
    return parameter.detach().to(torch.float32).contiguous()
