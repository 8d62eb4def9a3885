"""Batch statistics of a whole model: taken anew over a data set, or over all processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.lazy import LazyModuleMixin

from evonorm.layers.modules import NormActivation


def update_statistics(loader: Iterable[Any], model: nn.Module, device: torch.device | str | int | None = None) -> None:
    """Takes the running statistics of `model` anew, as the plain average over the batches of `loader`.

    What torch.optim.swa_utils.update_bn does for torch's batch norms, for these, torch's instance norms and every
    NormActivation, in one pass; after averaging weights, or wherever weights changed more than running statistics
    followed. loader: batches, each a tensor or a list or tuple whose first element is the model's input. device: where
    each input is moved to, if given.

    The model runs in training mode (dropout too, as in update_bn), eagerly, without gradients; modes and momenta are
    then what they were. A model without running statistics is left alone, and not run. Raises ValueError if `loader`
    is empty or a norm is lazy, TypeError if a batch is something else; the statistics are those before, if that is the
    first one.
    """
    _refuse_lazy(model, "update_statistics")
    kept: list[Any] = [module for module in model.modules() if _keeps(module)]
    if not kept:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = {module: module.momentum for module in kept}
    calls: dict[nn.Module, int] = defaultdict(int)

    def count(module: Any, args: Any) -> None:
        calls[module] += 1
        module.momentum = 1.0 / calls[module]

    hooks = [module.register_forward_pre_hook(count) for module in kept]
    begun = False
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # or each number would be compiled anew
            for batch in loader:
                x = _input_of(batch)
                if not begun:
                    begun = True
                    model.train()
                    for module in kept:
                        module.reset_running_stats()
                model(x if device is None else x.to(device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, momentum in momenta.items():
            module.momentum = momentum
        for module, training in modes.items():
            module.training = training
    if not begun:
        raise ValueError("loader gave no batch, so there are no statistics to take; an iterator is empty once used")


def convert_sync(model: nn.Module) -> nn.Module:
    """`model` with batch statistics taken over all processes of torch.distributed, changed in place and returned.

    What torch.nn.SyncBatchNorm.convert_sync_batchnorm does for torch's batch norms, for these and every NormActivation
    that has batch statistics. Ours run on any device; SyncBatchNorm, in whose place torch's go, on GPUs alone. A
    model that is itself a batch norm gives a new one. Raises ValueError if a batch norm is lazy.
    """
    _refuse_lazy(model, "convert_sync")
    for module in model.modules():
        if isinstance(module, NormActivation) and _keeps(module):
            module.sync = True
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return,no-untyped-call]


def _refuse_lazy(model: nn.Module, what: str) -> None:
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and isinstance(module, LazyModuleMixin):
            raise ValueError(
                f"{name or 'the model'} is a {type(module).__name__}, which does not know its channels yet: "
                f"run the model once on a batch before evonorm.{what}"
            )


def _keeps(module: Any) -> bool:
    return isinstance(module, NormActivation | _NormBase) and module.running_var is not None


def _input_of(batch: Any) -> Tensor:
    x = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(x, Tensor):
        raise TypeError(
            f"a batch must be a tensor, or a list or tuple that begins with one: got {type(batch).__name__}; pass "
            "a generator of the inputs, such as (batch['image'] for batch in loader)"
        )
    return x
