"""A run's own pictures on its page: the last of each kind in it, the earlier ones as files beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from evonorm.lab.pages.grid import link
from evonorm.lab.records import pictures


@dataclass(frozen=True)
class Shown:
    """The last picture of a kind. content: its address, which holds it; earlier: epochs and addresses of files."""

    caption: str
    epoch: int
    size: tuple[int, int]
    content: str
    earlier: Sequence[tuple[int, str]]


def shown(folder: Path, at: Path) -> list[Shown]:
    """The pictures of the run in `folder`, for a page that lies in `at`."""
    found = []
    for _, of_kind in groupby(pictures.of_run(folder), key=lambda one: one.kind):
        *earlier, last = of_kind
        content = base64.b64encode(last.path.read_bytes()).decode("ascii")
        below = link(folder / pictures.FOLDER, at)
        found.append(
            Shown(
                last.caption,
                last.epoch,
                last.size,
                f"data:image/png;base64,{content}",
                [(one.epoch, below + one.path.name) for one in earlier],
            )
        )
    return found
