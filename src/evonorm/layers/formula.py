"""What a formula tells of itself, evaluated on symbols: text, statistics, parameters; and text as a formula.

A formula is a function of x, its statistics s, its own parameters p and affine, as in table.TABLE:

    lambda x, s, p, affine: affine(x * sigmoid(p.v * x), over=s.group_std())

It must not branch on values. Torch's functions may stand in it; those of symbols need no torch before they
meet a tensor.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from evonorm.layers.symbols import Symbol, of_torch
from evonorm.spelling import meant

if TYPE_CHECKING:
    from torch import Tensor

    from evonorm.layers.statistics import Statistics

# What Statistics has: over batch and space, over space alone, over space and a group's channels.
STATISTICS = tuple(
    f"{extent}_{kind}"
    for extent, kinds in (
        ("batch", ("mean", "std")),
        ("instance", ("mean", "std", "rms")),
        ("group", ("mean", "std", "rms")),
    )
    for kind in kinds
)
_RUNNING = {"batch_mean": "running_mean", "batch_std": "running_var"}
_SIGNS: dict[type[ast.AST], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
# Functions that text may name.
FUNCTIONS = (
    *("abs", "exp", "log", "sqrt", "square", "tanh", "sigmoid", "erf", "sin", "cos"),
    *("relu", "relu6", "silu", "gelu", "elu", "softplus", "mish", "hardswish", "hardsigmoid", "maximum", "minimum"),
)
_SPOKEN_STATISTICS = {"_".join(reversed(name.split("_"))): name for name in STATISTICS}
_STATISTICS_WORDS = {"var", *(word for name in STATISTICS for word in name.split("_"))}
_WRITTEN_STATISTICS = _SPOKEN_STATISTICS | {name: name for name in STATISTICS}


class Affine(Protocol):
    """Weight and bias, by channel."""

    def __call__(self, t: Tensor, /, *, over: Tensor | None = None) -> Tensor:
        """t * weight + bias or, with `over`, a statistic that is small beside t: t / over * weight + bias."""


Formula = Callable[["Tensor", "Statistics", Any, Affine], "Tensor"]


@dataclass(frozen=True)
class Reading:
    """text: in words of mathematics. statistics: those used, of STATISTICS. parameters: the names of p's, in order.

    affine: whether weight and bias are used. normalized: where the formula ends in a function of affine(t), t's text;
    activation: that function, where it is of nothing else.
    """

    text: str
    statistics: tuple[str, ...]
    parameters: tuple[str, ...]
    affine: bool
    normalized: str = ""
    activation: Callable[[Any], Any] | None = None

    @property
    def running(self) -> tuple[str, ...]:
        """Running statistics that stand in for the batch's outside training."""
        return tuple(running for name, running in _RUNNING.items() if name in self.statistics)

    @property
    def grouped(self) -> bool:
        """Whether it has statistics over groups of channels."""
        return any(name.startswith("group_") for name in self.statistics)

    @property
    def of_sample(self) -> bool:
        """Whether it has statistics of each sample alone."""
        return any(name.startswith(("group_", "instance_")) for name in self.statistics)


@dataclass
class _Recorder:
    """Stands for s or p, and keeps what was asked of it."""

    symbol: Callable[[str], Any]
    known: tuple[str, ...] = ()
    asked: dict[str, None] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        if self.known and name not in self.known:
            raise AttributeError(f"there is no statistic {name!r}; there are {', '.join(self.known)}")
        if name.startswith("_") or (name in _WRITTEN_STATISTICS and not self.known):
            why = (
                "begins with '_'" if name.startswith("_") else f"is a statistic: write s.{_WRITTEN_STATISTICS[name]}()"
            )
            raise AttributeError(f"a parameter cannot be called {name!r}, which {why}")
        self.asked[name] = None
        return self.symbol(name)


