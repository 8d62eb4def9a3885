"""Running statistics, blended once a batch, whoever took the batch's."""

from __future__ import annotations

import torch
from torch import Tensor

from evonorm.layers.row import NormAct


def blend(
    row: NormAct,
    parameters: dict[str, Tensor | None],
    mean: Tensor,
    var: Tensor,
    count: int | Tensor,
    momentum: float,
) -> None:
    """running = (1 - momentum) * running + momentum * batch, in place, outside autograd; of those that the row has.

    mean, var: of the batch, biased, any shape with C elements. count: values a channel that they are taken over, a
    tensor where it is told by the device, which is not waited for; an empty batch has no statistics, and its NaN must
    not reach the running ones. A row that torch has itself keeps the unbiased variance, as torch does.
    """
    factor: float | Tensor
    if isinstance(count, Tensor):
        factor = count / (count - 1).clamp(min=1)
    elif count == 0:
        return
    else:
        factor = count / (count - 1) if count > 1 else 1.0
    unbiased = var if row.native is None else var * factor
    for name, batch in (("running_mean", mean), ("running_var", unbiased)):
        running = parameters.get(name)
        if running is not None:
            taken = batch.detach()
            if taken.dim() != 1 or taken.dtype is not running.dtype:  # each costs as much as a small map's mean
                taken = taken.flatten().to(running.dtype)
            if isinstance(count, Tensor):
                taken = torch.where(count > 0, taken, running)
            unwatched(running).lerp_(taken, momentum)


def unwatched(running: Tensor) -> Tensor:
    """Running statistics as they are updated: a backward that still holds them does not read them.

    torch's batch_norm keeps what it was given for the backward, also in training, where it needs none of it; it changes
    the tensors in place itself without autograd's knowledge, and so must whoever else does between the two. What does
    read them, the backward in evaluation, is given a copy.
    """
    return running.data
