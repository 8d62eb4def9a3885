"""What follows each normalization, and which activations can be taken out with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from evonorm.layers.conversion import shapes, written_out
from evonorm.layers.conversion.activations import activation_label, function_label, writes_in_place
from evonorm.layers.conversion.kinds import Norm, is_norm_function, norm_of
from evonorm.layers.conversion.removing import Removal, Remover
from evonorm.layers.conversion.structure import follower
from evonorm.layers.conversion.tracer import Position
from evonorm.layers.conversion.tracing import Trace


@dataclass(frozen=True)
class Refusal:
    """Why a normalization is kept, in words; chosen: by the caller, or because it is none to replace."""

    words: str
    chosen: bool = False


@dataclass(frozen=True)
class Found:
    """A normalization of the model. follows: in words, what its output meets. activation: label of the activation of
    which it is the sole source, None if there is none. removals: how that is switched off; empty if it is inside.
    conv: the convolution without bias that feeds it alone. flat: its input is (N, C), or None if that is not known.
    single: its maps have one value each. traced: a forward that calls it was followed. refused: why it is kept although
    an activation may follow. stuck: an activation follows that cannot be switched off, or may follow unseen."""

    name: str
    norm: Norm
    follows: str
    activation: str | None = None
    removals: tuple[Removal, ...] = ()
    conv: str | None = None
    flat: bool | None = False
    single: bool = False
    traced: bool = True
    refused: Refusal | None = None
    stuck: bool = False


@dataclass
class _Draft:
    found: Found
    activations: list[fx.Node]


def find(trace: Trace, refuse: Callable[[Found], Refusal | None]) -> list[Found]:
    """Every normalization of the traced model, in the model's order; functional ones last.

    refuse: why one is to be kept, or None. It is asked before activations are dealt out: what serves a kept one and
    another together stays.
    """
    return _Finder(trace).find(refuse)


class _Finder:
    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.modules = dict(trace.model.named_modules())
        self.calls: dict[str, list[tuple[str, fx.Node]]] = defaultdict(list)
        for part, node in trace.nodes():
            if node in trace.modules:
                self.calls[trace.modules[node]].append((part, node))
        self.remover = Remover(trace)
        self.called = {node: self.modules[name] for node, name in trace.modules.items()}
        self.labels: dict[str, tuple[str | None, bool]] = {}
        # What each activation reads: the output of its normalization.
        self.sources: dict[fx.Node, fx.Node] = {}

    def find(self, refuse: Callable[[Found], Refusal | None]) -> list[Found]:
        drafts = {name: self._draft(name, norm) for name, m in self.modules.items() if (norm := norm_of(m)) is not None}
        for draft in drafts.values():
            if (refusal := refuse(draft.found)) is not None:
                draft.found = replace(draft.found, refused=refusal)
                draft.activations = []
        # What one site cannot switch off may keep another from it, so until nothing changes.
        while True:
            wanted = {node for draft in drafts.values() for node in draft.activations}
            ways = {node: self.remover.way(node, self.sources[node], wanted) for node in wanted}
            refused = False
            for draft in drafts.values():
                why = next((way for node in draft.activations if isinstance(way := ways[node], str)), None)
                if why is not None:
                    label = draft.found.activation
                    words = f"{label} follows, which cannot be switched off for it alone: {why}"
                    draft.found = replace(draft.found, follows=words, activation=None, stuck=True)
                    draft.activations = []
                    refused = True
            if not refused:
                break
        for draft in drafts.values():
            if draft.activations:
                removals = dict.fromkeys(way for node in draft.activations if isinstance(way := ways[node], Removal))
                draft.found = replace(draft.found, removals=tuple(removals))
        return [draft.found for draft in drafts.values()] + self._functional()

    def _functional(self) -> list[Found]:
        seen = {}
        for part, node in self.trace.nodes():
            if node.op == "call_function" and is_norm_function(node.target):
                place = self.trace.places.get(node)
                where = place.owner if isinstance(place, Position) else part
                kind = f"F.{getattr(node.target, '__name__', 'norm')}"
                name = f"{where}: {kind}" if where else kind
                why = "called as a function, not a module"
                seen[name] = Found(name, Norm(kind, "other", reason=why), why, refused=Refusal(why))
        return list(seen.values())

    # One normalization.

    def _draft(self, name: str, norm: Norm) -> _Draft:
        calls = self.calls[name]
        if not calls:
            flat, single = self._space(name, [])
            return _Draft(replace(self._unseen(name, norm), flat=flat, single=single), [])
        conv = self._source(calls)
        flat, single = self._space(name, [node for _, node in calls])
        if norm.activation is not None:
            found = Found(name, norm, f"{norm.activation} inside", norm.activation, conv=conv, flat=flat, single=single)
            return _Draft(found, [])
        followed = [self._follow(part, node) for part, node in calls]
        words = next((words for words, label, _ in followed if label is None), followed[0][0])
        labels = {label for _, label, _ in followed}
        if len(labels) > 1:
            words = f"it is called several times, and what follows differs: {words}"
        label = followed[0][1] if len(labels) == 1 else None
        activations = [node for _, _, nodes in followed for node in nodes] if label else []
        return _Draft(Found(name, norm, words, label, conv=conv, flat=flat, single=single), activations)

    def _unseen(self, name: str, norm: Norm) -> Found:
        """A normalization that no forward calls that could be followed."""
        owner, _, key = name.rpartition(".")
        if norm.activation is not None:
            return Found(name, norm, f"{norm.activation} inside", norm.activation, traced=False)
        if owner not in self.trace.failures:
            return Found(name, norm, "no forward that could be followed calls it", traced=False)
        parent = self.modules[owner]
        child = follower(parent, key)
        act = parent._modules.get(child) if child is not None else None
        label = activation_label(act) if act is not None else None
        homes = sum(module is act for m in self.modules.values() for module in m._modules.values())
        if child is None or label is None or homes != 1:
            words = f"what follows is unknown: {type(parent).__name__} could not be followed"
            return Found(name, norm, words, traced=False, stuck=True)
        target = f"{owner}.{child}" if owner else child
        words = f"{label} follows in the source of {type(parent).__name__}"
        return Found(name, norm, words, label, (Removal(target),), traced=False)

    def _follow(self, part: str, node: fx.Node) -> tuple[str, str | None, list[fx.Node]]:
        """What the output of a call meets: in words, the label of its activation, the activation's calls."""
        users = self._users(node)
        if not users:
            return "nothing reads its output", None, []
        self.sources |= users
        told = [self._activation(user, source) for user, source in users]
        first_label, in_place = told[0]
        if first_label is not None and in_place:
            # Whoever reads the tensor after this reads it activated.
            return f"{first_label} follows", first_label, [users[0][0]]
        labels = {label for label, _ in told}
        if len(labels) == 1 and first_label is not None:
            return f"{first_label} follows", first_label, [user for user, _ in users]
        if (written := written_out.find(node, self.called)) is not None:
            label, end = written
            self.sources[end] = node
            return f"{label} follows, written out", label, [end]
        others = [self._words(part, user) for (user, _), (label, _) in zip(users, told, strict=True) if label is None]
        if None not in labels:
            return f"several activations follow: {', '.join(sorted(str(label) for label in labels))}", None, []
        if labels != {None}:
            activated = next(label for label in labels if label)
            return f"{activated} follows, but its output is read elsewhere too: {others[0]}", None, []
        return others[0], None, []

    def _users(self, node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
        """Who reads a tensor, in the order of the calls, identities passed through: (reader, what it reads)."""
        users = []
        for user in node.users:
            if user in self.trace.modules and isinstance(self.modules[self.trace.modules[user]], nn.Identity):
                users += self._users(user)
            else:
                users.append((user, node))
        return users

    def _activation(self, node: fx.Node, source: fx.Node) -> tuple[str | None, bool]:
        """The label of a call that is an activation of `source` alone, and whether it overwrites it."""
        if node.all_input_nodes != [source]:
            return None, False
        if node.op == "call_module":
            return self._module_label(self.trace.modules[node])
        if node.op in ("call_function", "call_method"):
            name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
            in_place = name.endswith("_") or any(x is True for x in (*node.args[1:], node.kwargs.get("inplace")))
            label = function_label(node.target)
            if label == "GELU" or (label is None and in_place):
                label = written_out.label_of([node], source, {})
            return label, in_place
        return None, False

    def _module_label(self, name: str) -> tuple[str | None, bool]:
        if name not in self.labels:
            module = self.modules[name]
            label = activation_label(module)
            self.labels[name] = label, label is not None and writes_in_place(module)
        return self.labels[name]

    def _words(self, part: str, node: fx.Node) -> str:
        if node.op == "output":
            where = part or "the model"
            return f"it is the output of {where}" + (", beyond which the data could not be followed" if part else "")
        if node.op == "call_module":
            name = self.trace.modules[node]
            opaque = ", which could not be followed" if name in self.trace.failures else ""
            return f"{type(self.modules[name]).__name__} follows{opaque}"
        target: Any = node.target
        name = str(target if isinstance(target, str) else getattr(target, "__name__", target)).strip("_")
        known = {"add": "an addition", "iadd": "an addition", "mul": "a multiplication", "imul": "a multiplication"}
        known |= {"cat": "a concatenation", "sigmoid": "a sigmoid, a gate,", "stack": "a concatenation"}
        return f"{known.get(name, name)} follows"

    # What feeds it.

    def _source(self, calls: list[tuple[str, fx.Node]]) -> str | None:
        """The convolution without a bias that alone feeds these calls."""
        convs = set()
        for _, node in calls:
            source = _input(node)
            name = self.trace.modules.get(source) if source is not None else None
            module = self.modules[name] if name is not None else None
            sole = source is not None and len(source.users) == 1
            takes = isinstance(module, _ConvNd) and module.bias is None and sole
            convs.add(name if takes else None)
        conv = convs.pop() if len(convs) == 1 else None
        return conv if conv is None or len(self.calls[conv]) == len(calls) else None

    def _space(self, name: str, calls: list[fx.Node]) -> tuple[bool | None, bool]:
        """Whether a normalization's input is (N, C), None if that is not known, and whether its maps are 1x1."""
        sources = [_input(node) for node in calls]
        told = [self.trace.values.get(node) if node is not None else None for node in sources]
        run = self.trace.inputs.get(name, [])
        known = [value for value in (*told, *run) if isinstance(value, Tensor)]
        single = any(shapes.spatial(value) == 1 for value in known)
        least = _least_rank(self.modules[name])
        if least is None:
            return False, single
        if any(value.dim() < least for value in known):
            return True, single
        if isinstance(self.modules[name], nn.InstanceNorm2d | nn.InstanceNorm3d):
            return False, single  # a single map without a batch is not what networks are given
        if run or (calls and all(self._has_space(*pair) for pair in zip(sources, told, strict=True))):
            return False, single
        return None, single

    def _has_space(self, source: fx.Node | None, value: Any) -> bool:
        if source is None:
            return False
        return isinstance(value, Tensor) or shapes.rank_demanded(source, self.called, self._keeps_rank)

    def _keeps_rank(self, node: fx.Node) -> bool:
        module = self.called.get(node)
        if module is not None:
            kept = isinstance(module, nn.Identity | nn.modules.dropout._DropoutNd)
            return kept or norm_of(module) is not None or self._module_label(self.trace.modules[node])[0] is not None
        return function_label(node.target) is not None


def _input(node: fx.Node) -> fx.Node | None:
    return node.all_input_nodes[0] if node.all_input_nodes else None


def _least_rank(norm: nn.Module) -> int | None:
    """The rank of a batch of maps, for norms that take less too; None for those that do not."""
    if isinstance(norm, nn.InstanceNorm2d | nn.InstanceNorm3d):
        return 4 if isinstance(norm, nn.InstanceNorm2d) else 5
    if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
        return None
    return 3 if isinstance(norm, _BatchNorm | nn.GroupNorm | _InstanceNorm) else None
