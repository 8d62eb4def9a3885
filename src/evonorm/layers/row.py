"""A layer as a row: its name, formula, source and epsilon; the rest is read off the formula."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evonorm.layers.formula import Affine, Formula, Reading, parse, read

EPS = 1e-5
_TORCHS = {"(x - mean_batch) / std_batch": "batch_norm", "(x - mean_group) / std_group": "group_norm"}


def _affine_alone(x: Any, s: Any, p: Any, affine: Affine) -> Any:
    return affine(x)


def _alone(formula: Formula, inner: str) -> Formula:
    """The affine of a formula that ends in a function of it, without that function; inner: what the affine is of."""
    try:
        return parse(f"({inner}) * weight + bias")
    except ValueError:  # it calls what text may not name, so it is taken from the formula as that runs
        pass

    def alone(x: Any, s: Any, p: Any, affine: Affine) -> Any:
        found: list[Any] = []

        def noted(t: Any, /, *, over: Any = None) -> Any:
            found.append(affine(t, over=over))
            return found[0]

        formula(x, s, p, noted)
        return found[0]

    return alone


@dataclass(frozen=True)
class NormAct:
    """A layer: y = formula(x, statistics, parameters, affine) with affine(t) = t * weight + bias; see formula.

    initial: of the parameters beside weight and bias; 0 where it does not name one. without: the formula when the
    activation is off; default: what an outermost activation is applied to, and the affine alone where there is none.
    variant_of: the row with the same formula, from which this one differs in epsilon and `without` alone: experiments
    leave it out, its kernel is that row's. added: at run time, by table.add.

    Of the formula: text, in words of mathematics; parameters, those beside weight and bias with their initial values;
    extra, the name of the first of them, "" where there is none; running, names of the running statistics; grouped,
    whether it has statistics over groups; affine, whether it has weight and bias; native, torch's own name of what
    comes before the `activation` ("batch_norm", "group_norm"), if it has it; linear, what remains when the activation
    is off; own, makes the formula's p.
    """

    name: str
    formula: Formula
    source: str
    eps: float = EPS
    initial: Mapping[str, float] = field(default_factory=dict)
    without: Formula | None = None
    variant_of: str | None = None
    added: bool = False

    # Read off the formula, once: compilers follow plain attributes alone.
    text: str = field(init=False)
    parameters: dict[str, float] = field(init=False)
    extra: str = field(init=False)
    running: tuple[str, ...] = field(init=False)
    grouped: bool = field(init=False)
    affine: bool = field(init=False)
    native: str | None = field(init=False)
    activation: Callable[[Any], Any] | None = field(init=False)
    linear: Formula = field(init=False)
    reading: Reading = field(init=False, repr=False)
    linear_reading: Reading = field(init=False, repr=False)
    own: Callable[..., Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = read(self.formula)
        inner = found.normalized
        alone = _alone(self.formula, inner) if inner else _affine_alone if found.affine else self.formula
        for name, value in {
            "reading": found,
            "text": found.text,
            "parameters": {name: self.initial.get(name, 0.0) for name in found.parameters},
            "extra": next(iter(found.parameters), ""),
            "running": found.running,
            "grouped": found.grouped,
            "affine": found.affine,
            "native": _TORCHS.get(inner) if found.activation else None,
            "activation": found.activation,
            "linear": self.without or alone,
            "linear_reading": read(self.without or alone),
            "own": namedtuple("Own", found.parameters),
        }.items():
            object.__setattr__(self, name, value)

    def read(self, *, activate: bool) -> Reading:
        """What the formula tells of itself, or what `linear` does, which may need less."""
        return self.reading if activate else self.linear_reading

    @property
    def kernel(self) -> str:
        """The name under which a fused kernel computes this row, if there is one."""
        return self.variant_of or self.name

    @property
    def normalizes_alone(self) -> bool:
        """Whether a normalization remains when the activation is off."""
        return self.affine and self.linear is not _affine_alone

    @property
    def specification(self) -> str:
        """All but name and source in one line, for `table.add_specified`: `x / rms_group * a; a=0.5; eps=0.001`.

        Raises ValueError if the formula's text is no formula, as where it calls a function that text may not name.
        """
        without = None if self.without is None else read(self.without).text
        for text in filter(None, (self.text, without)):
            parse(text)
        parts = [self.text, *(f"{name}={value!r}" for name, value in self.initial.items())]
        parts += [f"eps={self.eps!r}"] if self.eps != EPS else []
        return "; ".join([*parts, f"without={without}"] if without else parts)
