"""What must hold for any converted model, whoever built it; the tests and the zoo ask it.

Activations are counted where torch runs them, by the operators dispatched, and normalizations by their calls: neither
count knows how the converter finds them.
"""

from __future__ import annotations

import collections
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from evonorm import NormActivation, Plan, plan
from evonorm.layers import table
from evonorm.layers.conversion import Site
from evonorm.layers.conversion.kinds import OWN as OWN_FORMULA
from evonorm.layers.conversion.kinds import norm_of
from evonorm.layers.formula import Formula

ACTIVATIONS = {
    "relu",
    "hardtanh",
    "silu",
    "hardswish",
    "gelu",
    "leaky_relu",
    "elu",
    "mish",
    "_prelu_kernel",
    "threshold",
}
# By the label of an activation found: the activation of a row of its own kind. The table has ReLU's and SiLU's.
OWN: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": F.relu,
    "SiLU": F.silu,
    "Swish": F.silu,
    "ReLU6": F.relu6,
    "Hardswish": F.hardswish,
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "GELU": F.gelu,
    "GELU (tanh)": partial(F.gelu, approximate="tanh"),
}
Run = Callable[[nn.Module], Any]


class _Operators(TorchDispatchMode):
    """Counts the activations that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__.removesuffix("_") in ACTIVATIONS
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Counts:
    """Calls in one evaluation of the model; by_site: ours, by the layer's name."""

    activations: int
    norms: int
    by_site: collections.Counter[str]

    @property
    def ours(self) -> int:
        return self.by_site.total()


@contextmanager
def own_rows() -> Iterator[None]:
    """Rows `bn-LABEL` and `gn-LABEL` for every label of OWN, for the time of a test of own kinds."""
    with mock.patch.dict(table._ROWS):
        for label, activation in OWN.items():
            for family, extent in (("bn", "batch"), ("gn", "group")):
                if f"{family}-{label}" not in table.names():
                    table.add(f"{family}-{label}", _normalized(extent, activation))
        yield


def _normalized(extent: str, activation: Any) -> Formula:
    def formula(x: Any, s: Any, p: Any, affine: Any) -> Any:
        mean, std = getattr(s, f"{extent}_mean"), getattr(s, f"{extent}_std")
        return activation(affine((x - mean()) / std()))

    return formula


def counts(model: nn.Module, run: Run) -> Counts:
    """Activations that torch ran, calls of normalizations, calls of NormActivations with their activation on."""
    norms: collections.Counter[str] = collections.Counter()
    ours: collections.Counter[str] = collections.Counter()
    handles = []
    for name, module in model.named_modules():
        counter = ours if isinstance(module, NormActivation) and module.activate else norms
        if norm_of(module) is not None:

            def count(*_: Any, counter: collections.Counter[str] = counter, name: str = name) -> None:
                counter[name] += 1

            handles.append(module.register_forward_hook(count))
    with torch.no_grad(), _Operators() as operators:
        run(model)
    for handle in handles:
        handle.remove()
    return Counts(operators.count, norms.total(), ours)


def scramble(model: nn.Module) -> nn.Module:
    """Gives every normalization its own weights and statistics, so that a mix-up shows."""
    generator = torch.Generator().manual_seed(0)  # the processor's: the same model on every device
    with torch.no_grad():
        for module in model.modules():
            if norm_of(module) is None:
                continue
            for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                if name in ("weight", "running_var"):
                    value.copy_(torch.rand(value.shape, generator=generator, device="cpu") * 0.4 + 0.8)
                elif name in ("bias", "running_mean"):
                    value.copy_(torch.randn(value.shape, generator=generator, device="cpu") * 0.1)
    return model


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor inside what a model returned."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            yield from tensors(item)


def seeded(model: nn.Module, run: Run) -> list[Tensor]:
    """The model's outputs, evaluated with a fixed seed for what it draws."""
    with torch.no_grad(), torch.random.fork_rng([]):
        torch.manual_seed(0)
        return list(tensors(run(model.eval())))


def own_kind(model: nn.Module, run: Run) -> tuple[int, float]:
    """Sites that have a row of their own kind, and the largest error of the outputs once all are converted to it.

    Errors are relative to each output's largest value. Sites of each kind are converted one after the other.
    """
    converted, replaced = model, 0
    sites = plan(model).sites
    with own_rows():
        for family, kinds in (("bn", ("batch", "frozen")), ("gn", ("group",))):
            for label in {site.activation for site in sites if site.family in kinds} & set(OWN):

                def of_kind(site: Site, label: str | None = label, kinds: tuple[str, ...] = kinds) -> bool:
                    return site.activation == label and site.family in kinds

                made = plan(converted, f"{family}-{label}", where=of_kind, backend="reference")
                if made.replaced:
                    converted, replaced = made.apply(), replaced + len(made.replaced)
        before, after = seeded(model, run), seeded(converted, run)
    assert [t.shape for t in before] == [t.shape for t in after]
    errors = [
        float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-30))
        for a, b in zip(after, before, strict=True)
        if b.numel() and b.is_floating_point()
    ]
    assert all(error == error for error in errors), "outputs are not numbers"
    return replaced, max(errors, default=0.0)


