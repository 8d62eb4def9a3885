"""What is to be done at each normalization: the choices, checked, and the decision with its reason."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from evonorm.layers import table
from evonorm.layers.conversion.choosing import Choice
from evonorm.layers.conversion.finding import Found, Refusal
from evonorm.layers.conversion.removing import Removal
from evonorm.layers.functional import BACKENDS, Backend
from evonorm.layers.groups import groups_in_force
from evonorm.layers.modules import NormActivation
from evonorm.layers.row import NormAct

Without = Literal["keep", "affine", "replace"]
WITHOUT = ("keep", "affine", "replace")
START = ("carried", "fresh")
EXAMPLE = "example_inputs"


@dataclass(frozen=True)
class Site:
    """A normalization of the model and what becomes of it; written to JSON as it stands.

    name: qualified name of the module. norm: its class. family: batch, group, instance, frozen (a BatchNorm that is
    constant), timm (timm's EvoNorm or FRN), own (a NormActivation) or other. channels, follows: as found; activation:
    of which it is the sole source. what: `replaced ...` or `kept: ...`, with the reason. replaced: whether it is; then
    activate, groups, eps, momentum and sync are the new layer's, removals how the activation is switched off, conv the
    convolution that gets a bias, layer its name in the table. missed: it is kept although an activation follows or may
    follow, not by choice.
    """

    name: str
    norm: str
    family: str
    channels: int
    follows: str
    activation: str | None
    what: str
    replaced: bool = False
    activate: bool = True
    groups: int = 1
    eps: float = 1e-5
    momentum: float = 0.1
    sync: bool = False
    removals: tuple[Removal, ...] = ()
    conv: str | None = None
    layer: str | None = None
    missed: bool = False


@dataclass(frozen=True)
class Policy:
    """The choices of `evonorm.plan`, which documents them. Raises ValueError if one is none of the possible.

    layer: None where a function has chosen it; the sites know.
    """

    layer: str | dict[str, str | None] | None
    groups: int | None = None
    group_size: int | None = None
    fit_groups: bool = True
    eps: float | None = None
    momentum: float | None = None
    backend: Backend = "auto"
    without_activation: Without = "keep"
    conv_bias: bool = False
    start: Literal["carried", "fresh"] = "carried"
    trainable: bool | None = None
    sync: bool = False

    def __post_init__(self) -> None:
        for name, value, possible in (
            ("backend", self.backend, BACKENDS),
            ("without_activation", self.without_activation, WITHOUT),
            ("start", self.start, START),
        ):
            if value not in possible:
                raise ValueError(f"{name} must be one of {', '.join(possible)}: got {value!r}")
        for name, number in (("groups", self.groups), ("group_size", self.group_size)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1: got {name}={number}")
        if self.groups is not None and self.group_size is not None:
            raise ValueError(
                f"groups and group_size exclude each other: got groups={self.groups}, group_size={self.group_size}"
            )
        if self.eps is not None and self.eps < 0:
            raise ValueError(f"eps must not be negative: got eps={self.eps}")
        if self.momentum is not None and not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1: got momentum={self.momentum}")

    def refuse(self, found: Found, where: Callable[[Site], bool] | None, choice: Choice) -> Refusal | None:
        """Why a normalization is kept whatever follows it, or None."""
        norm = found.norm
        if norm.reason is not None:
            return Refusal(norm.reason, chosen=norm.family in ("own", "other"))
        if (layer := choice.at(found.name)) is None:
            return Refusal("`layer` has none for it", chosen=True)
        row = table.get(layer)
        if where is not None and not where(_site(found)):
            return Refusal("the predicate `where` excludes it", chosen=True)
        if found.flat:
            return Refusal("its input is (N, C), without space")
        if found.flat is None:
            return Refusal(f"its input may be (N, C), without space; {EXAMPLE} would tell")
        if row.running and norm.family == "batch" and not norm.tracks:
            return Refusal(f"it tracks no running statistics, which {row.name} needs in evaluation")
        return None

    def decide(self, found: Found, choice: Choice) -> Site:
        """What becomes of a normalization, and why."""
        why = found.refused
        # timm's say themselves that their activation is off: no activation need follow.
        keep = self.without_activation == "keep" and found.norm.family != "timm"
        if why is None and found.activation is None and keep:
            why = Refusal(found.follows, chosen=not found.stuck)
        if why is not None:
            missed = not why.chosen and (found.stuck or found.activation is not None)
            return replace(_site(found), what=f"kept: {why.words}", missed=missed)
        row = table.get(choice.at(found.name) or "")
        setting = self._setting(found, row)
        return replace(_site(found), what=self._words(found, row, setting), **setting)

    def _setting(self, found: Found, row: NormAct) -> dict[str, Any]:
        norm = found.norm
        same = row.name == norm.layer or row.native == {
            "batch": "batch_norm",
            "frozen": "batch_norm",
            "group": "group_norm",
        }.get(norm.family)
        default = norm.groups or 32
        try:
            wanted = self.groups or default
            groups = groups_in_force(norm.channels, wanted, self.group_size, fit=self.fit_groups) if row.grouped else 1
        except ValueError as error:
            raise ValueError(f"{found.name}: {error}") from None
        momentum = self.momentum if self.momentum is not None else norm.momentum
        return {
            "replaced": True,
            "layer": row.name,
            "activate": found.activation is not None or self.without_activation == "replace",
            "groups": groups,
            "eps": self.eps if self.eps is not None else norm.eps if same else row.eps,
            "momentum": 0.1 if momentum is None else momentum,
            "sync": (norm.sync or self.sync) and bool(row.running),
            "removals": found.removals,
            "conv": found.conv if self.conv_bias else None,
        }

    def _words(self, found: Found, row: NormAct, setting: dict[str, Any]) -> str:
        if found.activation is not None:
            words = f"replaced with its {found.activation}"
            words += f" ({', '.join(map(str, found.removals))})" if found.removals else ""
        elif self.without_activation == "replace":
            words = f"replaced, activation added, {found.follows}"
        else:
            words = f"replaced, activation off, {found.follows}"
        words += "" if found.traced else "; by structure, not followed"
        norm = found.norm
        if found.single and setting["activate"] and degenerate(row.name, found.norm.channels == setting["groups"]):
            words += "; WARNING: its map is 1x1, one value for each statistic, which leaves no information or divides "
            words += "by nothing" + ("; take fewer groups" if row.grouped and found.norm.channels > 1 else "")
        if norm.family == "frozen" and row.running:
            words += "; its statistics, frozen until now, will move in training"
        if norm.family == "batch" and norm.momentum is None and row.running and self.momentum is None:
            words += "; its average over all batches becomes one of momentum 0.1"
        return words


def _site(found: Found) -> Site:
    norm = found.norm
    return Site(found.name, norm.kind, norm.family, norm.channels, found.follows, found.activation, "")


@functools.cache
def degenerate(layer: str, one_channel_a_group: bool) -> bool:
    """Whether a layer on 1x1 maps forgets its input or multiplies it by 1 / sqrt(eps), as it is made at first."""
    with torch.device("cpu"), torch.no_grad():
        made = NormActivation(8, layer, groups=8 if one_channel_a_group else 1, backend="reference").eval()
        one, other = (torch.rand(2, 8, 1, 1, generator=torch.Generator().manual_seed(i)) + 0.5 for i in (0, 1))
        y, z = made(one), made(other)
    return bool((y / one).abs().max() > 50) or torch.allclose(y, z, atol=1e-3)
