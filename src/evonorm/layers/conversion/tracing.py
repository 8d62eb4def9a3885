"""Follows the data through a model: one graph where torch.fx can, else one for each part that it can.

Nothing is computed: symbols run through the model's own forward, on a copy that shares the parameters, once as in
training and once as in evaluation. Each call is known by its place in the code, so that it can be taken out there.
Code that asks for shapes gets those of the example inputs or, without, fails on symbols and gets assumed ones.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn
from torch.utils._pytree import tree_map

from evonorm.layers.conversion import shapes
from evonorm.layers.conversion.kinds import norm_of
from evonorm.layers.conversion.shapes import Shadow, ShapedProxy


@dataclass(frozen=True)
class Slot:
    """A call by an nn.Sequential of its child `key`."""

    container: str
    key: str


@dataclass(frozen=True)
class Position:
    """A call in the source of a method of the module `owner`; start, end: its line and column.

    The end alone says which call it is, but operators end where their last operand does.
    """

    owner: str
    method: str
    start: tuple[int, int]
    end: tuple[int, int]


Place = Slot | Position
_PASSED_OVER = ("torch.", f"{__name__}.", f"{shapes.__name__}.")


@dataclass
class Trace:
    """All that was seen. failures: module name -> why its forward could not be followed; then its parts were.

    assumed: module name -> inputs for which its forward was followed, since it asks for shapes and none were given.
    values: what a step gives, on the meta device, where known. inputs: module name -> the first argument of each of its
    calls, if there were example inputs.
    """

    model: nn.Module
    graphs: list[tuple[str, fx.Graph]] = field(default_factory=list)
    modules: dict[fx.Node, str] = field(default_factory=dict)
    places: dict[fx.Node, Place | None] = field(default_factory=dict)
    blocked: set[Place] = field(default_factory=set)
    failures: dict[str, str] = field(default_factory=dict)
    assumed: dict[str, str] = field(default_factory=dict)
    values: dict[fx.Node, Any] = field(default_factory=dict)
    inputs: dict[str, list[Any]] = field(default_factory=dict)

    def nodes(self) -> Iterator[tuple[str, fx.Node]]:
        """Every node of every graph, with the name of the module that the graph is of."""
        for part, graph in self.graphs:
            for node in graph.nodes:
                yield part, node

    def add(self, other: Trace) -> None:
        """Joins another trace of the same model."""
        self.graphs += other.graphs
        self.modules |= other.modules
        self.places |= other.places
        self.blocked |= other.blocked
        self.failures |= other.failures
        self.assumed |= other.assumed
        self.values |= other.values


def trace(model: nn.Module, example_inputs: Any = None) -> Trace:
    """Follows `model` in training and in evaluation; the model itself is not run, nor changed.

    example_inputs: a tensor, a tuple of arguments or a dict of them by name, of which a copy of the model is run.
    Raises ValueError if it does not take them.
    """
    seen = []
    for module in model.modules():
        norm_of(module)  # what is tried on numbers is, before torch.fx changes how modules are called
    skeleton = _skeleton(model)
    shadow = Shadow(skeleton)
    calls: dict[str, list[Any]] = {}
    if example_inputs is not None:
        calls = shadow.recorded(skeleton, *shapes.split(example_inputs))
    for training in (True, False):
        skeleton = _skeleton(model).train(training)
        names = {id(module): name for name, module in skeleton.named_modules()}
        result = Trace(skeleton)
        _follow("", skeleton, names, result, shadow, calls)
        seen.append(result)
    # A model that is whole in one mode is judged by that mode (torchvision's detectors want targets in training).
    whole = [result for result in seen if "" not in result.failures] or seen
    joined = Trace(model)
    for result in whole:
        joined.add(result)
    for name, given in calls.items():
        joined.inputs[name] = [args[0] if args else next(iter(kwargs.values()), None) for args, kwargs in given]
    return joined


def _skeleton(model: nn.Module) -> nn.Module:
    """A copy of the modules that shares every tensor."""
    return copied(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy. Raises ValueError with the remedy if the model refuses."""
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot be copied, and is not to be changed: {_reason(error)}; "
            "let it keep no tensors with a gradient's history, and nothing else that copy.deepcopy refuses"
        ) from error