def unchanged_parameters(model: nn.Module, run: Run, *, attempts: int = 4) -> list[str]:
    """Names of the new layers' trainable parameters that no training step changed.

    Several steps are tried, for layers that drop what passes through them at random.
    """
    model.train()
    new = {
        f"{name}.{own}": parameter
        for name, module in model.named_modules()
        if isinstance(module, NormActivation)
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad
    }
    before = {name: parameter.detach().clone() for name, parameter in new.items()}
    unchanged = list(new)
    for _ in range(attempts if new else 0):
        # Its steps are as large for a gradient of 1e-20 as for one of 1; nothing moves without a gradient.
        optimizer = torch.optim.Adam([*new.values()], lr=0.01, eps=1e-30)
        optimizer.zero_grad()
        outputs = [t for t in tensors(run(model)) if t.requires_grad]
        # A normalized tensor's sum has gradient zero.
        torch.autograd.backward(outputs, [torch.randn_like(t) for t in outputs])
        optimizer.step()
        unchanged = [name for name, parameter in new.items() if torch.equal(parameter, before[name])]
        if not unchanged:
            break
    return unchanged


@dataclass(frozen=True)
class Verdict:
    """One model's row in the table; own_kind: sites of the identity test and its error, None on the meta device."""

    norms: int
    replaced: int
    activations_before: int
    activations_after: int
    followed: bool
    why_kept: dict[str, int]
    own_kind: int | None = None
    own_kind_error: float | None = None


def check(model: nn.Module, run: Run, *, layer: str = "evonorm-s0", training: Run | None = None) -> Verdict:
    """Converts `model` and asserts what must hold. run: evaluates it; training: one step's outputs, default as run.

    Raises AssertionError if a site is unaccounted for, an activation lost or doubled, an output not finite, a new
    parameter untrained, a state_dict not loadable, or the own-kind conversion differs by more than rounding.
    """
    state = {name: value.clone() for name, value in scramble(model).eval().state_dict().items()}
    made, converted, before, after = converted_and_counted(model, run, layer)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items()), "the model was changed"
    outputs = seeded(converted, run)
    assert all(t.isfinite().all() for t in outputs if t.is_floating_point()), "outputs are not finite"

    again = Plan.from_json(made.to_json()).apply(model)
    again.load_state_dict(converted.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(seeded(again, run), outputs, strict=True))
    sites, error = own_kind(model, run)
    assert error < 1e-5, f"own kind: outputs differ by {error:g}"
    unchanged = unchanged_parameters(converted, training or run)
    assert not unchanged, f"no training step changes {unchanged}"
    return verdict(made, before, after, own_kind=sites, own_kind_error=error)


def check_counts(model: nn.Module, run: Run, *, layer: str = "evonorm-s0") -> Verdict:
    """As `check`, for a model on the meta device, whose tensors have no values: sites, activations, names of state."""
    made, converted, before, after = converted_and_counted(model.eval(), run, layer)
    again = Plan.from_json(made.to_json()).apply(model)
    again.load_state_dict(converted.state_dict())
    return verdict(made, before, after)


def converted_and_counted(model: nn.Module, run: Run, layer: str) -> tuple[Plan, nn.Module, Counts, Counts]:
    """The plan, the converted model, and the counts before and after; asserts that they add up."""
    norms = [name for name, module in model.named_modules() if norm_of(module) is not None]
    made = plan(model, layer)
    assert [site.name for site in made.sites if ": F." not in site.name] == norms, "every normalization has its site"
    assert str(made).count("\n") == len(made.sites) + len(made.unfollowed) + len(made.assumed)
    converted = made.apply()
    before, after = counts(model, run), counts(converted, run)
    assert before.norms == after.norms + after.ours, f"normalizations: {before}, {after}"
    # What several activations read at once has them all in one layer; torch does not count what is written out.
    called = [(site, calls) for site in made.replaced if (calls := after.by_site[site.name])]
    joined = sum(max(0, len(site.removals) - calls) for site, calls in called)
    written = sum(
        calls for site, calls in called if site.follows.endswith("written out") or site.activation == OWN_FORMULA
    )
    inside = after.ours + joined - written
    assert before.activations == after.activations + inside, f"activations: {before}, {after}, {joined=}, {written=}"
    return made, converted, before, after


def verdict(made: Plan, before: Counts, after: Counts, **more: Any) -> Verdict:
    """What the table says of a model."""
    reasons = collections.Counter(site.what.removeprefix("kept: ") for site in made.sites if not site.replaced)
    return Verdict(
        norms=len(made.sites),
        replaced=len(made.replaced),
        activations_before=before.activations,
        activations_after=after.activations,
        followed=not made.unfollowed,
        why_kept=dict(reasons),
        **more,
    )


def quiet() -> warnings.catch_warnings:
    """Models of other libraries warn at will."""
    return warnings.catch_warnings(action="ignore")
