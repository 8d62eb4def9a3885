"""Which tensor of a diverged step went non-finite first, how large things were before it, and why."""

from __future__ import annotations

import copy
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evonorm.layers.modules import NormActivation

# Beyond this, squares and sums of float32 are about to overflow (largest float32: 3.4e38).
HUGE = 1e15
# Where torch.nn.utils.parametrize keeps what a module's parameters are computed by.
_COMPUTED = "parametrizations"


@dataclass(frozen=True)
class Diagnosis:
    """kind and tensor: what went non-finite first; tensor is None where the replay did not reproduce the fault.

    magnitudes: largest |output| of each module before it, in order; of all that the replay saw where there is none.
    """

    kind: Literal["parameter", "forward", "loss", "gradient", "not reproduced"]
    tensor: str | None
    cause: str
    magnitudes: list[dict[str, Any]] = field(default_factory=list)


def diagnose(model: nn.Module, loss_of: Callable[[nn.Module], Tensor], *, loss: float | None = None) -> Diagnosis:
    """Replays one step on a copy of the model, watching every tensor.

    The copy runs eagerly, whatever of it was compiled: compiled modules call no hooks. model: in the state before the
    step. loss_of: forward pass and loss of the step's batch, with its random state. loss: what the step itself had, to
    hold the replay against; a fault that the replay does not show is not named.
    """
    model, compiled = _eager(model)
    model.zero_grad(set_to_none=True)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not _finite(value):
            cause = (
                f"{name} was already non-finite before this step: the update before it overflowed. "
                "Lower the learning rate, or clip gradients (clip_norm)."
            )
            return Diagnosis("parameter", name, cause)

    watch = _Watch(model)
    with torch.compiler.set_stance("force_eager"):  # of functions too that are compiled inside of modules
        replayed = loss_of(model)
        if loss is not None and math.isfinite(loss) != _finite(replayed):
            return _another_fault(loss, replayed.item(), watch, compiled=compiled)
        if watch.first_forward is not None:
            name, module = watch.first_forward
            return Diagnosis("forward", name, _forward_cause(name, module, watch.magnitudes), watch.magnitudes)
        if not _finite(replayed):
            return _loss_fault(watch)
        replayed.backward()  # type: ignore[no-untyped-call]
    if watch.first_gradient is None:
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        watch.first_gradient = next((name for name, gradient in gradients.items() if not _finite(gradient)), None)
    if watch.first_gradient is not None:
        return Diagnosis("gradient", watch.first_gradient, _gradient_cause(watch), watch.magnitudes)
    cause = "Replaying the step gave finite numbers throughout: the fault is not in the step's state."
    return Diagnosis("not reproduced", None, cause + _where_else(compiled=compiled), watch.magnitudes)


def diagnose_validation(model: nn.Module, validate: Callable[[], Any]) -> Diagnosis:
    """Repeats a validation that was not finite, watching every tensor. model: keeps the hooks, for its run ends."""
    said = "Training stayed finite to its end; its last validation did not. "
    kept = [*model.named_parameters(), *model.named_buffers()]
    if (name := next((name for name, value in kept if not _finite(value)), None)) is not None:
        return Diagnosis("parameter", name, f"{said}{name} is not finite: lower the learning rate.")
    watch = _Watch(model)
    validate()
    if watch.first_forward is not None:
        name, module = watch.first_forward
        return Diagnosis("forward", name, said + _forward_cause(name, module, watch.magnitudes), watch.magnitudes)
    found = _loss_fault(watch)
    return replace(found, cause=said + found.cause)


def is_compiled(model: nn.Module) -> bool:
    """Whether torch.compile is around a module of it, or its method compile() or a compiled `forward` in one."""
    if "torch._dynamo" not in sys.modules:  # it takes a second to import
        return False
    from torch._dynamo import OptimizedModule

    return any(
        isinstance(one, OptimizedModule)
        or one._compiled_call_impl is not None
        or hasattr(vars(one).get("forward"), "_torchdynamo_orig_callable")
        for one in model.modules()
    )


def _eager(model: nn.Module) -> tuple[nn.Module, bool]:
    """A copy without what torch.compile put around its modules, so that their names are the code's; and whether it did.

    Compiled are modules in a wrapper, modules by their method compile(), and methods `forward` of one module.
    """
    from torch._dynamo import OptimizedModule

    # The method compile() keeps what it made in the module; a copy is without it.
    compiled = is_compiled(model)
    model = copy.deepcopy(model._orig_mod if isinstance(model, OptimizedModule) else model)
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if isinstance(child, OptimizedModule):
                module._modules[name] = child._orig_mod
    for module in model.modules():
        module._compiled_call_impl = None
        own: Any = vars(module).get("forward")
        if hasattr(own, "_torchdynamo_orig_callable") and inspect.ismethod(method := inspect.unwrap(own)):
            # It is bound to the module that was copied.
            module.forward = types.MethodType(method.__func__, module)
    return model, compiled


