"""Arguments of a layer, checked: each error names the argument, its value and what to write instead."""

from __future__ import annotations

import operator
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = ("torchvision", "timm")


def whole(name: str, value: Any, *, least: int = 1, otherwise: str = "") -> int:
    """`value` as an int of at least `least`. otherwise: what to do where the value is none.

    Raises TypeError if it is no whole number (2.0, "2" and True are none), ValueError if it is too small.
    """
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        remedy = f"write {name}={int(value)}" if isinstance(value, float) and value.is_integer() else otherwise
        if isinstance(value, str) and value.isdecimal():
            remedy = f"write {name}={value}, without quotation marks"
        raise TypeError(f"{name} must be a whole number: got {name}={value!r}{remedy and f'; {remedy}'}")
    number = operator.index(value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}: got {name}={number}{otherwise and f'; {otherwise}'}")
    return number


def real(name: str, value: Any, *, at_most: float = float("inf"), otherwise: str = "") -> float:
    """`value` as a float of at least 0 and at most `at_most`. otherwise: what to do where the value is none.

    Raises TypeError if it is no number ("0.1" and True are none), ValueError if it is out of range.
    """
    if isinstance(value, bool | str | bytes) or not hasattr(type(value), "__float__"):
        raise TypeError(f"{name} must be a number: got {name}={value!r}{otherwise and f'; {otherwise}'}")
    number = float(value)
    if not 0.0 <= number <= at_most or number == float("inf"):
        span = "0 or above, and finite" if at_most == float("inf") else f"between 0 and {at_most:g}"
        raise ValueError(f"{name} must be {span}: got {name}={number:g}{otherwise and f'; {otherwise}'}")
    return number


def channels_and_layer(channels: Any, layer: Any) -> int:
    """The channels as an int. Raises TypeError if they are none, or `layer` is no name; both may be swapped."""
    if isinstance(channels, str) and not channels.isdecimal():
        order = (
            f"NormActivation({layer}, {channels!r})" if isinstance(layer, int) else "NormActivation(96, 'evonorm-s0')"
        )
        raise TypeError(f"channels come first, then the layer's name: got {channels!r} as channels; write {order}")
    number = whole("channels", channels)
    if not isinstance(layer, str):
        hint = f"; groups go by name, groups={layer}" if isinstance(layer, int) else ""
        raise TypeError(f"layer must be a name (evonorm.names() has them all): got layer={layer!r}{hint}")
    return number


def refuse_as_norm_layer(module: nn.Module) -> None:
    """Raises TypeError if a constructor of torchvision or timm asks for `module`, as for its norm_layer.

    Such a constructor puts its own activations beside its norms, so that there would be two; unless it was told not to,
    by activation_layer=None. Who asks is the module whose method is nearest in the calls that led here, whatever
    functions lie between (a lambda, a partial).
    """
    from torch import nn

    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code, home = frame.f_code, frame.f_globals.get("__name__", "")
        if home.startswith("evonorm."):
            return
        asks = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(asks, nn.Module) and asks is not module:
            library = home.partition(".")[0]
            if library in LIBRARIES and frame.f_locals.get("activation_layer", "own") is not None:
                asked = f"{type(module).__name__} as norm_layer of {library}'s {type(asks).__name__}"
                raise TypeError(
                    f"{asked}: it has activations of its own beside its norms, so there would be two; build the "
                    "model with its default norm_layer, then evonorm.convert(model, layer); or pass "
                    + _REMEDIES[library]
                )
            return
        frame = frame.f_back


_REMEDIES = {
    "torchvision": "norm_layer=evonorm.norm_layer('gn-relu'), a normalization without its activation",
    "timm": "norm_layer='evonorm.s0' after evonorm.register_timm(), where the model takes norm and activation as one",
}
