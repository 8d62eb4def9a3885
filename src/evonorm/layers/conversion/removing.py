"""How an activation is switched off: its module becomes an identity, or its call leaves a sequence or a method."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torch import fx

from evonorm.layers.conversion import written_out
from evonorm.layers.conversion.rewriting import OBJECT, Argument, Edit, Operation, locate
from evonorm.layers.conversion.tracer import Place, Position, Slot
from evonorm.layers.conversion.tracing import Trace


@dataclass(frozen=True)
class Removal:
    """One way to switch an activation off: the module `target` becomes an identity wherever it is registered, or only
    in the slot `key` of the sequence `target`, or `edit` takes it out of a method of `target`."""

    target: str
    key: str | None = None
    edit: Edit | None = None

    def __str__(self) -> str:
        if self.edit is not None:
            return f"{self.edit.text} in {self.target or 'the model'}.{self.edit.method}"
        return self.target if self.key is None else f"{self.target}[{self.key}]".lstrip(".")


class Remover:
    """Knows of every call in a trace what else stands or falls with it."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.modules = dict(trace.model.named_modules())
        self.calls: dict[str, set[fx.Node]] = defaultdict(set)
        self.at: dict[Place, set[fx.Node]] = defaultdict(set)
        for _, node in trace.nodes():
            if node in trace.modules:
                self.calls[trace.modules[node]].add(node)
            if (place := trace.places.get(node)) is not None:
                self.at[place].add(node)

    def way(self, node: fx.Node, source: fx.Node, wanted: set[fx.Node]) -> Removal | str:
        """How an activation's call can go when all of `wanted` go, so that `source` stays, or why it cannot."""
        place = self.trace.places.get(node)
        if node.op == "call_module":
            name = self.trace.modules[node]
            if self.calls[name] <= wanted and not self._is_called_unseen(name):
                return Removal(name)
        if place is None:
            return "it is called outside the model's own methods"
        if place in self.trace.blocked or not self.at[place] <= wanted:
            return "the same line of code serves others, which need it"
        if isinstance(place, Slot):
            return Removal(place.container, key=place.key)
        return self._edit(node, source, place)

    def _edit(self, node: fx.Node, source: fx.Node, place: Position) -> Removal | str:
        """How a call or an operation goes from the method where it stands, by the first way that its source allows."""
        if isinstance(self.modules[place.owner], fx.GraphModule):
            return "it stands in the code that torch.fx has written; convert the model before torch.fx does"
        kind, edit = type(self.modules[place.owner]), "it does not read the normalization's output by itself"
        for chain in written_out.chains(node, source):
            places = [self.trace.places.get(step) for step, _ in chain]
            operations = [
                Operation(at.start, at.end, _argument(step, argument))
                for at, (step, argument) in zip(places, chain, strict=True)
                if isinstance(at, Position) and (at.owner, at.method) == (place.owner, place.method)
            ]
            found = locate(kind, place.method, operations) if len(operations) == len(chain) else edit
            if isinstance(found, Edit):
                return Removal(place.owner, edit=found)
            edit = found
        return edit

    def _is_called_unseen(self, name: str) -> bool:
        """Whether a module whose forward could not be followed holds this one too."""
        module = self.modules[name]
        return any(child is module for parent in self.trace.failures for child in self.modules[parent].children())


def _argument(node: fx.Node, argument: Argument) -> Argument:
    """An argument as the source has it: a method's first is its object."""
    if node.op == "call_method" and isinstance(argument, int):
        return argument - 1 if argument else OBJECT
    return argument
