"""Every distribution of a W&B sweep file, as its quantile function: a draw is the quantile of a uniform number.

Source: the configuration schema of the public `sweeps` package, 0.3.0, and the W&B docs, "sweep-config-keys".
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from statistics import NormalDist
from types import MappingProxyType
from typing import Any

# Where a distribution has no end, its quantiles stop just short of it: a draw is always finite.
_TAIL = 2.0**-53
# From here on that JSON has exponents, which are read as floats.
_PLAIN_BELOW = 1e21


@dataclass(frozen=True)
class Distribution:
    """A row of KINDS with its numbers: where a parameter's values come from.

    kind: its name in the file. values, probabilities: of the categorical kinds; a constant has one value. minimum,
    maximum: of the bounded kinds (exponents of e for log_uniform, q_log_uniform and inv_log_uniform). q: quantum;
    an integer one makes integers. mu, sigma, a, b: as usual.
    """

    kind: str
    values: tuple[Any, ...] = ()
    probabilities: tuple[float, ...] = ()
    minimum: float = 0.0
    maximum: float = 1.0
    q: float = 1.0
    mu: float = 0.0
    sigma: float = 1.0
    a: float = 1.0
    b: float = 1.0

    @property
    def choices(self) -> bool:
        """Whether its values are listed, not computed."""
        return bool(self.values)


@dataclass(frozen=True)
class Kind:
    """One distribution: its name in the file, the keys it must and may have, and its quantile function at 0 < u < 1."""

    name: str
    needs: tuple[str, ...]
    quantile: Callable[[Distribution, float], Any]
    defaults: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    positive: bool = False
    integer: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that may stand beside `distribution`."""
        return (*self.needs, *self.defaults)


def quantile(distribution: Distribution, u: float) -> Any:
    """The value below which the distribution draws with probability u. u: in [0, 1]."""
    return KINDS[distribution.kind].quantile(distribution, min(max(u, _TAIL), 1 - _TAIL))


def sent(value: Any) -> Any:
    """A value as W&B's server sends it to a trial, in JSON that writes 23.0 as 23: whole numbers are integers."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _PLAIN_BELOW:
        return int(value)
    if isinstance(value, Mapping):
        return {name: sent(one) for name, one in value.items()}
    return [sent(one) for one in value] if isinstance(value, list | tuple) else value


def grid_values(distribution: Distribution) -> tuple[Any, ...] | None:
    """The values a grid walks through, in order, each once; None for a kind that a grid cannot hold.

    A quantized interval is walked from its minimum in steps of q and leaves its maximum out, as W&B does.
    """
    if distribution.kind in ("constant", "categorical"):
        return tuple({_identity(value): value for value in distribution.values}.values())
    if distribution.kind == "int_uniform":
        return tuple(range(int(distribution.minimum), int(distribution.maximum) + 1))
    if distribution.kind == "q_uniform":
        steps = math.ceil((distribution.maximum - distribution.minimum) / distribution.q)
        return tuple(distribution.minimum + step * distribution.q for step in range(steps))
    return None


def _identity(value: Any) -> str:
    """3 and 3.0 are one value of a grid, 1 and true are two."""
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value, sort_keys=True)


def _uniform(d: Distribution, u: float) -> float:
    return d.minimum + (d.maximum - d.minimum) * u


def _int_uniform(d: Distribution, u: float) -> int:
    low, high = int(d.minimum), int(d.maximum)
    return min(high, max(low, low - 1 + math.ceil(u * (high - low + 1))))


def _log_uniform(d: Distribution, u: float) -> float:
    return math.exp(_uniform(d, u))


def _log_uniform_values(d: Distribution, u: float) -> float:
    low, high = math.log(d.minimum), math.log(d.maximum)
    return min(d.maximum, max(d.minimum, math.exp(low + (high - low) * u)))


def _inv_log_uniform(d: Distribution, u: float) -> float:
    """log(1 / x) is uniform between the bounds."""
    return math.exp(-_uniform(d, 1 - u))


def _normal(d: Distribution, u: float) -> float:
    return NormalDist(d.mu, d.sigma).inv_cdf(u) if d.sigma else d.mu


def _log_normal(d: Distribution, u: float) -> float:
    return math.exp(_normal(d, u))


def _beta(d: Distribution, u: float) -> float:
    from scipy.special import betaincinv

    return float(betaincinv(d.a, d.b, u))


def _quantized(of: Callable[[Distribution, float], float]) -> Callable[[Distribution, float], float]:
    """round(x / q) * q, halves to the even neighbour; an integer q gives integers."""

    def value(d: Distribution, u: float) -> float:
        return round(of(d, u) / d.q) * d.q

    return value


def _choice(d: Distribution, u: float) -> Any:
    return d.values[min(len(d.values), max(1, math.ceil(u * len(d.values)))) - 1]


def _weighted(d: Distribution, u: float) -> Any:
    reached = bisect_right(list(accumulate(d.probabilities)), u)
    # Probabilities that sum to a hair under one leave the last value that has any.
    last = max(place for place, probability in enumerate(d.probabilities) if probability > 0)
    return d.values[min(reached, last)]


_BOUNDS = ("min", "max")
_NORMAL = {"mu": 0.0, "sigma": 1.0}
_BETA = {"a": 1.0, "b": 1.0}
_Q = {"q": 1.0}

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("constant", ("value",), lambda d, u: d.values[0]),
        Kind("categorical", ("values",), _choice),
        Kind("categorical_w_probabilities", ("values", "probabilities"), _weighted),
        Kind("int_uniform", _BOUNDS, _int_uniform, integer=True),
        Kind("uniform", _BOUNDS, _uniform),
        Kind("q_uniform", _BOUNDS, _quantized(_uniform), _Q),
        Kind("log_uniform", _BOUNDS, _log_uniform),
        Kind("log_uniform_values", _BOUNDS, _log_uniform_values, positive=True),
        Kind("q_log_uniform", _BOUNDS, _quantized(_log_uniform), _Q),
        Kind("q_log_uniform_values", _BOUNDS, _quantized(_log_uniform_values), _Q, positive=True),
        Kind("inv_log_uniform", _BOUNDS, _inv_log_uniform),
        # Between the values themselves, 1 / x being log-uniform is x being log-uniform.
        Kind("inv_log_uniform_values", _BOUNDS, _log_uniform_values, positive=True),
        Kind("normal", (), _normal, _NORMAL),
        Kind("q_normal", (), _quantized(_normal), _NORMAL | _Q),
        Kind("log_normal", (), _log_normal, _NORMAL),
        Kind("q_log_normal", (), _quantized(_log_normal), _NORMAL | _Q),
        Kind("beta", (), _beta, _BETA),
        Kind("q_beta", (), _quantized(_beta), _BETA | _Q),
    )
}
