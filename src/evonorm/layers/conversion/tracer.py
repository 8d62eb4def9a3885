"""torch.fx's tracer, which also keeps where in the code each call stands, so that it can be taken out there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
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


def reason(error: Exception) -> str:
    """What an error says, in one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 90 else f"{text[:87]}..."


class Tracer(fx.Tracer):
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
        """Norms too, and what holds nothing."""
        childless = not any(True for _ in m.children())
        return childless or norm_of(m) is not None or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What the module gives, followed inside unless it is a leaf or fails."""
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
            self.failures = self.failures | {name: reason(error)}
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
        """One that may tell its shape."""
        return ShapedProxy(node, self)

    def create_proxy(self, kind: str, *args: Any, **kwargs: Any) -> fx.Proxy:
        """With its place in the code, and its shape where that is known."""
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
