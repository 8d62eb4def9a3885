"""One run over several processes of torch.distributed: which part of a batch is whose, and what they tell each other.

The batch of the configuration is the whole one. Process r of s takes its images from n * r // s to n * (r + 1) // s:
parts of a batch that s does not divide differ by one image, and each weighs by its images. Batch statistics are taken
over the whole batch; a process draws dropout and augmentation of the whole batch and takes its part. So the metrics are
those of one process, to rounding, and the number of processes is no part of a run's identity: any number resumes it.

The first process alone touches the run's folder. The others learn from it what there is.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from evonorm.lab.errors import UserError
from evonorm.layers.functional import norm_act
from evonorm.layers.modules import NormActivation

# How long one that is done waits for the others to be: gloo aborts the process whose peer hangs up on it.
LEAVE_SECONDS = 30.0
T = TypeVar("T")


class Replicas:
    """This process among those of a run. Alone, everything is its own and nothing is sent."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.first = rank == 0
        self._whole, self._part = 0, slice(0, 0)
        self._apart = False
        self.broken = False

    def __deepcopy__(self, memo: Any) -> Replicas:
        return self  # a copied network is of these same processes

    def part(self, count: int) -> slice:
        """This process's part of a batch of so many images; dropout is drawn for it from now on."""
        if self.size == 1 or self._apart:
            part = slice(0, count)
        else:
            part = slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)
        self._whole, self._part = count, part
        return part

    def check(self, *, images: int, batch_size: int, steps: int) -> None:
        """Raises UserError if a batch of an epoch of so many steps has fewer images than there are processes."""
        smallest = min(batch_size, images - (steps - 1) * batch_size)
        if smallest < self.size:
            raise UserError(
                f"each of the {self.size} processes needs an image of every batch, and the smallest has {smallest}: "
                f"got {images} training images, batch_size={batch_size}; change one of them, or steps_per_epoch"
            )

    def device(self, device: torch.device) -> torch.device:
        """This process's own among the machine's GPUs."""
        if self.size == 1 or device.type != "cuda" or device.index is not None:
            return device
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", self.rank)))
        torch.cuda.set_device(own)
        return own

    def spread(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass leaves the whole batch's gradients, given this one, which it changes.

        Raises UserError for a network that keeps a batch normalization other than torch's own.
        """
        if self.size == 1:
            return model
        for module in list(model.modules()):
            if isinstance(module, NormActivation):
                module.sync = True
            for name, child in module.named_children():
                if isinstance(child, nn.Dropout):
                    setattr(module, name, _DropoutOfPart(child.p, self))
                elif isinstance(child, nn.modules.batchnorm._BatchNorm):
                    setattr(module, name, _batch_norm_of_whole(child, self))
        with warnings.catch_warnings():
            # The argument's new name is not known to the older torch that this package serves too.
            warnings.simplefilter("ignore", FutureWarning)
            # Buffers are alike without being sent: statistics are taken over the whole batch.
            return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)

    def loss(self, reduced: Callable[[Literal["mean", "sum"]], Tensor]) -> Tensor:
        """Mean loss of the batch; of several processes, what averages to it over them all. reduced: this one's."""
        if self.size == 1 or self._apart:
            return reduced("mean")
        return reduced("sum") * (self.size / self._whole)

    def mean(self, loss: Tensor, sums: Mapping[str, Tensor]) -> tuple[float, dict[str, float]]:
        """The whole batch's loss, not finite if any part's is not, and its sums."""
        loss_sum, *whole = self.sum(loss, *sums.values())
        return loss_sum / self.size, dict(zip(sums, whole, strict=True))

    def sum(self, *values: Tensor | float) -> list[float]:
        """Each of these numbers, added up over all processes."""
        if self.size == 1:
            return [value.item() if isinstance(value, Tensor) else value for value in values]
        return self.read([torch.as_tensor(value, device=_device()) for value in values])

    def read(self, values: Sequence[Tensor]) -> list[float]:
        """Each of these tensors of one number, added up over all processes, in one transfer from the first's device."""
        device = values[0].device
        sums = torch.stack([value.detach().to(device, torch.float64) for value in values])
        if self.size > 1:
            dist.all_reduce(sums)
        return [float(value) for value in sums.tolist()]

    def any(self, flag: bool) -> bool:
        """Whether it holds in any of the processes: all of them get the same answer."""
        return flag if self.size == 1 else self.sum(float(flag))[0] > 0

    def share(self, of_first: Callable[[], T]) -> T:
        """What the first process computes, or raises, in every process."""
        if self.size == 1:
            return of_first()
        told: list[tuple[T | None, Exception | None]] = [(None, None)]
        if self.first:
            try:
                told = [(of_first(), None)]
            except (UserError, OSError) as error:
                told = [(None, error)]
        dist.broadcast_object_list(told, src=0, device=_device())
        value, raised = told[0]
        if raised is not None:
            raise raised
        return value  # type: ignore[return-value]  # None only where T holds it

    def in_turn(self, load: Callable[[], T]) -> T:
        """What each process computes, the first before the others: they find what it left in a cache."""
        if not self.first:
            self.any(False)
        try:
            return load()
        finally:
            if self.first:
                self.any(False)

    @contextlib.contextmanager
    def hold(self, folder: contextlib.AbstractContextManager[None]) -> Iterator[None]:
        """The first process enters this context; what that raises, all raise."""
        with contextlib.ExitStack() as stack:
            self.share(lambda: stack.enter_context(folder))
            yield

    @contextlib.contextmanager
    def apart(self, model: nn.Module) -> Iterator[None]:
        """Inside, each process computes whole batches by itself, and hears of none."""
        sites = [module for module in model.modules() if isinstance(module, NormActivation)]
        self._apart = True
        try:
            for site in sites:
                site.sync = False
            yield
        finally:
            self._apart = False
            for site in sites:
                site.sync = self.size > 1

    def lost(self, error: BaseException) -> bool:
        """Whether this error means that another process is gone."""
        if self.size == 1 or not isinstance(error, RuntimeError):
            return False
        self.broken |= isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "NCCL" in str(error)
        return self.broken


class _DropoutOfPart(nn.Module):
    """nn.Dropout as the whole batch would have it: its draw, cut to this process's part."""

    def __init__(self, p: float, replicas: Replicas) -> None:
        super().__init__()
        self.p, self._replicas = p, replicas

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        whole = x.new_ones((self._replicas._whole, *x.shape[1:]))
        return x * F.dropout(whole, self.p)[self._replicas._part]


class _BatchNormOfWhole(nn.BatchNorm2d):
    """nn.BatchNorm2d with statistics over the whole batch; torch's own that does so needs a GPU."""

    _replicas: Replicas

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self._replicas._apart:
            return super().forward(x)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return norm_act(
            x,
            "bn-relu",
            self.weight,
            self.bias,
            running_mean=self.running_mean,
            running_var=self.running_var,
            training=True,
            eps=self.eps,
            momentum=0.1 if self.momentum is None else self.momentum,
            activate=False,
            backend="reference",
            sync=True,
        )


def _batch_norm_of_whole(norm: nn.Module, replicas: Replicas) -> nn.Module:
    """The same parameters and buffers under another forward."""
    if type(norm) is not nn.BatchNorm2d:
        raise UserError(
            f"a {type(norm).__name__} that the network keeps takes the statistics of one process alone: train it in "
            "one process, or replace it too (plain_norms=affine or replace)"
        )
    made = _BatchNormOfWhole.__new__(_BatchNormOfWhole)
    made.__dict__.update(norm.__dict__)
    made._replicas = replicas
    return made


_joined: Replicas | None = None


def current() -> Replicas:
    """The processes that this one joined, or that torch.distributed is initialized for; else this one alone."""
    if _joined is not None:
        return _joined
    if not (dist.is_available() and dist.is_initialized()):
        return Replicas()
    return Replicas(dist.get_rank(), dist.get_world_size())


@contextlib.contextmanager
def launched(device: str) -> Iterator[Replicas]:
    """Joins the processes that `torchrun` started, if it did, and leaves them together. device: as in TrainConfig.

    Raises UserError if they do not find each other.
    """
    global _joined
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Replicas()
        return
    cuda = torch.cuda.is_available() and device != "cpu"
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("nccl" if cuda else "gloo")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes of torchrun do not find each other: {error}") from None
    _joined = current()
    sound = False
    try:
        yield _joined
        sound = True
    finally:
        leave(_joined, wait=sound and not _joined.broken)
        _joined = None


def leave(replicas: Replicas, *, wait: bool) -> None:
    """Ends this process's part in the group. wait: until the others are done too."""
    store = dist.distributed_c10d._get_default_store()
    with contextlib.suppress(RuntimeError):  # the store, or a process, is gone
        store.set(f"evonorm done {replicas.rank}", "")
        if wait:
            done = [f"evonorm done {rank}" for rank in range(replicas.size)]
            store.wait(done, timedelta(seconds=LEAVE_SECONDS))
    dist.destroy_process_group()


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
