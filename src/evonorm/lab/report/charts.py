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


@dataclass(frozen=True)
class Curve:
    """A run as a chart shows it. label: what the legend says."""

    label: str
    record: Record


@dataclass(frozen=True)
class Chart:
    """title, what it shows in words, a Plotly figure as data, and the same numbers as a table."""

    title: str
    figure: Mapping[str, Any]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def curves(labelled: Iterable[Curve], quantity: str) -> Chart:
    """Training (dashed) and validation (solid) of every run against the epoch. quantity: `loss` or `accuracy`.

    A diverged run keeps the epochs it finished and ends in a cross.
    """
    labelled = list(labelled)
    scale = 100.0 if quantity == "accuracy" else 1.0
    unit = "accuracy, %" if quantity == "accuracy" else "loss"
    traces: list[dict[str, Any]] = []
    rows: list[tuple[str, ...]] = []
    for curve in labelled:
        record = curve.record
        for split, dash in (("train", "dash"), ("val", "solid")):
            values = [epoch.get(f"{split}_{quantity}") for epoch in record.metrics]
            scaled = [None if value is None else scale * value for value in values]
            traces.append(_line(curve, split, [epoch["epoch"] for epoch in record.metrics], scaled, dash))
        if record.status == "diverged":
            traces.append(_cross(curve, quantity, scale))
        for epoch in record.metrics:
            figures = [epoch.get(f"{split}_{quantity}") for split in ("train", "val")]
            rows.append((curve.label, str(epoch["epoch"]), *(_number(figure, scale) for figure in figures)))
        if record.status == "diverged":
            rows.append((curve.label, f"{_diverged_at(record)}", "diverged", "diverged"))
    figure = {
        "data": traces,
        "layout": {
            "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero", "dtick": _epoch_tick(labelled)},
            "yaxis": {"title": {"text": unit}, "rangemode": "tozero" if quantity == "loss" else "normal"},
            "legend": {"orientation": "h", "y": -0.25, "yanchor": "top", "x": 0},
            "margin": {"l": 56, "r": 12, "t": 8, "b": 48},
            "hovermode": "closest",
        },
    }
    return Chart(
        f"{quantity.capitalize()}", figure, ("run", "epoch", f"training {unit}", f"validation {unit}"), tuple(rows)
    )


def _line(curve: Curve, split: str, epochs: list[int], values: list[float | None], dash: str) -> dict[str, Any]:
    config = curve.record.config
    colour = COLOURS.get(str(config.get("layer")), OTHER_COLOUR)
    name = "training" if split == "train" else "validation"
    label = html.escape(curve.label)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label,
        "legendgroup": label,
        "showlegend": split == "val",
        "x": epochs,
        "y": values,
        "line": {"color": colour, "dash": dash, "width": 2 if split == "val" else 1.2},
        "marker": {"color": colour, "size": 7 if split == "val" else 4, "symbol": _symbol(config)},
        "hovertemplate": f"{label}<br>{name}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
    }


def _cross(curve: Curve, quantity: str, scale: float) -> dict[str, Any]:
    record = curve.record
    known = [epoch[f"train_{quantity}"] for epoch in record.metrics if epoch.get(f"train_{quantity}") is not None]
    label = html.escape(curve.label)
    colour = COLOURS.get(str(record.config.get("layer")), OTHER_COLOUR)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{label}: diverged",
        "legendgroup": label,
        "showlegend": True,
        "x": [_diverged_at(record)],
        "y": [scale * known[-1] if known else 0],
        "marker": {"color": colour, "size": 13, "symbol": "x-thin", "line": {"color": colour, "width": 3}},
        "hovertemplate": f"{label}<br>diverged in epoch %{{x}}<extra></extra>",
    }


def _symbol(config: Mapping[str, Any]) -> str:
    groups = config.get("groups")
    return GROUP_SYMBOLS.get(groups, "diamond") if isinstance(groups, int) else "circle"


def _diverged_at(record: Record) -> int:
    diagnosis = record.summary.get("diagnosis") or {}
    return int(diagnosis.get("epoch", len(record.metrics) + 1))


def _epoch_tick(labelled: list[Curve]) -> int:
    longest = max((len(curve.record.metrics) for curve in labelled), default=1)
    return max(1, longest // 10)


def _number(value: float | None, scale: float) -> str:
    return "not finite" if value is None else f"{scale * value:.4g}"