def _follow(
    name: str, module: nn.Module, names: dict[int, str], result: Trace, shadow: Shadow, calls: dict[str, list[Any]]
) -> None:
    if norm_of(module) is not None or not any(True for _ in module.children()):
        return
    given = shapes.bound(module, *calls[name][0]) if name in calls else {}
    attempts = [(given, True)] if given else [({}, False), *((guess, True) for guess in (*shapes.guesses(module), {}))]
    why = None
    for inputs, exposing in attempts:
        tracer = _Tracer(module, names, shadow, inputs, exposing=exposing)
        try:
            graph = tracer.trace(module, _defaults(module, inputs))
        except Exception as error:  # whatever the model's own code raises on symbols
            why = why or _reason(error)
            continue
        if exposing and not given and not tracer.calls_norms_of(module):
            continue  # what was assumed led past some of it
        result.graphs.append((name, graph))
        result.modules |= tracer.modules
        result.places |= tracer.places
        result.blocked |= tracer.blocked
        result.failures |= tracer.failures
        result.assumed |= tracer.assumed | ({name: shapes.words(inputs)} if exposing and not given else {})
        result.values |= {node: shadow.values[node] for node in graph.nodes if node in shadow.values}
        opaque = list(tracer.failures)
        break
    else:
        result.failures[name] = why or ""
        opaque = [name]
    by_name = {names[id(part)]: part for part in module.modules()}
    for parent in opaque:
        for child in by_name[parent].children():
            _follow(names[id(child)], child, names, result, shadow, calls)


