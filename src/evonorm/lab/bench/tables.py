"""The printed tables: one for each figure and dtype, a section for each shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


def explanation(compared: Sequence[Compared]) -> str:
    """How to read the tables."""
    most = max(each.result.input_sets for each in compared)
    on_gpu = (
        " host: of the processor, which hands the kernels over before the device begins: where it is the larger, "
        f"launches are the bound. Up to {most} inputs take turns, so that the second-level cache has not the next one."
    )
    return (
        "ms: median of the rounds (fastest-slowest). faster than: times faster than that, so above 1 "
        f"is faster; BN is {YARDSTICK}, timm the layer of the same name. over floor: times the time that memory takes "
        "for what must move, at a copy's bandwidth: x, y; with backward also x again, dy, dx; with statistics "
        "of the batch, in training, x once more each way, and dy. saved: tensors of x's size kept for backward, and "
        "their MiB. peak: allocated above x and dy, in sizes of x."
    ) + (on_gpu if any(each.result.host_seconds for each in compared) else "")


def details(results: Iterable[Result]) -> list[str]:
    """A line for each first call, with what Triton's kernels chose."""
    lines = []
    for result in results:
        if result.first_call_seconds is not None:
            plan = "; ".join(f"{direction}: {cut}" for direction, cut in (result.plan or {}).items())
            where = f"{result.case}, {result.figure}: {result.implementation}"
            lines.append(f"{where}: first call {result.first_call_seconds:.2f} s{plan and f'; {plan}'}")
    return lines


def conditions_line(conditions: Mapping[str, Any]) -> str:
    """Machine, versions and settings in a line."""
    if "driver" in conditions:
        return (
            f"{conditions['device']}, {conditions['l2_bytes'] / MIB:.0f} MiB L2, driver {conditions['driver']}; "
            f"torch {conditions['torch']}, Triton {conditions['triton']}, timm {conditions['timm'] or 'missing'}, "
            f"evonorm {conditions['evonorm']} ({conditions['commit']}); {conditions['repeats']} rounds, "
            f"groups {conditions['groups']}; {conditions['processor']}, load before: {conditions['load_average']}"
        )
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
    figures = ["over\nnone", "images/s"] if network else ["over\nfloor", "saved\n(MiB)", "peak\n(of x)"]
    hosted = any(each.result.host_seconds for each in members)
    for heading in ("ms", *(["host\nms"] if hosted else []), "faster\nthan BN", "faster\nthan timm", *figures):
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
            *([_milliseconds(each.result.median_host)] if hosted else []),
            _times(each.faster_than_batch_norm_relu),
            _times(each.faster_than_timm),
            *(_network_cells(each) if network else _layer_cells(each)),
        )
        shown = label
    return table


def _time(result: Result, *, narrow: bool) -> str:
    if result.median is None:
        return "RED" if result.status == "red" else result.status
    low, high = (1e3 * t for t in (min(result.seconds), max(result.seconds)))
    digits = _digits(result.median)
    spread = "" if narrow else f" ({low:.{digits}f}-{high:.{digits}f})"
    return f"{_milliseconds(result.median)}{spread}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.{_digits(seconds)}f}"


def _digits(seconds: float) -> int:
    return 1 if seconds >= 1e-2 else 3 if seconds < 1e-3 else 2


def _layer_cells(each: Compared) -> tuple[str, str, str]:
    result = each.result
    saved, peak = "", ""
    if result.median is not None and result.saved_tensors is not None and result.saved_bytes is not None:
        saved = f"{result.saved_tensors} ({_mib(result.saved_bytes)})"
    if result.median is not None:
        peak = _times(result.peak_over_x)
    return _times(each.over_floor), saved, peak


def _network_cells(each: Compared) -> tuple[str, str]:
    speed = each.images_per_second
    return _times(each.over_no_layer), "" if speed is None else f"{speed:.0f}"


def _mib(size: int) -> str:
    return f"{size / MIB:.0f}" if size >= 10 * MIB else f"{size / MIB:.2f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"
