"""What was measured, and what follows from it: medians, ratios, the floor. Imports no torch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

YARDSTICK, NO_LAYER, COPY = "batch_norm+relu", "none", "copy"
STEP, LATENCY = "training step", "latency"

COPY_MOVES = 2

Status = Literal["measured", "red", "skipped"]


@dataclass
class Result:
    """One implementation's figure in one case: all repeats, memory, what the gate said.

    status: red, the gate or the code failed, and there is no speed; skipped, for `reason`. seconds: of one call, a
    value for each round; host_seconds: of the processor that hands it over, where another device computes.
    first_call_seconds: of the first of all, with whatever is compiled for it. must_move: see `must_move`. input_sets:
    inputs taken in turn, each of x_bytes. plan: how Triton's kernels cut forward and backward. images: samples a call.
    """

    case: str
    figure: str
    implementation: str
    layer: str | None
    variant: str
    images: int
    status: Status = "measured"
    reason: str | None = None
    seconds: list[float] = field(default_factory=list)
    host_seconds: list[float] = field(default_factory=list)
    first_call_seconds: float | None = None
    must_move: int | None = None
    input_sets: int = 1
    x_bytes: int | None = None
    plan: dict[str, str] | None = None
    calls: int = 1
    saved_tensors: int | None = None
    saved_bytes: int | None = None
    peak_bytes: int | None = None
    gate: dict[str, Any] | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float | None:
        """Median seconds of a call; None where there is no speed to tell."""
        return statistics.median(self.seconds) if self.seconds and self.status == "measured" else None

    @property
    def median_host(self) -> float | None:
        """Median seconds of the processor a call; None where it is the device."""
        return statistics.median(self.host_seconds) if self.host_seconds and self.status == "measured" else None

    @property
    def peak_over_x(self) -> float | None:
        """The peak of memory in sizes of x."""
        return self.peak_bytes / self.x_bytes if self.peak_bytes is not None and self.x_bytes else None


def must_move(figure: str, *, over_batch: bool) -> int | None:
    """Full-size tensors that a layer must move between memory and processor, each reading and writing counted once.

    Forward reads x and writes y: 2. In training, statistics over the batch are known when all of x has been read, so it
    is read again for y: 3. Backward comes, in a network, when forward is long over: it reads x and dy and writes dx, 3;
    where the statistics' own gradient sums over the batch it reads both once more, 5. So forward+backward is 5 for
    statistics of a sample or none (EvoNorm-S, GroupNorm, FRN, ReLU), 8 for those of the batch (EvoNorm-B, BatchNorm).
    A copy moves 2, so a figure's floor is the copy's time times half of this: bytes over the bandwidth that a copy of x
    reaches. None for a whole network's figures.
    """
    counts = {"forward": (2, 3), "forward+backward": (5, 8), "inference": (2, 2)}
    return counts[figure][over_batch] if figure in counts else None


@dataclass(frozen=True)
class Compared:
    """A result beside the others of its case and figure; None where one of the two is missing.

    over_...: its time over that; faster_than_...: that time over its own.
    """

    result: Result
    floor_seconds: float | None
    over_floor: float | None
    over_no_layer: float | None
    faster_than_batch_norm_relu: float | None
    faster_than_timm: float | None
    images_per_second: float | None

    def as_row(self, conditions: Mapping[str, Any]) -> dict[str, Any]:
        """A line of JSON: the result, what follows from it, and its conditions."""
        follows = asdict(self)
        measured = follows.pop("result")
        details, calls = measured.pop("details"), measured.pop("calls")
        del measured["images"]
        own = {
            "calls_per_repeat": calls,
            "median_seconds": self.result.median,
            "median_host_seconds": self.result.median_host,
            "peak_over_x": self.result.peak_over_x,
            "conditions": dict(conditions),
        }
        return {**details, **measured, **follows, **own}


def compare(results: Iterable[Result]) -> list[Compared]:
    """Every result beside the others of its case and figure."""
    listed = list(results)
    medians = {(r.case, r.figure, r.implementation): r.median for r in listed}
    compared = []
    for result in listed:

        def of(name: str, result: Result = result) -> float | None:
            return medians.get((result.case, result.figure, name))

        own = result.median
        copy, moved = of(COPY), result.must_move
        floor = None if copy is None or moved is None else copy * moved / COPY_MOVES
        timm = None if result.variant.startswith("timm") else of(f"{result.layer} timm")
        compared.append(
            Compared(
                result,
                floor_seconds=floor,
                over_floor=_ratio(own, floor) if result.implementation != COPY else None,
                over_no_layer=_ratio(own, of(NO_LAYER)),
                faster_than_batch_norm_relu=_ratio(of(YARDSTICK), own),
                faster_than_timm=_ratio(timm, own),
                images_per_second=_ratio(float(result.images), own),
            )
        )
    return compared


def by_table(compared: Iterable[Compared]) -> dict[tuple[str, str], list[Compared]]:
    """In the order in which they were measured, by what a table or a panel shows: a figure; dtype and format."""
    found: dict[tuple[str, str], list[Compared]] = {}
    for each in compared:
        details = each.result.details
        found.setdefault((each.result.figure, f"{details['dtype']}, {details['format']}"), []).append(each)
    return found


class JsonLines:
    """A file of JSON lines, written anew; None writes nowhere."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            path.write_text("", encoding="utf-8")

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows, at once on disk."""
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under
