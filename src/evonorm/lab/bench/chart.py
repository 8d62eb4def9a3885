"""A picture of times over BatchNorm-ReLU's, a row for each shape: one mark for each implementation."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evonorm.lab.bench.results import COPY, LATENCY, STEP, YARDSTICK, Compared, by_table
from evonorm.lab.bench.tables import TITLES
from evonorm.lab.errors import UserError

BASE = YARDSTICK
# Okabe and Ito's colours, which stay apart for colour-blind eyes; marks differ too, so a grey print can be read.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
VARIANT_MARKS = {"kernel": "o", "reference": "s", "compiled": "P", "timm": "^", "timm compiled": "<"}
OTHER_MARKS = "DXv*>dhp"
GREY = "#666666"


def require_matplotlib() -> Any:
    """matplotlib's figure module. Raises UserError, with the remedy, where it is not installed."""
    try:
        return importlib.import_module("matplotlib.figure")
    except ImportError:
        raise UserError("--plot needs matplotlib: pip install matplotlib, or leave --plot out") from None


def draw(compared: Iterable[Compared], path: Path, conditions: str) -> bool:
    """Writes the picture; False, and no file, where nothing was measured beside the base."""
    figures = by_table(each for each in compared if each.faster_than_batch_norm_relu is not None)
    if not figures:
        return False
    names = list(dict.fromkeys(each.result.implementation for members in figures.values() for each in members))
    styles = _styles([each.result for members in figures.values() for each in members])
    rows = [_labels(members) for members in figures.values()]
    heights = [max(1.0, 0.55 * len(labels)) + 0.9 for labels in rows]
    figure = require_matplotlib().Figure(figsize=(10, sum(heights) + 1.9), dpi=150, layout="constrained")
    panels = figure.subplots(len(figures), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for panel, ((name, setting), members), labels in zip(panels, figures.items(), rows, strict=True):
        _panel(panel, f"{TITLES[name]}; {setting}", members, labels, styles)
    handles = [panels[0].plot([], [], linestyle="none", label=name, **styles[name])[0] for name in names]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    panels[-1].set_xlabel(f"median time over {BASE}'s in the same process (left is faster)")
    figure.supxlabel("\n".join(textwrap.wrap(conditions, 130)), fontsize=7, color=GREY)
    figure.savefig(path)
    return True


def _panel(panel: Any, title: str, members: list[Compared], labels: list[str], styles: dict[str, Any]) -> None:
    panel.set_title(title, loc="left", fontsize=10)
    panel.set_xscale("log")
    panel.axvline(1.0, color=GREY, linewidth=1)
    spread = _spread([each.result.implementation for each in members])
    single = len(labels) == 1
    for each in members:
        result, faster = each.result, each.faster_than_batch_norm_relu
        assert faster is not None, "draw keeps those that have the base beside them"
        height = labels.index(_label(each)) + spread[result.implementation]
        panel.plot(1 / faster, height, linestyle="none", markersize=7, **styles[result.implementation])
        if single:
            panel.annotate(
                f"{1 / faster:.2f}", (1 / faster, height), (6, -3), textcoords="offset points", fontsize=8, color=GREY
            )
    panel.set_yticks(range(len(labels)), labels, fontsize=9)
    panel.set_ylim(len(labels) - 0.45, -0.55)
    for boundary in range(1, len(labels)):
        panel.axhline(boundary - 0.5, color="#DDDDDD", linewidth=0.8)
    panel.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
    panel.xaxis.set_minor_formatter(lambda value, position: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    panel.tick_params(which="both", labelsize=8, labelbottom=True)
    panel.grid(axis="x", which="both", color="#EEEEEE")
    panel.set_axisbelow(True)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)


def _styles(results: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """A colour for each layer and a mark for each variant; a colour and a mark of its own for what is no layer."""
    colours: dict[str, str] = {}
    styles: dict[str, dict[str, Any]] = {}
    others = 0
    for result in results:
        name = result.implementation
        if name in styles:
            continue
        if name == COPY:
            styles[name] = {"marker": "|", "color": "#000000"}
        elif result.layer is None:
            styles[name] = {"marker": OTHER_MARKS[others % len(OTHER_MARKS)], "color": GREY, "fillstyle": "none"}
            others += 1
        else:
            colour = colours.setdefault(result.layer, COLOURS[len(colours) % len(COLOURS)])
            styles[name] = {"marker": VARIANT_MARKS[result.variant], "color": colour}
    return styles


def _spread(names: Iterable[str]) -> dict[str, float]:
    """Each implementation's own height within its row, so that equal times do not cover each other."""
    distinct = list(dict.fromkeys(names))
    step = 0.76 / max(1, len(distinct) - 1)
    return {name: -0.38 + step * number for number, name in enumerate(distinct)}


def _labels(members: Iterable[Compared]) -> list[str]:
    return list(dict.fromkeys(_label(each) for each in members))


def _label(each: Compared) -> str:
    shape = each.result.details["shape"]
    return f"batch {shape[0]}" if each.result.figure in (STEP, LATENCY) else "x".join(map(str, shape))
