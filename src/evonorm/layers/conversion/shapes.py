"""Shapes along a trace: every step is run beside it on the meta device, where tensors have shapes and no values.

Where an input is not known a convolution or a recurrent layer says itself what it gives, for an assumed size: enough
to tell (N, C) from a map, and what was pooled to a single value from what was not.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import operator
import warnings
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map

ASSUMED_SIZES = (224, 512, 32)
_ASSUMED_BATCH = 2
# What code asks a tensor for and gets, where the shapes are exposed to it.
_ASKED = {"shape", "ndim", "size", "dim", "ndimension", "numel", "nelement", "dtype", "is_floating_point", "is_complex"}
_ASKED |= {"is_cuda", "is_contiguous", "is_sparse", "is_quantized", "is_nested"}


class Shadow:
    """A copy of a model without values, in evaluation; values: what each step of a trace gives there, if known."""

    def __init__(self, model: nn.Module) -> None:
        with torch.no_grad():
            memo: dict[int, Any] = {
                id(t): nn.Parameter(on_meta(t), requires_grad=False) if isinstance(t, nn.Parameter) else on_meta(t)
                for t in (*model.parameters(), *model.buffers())
                if not is_lazy(t)
            }
            memo |= {id(t): t for t in (*model.parameters(), *model.buffers()) if is_lazy(t)}
        self.model = copy.deepcopy(model, memo).eval()
        self.modules = dict(self.model.named_modules())
        self.values: dict[fx.Node, Any] = {}
        self.running = False

    def run(self, node: fx.Node, root: nn.Module, module: str | None) -> None:
        """Takes note of what `node` gives; nothing if that is not known. module: the name of the one it calls."""
        try:
            known = all(one in self.values for one in node.all_input_nodes)
            if known:
                args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda one: self.values[one])
                self.values[node] = self._step(node, root, module, args, kwargs)
            elif module is not None and (value := self._assumed(self.modules[module])) is not None:
                self.values[node] = value
        except Exception:  # it needs values, or other shapes than those assumed
            self.values.pop(node, None)

    def _step(self, node: fx.Node, root: nn.Module, module: str | None, args: Any, kwargs: Any) -> Any:
        args, kwargs = tree_map(on_meta, (args, kwargs))
        target: Any = node.target
        if node.op == "get_attr":
            value: Any = root
            for part in target.split("."):
                value = getattr(value, part)
            return tree_map(on_meta, value)
        if module is not None:
            return self._quietly(self.modules[module].forward, args, kwargs)
        if node.op == "call_method":
            return self._quietly(getattr(args[0], target), args[1:], kwargs)
        return self._quietly(target, args, kwargs)

    def _quietly(self, function: Any, args: Any, kwargs: Any) -> Any:
        self.running = True
        try:
            with torch.no_grad(), warnings.catch_warnings(action="ignore"):
                return tree_map(on_meta, function(*args, **kwargs))
        finally:
            self.running = False

    def _assumed(self, module: nn.Module) -> Any:
        """What a module gives whose input is not known."""
        if isinstance(module, nn.RNNBase):
            given: Any = torch.empty(_ASSUMED_BATCH, 6, module.input_size, device="meta")
        else:
            given = _taken(module, ASSUMED_SIZES[1])
        return None if given is None else self._quietly(module.forward, (given,), {})

    def recorded(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, list[Any]]:
        """The arguments of every call of every module, on the meta device, when the model takes these.

        Raises ValueError if it does not take them.
        """
        try:
            given = tree_map(on_meta, (args, dict(kwargs)))
            return _recorded(copy.deepcopy(self.model), *given)
        except Exception:  # it needs values
            try:
                return _recorded(copy.deepcopy(model).eval(), args, dict(kwargs))
            except Exception as error:
                raise ValueError(
                    f"example_inputs are not what {type(model).__name__} takes: {type(error).__name__}: {error}; pass "
                    "one tensor, a tuple of the forward's arguments, or a dict of them by name"
                ) from error


def _recorded(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, list[Any]]:
    calls: dict[str, list[Any]] = defaultdict(list)
    for name, module in model.named_modules():

        def note(module: Any, args: Any, kwargs: Any, name: str = name) -> None:
            calls[name].append(tree_map(on_meta, (args, kwargs)))

        module.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad(), torch.random.fork_rng([]), warnings.catch_warnings(action="ignore"):
        model(*args, **kwargs)
    return dict(calls)


def split(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional arguments and those by name."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    return (tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)), {}


def bound(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the forward's parameters; nothing if they do not fit."""
    try:
        return dict(inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments)
    except TypeError:
        return {}