class _Watch:
    """Hooks on every leaf module: its largest output, the first non-finite output, the first non-finite gradient."""

    def __init__(self, model: nn.Module) -> None:
        self.magnitudes: list[dict[str, Any]] = []
        self.first_forward: tuple[str, nn.Module | None] | None = None
        self.first_gradient: str | None = None
        for name, module in model.named_modules():
            # A convolution whose weight is computed, as by spectral norm, is watched as the convolution that it is.
            if {child for child, _ in module.named_children()} <= {_COMPUTED} and _COMPUTED not in name.split("."):
                module.register_forward_hook(self._forward_hook(name))
        model.register_forward_hook(self._see_end)

    def largest(self) -> float:
        """Largest |output| of the last module before the fault."""
        return float(self.magnitudes[-1]["largest"]) if self.magnitudes else 0.0

    def _forward_hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found = list(_tensors(output))
            if self.first_forward is not None or not found:
                return
            if not all(_finite(one) for one in found):
                given = all(_finite(one) for one in _tensors(inputs))
                self.first_forward = (name, module) if given else (f"input of {name}", None)
                return
            largest = max(float(one.detach().abs().max()) for one in found)
            self.magnitudes.append({"module": name, "largest": largest})
            for one in found:
                if one.requires_grad:
                    one.register_hook(see_gradient)  # type: ignore[no-untyped-call]

        def see_gradient(gradient: Tensor) -> None:
            self._see_gradient(f"gradient of {name}'s output", gradient)

        return hook

    def _see_end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.first_forward is None and not all(_finite(one) for one in _tensors(output)):
            self.first_forward = "output of the network", None

    def _see_gradient(self, name: str, gradient: Tensor) -> None:
        if self.first_gradient is None and not _finite(gradient):
            self.first_gradient = name


def _loss_fault(watch: _Watch) -> Diagnosis:
    if not watch.magnitudes:
        cause = (
            "The loss was not finite, and the replay saw none of the network's modules: it cannot say where it began."
        )
        return Diagnosis("not reproduced", None, cause)
    cause = f"Every activation was finite, but the loss was not: the output reached {watch.largest():.3g}."
    return Diagnosis("loss", "loss", f"{cause} Lower the learning rate.", watch.magnitudes)


def _another_fault(loss: float, replayed: float, watch: _Watch, *, compiled: bool) -> Diagnosis:
    """The step's loss was finite and the replay's is not, or the other way round."""
    if math.isfinite(loss):
        first = f", first at {watch.first_forward[0]}" if watch.first_forward is not None else ""
        cause = (
            f"The step's loss was {loss:.4g} and a gradient was not finite; replayed, the loss is not finite{first}."
        )
    else:
        cause = f"The step's loss was not finite; replayed, it is {replayed:.4g}."
    cause += " So the fault is not in the step's state alone."
    return Diagnosis("not reproduced", None, cause + _where_else(compiled=compiled), watch.magnitudes)


def _where_else(*, compiled: bool) -> str:
    if compiled:
        return " The step ran compiled, the replay eagerly: suspect the compiled code, and try without torch.compile."
    return " Suspect what differs from one time to the next: another device or kernel, or memory that is overwritten."


def _forward_cause(name: str, module: nn.Module | None, magnitudes: list[dict[str, Any]]) -> str:
    largest = max((entry["largest"] for entry in magnitudes), default=0.0)
    if largest > HUGE:
        peak = max(magnitudes, key=lambda entry: float(entry["largest"]))["module"]
        return (
            f"Activations grew to {largest:.3g} at {peak} before {name} overflowed: "
            "lower the learning rate, clip gradients (clip_norm), or use a layer that normalizes."
        )
    if module is None:
        return (
            f"What the network computes between its modules went non-finite: the {name} was the first seen, after "
            f"outputs up to {largest:.3g}. Lower the learning rate, or clip gradients (clip_norm)."
        )
    if isinstance(module, NormActivation):
        return (
            f"{name} ({module.layer}) divided by a statistic that came out zero or infinite, with inputs up to "
            f"{largest:.3g}: raise its epsilon (norm_eps), or use precision fp32."
        )
    return (
        f"{name} overflowed on finite inputs up to {largest:.3g}, so its weights are too large: "
        "lower the learning rate, or clip gradients (clip_norm)."
    )


def _gradient_cause(watch: _Watch) -> str:
    largest = max((entry["largest"] for entry in watch.magnitudes), default=0.0)
    return (
        f"The forward pass was finite (activations up to {largest:.3g}), but going backward {watch.first_gradient} "
        "was not: lower the learning rate, clip gradients (clip_norm), or use precision fp32."
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of real numbers in what a module takes or gives."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value.detach()).all())
