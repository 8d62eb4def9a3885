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

# Full-size tensors that must move between memory and processor, whatever the layer: forward reads x and writes y;
# backward comes, in a network, when that is long over, so it reads x again, reads dy and writes dx. A copy moves two.
# So the floor of a figure is a copy's time times half of these: bytes over the bandwidth that a copy of x reaches.
MUST_MOVE = {"forward": 2, "inference": 2, "forward+backward": 5}
COPY_MOVES = 2

Status = Literal["measured", "red", "skipped"]


@dataclass
class Result:
    """One implementation's figure in one case: all repeats, memory, what the gate said.

    status: red, the gate or the code failed, and there is no speed; skipped, for `reason`. seconds: of one call, a
    value for each round. images: samples a call.
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
        own = {"calls_per_repeat": calls, "median_seconds": self.result.median, "conditions": dict(conditions)}
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
        copy, moved = of(COPY), MUST_MOVE.get(result.figure)
        floor = None if copy is None or moved is None else copy * moved / COPY_MOVES
        timm = of(f"{result.layer} timm") if result.variant != "timm" else None
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