def read(formula: Formula) -> Reading:
    """What the formula tells of itself. Raises ValueError if it cannot be followed with symbols."""
    spoken = {name: text for text, name in _SPOKEN_STATISTICS.items()}
    s: Any = _Recorder(lambda name: lambda: Symbol(spoken[name]), STATISTICS)
    p: Any = _Recorder(Symbol)
    affines: list[Symbol] = []

    def affine(t: Any, /, *, over: Any = None) -> Symbol:
        inner = t if over is None else t / over
        affines.append(replace(inner * Symbol("weight") + Symbol("bias"), head="affine", of=(inner,)))
        return affines[-1]

    x: Any = Symbol("x")
    follow: Any = formula
    try:
        y = follow(x, s, p, affine)
    except (TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"this formula cannot be followed: {error}") from error
    if not isinstance(y, Symbol):
        raise ValueError(f"a formula must give an expression of x: got {y!r}")
    normalized: str = ""
    activation: Callable[[Any], Any] | None = None
    if len(affines) == 1 and y.head is not None and affines[0] in y.of:
        normalized = affines[0].of[0].text
        if len(y.of) == 1:
            function = functools.partial(of_torch, y.head) if isinstance(y.head, str) else y.head
            activation = functools.partial(function, **dict(y.options))
    return Reading(y.text, tuple(s.asked), tuple(p.asked), bool(affines), normalized, activation)


def parse(text: str, function: Callable[[str], Callable[..., Any]] | None = None) -> Formula:
    """The formula that this text is, as `read` gives it: x, statistics as std_group or group_std, functions, numbers.

    Other names are parameters, and `t * weight + bias` is the affine. Nothing but that is executed. function: what a
    name of FUNCTIONS means, for arrays of another library; default: torch's.

    Raises ValueError naming what is none of that.
    """
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"this is no formula: {text!r} ({error.msg})") from None
    source = f"lambda x, s, p, affine: {_python(tree)}"

    def over(function: Callable[[str], Callable[..., Any]]) -> Formula:
        # torch, called here, imports what it has written in Python as this code would; the text itself names nothing.
        builtins = {"__import__": __import__}
        formula: Formula = eval(source, {"__builtins__": builtins, **{name: function(name) for name in FUNCTIONS}})
        return formula

    read(over(_function))
    return over(function or _function)


def _python(node: ast.expr) -> str:
    """A node of a formula's text as Python; the names of FUNCTIONS, x, s, p and affine are all that it needs."""
    match node:
        case ast.BinOp(ast.BinOp(scaled, ast.Mult(), ast.Name("weight")), ast.Add(), ast.Name("bias")):
            if isinstance(scaled, ast.BinOp) and isinstance(scaled.op, ast.Div) and _is_statistic(scaled.right):
                return f"affine({_python(scaled.left)}, over={_python(scaled.right)})"
            return f"affine({_python(scaled)})"
        case ast.BinOp(left, op, right) if type(op) in _SIGNS:
            return f"({_python(left)} {_SIGNS[type(op)]} {_python(right)})"
        case ast.UnaryOp(ast.USub(), inner):
            return f"(-{_python(inner)})"
        case ast.Constant(int() | float() as number) if not isinstance(number, bool):
            return repr(number)
        case ast.Name("x"):
            return "x"
        case ast.Name("weight" | "bias" as name):
            raise ValueError(f"{name} stands alone; write t * weight + bias")
        case ast.Name(name) if not name.startswith("_"):
            return f"s.{_WRITTEN_STATISTICS[name]}()" if name in _WRITTEN_STATISTICS else f"p.{_parameter(name)}"
        case ast.Call(ast.Name(name), args, []):
            own = {"max": "maximum", "min": "minimum"}.get(name, name)
            if own not in FUNCTIONS:
                raise ValueError(f"there is no function {name!r}; there are {', '.join(FUNCTIONS)}")
            return f"{own}({', '.join(map(_python, args))})"
    raise ValueError(f"{ast.unparse(node)!r} has no place in a formula")


def _parameter(name: str) -> str:
    """This name, as a parameter's. A slip of the pen for a statistic would be one that starts at 0, in silence."""
    if name in FUNCTIONS:
        raise ValueError(f"{name} is a function; write what it is of, as in {name}(x)")
    if name in _RUNNING.values():
        return name  # which no parameter can be called, and whoever adds the layer is told so
    near = meant(name, _SPOKEN_STATISTICS, shown=str)
    if near or not _STATISTICS_WORDS.isdisjoint(name.split("_")):
        hint = near or f"; there are {', '.join(_SPOKEN_STATISTICS)}"
        raise ValueError(f"there is no statistic {name!r}{hint}")
    return name


def _function(name: str) -> Callable[..., Any]:
    return lambda *args: of_torch(name, *args)


def _is_statistic(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in _WRITTEN_STATISTICS
