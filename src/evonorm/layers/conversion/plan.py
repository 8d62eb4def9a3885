"""The plan of a conversion: made, read, written, carried out."""

from __future__ import annotations

import collections
import inspect
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, ParamSpec

import torch
from torch import nn

from evonorm.layers.conversion.applying import apply
from evonorm.layers.conversion.choosing import Choice, Layers
from evonorm.layers.conversion.finding import find
from evonorm.layers.conversion.policies import EXAMPLE, Policy, Site, Without
from evonorm.layers.conversion.removing import Removal
from evonorm.layers.conversion.rewriting import Edit
from evonorm.layers.conversion.tracing import trace
from evonorm.layers.functional import Backend

FORMAT = 3
_READ = (2, 3)  # before 3, one layer for all sites
_Given = ParamSpec("_Given")


class ConversionWarning(UserWarning):
    """A conversion leaves norms that an activation follows, or replaces nothing."""


@dataclass(frozen=True)
class Plan:
    """What becomes of every normalization of a model; `str(plan)` tells it, `apply` does it.

    sites: one for each, in the model's order. unfollowed: modules whose forward could not be followed, and why.
    assumed: modules whose forward asks for shapes or takes flags that were not given, and for what it was followed.
    """

    model_name: str
    policy: Policy
    sites: tuple[Site, ...]
    unfollowed: dict[str, str]
    assumed: dict[str, str] = field(default_factory=dict)
    model: nn.Module | None = field(default=None, repr=False, compare=False)

    def apply(self, model: nn.Module | None = None) -> nn.Module:
        """A new model with the layers replaced; the given one, by default the planned one, is untouched.

        Raises ValueError if `model` is missing where the plan was read from JSON, or is not the one planned.
        """
        given = model if model is not None else self.model
        if given is None:
            raise ValueError("a plan read from JSON has no model: pass the original one, plan.apply(model)")
        return apply(given, self.sites, self.policy)

    @property
    def replaced(self) -> tuple[Site, ...]:
        """The sites that are replaced."""
        return tuple(site for site in self.sites if site.replaced)

    @property
    def summary(self) -> str:
        """One line: how many are replaced by what, how many kept."""
        done = collections.Counter(site.layer or str(self.policy.layer) for site in self.replaced)
        if not done and isinstance(self.policy.layer, str):
            done[self.policy.layer] = 0
        told = " and ".join(f"{layer} in the place of {count}" for layer, count in done.items())
        kept = len(self.sites) - len(self.replaced)
        return f"{self.model_name}: {told or 'nothing replaced'} of {len(self.sites)} normalizations, {kept} kept"

    def __str__(self) -> str:
        lines = [self.summary]
        mixed = len({site.layer for site in self.replaced}) > 1
        width = max((len(site.name) for site in self.sites), default=0)
        kinds = {site: f"{site.norm}({site.channels})" if site.channels else site.norm for site in self.sites}
        kind_width = max(map(len, kinds.values()), default=0)
        for site in self.sites:
            layer = f" -> {site.layer}" if mixed and site.replaced else ""
            lines.append(f"  {site.name:{width}}  {kinds[site]:{kind_width}}  {site.what}{layer}")
        for name, why in self.unfollowed.items():
            lines.append(f"  {name or 'the model itself'}: its forward could not be followed, its parts were ({why})")
        for name, inputs in self.assumed.items():
            lines.append(
                f"  {name or 'the model itself'}: followed as if given {inputs or 'any'}; other ways are not seen"
            )
        return "\n".join(lines)

    def to_json(self) -> str:
        """The plan as text; from_json(text).apply(model) does to a fresh model what this one does."""
        content = {
            "format": FORMAT,
            "model": self.model_name,
            "policy": asdict(self.policy),
            "sites": [asdict(site) for site in self.sites],
            "unfollowed": self.unfollowed,
            "assumed": self.assumed,
        }
        return json.dumps(content, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote. Raises ValueError if the text is none."""
        try:
            content = json.loads(text)
            if content["format"] not in _READ:
                raise ValueError(f"its format is {content['format']}, this version reads {_READ[0]} to {FORMAT}")
            sites = tuple(Site(**{**site, "removals": _removals(site["removals"])}) for site in content["sites"])
            policy = Policy(**content["policy"])
            return cls(content["model"], policy, sites, content["unfollowed"], content.get("assumed", {}))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"this is no plan that Plan.to_json wrote: {error}") from error


def _removals(rows: list[dict[str, Any]]) -> tuple[Removal, ...]:
    return tuple(Removal(**{**row, "edit": _edit(row["edit"])}) for row in rows)


def _edit(row: dict[str, Any] | None) -> Edit | None:
    return None if row is None else Edit(**{**row, "stays": tuple(row["stays"])})


def plan(
    model: nn.Module,
    layer: Layers = "evonorm-s0",
    *,
    groups: int | None = None,
    group_size: int | None = None,
    fit_groups: bool = True,
    eps: float | None = None,
    momentum: float | None = None,
    backend: Backend = "auto",
    without_activation: Without = "keep",
    where: Callable[[Site], bool] | None = None,
    conv_bias: bool = False,
    start: Literal["carried", "fresh"] = "carried",
    trainable: bool | None = None,
    sync: bool = False,
    example_inputs: Any = None,
) -> Plan:
    """What putting `layer` into `model` would do to each of its normalizations; the model is neither run nor changed.

    The data are followed with torch.fx, not names. A normalization with an activation of which it is the sole source
    is replaced together with it, whatever way the activation is called. An activation is not taken where another path
    needs it, and never added unless asked.

    layer: a name of the table; or a dict of sites' names or globs ("layer1.*") to such names, None to keep, where a
    site's own name counts first, then the first glob that matches, and what none matches is kept; or a function from a
    site's name to a layer's or None. groups: number of groups, default 32 or, where the norm has groups, its own;
    group_size: channels a group instead; fit_groups takes the largest divisor of C not above it, as the paper's code
    does. eps: default the replaced norm's own for a layer of its kind (bn-* for BatchNorm, gn-* for GroupNorm, its
    namesake for timm's), else the layer's. momentum: default the replaced norm's. backend: as in NormActivation.

    without_activation, at norms that no activation follows: `keep` leaves the norm as it is; `affine` puts the layer
    there with its activation off, which is affine alone for an EvoNorm (the paper's and timm's usage before a
    residual addition) and normalization for the others, evonorm-s0a, -s1a and -s2a among them; `replace` puts the
    layer there whole, activation added. timm's own EvoNorm and FRN with their activation off are replaced under `keep`
    as under `affine`. where: called with each Site; False keeps it. conv_bias: a convolution without bias that alone
    feeds a replaced norm gets one, zero at the start: an EvoNorm subtracts no mean that would cancel it. start:
    `carried` keeps the old values of what the layer has, `fresh` starts as a new layer. trainable: of the new
    parameters; default as the replaced norm's weight is. sync: batch statistics of the new layers over all processes,
    as where the norm is a SyncBatchNorm; norms that are kept are not touched, evonorm.convert_sync takes them too.
    example_inputs: what the model takes, one tensor, a tuple of arguments, or a dict of them by name. A copy is run on
    them, without values where that is possible, for the shapes: code that asks for shapes is then followed as they
    are, and norms that take (N, C) as well as maps, BatchNorm1d and GroupNorm, are known for what they get. Without,
    shapes are told from the layers; a norm whose input may be (N, C) is kept, and code that asks for shapes is
    followed for assumed ones, which the plan names, as it names flags of the forward that are at their defaults. What
    code does for other shapes and flags is not seen: an activation that it calls there alone stays.

    Raises ValueError if the layer is unknown, a key matches no normalization, a choice is none of the possible, the
    model does not take example_inputs, or groups does not divide the channels of a site and fit_groups is off;
    TypeError if `model` is no module, or one of TorchScript.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module: got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        kind = type(model).__name__
        raise TypeError(
            f"model is a {kind} of TorchScript, whose parts cannot be exchanged: convert it before scripting"
        )
    choice = Choice(layer)
    policy = Policy(
        choice.written,
        groups=groups,
        group_size=group_size,
        fit_groups=fit_groups,
        eps=eps,
        momentum=momentum,
        backend=backend,
        without_activation=without_activation,
        conv_bias=conv_bias,
        start=start,
        trainable=trainable,
        sync=sync,
    )
    seen = trace(model, example_inputs)
    found = find(seen, lambda found: policy.refuse(found, where, choice))
    choice.check(type(model).__name__, [one.name for one in found])
    sites = tuple(policy.decide(one, choice) for one in found)
    return Plan(type(model).__name__, policy, sites, seen.failures, seen.assumed, model)


def _called_like(other: Callable[_Given, Plan]) -> Callable[[Callable[..., nn.Module]], Callable[_Given, nn.Module]]:
    """Gives a function the parameters of `other`, for type checkers, editors and help()."""

    def called_like(function: Any) -> Any:
        function.__signature__ = inspect.signature(other).replace(return_annotation="nn.Module")
        return function

    return called_like


@_called_like(plan)
def convert(*args: Any, **kwargs: Any) -> nn.Module:
    """A new model with `layer` in the place of its normalizations and their activations: plan(...).apply().

    The arguments are those of `evonorm.plan`; the given model is untouched. Warns with ConversionWarning and the plan's
    summary if nothing is replaced, or norms are left, not by choice, that an activation follows or may follow.
    """
    made = plan(*args, **kwargs)
    if (words := _left(made)) is not None:
        warnings.warn(words, ConversionWarning, stacklevel=2)
    return made.apply()


def _left(made: Plan) -> str | None:
    """What a conversion leaves that its caller should know of, with the remedy, or None."""
    missed = [site for site in made.sites if site.missed]
    if made.replaced and not missed:
        return None
    told = collections.Counter(site.what for site in missed or made.sites)
    reasons = "; ".join(f"{count} {what}" for what, count in told.most_common(3)) or "it has no normalization"
    left = f"{len(missed)} of them have an activation after them, or may: " if missed else ""
    remedy = "print(evonorm.plan(model, ...)) tells what becomes of each"
    if made.unfollowed or any(EXAMPLE in site.what for site in made.sites):
        remedy = f"pass example_inputs, what the model takes, so that its code can be followed; {remedy}"
    elif not missed and any(site.what == f"kept: {site.follows}" for site in made.sites):
        remedy = f"without_activation='affine' or 'replace' takes norms that no activation follows; {remedy}"
    return f"{made.summary}; {left}{reasons}. To mend it: {remedy}"
