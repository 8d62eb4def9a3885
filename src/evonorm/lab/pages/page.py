"""One self-contained HTML page of a folder, whatever kind of folder it is; and its charts as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Protocol

from evonorm.lab.errors import UserError
from evonorm.lab.pages import comparison_page, experiment_page, pictures, runs_page, sweep_page
from evonorm.lab.pages.charts import Chart
from evonorm.lab.records import listings, run_files
from evonorm.lab.records.run_files import Unread


class Kind(Protocol):
    """A kind of folder: a module with these three. A new one has a place in KINDS and a template beside it."""

    LISTINGS: str  # pattern of the files by which a folder is of this kind

    def render(self, folder: Path, name: str | None = None, at: Path | None = None) -> str:
        """Its page, of the file called `name` if there are several, to lie in the folder `at`; default: `folder`.

        Raises UserError if there is nothing to show.
        """

    def charts(self, folder: Path, name: str | None = None) -> Mapping[str, Chart | Sequence[Chart]]:
        """The page's charts by the name of a picture's file; see pictures.write. Raises as render."""


# A folder of several kinds is of the first; then come experiments, by their listings; one of none is a folder of runs.
KINDS: tuple[Kind, ...] = (sweep_page, comparison_page)


def write(folder: Path, output: Path, *, comparison: str | None = None) -> tuple[Unread, ...]:
    """Writes the page of `folder` to `output`, at once, and returns the runs there that it leaves out.

    comparison: a file's name, if there are several. Raises UserError if there is nothing to show, or the page cannot be
    written.
    """
    kind, name = _drawn_by(folder, comparison)
    content = kind.render(folder, name, output.parent)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        run_files.write_atomically(output, content.encode())
    except OSError as error:
        raise UserError(f"cannot write the page {output}: {error.strerror}; choose another -o") from error
    return run_files.read_all(folder).unread


def render(folder: Path, *, comparison: str | None = None) -> str:
    """The page as text, to lie in the folder; it loads nothing from anywhere."""
    kind, name = _drawn_by(folder, comparison)
    return kind.render(folder, name)


def draw(folder: Path, out: Path, *, comparison: str | None = None, kind: str = "png") -> list[Path]:
    """Writes the charts of the page of `folder` as pictures to the folder `out`, and returns their paths.

    kind: `png` or `svg`. Raises UserError if there is nothing to show, or a picture cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        drawn_by, name = _drawn_by(folder, comparison)
        return pictures.write(drawn_by.charts(folder, name), out, kind)
    except OSError as error:
        raise UserError(f"cannot write pictures to {out}: {error.strerror}; choose another --{kind}") from error


def _drawn_by(folder: Path, name: str | None) -> tuple[Kind, str | None]:
    """What draws the folder, or its file called `name`, and that file's name where it matters.

    Raises UserError if there is no such file.
    """
    if name is not None:
        of_name = next((kind for kind in KINDS if PurePath(name).match(kind.LISTINGS)), None)
        if of_name is not None:
            return of_name, name
        there = {path.name for path in listings.all_in(folder)}
        if name not in there:
            raise UserError(f"{folder} holds no {name}; it holds {', '.join(sorted(there)) or 'no comparison'}")
        return experiment_page, name
    of_folder = next((kind for kind in KINDS if any(folder.glob(kind.LISTINGS))), None)
    if of_folder is not None:
        return of_folder, None
    found = {path.name: str(run_files.read_json(path).get("updated", "")) for path in listings.all_in(folder)}
    return (experiment_page, max(found, key=lambda one: found[one])) if found else (runs_page, None)
