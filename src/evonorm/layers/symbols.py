"""Symbols, by which a formula is followed, and the functions of formulas; no torch until they meet a tensor."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

# Functions of torch that are called otherwise in mathematics.
_SPOKEN = {"maximum": "max", "minimum": "min"}
_ATOM, _POWER, _PRODUCT, _SUM, _COMPARISON = 0, 1, 2, 3, 4


@dataclass(frozen=True)
class Symbol:
    """An expression: its text, how tightly its outermost operation binds, and that operation with what it is of."""

    text: str
    level: int = _ATOM
    head: Callable[..., Any] | str | None = None
    of: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def __add__(self, other: Any) -> Symbol:
        return _joined(self, "+", other, _SUM, operator.add)

    def __radd__(self, other: Any) -> Symbol:
        return _joined(other, "+", self, _SUM, operator.add)

    def __sub__(self, other: Any) -> Symbol:
        return _joined(self, "-", other, _SUM, operator.sub)

    def __rsub__(self, other: Any) -> Symbol:
        return _joined(other, "-", self, _SUM, operator.sub)

    def __mul__(self, other: Any) -> Symbol:
        return _joined(self, "*", other, _PRODUCT, operator.mul)

    def __rmul__(self, other: Any) -> Symbol:
        return _joined(other, "*", self, _PRODUCT, operator.mul)

    def __truediv__(self, other: Any) -> Symbol:
        return _joined(self, "/", other, _PRODUCT, operator.truediv)

    def __rtruediv__(self, other: Any) -> Symbol:
        return _joined(other, "/", self, _PRODUCT, operator.truediv)

    def __pow__(self, other: Any) -> Symbol:
        return _power(self, other)

    def __rpow__(self, other: Any) -> Symbol:
        return _power(other, self)

    def __neg__(self) -> Symbol:
        return Symbol(f"-{_within(self, _POWER)}", _PRODUCT, operator.neg, (self,))

    def __abs__(self) -> Symbol:
        return called("abs", self)

    def __gt__(self, other: Any) -> Symbol:
        return _joined(self, ">", other, _COMPARISON, operator.gt)

    def __ge__(self, other: Any) -> Symbol:
        return _joined(self, ">=", other, _COMPARISON, operator.ge)

    def __lt__(self, other: Any) -> Symbol:
        return _joined(self, "<", other, _COMPARISON, operator.lt)

    def __le__(self, other: Any) -> Symbol:
        return _joined(self, "<=", other, _COMPARISON, operator.le)

    def __bool__(self) -> NoReturn:
        raise TypeError(f"a formula must not branch on values, as on {self.text}; use maximum, minimum or torch.where")

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *others, **options: called(name, self, *others, **options)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Symbol:
        """Any function of torch, applied to a symbol."""
        options = dict(kwargs or {})
        if options.pop("inplace", False):
            raise TypeError(f"a formula must change nothing in place, as {function.__name__} does")
        return called(function, *args, **options)


def called(function: Callable[..., Any] | str, *args: Any, **options: Any) -> Symbol:
    """A function of symbols and numbers. Raises TypeError if it changes what it is given."""
    name = function if isinstance(function, str) else function.__name__
    if name.endswith("_"):
        raise TypeError(f"a formula must change nothing in place, as {name} does")
    parts = [_symbol(arg).text for arg in args] + [f"{key}={value}" for key, value in options.items()]
    return Symbol(f"{_SPOKEN.get(name, name)}({', '.join(parts)})", _ATOM, function, args, tuple(options.items()))


def sigmoid(t: Any) -> Any:
    """1 / (1 + exp(-t))."""
    return t.sigmoid()


def maximum(a: Any, b: Any) -> Any:
    """The larger of two, each broadcast to the other."""
    return of_torch("maximum", a, b)


def relu(t: Any) -> Any:
    """max(t, 0)."""
    return of_torch("relu", t)


def silu(t: Any) -> Any:
    """t * sigmoid(t)."""
    return of_torch("silu", t)


def of_torch(name: str, *args: Any) -> Any:
    """The function of this name, of torch.nn.functional or torch, applied to tensors, numbers and symbols."""
    if any(isinstance(arg, Symbol) for arg in args):
        return called(name, *args)
    import torch

    known = [arg for arg in args if isinstance(arg, torch.Tensor)]
    if not known:
        raise ValueError(f"{name} is of numbers alone here; write its value")
    function = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    return function(*(arg if isinstance(arg, torch.Tensor) else known[0].new_full((), arg) for arg in args))


def _symbol(value: Any) -> Symbol:
    if callable(value) and not isinstance(value, Symbol):
        raise TypeError("a formula is of values, and one here is a function not called: write s.group_std(), x.exp()")
    return value if isinstance(value, Symbol) else Symbol(f"{value}")


def _power(base: Any, exponent: Any) -> Symbol:
    text = f"{_within(_symbol(base), _ATOM)}**{_within(_symbol(exponent), _ATOM)}"
    return Symbol(text, _POWER, operator.pow, (base, exponent))


def _within(symbol: Symbol, level: int) -> str:
    return symbol.text if symbol.level <= level else f"({symbol.text})"


def _joined(left: Any, sign: str, right: Any, level: int, head: Callable[..., Any]) -> Symbol:
    """Operations of one level run from the left: on the right, one of the same level needs its brackets."""
    one, other = _symbol(left), _symbol(right)
    return Symbol(f"{_within(one, level)} {sign} {_within(other, level - 1)}", level, head, (left, right))
