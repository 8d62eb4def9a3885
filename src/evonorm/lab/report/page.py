"""One self-contained HTML page of a folder, whatever kind of folder it is; and its charts as pictures."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Protocol

from evonorm.lab import records
from evonorm.lab.errors import UserError
from evonorm.lab.report import architectures, batches, comparison_page, ladder, ladder_page, sweep_page


class Kind(Protocol):
    """A kind of folder: a module with these three. A new one has a line in KINDS and a template beside it."""

    def holds(self, folder: Path) -> bool:
        """Whether the folder is of this kind, by a file that no other kind has."""

    def render(self, folder: Path) -> str:
        """Its page. Raises UserError if there is nothing to show."""

    def draw(self, folder: Path, out: Path) -> list[Path]:
        """Writes the page's charts as pictures into the folder `out`, and returns their paths. Raises as render."""


# The first that knows the folder draws it; what none knows is a folder of runs.
KINDS: tuple[Kind, ...] = (sweep_page, ladder_page, batches, architectures)


def write(folder: Path, output: Path, *, comparison: str | None = None) -> None:
    """Writes the page of `folder` to `output`, at once. comparison: a file's name, if there are several.

    Raises UserError if there is nothing to show, or the page cannot be written.
    """
    content = render(folder, comparison=comparison)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        records.write_atomically(output, content.encode())
    except OSError as error:
        raise UserError(f"cannot write the page {output}: {error.strerror}; choose another -o") from error


def render(folder: Path, *, comparison: str | None = None) -> str:
    """The page as text; it loads nothing from anywhere."""
    if comparison is not None and PurePath(comparison).match(ladder.LISTINGS):
        return ladder_page.render(folder, comparison)
    if comparison is not None and PurePath(comparison).match(batches.LISTINGS):
        return batches.render(folder, comparison)
    if comparison is not None and PurePath(comparison).match(architectures.LISTINGS):
        return architectures.render(folder, comparison)
    kind = _kind(folder, comparison)
    return comparison_page.render(folder, comparison=comparison) if kind is None else kind.render(folder)


def draw(folder: Path, out: Path, *, comparison: str | None = None) -> list[Path]:
    """Writes the charts of the page of `folder` as pictures to the folder `out`, and returns their paths.

    Raises UserError if there is nothing to show, or a picture cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if comparison is not None and PurePath(comparison).match(ladder.LISTINGS):
            return ladder_page.draw(folder, out, comparison)
        if comparison is not None and PurePath(comparison).match(batches.LISTINGS):
            return batches.draw(folder, out, comparison)
        if comparison is not None and PurePath(comparison).match(architectures.LISTINGS):
            return architectures.draw(folder, out, comparison)
        kind = _kind(folder, comparison)
        return comparison_page.draw(folder, out, comparison=comparison) if kind is None else kind.draw(folder, out)
    except OSError as error:
        raise UserError(f"cannot write pictures to {out}: {error.strerror}; choose another --png") from error


def _kind(folder: Path, comparison: str | None) -> Kind | None:
    """What draws the folder; None: it is one of runs, as whoever names a comparison says."""
    return None if comparison is not None else next((kind for kind in KINDS if kind.holds(folder)), None)
