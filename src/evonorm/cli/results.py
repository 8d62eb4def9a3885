"""`evonorm report` and `evonorm export`: what runs already made come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evonorm.cli.common import require_folder, say_unread
from evonorm.cli.parsing import Parser


def add(commands: Any) -> None:
    """Adds both commands."""
    report = Parser(
        description="Write the page of a folder of runs, or of a sweep's: one self-contained HTML file.",
        example="evonorm report runs --output report.html",
    )
    report.add_argument("runs", help="--out of reproduce, train or sweep")
    report.add_argument("-o", "--output", default="report.html", help="the page")
    report.add_argument(
        "--comparison", default=None, type=str | None, help="which comparison file, if there are several"
    )
    report.add_argument(
        "--png",
        default=None,
        type=str | None,
        metavar="DIR",
        help="also its charts as pictures, for papers and READMEs",
    )
    report.add_argument(
        "--svg", default=None, type=str | None, metavar="DIR", help="the same pictures as drawings, sharp at any size"
    )
    commands.add_subcommand("report", report, help="the page of runs already made")

    export = Parser(
        description="Write the runs or the sweep in a folder as one table: a row a run or trial, with its "
        "configuration, final and best metrics; --metrics: a row an epoch. Names and types: docs/export.md.",
        example="evonorm export runs --csv runs.csv",
    )
    export.add_argument("folder", metavar="FOLDER", help="--out of train, reproduce or sweep, or one run's folder")
    export.add_argument("--csv", default=None, type=str | None, metavar="FILE", help="as CSV")
    export.add_argument("--parquet", default=None, type=str | None, metavar="FILE", help="as Parquet (needs pyarrow)")
    export.add_argument("--metrics", action="store_true", help="a row an epoch, of a program's trial a row a report")
    commands.add_subcommand("export", export, help="runs or a sweep as one table")


def report(options: Any) -> int:
    """Writes the page; the exit code."""
    from evonorm.lab.pages import page

    say_unread(page.write(Path(options.runs), Path(options.output), comparison=options.comparison))
    print(options.output)
    for kind in ("png", "svg"):
        if (folder := options[kind]) is not None:
            for path in page.draw(Path(options.runs), Path(folder), comparison=options.comparison, kind=kind):
                print(path)
    return 0


def export(options: Any) -> int:
    """Writes the table; the exit code."""
    from evonorm.lab.sweep import export as exporting

    files = {name: Path(value) if (value := getattr(options, name)) else None for name in ("csv", "parquet")}
    for name, file in files.items():
        if file is not None:
            require_folder(f"--{name}", file)
    table = exporting.export(Path(options.folder), csv=files["csv"], parquet=files["parquet"], metrics=options.metrics)
    say_unread(table.unread)
    for file in filter(None, files.values()):
        print(f"{file}: {len(table.rows)} rows, {len(table.columns)} columns")
    return 0
