"""Follows the data through a model: one graph where torch.fx can, else one for each part that it can.

Nothing is computed: symbols run through the model's own forward, on a copy that shares the parameters, once as in
training and once as in evaluation. Code that asks for shapes gets those of the example inputs or, without, fails on
symbols and gets assumed ones.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from evonorm.layers.conversion import shapes
from evonorm.layers.conversion.kinds import norm_of
from evonorm.layers.conversion.shapes import Shadow
from evonorm.layers.conversion.tracer import Place, Tracer, reason


@dataclass
class Trace:
    """All that was seen. failures: module name -> why its forward could not be followed; then its parts were.

    assumed: module name -> what its forward was followed for, where that was not given: inputs, if it asks for their
    shapes, and flags at their defaults.
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
            f"{type(model).__name__} cannot be copied, and is not to be changed: {reason(error)}; "
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
        tracer = Tracer(module, names, shadow, inputs, exposing=exposing)
        try:
            graph = tracer.trace(module, _defaults(module, inputs))
        except Exception as error:  # whatever the model's own code raises on symbols
            why = why or reason(error)
            continue
        if exposing and not given and not tracer.calls_norms_of(module):
            continue  # what was assumed led past some of it
        result.graphs.append((name, graph))
        result.modules |= tracer.modules
        result.places |= tracer.places
        result.blocked |= tracer.blocked
        result.failures |= tracer.failures
        guessed, flags = exposing and not given, _flags(module, inputs)
        if guessed or flags:
            tracer.assumed[name] = shapes.words((inputs if guessed else {}) | flags)
        result.assumed |= tracer.assumed
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


def _flags(module: nn.Module, inputs: dict[str, Any]) -> dict[str, bool]:
    """Arguments with True or False as a default that are not given: the other value may take another way."""
    parameters = inspect.signature(module.forward).parameters.values()
    return {p.name: p.default for p in parameters if isinstance(p.default, bool) and p.name not in inputs}


def _defaults(module: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Arguments that a caller may leave out are left out; those given that are no tensors are as they are given."""
    parameters = inspect.signature(module.forward).parameters.values()
    left = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty and p.name not in inputs}
    return left | {name: v for name, v in inputs.items() if v is None or isinstance(v, bool | int | float | str)}
