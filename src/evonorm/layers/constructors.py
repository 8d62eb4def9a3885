"""Layers for constructors of other libraries, which ask for a norm by a callable or by a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evonorm.layers import table
from evonorm.layers.functional import Backend
from evonorm.layers.modules import NormActivation


def norm_layer(
    layer: str,
    *,
    groups: int = 32,
    group_size: int | None = None,
    fit_groups: bool = True,
    eps: float | None = None,
    momentum: float | None = 0.1,
    backend: Backend = "auto",
    sync: bool = False,
) -> Callable[[int], NormActivation]:
    """What torchvision's constructors take as norm_layer: channels -> `layer` without its activation.

    resnet18(norm_layer=evonorm.norm_layer("gn-relu")) normalizes by group wherever it had a BatchNorm, and keeps its
    own activations: constructors add one after each norm, or an addition, whatever the norm. So only layers that
    normalize without their activation serve: bn-*, gn-*, frn-tlu, evonorm-s0a, -s1a, -s2a. The others, whose
    activation is part of the formula, go in after construction, in the place of both: evonorm.convert.

    The arguments are those of NormActivation; fit_groups takes the largest divisor of the channels not above groups.
    timm's constructors refuse the result, since some of them would take it for norm and activation in one: see
    evonorm.register_timm. Raises ValueError if the layer is unknown or does not normalize alone.
    """
    row = table.get(layer)
    if not row.normalizes_alone:
        serve = ", ".join(other.name for other in table.rows() if other.normalizes_alone)
        raise ValueError(
            f"{layer} does not normalize without its activation, and constructors add their own: build the model "
            f"with its default norm_layer, then evonorm.convert(model, {layer!r}); as norm_layer serve {serve}"
        )
    settings = {"groups": groups, "group_size": group_size, "fit_groups": fit_groups, "eps": eps, "momentum": momentum}
    return _NormLayer(layer, {**settings, "backend": backend, "sync": sync})


class _NormLayer:
    """Not a function: timm takes functions for norm and activation in one, or for the norm alone, as it happens."""

    def __init__(self, layer: str, settings: dict[str, Any]) -> None:
        self.layer = layer
        self.settings = settings

    def __call__(self, channels: int, **more: Any) -> NormActivation:
        return NormActivation(channels, self.layer, activate=False, **{**self.settings, **more})

    def __repr__(self) -> str:
        return f"evonorm.norm_layer({self.layer!r})"


def register_timm(
    *, groups: int = 32, group_size: int | None = None, fit_groups: bool = True, backend: Backend = "auto"
) -> dict[str, str]:
    """Makes every layer known to timm, by name: {"evonorm-s0": "evonorm.s0", ...}, layer -> timm's name for it.

    Layers of evonorm.add_layer that are there already are among them.

    timm.create_model("efficientnet_b0", norm_layer="evonorm.s0"), and timm.layers.create_norm_act_layer, then build
    NormActivation: whole where the model has norm and activation, with activate=False where it has the norm alone. A
    model that makes norm and activation apart, such as timm's ResNet, keeps its activations and takes the layers that
    `norm_layer` takes, with theirs off; it refuses the others. A whole layer has its own activation: the model's
    act_layer is not asked, as for timm's own EvoNorms.

    groups, group_size, fit_groups, backend: as in NormActivation, for all models built from now on; the last call
    counts. timm's own names (evonorms0, ...) stay timm's. Raises ModuleNotFoundError with the remedy without timm,
    ValueError if two layers would have one name there.
    """
    try:
        from timm.layers import create_norm, create_norm_act
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("evonorm.register_timm needs timm: pip install 'evonorm[timm]'") from error
    settings = {"groups": groups, "group_size": group_size, "fit_groups": fit_groups, "backend": backend}
    # timm cuts a name at its first hyphen, and reads it in small letters.
    known = {row.name: row.name.replace("-", ".").lower() for row in table.rows()}
    if twice := [layer for layer, name in known.items() if [*known.values()].count(name) > 1]:
        raise ValueError(f"timm cannot tell {' and '.join(twice)} apart: add them under other names")
    for layer, name in known.items():
        create_norm_act._NORM_ACT_MAP[name] = _whole(layer, settings)
        alone = table.get(layer).normalizes_alone
        create_norm._NORM_MAP[name] = _NormLayer(layer, settings) if alone else _refusing(layer)
    return known


def _whole(layer: str, settings: dict[str, Any]) -> Callable[..., NormActivation]:
    """A function, which timm hands through its look-ups as it is."""

    def build(
        channels: int,
        *,
        apply_act: bool = True,
        drop_layer: Any = None,
        act_layer: Any = None,
        act_kwargs: Any = None,
        inplace: bool = False,
        **own: Any,
    ) -> NormActivation:
        """As timm calls it. What says how the activation is made (act_layer, act_kwargs, inplace) is not asked."""
        if drop_layer is not None:
            raise ValueError(f"{layer} drops nothing before its activation: build the model without drop_block_rate")
        return NormActivation(channels, layer, activate=apply_act, **{**settings, **own})

    return build


def _refusing(layer: str) -> Callable[..., NormActivation]:
    def refuse(channels: int, **own: Any) -> NormActivation:
        raise ValueError(
            f"{layer} takes the activation with it, and this model makes norm and activation apart: build the model "
            f"with its default norm_layer, then evonorm.convert(model, {layer!r})"
        )

    return refuse
