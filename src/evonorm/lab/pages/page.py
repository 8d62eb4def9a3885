"""One self-contained HTML page of a folder, whatever kind of folder it is; and its charts as pictures."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Protocol

from evonorm.lab.errors import UserError
from evonorm.lab.pages import architectures_page, batches, comparison_page, ladder_page, runs_page, sweep_page
from evonorm.lab.records import run_files
from evonorm.lab.records.run_files import Unread


class Kind(Protocol):
    """A kind of folder: a module with these three. A new one has a place in KINDS and a template beside it."""

    LISTINGS: str  # pattern of the files by which a folder is of this kind

    def render(self, folder: Path, name: str | None = None, at: Path | None = None) -> str:
        """Its page, of the file called `name` if there are several, to lie in the folder `at`; default: `folder`.

        Raises UserError if there is nothing to show.
        """

    def draw(self, folder: Path, out: Path, name: str | None = None, kind: str = "png") -> list[Path]:
        """Writes the page's charts as pictures, `png` or `svg`, into the folder `out`, and returns their paths.

        Raises as render.
        """


# A folder of several kinds is of the first; one of none is a folder of runs.
KINDS: tuple[Kind, ...] = (sweep_page, comparison_page, ladder_page, batches, architectures_page, runs_page)


def write(folder: Path, output: Path, *, comparison: str | None = None) -> tuple[Unread, ...]:
    """Writes the page of `folder` to `output`, at once, and returns the runs there that it leaves out.

    comparison: a file's name, if there are several. Raises UserError if there is nothing to show, or the page cannot be
    written.
    """
    content = _kind(folder, comparison).render(folder, comparison, output.parent)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        run_files.write_atomically(output, content.encode())
    except OSError as error:
        raise UserError(f"cannot write the page {output}: {error.strerror}; choose another -o") from error
    return run_files.read_all(folder).unread


def render(folder: Path, *, comparison: str | None = None) -> str:
    """The page as text, to lie in the folder; it loads nothing from anywhere."""
    return _kind(folder, comparison).render(folder, comparison)


def draw(folder: Path, out: Path, *, comparison: str | None = None, kind: str = "png") -> list[Path]:
    """Writes the charts of the page of `folder` as pictures to the folder `out`, and returns their paths.

    kind: `png` or `svg`. Raises UserError if there is nothing to show, or a picture cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _kind(folder, comparison).draw(folder, out, comparison, kind)
    except OSError as error:
        raise UserError(f"cannot write pictures to {out}: {error.strerror}; choose another --{kind}") from error


def _kind(folder: Path, name: str | None) -> Kind:
    """What draws the folder, or its file called `name`."""
    if name is None:
        kinds = (kind for kind in KINDS if any(folder.glob(kind.LISTINGS)))
    else:
        kinds = (kind for kind in KINDS if PurePath(name).match(kind.LISTINGS))
    return next(kinds, runs_page if name is None else comparison_page)
