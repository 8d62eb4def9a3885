"""The table of layers: one row each, read by the module, the function, the tests, the command line and the docs.

`add` makes more of them.
"""

from __future__ import annotations

import copyreg
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from evonorm.layers.formula import Formula, parse
from evonorm.layers.row import EPS, NormAct
from evonorm.layers.symbols import maximum, relu, sigmoid, silu
from evonorm.spelling import meant

LIU = "Liu, Brock, Simonyan, Le 2020, arXiv 2004.02967"
SINGH = "Singh, Krishnan 2019, arXiv 1911.09737"
IOFFE = "Ioffe, Szegedy 2015, arXiv 1502.03167"
WU = "Wu, He 2018, arXiv 1803.08494"


class Setting(NamedTuple):
    """How a row is evaluated: groups in force, epsilon, weight of the newest batch in running statistics, mode.

    replicas: processes of torch.distributed whose batches count as one in batch statistics. conditional: weight or bias
    is each sample's own.
    """

    groups: int = 1
    eps: float = 1e-5
    momentum: float = 0.1
    training: bool = True
    activate: bool = True
    replicas: int = 1
    conditional: bool = False


_ROWS_OF_LIU = (
    NormAct(
        "evonorm-b0",
        lambda x, s, p, affine: affine(x / maximum(s.batch_std(), p.v * x + s.instance_std())),
        LIU,
        initial={"v": 1.0},
    ),
    NormAct("evonorm-b1", lambda x, s, p, affine: affine(x / maximum(s.batch_std(), (x + 1) * s.instance_rms())), LIU),
    NormAct("evonorm-b2", lambda x, s, p, affine: affine(x / maximum(s.batch_std(), s.instance_rms() - x)), LIU),
    NormAct(
        "evonorm-s0",
        lambda x, s, p, affine: affine(x * sigmoid(p.v * x), over=s.group_std()),
        LIU,
        initial={"v": 1.0},
    ),
    NormAct("evonorm-s1", lambda x, s, p, affine: affine(silu(x), over=s.group_std()), LIU),
    NormAct("evonorm-s2", lambda x, s, p, affine: affine(silu(x), over=s.group_rms()), LIU),
)


def _normalizing(row: NormAct, without: Formula) -> NormAct:
    """timm's variant of a row, as its checkpoints have it: without its activation it still normalizes."""
    source = f"timm (epsilon 1e-3; normalizes without its activation too), after {row.source}"
    return NormAct(f"{row.name}a", row.formula, source, 1e-3, row.initial, without, row.name)


_S0, _S1, _S2 = (row for row in _ROWS_OF_LIU if row.grouped)

TABLE = (
    *_ROWS_OF_LIU,
    _normalizing(_S0, lambda x, s, p, affine: affine(x, over=s.group_std())),
    _normalizing(_S1, lambda x, s, p, affine: affine(x, over=s.group_std())),
    _normalizing(_S2, lambda x, s, p, affine: affine(x, over=s.group_rms())),
    NormAct("frn-tlu", lambda x, s, p, affine: maximum(affine(x, over=s.instance_rms()), p.tau), SINGH),
    NormAct("bn-relu", lambda x, s, p, affine: relu(affine((x - s.batch_mean()) / s.batch_std())), IOFFE),
    NormAct("bn-silu", lambda x, s, p, affine: silu(affine((x - s.batch_mean()) / s.batch_std())), IOFFE),
    NormAct("gn-relu", lambda x, s, p, affine: relu(affine((x - s.group_mean()) / s.group_std())), WU),
    NormAct("gn-silu", lambda x, s, p, affine: silu(affine((x - s.group_mean()) / s.group_std())), WU),
    NormAct("none", lambda x, s, p, affine: x, "the identity: what the report's EvoNorm layers were"),
)

_ROWS = {row.name: row for row in TABLE}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()-]*")


def rows() -> tuple[NormAct, ...]:
    """Every layer, the table's first, then those added, in their order."""
    return tuple(_ROWS.values())


def names() -> tuple[str, ...]:
    """The names of all layers, in the order of `rows`."""
    return tuple(_ROWS)


def distinct() -> tuple[str, ...]:
    """The names without variants: what an experiment on every layer trains."""
    return tuple(row.name for row in rows() if row.variant_of is None)


def get(name: str) -> NormAct:
    """The row called `name`. Raises ValueError naming the nearest one, or all."""
    if name not in _ROWS:
        hint = meant(name, _ROWS) or f"; choose from {', '.join(_ROWS)}"
        raise ValueError(f"no layer is called {name!r}{hint}")
    return _ROWS[name]


def add(
    name: str,
    formula: Formula | str,
    *,
    initial: Mapping[str, float] | None = None,
    source: str = "",
    eps: float = EPS,
    without: Formula | str | None = None,
) -> NormAct:
    """Adds a layer, for the module, the converter and the lab, and returns its row.

    formula: a function of x, its statistics s, its parameters p and affine, or its text, as `x / rms_group * weight +
    bias`. p.anything is a parameter, one value a channel; initial: where each starts, 0 where it is not named. without:
    the formula when the activation is off. The same layer may be added again.

    Raises ValueError if the name is taken or is none, the formula cannot be followed, `initial` names no parameter, or
    a number is none.

        evonorm.add_layer("rms-silu", lambda x, s, p, affine: affine(x * (p.v * x).sigmoid(), over=s.group_rms()),
                          initial={"v": 1.0})
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"a layer's name is of letters, digits and ' ._()-', and begins with one of the first two: got {name!r}"
        )
    row = NormAct(
        name,
        parse(formula) if isinstance(formula, str) else formula,
        source,
        eps,
        dict(initial or {}),
        parse(without) if isinstance(without, str) else without,
        added=True,
    )
    for key, value in {**row.initial, "eps": eps}.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name}: {key} must be one finite number: got {value!r}")
    if eps < 0:
        raise ValueError(f"{name}: eps must be 0 or above: got {eps!r}")
    unknown = [key for key in row.initial if key not in row.reading.parameters]
    if unknown:
        there = ", ".join(row.reading.parameters) or "none"
        raise ValueError(f"{name} has no parameter {unknown[0]!r} to begin with a value; its formula has {there}")
    if clash := {"weight", "bias", "running_mean", "running_var", "x"} & set(row.parameters):
        raise ValueError(f"{name}: a parameter cannot be called {clash.pop()!r}; affine brings weight and bias")
    known = _ROWS.get(name)
    if known is not None and _told(known) != _told(row):
        raise ValueError(
            f"a layer is called {name!r} already: y = {known.text}; without activation, y = "
            f"{known.linear_reading.text}; give this one another name"
        )
    return _ROWS.setdefault(name, row)


def _told(row: NormAct) -> tuple[Any, ...]:
    return row.text, row.linear_reading.text, row.parameters, row.eps


def add_specified(name: str, specification: str, source: str = "") -> NormAct:
    """Adds the layer of a `NormAct.specification`, and returns its row. Raises ValueError as `add` does."""
    text, *settings = (part.strip() for part in specification.split(";"))
    initial: dict[str, float] = {}
    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if key == "without" and equals:
            options[key] = value
            continue
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"{setting!r} must be NAME=NUMBER, eps=NUMBER or without=FORMULA") from None
        (options if key == "eps" else initial)[key] = number
    return add(name, text, initial=initial, source=source, **options)


def _pickled(row: NormAct) -> tuple[Any, ...]:
    """By name or, an added one, by its text: formulas are lambdas, which do not pickle."""
    return (get, (row.name,)) if row in TABLE else (add_specified, (row.name, row.specification, row.source))


copyreg.pickle(NormAct, _pickled)
