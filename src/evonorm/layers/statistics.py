"""Mean, variance and second moment of a feature map over batch, instance and group; at least float32."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor


class Statistics:
    """The statistics of x: (N, C, *), each shaped to broadcast against x: (N or 1, C, 1, ...).

    Variances are biased (divided by the count) and centred before squaring, so a mean far from zero costs no
    precision. Standard deviations and root mean squares are sqrt(second moment + eps).

    Batch statistics are taken from x when training, otherwise the running ones stand in. With several replicas they
    are taken over the batches of all processes of torch.distributed, gradients included. Nothing is changed: `batch` is
    what was taken, for running.blend.
    """

    def __init__(
        self,
        x: Tensor,
        *,
        eps: float,
        groups: int = 1,
        training: bool = True,
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        replicas: int = 1,
    ) -> None:
        self.x = x
        self.eps = eps
        self.groups = groups
        self.training = training
        self.running_mean = running_mean
        self.running_var = running_var
        self.replicas = replicas
        # Mean and biased variance of the batch, (1, C, 1, ...), and the values a channel that they are taken over.
        self.batch: tuple[Tensor, Tensor, int | Tensor] | None = None
        self.space = tuple(range(2, x.dim()))
        self._moments: tuple[Tensor, Tensor] | None = None

    def instance_mean(self) -> Tensor:
        """Over space, per sample and channel: (N, C, 1, ...)."""
        return self._instance()[0]

    def instance_std(self) -> Tensor:
        """Over space, per sample and channel: (N, C, 1, ...)."""
        return (self._instance()[1] + self.eps).sqrt()

    def instance_rms(self) -> Tensor:
        """Root mean square over space, per sample and channel: (N, C, 1, ...)."""
        return (self._instance_square() + self.eps).sqrt()

    def group_mean(self) -> Tensor:
        """Over space and a group's channels, per sample: (N, C, 1, ...), equal within a group."""
        return self._spread(self._grouped(self._instance()[0]).mean(2, keepdim=True))

    def group_std(self) -> Tensor:
        """Over space and a group's channels, per sample: (N, C, 1, ...), equal within a group."""
        return self._spread((self._group_var() + self.eps).sqrt())

    def group_rms(self) -> Tensor:
        """Root mean square over space and a group's channels, per sample: (N, C, 1, ...)."""
        square = self._grouped(self._instance_square()).mean(2, keepdim=True)
        return self._spread((square + self.eps).sqrt())

    def batch_mean(self) -> Tensor:
        """Over batch and space, per channel: (1, C, 1, ...); the running mean when not training."""
        if not self.training:
            return self._running(self.running_mean)
        return self._batch()[0]

    def batch_std(self) -> Tensor:
        """Over batch and space, per channel: (1, C, 1, ...); from the running variance when not training."""
        if not self.training:
            return (self._running(self.running_var) + self.eps).sqrt()
        return (self._batch()[1] + self.eps).sqrt()

    def _batch(self) -> tuple[Tensor, Tensor, int | Tensor]:
        if self.batch is None:
            count = self.x.numel() // self.x.shape[1]
            means, variances = self._instance()
            mean = means.mean(0, keepdim=True)
            var = (variances + (means - mean).square()).mean(0, keepdim=True)
            self.batch = moments_over_replicas(mean, var, count) if self.replicas > 1 else (mean, var, count)
        return self.batch

    def _instance(self) -> tuple[Tensor, Tensor]:
        if self._moments is None:
            mean = self.x.mean(self.space, keepdim=True)
            self._moments = mean, (self.x - mean).square().mean(self.space, keepdim=True)
        return self._moments

    def _instance_square(self) -> Tensor:
        return self.x.square().mean(self.space, keepdim=True)

    def _group_var(self) -> Tensor:
        """(N, groups, 1, 1, ...)."""
        if exporting():
            # Fewer steps, and fast where a group's values are one stretch of memory, as in what runs exported graphs.
            grouped = self._grouped(self.x)
            within = tuple(range(2, grouped.dim()))
            return (grouped - grouped.mean(within, keepdim=True)).square().mean(within, keepdim=True)
        # Law of total variance: the map is read once for all statistics taken of it, and torch, which is slow over a
        # group's channels where they lie next to each other, reduces over space alone. The kernels do the same.
        mean, var = map(self._grouped, self._instance())
        return (var + (mean - mean.mean(2, keepdim=True)).square()).mean(2, keepdim=True)

    def _grouped(self, t: Tensor) -> Tensor:
        """(N, C, *) -> (N, groups, C / groups, *)."""
        grouped: Tensor = t.unflatten(1, (self.groups, t.shape[1] // self.groups))  # type: ignore[no-untyped-call]
        return grouped

    def _spread(self, t: Tensor) -> Tensor:
        """(N, groups, 1, 1, ...) -> (N, C, 1, ...), equal within a group."""
        size = self.x.shape[1] // self.groups
        return t.expand(-1, -1, size, *[-1] * len(self.space)).flatten(1, 2)

    def _running(self, running: Tensor | None) -> Tensor:
        assert running is not None, "norm_act checks that running statistics are there when not training"
        return cast(running, self.x.dtype).view(1, -1, *[1] * len(self.space))


def exporting() -> bool:
    """Whether torch.export or torch.jit.trace follows this, whose result other programs run."""
    if torch.compiler.is_compiling():
        # Before torch 2.14 torch.compile takes is_exporting() for True; the flag that it reads is right since 2.8.
        flag: bool | None = getattr(torch.compiler, "_is_exporting_flag", None)
        return torch.compiler.is_exporting() if flag is None else flag
    return torch._C._get_tracing_state() is not None


def cast(t: Tensor, dtype: torch.dtype) -> Tensor:
    """t in this dtype; unlike t.to(dtype), nothing is left in an exported graph where it has that already."""
    return t if t.dtype == dtype else t.to(dtype)


def by_channel(t: Tensor, x: Tensor) -> Tensor:
    """t: (C,) or (N, C), shaped to broadcast against x: (1 or N, C, 1, ...)."""
    return t.view(-1, x.shape[1], *[1] * (x.dim() - 2))


def moments_over_replicas(mean: Tensor, var: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance over the batches of all processes, and their count, float64; differentiable.

    mean, var: this process's, of any one shape. count: values that they are taken over here, which may differ between
    processes. All processes must call this together.
    """
    total = torch.full((), count, dtype=torch.float64, device=mean.device)
    torch.distributed.all_reduce(total)
    share = count / total
    whole_mean: Tensor = _Sum.apply(mean * share)
    whole_var: Tensor = _Sum.apply((var + (mean - whole_mean).square()) * share)
    return whole_mean, whole_var, total


class _Sum(torch.autograd.Function):
    """Over all processes; each one's value reaches the loss of every one, so the gradient is their sum too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total
