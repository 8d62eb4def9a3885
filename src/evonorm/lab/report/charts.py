"""Curves as Plotly figures, plain data: who draws them and in which theme is the page's affair."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evonorm.lab.records import Record

# Okabe and Ito's palette, told apart with any colour vision and on light and dark; a colour a layer, everywhere.
COLOURS = {
    "none": "#8c8c8c",
    "bn-relu": "#0072b2",
    "evonorm-b0": "#d55e00",
    "evonorm-s0": "#009e73",
}
OTHER_COLOUR = "#cc79a7"
# Groups of EvoNorm-S0 share its colour and differ by marker.
GROUP_SYMBOLS = {8: "circle", 16: "square", 32: "triangle-up"}
# More markers than this on a line hide it.
MOST_MARKERS = 12
# Losses further apart than this are drawn on a logarithmic axis: a run on its way to infinity would flatten the rest.
LOG_RATIO = 20


@dataclass(frozen=True)
class Curve:
    """A run as a chart shows it.

    label: what the legend says; curves of one label are repetitions of one another and share an entry. seed: which
    repetition, where there are several. published: whether it stands for the published variant alone. colour: its own
    where layers do not tell the curves apart; else the layer's.
    """

    label: str
    record: Record
    seed: str = ""
    published: bool = False
    colour: str = ""

    @property
    def name(self) -> str:
        """The label, and the seed where there are several."""
        return f"{self.label}, {self.seed}" if self.seed else self.label


@dataclass(frozen=True)
class Chart:
    """title, key to its lines in words, a Plotly figure as data, and the same numbers as a table."""

    title: str
    key: str
    figure: Mapping[str, Any]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def curves(shown: Iterable[Curve], quantity: str, suffix: str = "") -> Chart:
    """Training (dashed) and validation (solid) of every run against the epoch. quantity: `loss` or `accuracy`.

    A diverged run keeps the epochs it finished and ends in a cross. suffix: ends the title.
    """
    shown = list(shown)
    scale = 100.0 if quantity == "accuracy" else 1.0
    unit = "accuracy, %" if quantity == "accuracy" else "loss"
    traces: list[dict[str, Any]] = []
    rows: list[tuple[str, ...]] = []
    by_label: dict[str, list[Curve]] = {}
    for curve in shown:
        by_label.setdefault(curve.label, []).append(curve)
    for same in by_label.values():
        diverged = [curve for curve in same if curve.record.status == "diverged"]
        for curve in same:
            for split in ("train", "val"):
                leads = curve is same[0] and split == "val"
                traces.append(_line(curve, split, quantity, scale, leads=leads, thin=len(same) > 1))
            for epoch in curve.record.metrics:
                figures = [epoch.get(f"{split}_{quantity}") for split in ("train", "val")]
                rows.append((curve.name, str(epoch["epoch"]), *(_number(figure, scale) for figure in figures)))
            if curve in diverged:
                count = f" {len(diverged)} of {len(same)}" if len(same) > 1 else ""
                legend = f"{curve.label}: diverged{count}" if curve is diverged[0] else ""
                traces.append(_cross(curve, quantity, scale, legend=legend))
                rows.append((curve.name, str(_diverged_at(curve.record)), "diverged", "diverged"))
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "dtick": _epoch_tick(shown)},
        "yaxis": {"title": {"text": unit}} | (_loss_axis(traces) if quantity == "loss" else {}),
        # Above the plot: below, a legend of several lines runs into the axis title.
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        "margin": {"l": 56, "r": 12, "t": 8, "b": 48},
        "hovermode": "closest",
    }
    header = ("run", "epoch", f"training {unit}", f"validation {unit}")
    figure = {"data": traces, "layout": layout}
    return Chart(f"{quantity.capitalize()}{suffix}", _key(shown), figure, header, tuple(rows))


def _key(shown: list[Curve]) -> str:
    key = "validation solid, training dashed"
    key += "; published hollow, intended filled" if len({curve.published for curve in shown}) > 1 else ""
    return key + ("; a cross: diverged" if any(curve.record.status == "diverged" for curve in shown) else "")


def _loss_axis(traces: list[dict[str, Any]]) -> dict[str, Any]:
    losses = [loss for trace in traces for loss in trace["y"] if loss is not None]
    if losses and min(losses) > 0 and max(losses) > LOG_RATIO * min(losses):
        return {"title": {"text": "loss (logarithmic)"}, "type": "log"}
    return {"rangemode": "tozero"}


def _line(curve: Curve, split: str, quantity: str, scale: float, *, leads: bool, thin: bool) -> dict[str, Any]:
    metrics = curve.record.metrics
    values = [epoch.get(f"{split}_{quantity}") for epoch in metrics]
    colour, validation = _colour(curve), split == "val"
    width = (2.0 if validation else 1.2) * (0.6 if thin else 1)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": html.escape(curve.label),
        "legendgroup": html.escape(curve.label),
        "showlegend": leads,
        "x": [epoch["epoch"] for epoch in metrics],
        "y": [None if value is None else scale * value for value in values],
        "line": {"color": colour, "dash": "solid" if validation else "dash", "width": width},
        "marker": {
            "color": colour,
            "size": (7 if validation else 4) - thin,
            "symbol": _symbol(curve),
            "maxdisplayed": MOST_MARKERS,
        },
        "hovertemplate": f"{html.escape(curve.name)}<br>{'validation' if validation else 'training'}, "
        "epoch %{x}: %{y:.4g}<extra></extra>",
    }


def _cross(curve: Curve, quantity: str, scale: float, *, legend: str) -> dict[str, Any]:
    trained = [epoch.get(f"train_{quantity}") for epoch in curve.record.metrics]
    known = [value for value in trained if value is not None]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": html.escape(legend),
        "legendgroup": html.escape(curve.label),
        "showlegend": bool(legend),
        "x": [_diverged_at(curve.record)],
        # A run that diverged before it had finished an epoch has no height of its own.
        "y": [scale * known[-1] if known else 1],
        "marker": {"size": 13, "symbol": "x-thin", "line": {"color": _colour(curve), "width": 3}},
        "hovertemplate": f"{html.escape(curve.name)}<br>diverged in epoch %{{x}}<extra></extra>",
    }


def _colour(curve: Curve) -> str:
    return curve.colour or COLOURS.get(str(curve.record.config.get("layer")), OTHER_COLOUR)


def _symbol(curve: Curve) -> str:
    """Groups by shape; published hollow, so that it is told from intended where both train one layer."""
    groups = curve.record.config.get("groups")
    shape = GROUP_SYMBOLS.get(groups, "diamond") if isinstance(groups, int) else "circle"
    return f"{shape}-open" if curve.published else shape


def _diverged_at(record: Record) -> int:
    diagnosis = record.summary.get("diagnosis") or {}
    return int(diagnosis.get("epoch", len(record.metrics) + 1))


def _epoch_tick(shown: list[Curve]) -> int:
    longest = max((len(curve.record.metrics) for curve in shown), default=1)
    return max(1, round(longest / 6))


def _number(value: float | None, scale: float) -> str:
    return "not finite" if value is None else f"{scale * value:.4g}"
