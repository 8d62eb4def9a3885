"""A table whose rows a reader sorts and filters, as data: parts.html.j2 writes it, page.js sorts it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote


@dataclass(frozen=True)
class Cell:
    """text: “–” or nothing sorts last. sort: what it sorts by where the text does not say it.

    link: a relative address, quoted.
    """

    text: str
    sort: float | int | str | None = None
    link: str = ""


@dataclass(frozen=True)
class Row:
    """cells: by the header; the first names the row."""

    status: str
    cells: tuple[Cell, ...]


def link(target: Path, at: Path) -> str:
    """The relative address of a folder for a page that lies in `at`; none where it is not there."""
    if not target.is_dir():
        return ""
    return "./" + quote(Path(os.path.relpath(target.resolve(), at.resolve())).as_posix()) + "/"


@dataclass(frozen=True)
class Grid:
    """header: each column's name, and whether it holds numbers."""

    header: tuple[tuple[str, bool], ...]
    rows: tuple[Row, ...]

    @property
    def statuses(self) -> list[str]:
        """Of the rows, each once."""
        return list(dict.fromkeys(row.status for row in self.rows))