def guesses(module: nn.Module) -> list[dict[str, Any]]:
    """Inputs that a module may take, by the first convolution in it: the first argument of its forward, by name."""
    name = next(iter(inspect.signature(module.forward).parameters), None)
    conv = next((m for m in module.modules() if isinstance(m, _ConvNd)), None)
    if name is None or conv is None:
        return []
    return [{name: _taken(conv, size)} for size in ASSUMED_SIZES]


def _taken(module: nn.Module, size: int) -> Tensor | None:
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d | nn.InstanceNorm2d | nn.InstanceNorm3d):
        channels, dimensions = module.num_features, 2 if "2d" in type(module).__name__ else 3
    elif isinstance(module, _ConvNd):
        channels, dimensions = module.in_channels, len(module.kernel_size)
    else:
        return None
    return torch.empty(_ASSUMED_BATCH, channels, *[size] * dimensions, device="meta")


def on_meta(value: Any) -> Any:
    """A tensor's shape and dtype alone; other things as they are."""
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


def words(given: Mapping[str, Any]) -> str:
    """Arguments by name, tensors by their shapes, flags by their values."""

    def told(value: Any) -> str:
        if isinstance(value, bool):
            return f"={value}"
        return f" {tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}"

    return ", ".join(f"{name}{told(value)}" for name, value in given.items())


class ShapedProxy(fx.Proxy):
    """Tells its shape to code that asks for it, while its tracer exposes shapes."""

    def known(self) -> Any:
        """Its value without values, or None. How many things a layer returns is no question of shapes."""
        tracer: Any = self.tracer
        value = tracer.shadow.values.get(self.node)
        several = self.node.op == "call_module" and isinstance(value, tuple | list)
        return value if tracer.exposing or several else None

    def __getattr__(self, k: str) -> Any:
        if k in _ASKED and isinstance(value := self.known(), Tensor):
            return getattr(value, k)
        if k == "device" and isinstance(self.known(), Tensor):
            return torch.device("cpu")  # what code makes there is real
        return super().__getattr__(k)

    def __len__(self) -> int:
        if isinstance(value := self.known(), Tensor | tuple | list):
            return len(value)
        return super().__len__()

    def __iter__(self) -> Any:
        # Code that goes through an assumed tensor's samples as a rule expected a list.
        if isinstance(value := self.known(), tuple | list):
            return iter([operator.getitem(cast(Any, self), i) for i in range(len(value))])
        return super().__iter__()


def rank_demanded(node: fx.Node, modules: Mapping[fx.Node, nn.Module], keeps: Any) -> bool:
    """Whether some reader of a tensor takes maps alone, through steps that keep its rank (`keeps` says which)."""
    seen, waiting = set(), [node]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for user in one.users:
            module = modules.get(user)
            if isinstance(module, _ConvNd | nn.BatchNorm2d | nn.BatchNorm3d | nn.InstanceNorm2d | nn.InstanceNorm3d):
                return True
            if keeps(user):
                waiting.append(user)
    return False


def spatial(value: Any) -> int | None:
    """How many places a map has; 0 for (N, C), None if that is not known."""
    if not isinstance(value, Tensor):
        return None
    return 0 if value.dim() < 3 else int(torch.Size(itertools.islice(value.shape, 2, None)).numel())
