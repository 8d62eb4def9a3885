"""The table of layers: one row each, read by the module, the function, the tests, the command line and the docs."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from evonorm.layers.statistics import Statistics

LIU = "Liu, Brock, Simonyan, Le 2020, arXiv 2004.02967"
SINGH = "Singh, Krishnan 2019, arXiv 1911.09737"
IOFFE = "Ioffe, Szegedy 2015, arXiv 1502.03167"
WU = "Wu, He 2018, arXiv 1803.08494"


class Parameters(NamedTuple):
    """Per-channel parameters beside weight and bias, shaped to broadcast against x; None where a row has them not.

    v: slope inside EvoNorm's sigmoid or maximum. tau: threshold of the thresholded linear unit.
    """

    v: Tensor
    tau: Tensor


class Setting(NamedTuple):
    """How a row is evaluated: groups in force, epsilon, weight of the newest batch in running statistics, mode.

    replicas: processes of torch.distributed whose batches count as one in batch statistics.
    """

    groups: int = 1
    eps: float = 1e-5
    momentum: float = 0.1
    training: bool = True
    activate: bool = True
    replicas: int = 1


class Affine(Protocol):
    """Weight and bias, by channel."""

    def __call__(self, t: Tensor, /, *, over: Tensor | None = None) -> Tensor:
        """t * weight + bias or, with `over`, a statistic that is small beside t: t / over * weight + bias."""


Formula = Callable[[Tensor, Statistics, Parameters, Affine], Tensor]


@dataclass(frozen=True)
class NormAct:
    """A layer: y = formula(x, statistics, parameters, affine) with affine(t) = t * weight + bias.

    text: the formula in words of mathematics. linear: what remains when the activation is off. variant_of: the row
    with the same formula, from which this one differs in epsilon and linear alone: experiments leave it out, its
    kernel is that row's.
    parameters: those beside weight and bias, with their initial values. running: names of the running statistics.
    grouped: has statistics over groups. affine: has weight and bias. native: torch has the layer itself
    ("batch_norm", "group_norm"), and uses it before `activation`.
    """

    name: str
    text: str
    formula: Formula
    linear: Formula
    source: str
    parameters: dict[str, float] = field(default_factory=dict)
    running: tuple[str, ...] = ()
    grouped: bool = False
    affine: bool = True
    eps: float = 1e-5
    native: str | None = None
    activation: Callable[[Tensor], Tensor] | None = None
    variant_of: str | None = None

    @property
    def kernel(self) -> str:
        """The name under which a fused kernel computes this row, if there is one."""
        return self.variant_of or self.name

    @property
    def normalizes_alone(self) -> bool:
        """Whether a normalization remains when the activation is off."""
        return self.affine and self.linear is not _affine_alone


def _affine_alone(x: Tensor, s: Statistics, p: Parameters, affine: Affine) -> Tensor:
    return affine(x)


def _evonorm(
    name: str, text: str, formula: Formula, *, v: bool = False, batch: bool = False, grouped: bool = False
) -> NormAct:
    return NormAct(
        name,
        text=f"{text} * weight + bias",
        formula=formula,
        linear=_affine_alone,
        source=LIU,
        parameters={"v": 1.0} if v else {},
        running=("running_var",) if batch else (),
        grouped=grouped,
    )


@dataclass(frozen=True)
class _Normalization:
    """What the rivals share before their activation: over says the statistics' extent in the formula's text."""

    over: str
    normalize: Callable[[Tensor, Statistics], Tensor]
    source: str
    native: str
    running: tuple[str, ...] = ()
    grouped: bool = False


_BATCH_NORM = _Normalization(
    "batch",
    lambda x, s: (x - s.batch_mean()) / s.batch_std(),
    IOFFE,
    "batch_norm",
    running=("running_mean", "running_var"),
)
_GROUP_NORM = _Normalization("group", lambda x, s: (x - s.group_mean()) / s.group_std(), WU, "group_norm", grouped=True)


def _rival(name: str, norm: _Normalization, activation: Callable[[Tensor], Tensor]) -> NormAct:
    return NormAct(
        name,
        text=f"{activation.__name__}((x - mean_{norm.over}) / std_{norm.over} * weight + bias)",
        formula=lambda x, s, p, affine: activation(affine(norm.normalize(x, s))),
        linear=lambda x, s, p, affine: affine(norm.normalize(x, s)),
        source=norm.source,
        running=norm.running,
        grouped=norm.grouped,
        native=norm.native,
        activation=activation,
    )


_ROWS_OF_LIU = (
    _evonorm(
        "evonorm-b0",
        "x / max(std_batch, v * x + std_instance)",
        lambda x, s, p, affine: affine(x / torch.maximum(s.batch_std(), p.v * x + s.instance_std())),
        v=True,
        batch=True,
    ),
    _evonorm(
        "evonorm-b1",
        "x / max(std_batch, (x + 1) * rms_instance)",
        lambda x, s, p, affine: affine(x / torch.maximum(s.batch_std(), (x + 1) * s.instance_rms())),
        batch=True,
    ),
    _evonorm(
        "evonorm-b2",
        "x / max(std_batch, rms_instance - x)",
        lambda x, s, p, affine: affine(x / torch.maximum(s.batch_std(), s.instance_rms() - x)),
        batch=True,
    ),
    _evonorm(
        "evonorm-s0",
        "x * sigmoid(v * x) / std_group",
        lambda x, s, p, affine: affine(x * torch.sigmoid(p.v * x), over=s.group_std()),
        v=True,
        grouped=True,
    ),
    _evonorm(
        "evonorm-s1",
        "silu(x) / std_group",
        lambda x, s, p, affine: affine(F.silu(x), over=s.group_std()),
        grouped=True,
    ),
    _evonorm(
        "evonorm-s2",
        "silu(x) / rms_group",
        lambda x, s, p, affine: affine(F.silu(x), over=s.group_rms()),
        grouped=True,
    ),
)


def _normalizing(row: NormAct, linear: Formula) -> NormAct:
    """timm's variant of a row, as its checkpoints have it: without its activation it still normalizes."""
    source = f"timm (epsilon 1e-3; normalizes without its activation too), after {row.source}"
    return dataclasses.replace(row, name=f"{row.name}a", linear=linear, eps=1e-3, source=source, variant_of=row.name)


