"""From options to tables, rows and picture: every case in turn, and what was measured if it is stopped."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import torch
from rich.console import Console

from evonorm.lab import machine
from evonorm.lab.bench import chart, devices, progress
from evonorm.lab.bench.cases import cases
from evonorm.lab.bench.devices import Device
from evonorm.lab.bench.implementations import Implementation, implementations, kernels_here
from evonorm.lab.bench.measure import measure
from evonorm.lab.bench.network import measure_network
from evonorm.lab.bench.options import DTYPES_BY_DEVICE, BenchOptions
from evonorm.lab.bench.results import JsonLines, Result, compare
from evonorm.lab.bench.tables import conditions_line, details, explanation, tables
from evonorm.lab.jobs.board import say

# A bar that is about right: elements of the layers that a training step of Mini Inception passes, for an image.
NETWORK_ELEMENTS = 1_000_000
BUSY = 0.5  # load average; two threads that share a core wait for each other at every barrier


@dataclass
class Outcome:
    """What was measured, and whether all of it was."""

    results: list[Result] = field(default_factory=list)
    interrupted: bool = False

    @property
    def red(self) -> bool:
        """Whether an implementation failed the gate."""
        return any(result.status == "red" for result in self.results)


@dataclass(frozen=True)
class _Part:
    name: str
    weight: float
    measure: Callable[..., None]


def bench(options: BenchOptions, console: Console) -> Outcome:
    """Measures all that the options ask for and prints it; Ctrl-C ends it early, with what there is.

    Raises UserError for a device that is not here, a layer that is none, or a picture asked for without matplotlib.
    """
    device = devices.choose(options.device)
    contenders = implementations(options, device)
    if options.plot is not None:
        chart.require_matplotlib()
    rows = JsonLines(options.json)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.keep_freed_memory:
        machine.keep_freed_memory()
    stated = conditions(options, device)
    say(console, conditions_line(stated))
    if stated["load_average"] > BUSY:
        say(console, f"NOTE: others are at work here (load {stated['load_average']}); ratios hold better than times")

    outcome = Outcome()
    parts = _parts(options, contenders, device)
    with progress.shown(console, [part.weight for part in parts]) as board:
        for part in parts:
            board.begin(part.name)
            measured: list[Result] = []
            try:
                part.measure(into=measured, tick=board.tick)
            except KeyboardInterrupt:
                outcome.interrupted = True
            outcome.results += measured
            rows.add(compared.as_row(stated) for compared in compare(measured))
            if outcome.interrupted:
                break
    _show(outcome, options, console, stated)
    return outcome


def conditions(options: BenchOptions, device: Device) -> dict[str, Any]:
    """What a figure holds for: machine, versions, settings."""
    return machine.environment(device.place) | {
        "kernels": kernels_here(),
        "timm": machine.version_of("timm"),
        "keep_freed_memory": options.keep_freed_memory,
        "repeats": options.repeats,
        "groups": options.groups,
        "load_average": round(os.getloadavg()[0], 2),  # before the bench adds to it
    }


def _parts(options: BenchOptions, contenders: list[Implementation], device: Device) -> list[_Part]:
    common: dict[str, Any] = {"device": device, "groups": options.groups, "repeats": options.repeats}
    parts = [
        _Part(str(case), float(prod(case.shape) * len(case.figures)), partial(measure, case, contenders, **common))
        for case in cases(options)
    ]
    if options.network:
        parts += [
            _Part(
                f"Mini Inception, {dtype} {format}",
                float(options.batch_size * NETWORK_ELEMENTS),
                partial(
                    measure_network,
                    contenders,
                    dtype=dtype,
                    format=format,
                    batch_size=options.batch_size,
                    **common,
                ),
            )
            for dtype in options.dtypes or DTYPES_BY_DEVICE[options.device]
            for format in options.formats
        ]
    return parts


def _show(outcome: Outcome, options: BenchOptions, console: Console, stated: dict[str, Any]) -> None:
    compared = compare(outcome.results)
    for table in tables(compared, width=console.width):
        console.print(table)
    if compared:
        say(console, explanation(compared))
    for line in details(outcome.results) if options.verbose else ():
        say(console, line)
    told: set[str] = set()
    for result in outcome.results:
        if result.status != "measured":
            word = "RED, no speed" if result.status == "red" else "skipped"
            where = f"{result.case}, {result.figure}: " if result.status == "red" else ""
            told.add(f"{word}: {where}{result.implementation}: {result.reason}")
    for line in sorted(told):
        say(console, line)
    if options.json is not None:
        say(console, f"rows: {options.json}")
    if options.plot is not None:
        drawn = chart.draw(compared, options.plot, conditions_line(stated))
        nothing = f"no picture: nothing was measured beside {chart.BASE}"
        say(console, f"picture: {options.plot}" if drawn else nothing)
    if outcome.interrupted:
        say(console, "stopped: what was measured so far is above")
