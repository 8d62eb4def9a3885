"""The printed tables: one for each figure and dtype, a section for each shape."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from evonorm.lab.bench.results import LATENCY, STEP, YARDSTICK, Compared, Result, by_table

MIB = 2**20
LOG_COLUMNS = 120  # a log has no width of its own, and a table cut to 80 columns has lost its figures
NARROW = 100
TITLES = {
    "forward": "forward, training: with what backward will need",
    "forward+backward": "forward + backward, training",
    "inference": "inference: not training, without a gradient",
    STEP: "training step of Mini Inception: forward, loss, backward",
    LATENCY: "latency of Mini Inception: one image, not training",
}


def make_console() -> Console:
    """The terminal, or a log wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=LOG_COLUMNS)


def tables(compared: Iterable[Compared], *, width: int = LOG_COLUMNS) -> list[Table]:
    """The results as tables, in the order in which they were measured; below 100 columns without the spread."""
    narrow = width < NARROW
    return [_table(figure, conditions, m, narrow=narrow) for (figure, conditions), m in by_table(compared).items()]


def explanation() -> str:
    """How to read the tables."""
    return (
        "ms: median of the rounds (fastest-slowest). faster than: times faster than that, so above 1 "
        f"is faster; BN is {YARDSTICK}, timm the layer of the same name. over floor: times the time that memory takes "
        "for what must move (x, y; with backward also x again, dy, dx), at the bandwidth of a copy of x. saved: "
        "tensors of x's size kept for backward, and their MiB. peak: MiB allocated above x and dy."
    )


def conditions_line(conditions: Mapping[str, Any]) -> str:
    """Machine, versions and settings in a line."""
    freed = "kept" if conditions["keep_freed_memory"] else "given back"
    return (
        f"{conditions['processor']}, {conditions['threads']} threads of {conditions['cores']} cores, "
        f"torch {conditions['instructions']}, kernels {conditions['kernels']}; torch {conditions['torch']}, "
        f"timm {conditions['timm'] or 'missing'}, evonorm {conditions['evonorm']} ({conditions['commit']}); "
        f"freed memory {freed}; {conditions['repeats']} rounds, groups {conditions['groups']}; "
        f"load before: {conditions['load_average']}"
    )


def _table(figure: str, conditions: str, members: list[Compared], *, narrow: bool) -> Table:
    network = figure in (STEP, LATENCY)
    title = f"{TITLES[figure]}; {conditions}"
    padding = (0, 0) if narrow else (0, 1, 0, 0)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=padding, pad_edge=False)
    table.add_column("batch" if network else "shape", no_wrap=True)
    table.add_column("implementation", no_wrap=True)
    figures = ["over\nnone", "images/s"] if network else ["over\nfloor", "saved\n(MiB)", "peak\nMiB"]
    for heading in ("ms", "faster\nthan BN", "faster\nthan timm", *figures):
        table.add_column(heading, justify="right", no_wrap=True)
    shown = None
    for each in members:
        shape = each.result.details["shape"]
        label = str(shape[0]) if network else "x".join(map(str, shape))
        if shown not in (None, label):
            table.add_section()
        table.add_row(
            "" if shown == label else label,
            each.result.implementation,
            _time(each.result, narrow=narrow),
            _times(each.faster_than_batch_norm_relu),
            _times(each.faster_than_timm),
            *(_network_cells(each) if network else _layer_cells(each)),
        )
        shown = label
    return table


def _time(result: Result, *, narrow: bool) -> str:
    if result.median is None:
        return "RED" if result.status == "red" else result.status
    low, middle, high = (1e3 * t for t in (min(result.seconds), statistics.median(result.seconds), max(result.seconds)))
    digits = 1 if middle >= 10 else 3 if middle < 1 else 2
    spread = "" if narrow else f" ({low:.{digits}f}-{high:.{digits}f})"
    return f"{middle:.{digits}f}{spread}"


def _layer_cells(each: Compared) -> tuple[str, str, str]:
    result = each.result
    saved, peak = "", ""
    if result.median is not None and result.saved_tensors is not None and result.saved_bytes is not None:
        saved = f"{result.saved_tensors} ({_mib(result.saved_bytes)})"
    if result.median is not None and result.peak_bytes is not None:
        peak = _mib(result.peak_bytes)
    return _times(each.over_floor), saved, peak


def _network_cells(each: Compared) -> tuple[str, str]:
    speed = each.images_per_second
    return _times(each.over_no_layer), "" if speed is None else f"{speed:.0f}"


def _mib(size: int) -> str:
    return f"{size / MIB:.0f}" if size >= 10 * MIB else f"{size / MIB:.2f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"