_S0, _S1, _S2 = (row for row in _ROWS_OF_LIU if row.grouped)

TABLE = (
    *_ROWS_OF_LIU,
    _normalizing(_S0, lambda x, s, p, affine: affine(x, over=s.group_std())),
    _normalizing(_S1, lambda x, s, p, affine: affine(x, over=s.group_std())),
    _normalizing(_S2, lambda x, s, p, affine: affine(x, over=s.group_rms())),
    NormAct(
        "frn-tlu",
        text="max(x / rms_instance * weight + bias, tau)",
        formula=lambda x, s, p, affine: torch.maximum(affine(x, over=s.instance_rms()), p.tau),
        linear=lambda x, s, p, affine: affine(x, over=s.instance_rms()),
        source=SINGH,
        parameters={"tau": 0.0},
    ),
    _rival("bn-relu", _BATCH_NORM, F.relu),
    _rival("bn-silu", _BATCH_NORM, F.silu),
    _rival("gn-relu", _GROUP_NORM, F.relu),
    _rival("gn-silu", _GROUP_NORM, F.silu),
    NormAct(
        "none",
        text="x",
        formula=lambda x, s, p, affine: x,
        linear=lambda x, s, p, affine: x,
        source="the identity: what the report's EvoNorm layers were",
        affine=False,
    ),
)

_ROWS = {row.name: row for row in TABLE}


def names() -> tuple[str, ...]:
    """The names of all layers, in the table's order."""
    return tuple(_ROWS)


def distinct() -> tuple[str, ...]:
    """The names without variants: what an experiment on every layer trains."""
    return tuple(row.name for row in TABLE if row.variant_of is None)


def get(name: str) -> NormAct:
    """The row called `name`. Raises ValueError naming the nearest one, or all."""
    if name not in _ROWS:
        near = difflib.get_close_matches(name, _ROWS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(_ROWS)}"
        raise ValueError(f"no layer is called {name!r}; {hint}")
    return _ROWS[name]