def _defaults(module: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Arguments that a caller may leave out are left out; those given that are no tensors are as they are given."""
    parameters = inspect.signature(module.forward).parameters.values()
    left = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty and p.name not in inputs}
    return left | {name: v for name, v in inputs.items() if v is None or isinstance(v, bool | int | float | str)}


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 90 else f"{text[:87]}..."


class _Tracer(fx.Tracer):
    """torch.fx's, with places, with nn.Sequential's slots, and with modules that fail left as one opaque call."""

    def __init__(
        self, root: nn.Module, names: dict[int, str], shadow: Shadow, inputs: dict[str, Any], *, exposing: bool
    ) -> None:
        super().__init__()
        self.names = names
        self.shadow = shadow
        self.inputs = inputs
        self.exposing = exposing
        self.assumed: dict[str, str] = {}
        self.modules: dict[fx.Node, str] = {}
        self.places: dict[fx.Node, Place | None] = {}
        self.blocked: set[Place] = set()
        self.failures: dict[str, str] = {}
        self._owners = [root]
        self._slot: Slot | None = None
        self._steps = iter(root._modules) if _is_sequential(root) else iter(())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        childless = not any(True for _ in m.children())
        return childless or norm_of(m) is not None or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.shadow.running:
            return forward(*args, **kwargs)
        place = self._place()
        name = self.names[id(m)]
        if self.is_leaf_module(m, self.path_of_module(m)):
            return self._leaf(m, name, args, kwargs, place)
        if place is not None:
            self.blocked.add(place)
        if _is_sequential(m) and len(args) == 1 and not kwargs:
            return self._sequence(m, name, args[0])
        before = set(self.graph.nodes)
        noted = self.failures, self.assumed
        self._owners.append(m)
        try:
            # forward, not the call: the hooks are the user's and are not to see symbols.
            return m.forward(*args, **kwargs)
        except Exception as error:
            self._forget(before, *noted)
            if not self.exposing:
                found, result = self._exposed(m, name, args, kwargs)
                if found:
                    return result
                self._forget(before, *noted)
            self.failures = self.failures | {name: _reason(error)}
            return self._leaf(m, name, args, kwargs, place)
        finally:
            self._owners.pop()

    def _exposed(self, m: nn.Module, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any]:
        """Once more with shapes for those who ask: whether that succeeds, and what the module gives then."""
        args, kwargs = fx.node.map_aggregate((args, kwargs), self._shaped)
        given = shapes.bound(m, args, kwargs)
        values = self.shadow.values
        nodes = {key: value.node for key, value in given.items() if isinstance(value, fx.Proxy)}
        known = {key: values[node] for key, node in nodes.items() if node in values}
        kept = set(self.graph.nodes)
        guesses = [guess for guess in shapes.guesses(m) if guess.keys() <= nodes.keys() - known.keys()]
        for guess in guesses or [{}]:
            self._forget(kept, self.failures, self.assumed)
            values.update({nodes[key]: value for key, value in guess.items()})
            self.exposing = True
            try:
                result = m.forward(*args, **kwargs)
            except Exception:
                found = False
            else:
                found = not guess or self.calls_norms_of(m)
            finally:
                self.exposing = False
            if found:
                self.assumed = self.assumed | {name: shapes.words(known | guess)}
                return True, result
            for key in guess:
                del values[nodes[key]]
        return False, None

    def calls_norms_of(self, module: nn.Module) -> bool:
        """Whether every normalization in `module` was called."""
        called = set(self.modules.values())
        return all(self.names[id(part)] in called for part in module.modules() if norm_of(part) is not None)

    def _shaped(self, value: Any) -> Any:
        return ShapedProxy(value.node, self) if isinstance(value, fx.Proxy) else value

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return ShapedProxy(node, self)

    def create_proxy(self, kind: str, *args: Any, **kwargs: Any) -> fx.Proxy:
        proxy = super().create_proxy(kind, *args, **kwargs)
        if kind in ("call_function", "call_method"):
            self.places[proxy.node] = self._position()
        if kind == "placeholder":
            if (value := self.inputs.get(str(proxy.node.target))) is not None:
                self.shadow.values[proxy.node] = tree_map(shapes.on_meta, value)
        elif kind in ("call_function", "call_method", "get_attr"):
            self.shadow.run(proxy.node, self.root, None)
        return proxy

    def _leaf(
        self, m: nn.Module, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], place: Place | None
    ) -> fx.Proxy:
        proxy = self.create_proxy("call_module", self.path_of_module(m), args, kwargs)
        self.modules[proxy.node] = name
        self.places[proxy.node] = place
        self.shadow.run(proxy.node, self.root, name)
        return proxy

    def _sequence(self, m: nn.Module, name: str, x: Any) -> Any:
        self._owners.append(m)
        try:
            for key, child in m._modules.items():
                self._slot = Slot(name, key)
                x = child(x)  # type: ignore[misc]
        finally:
            self._slot = None
            self._owners.pop()
        return x

    def _forget(self, kept: set[fx.Node], failures: dict[str, str], assumed: dict[str, str]) -> None:
        self.failures, self.assumed = failures, assumed
        for node in reversed(list(self.graph.nodes)):
            if node not in kept:
                self.graph.erase_node(node)
                self.modules.pop(node, None)
                self.places.pop(node, None)
                self.shadow.values.pop(node, None)

    def _place(self) -> Place | None:
        slot, self._slot = self._slot, None
        if slot is not None:
            return slot
        if len(self._owners) == 1 and _is_sequential(self._owners[0]):
            key = next(self._steps, None)
            return None if key is None else Slot(self.names[id(self._owners[0])], key)
        return self._position()

    def _position(self) -> Position | None:
        """The call in the owner's own methods that led here straight, through torch's frames alone."""
        owner = self._owners[-1]
        frame: Any = sys._getframe(1)
        while frame is not None and (frame.f_globals.get("__name__", "") + ".").startswith(_PASSED_OVER):
            frame = frame.f_back
        if frame is None or frame.f_code.co_argcount == 0:
            return None
        code = frame.f_code
        if frame.f_locals.get(code.co_varnames[0]) is not owner:
            return None
        method = method_of(type(owner), code)
        line, end_line, column, end_column = list(code.co_positions())[frame.f_lasti // 2]
        if method is None or None in (line, end_line, column, end_column):
            return None
        return Position(self.names[id(owner)], method, (line, column), (end_line, end_column))


def method_of(kind: type, code: Any) -> str | None:
    """The name of the method of `kind` that runs `code`, if it is the one in force."""
    for base in kind.__mro__:
        for name, value in vars(base).items():
            if getattr(value, "__code__", None) is code:
                return name if getattr(getattr(kind, name, None), "__code__", None) is code else None
    return None


def _is_sequential(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
