"""`evonorm layers`, `evonorm plan` and `evonorm bench`: the layers, where they would go, how fast they are."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any, Literal

from evonorm.cli.common import FAILED, INTERRUPTED, require_folder
from evonorm.cli.parsing import Parser
from evonorm.lab.bench import options as bench_options

_STARTS = "weight, v and running_var start at 1; bias, tau and running_mean at 0; each has one value a channel"


def add(commands: Any) -> None:
    """Adds the three commands."""
    bench = Parser(
        description="Measure the layers beside their rivals: time, times faster than torch's BatchNorm with ReLU and "
        "than timm, time over what memory alone takes, tensors saved for backward, peak memory. One process, "
        "implementations in turn, medians. Ours are checked against float64 first: what is wrong shows no speed, and "
        "the exit code is 1. Ctrl-C prints what was measured so far. "
        "Start with `evonorm bench`; then --preset mini-inception, --shape 32,64,56,56, --network.",
        example="evonorm bench --layers evonorm-s0 --shape 32,64,56,56",
    )
    bench_options.add_arguments(bench)
    commands.add_subcommand("bench", bench, help="how fast the layers are here")

    layers = Parser(
        description="Print the table of layers: name, formula, parameters, source.", example="evonorm layers"
    )
    commands.add_subcommand("layers", layers, help="the table of layers")

    plan = Parser(
        description="Print what putting a layer into a model would do: every normalization, what follows it, whether "
        "it is replaced and why. In Python: evonorm.convert(model, layer).",
        example="evonorm plan resnet50 evonorm-s0 --groups 16",
    )
    plan.add_argument("model", help="mini-inception, a model of torchvision, as in resnet50, or timm:NAME")
    plan.add_argument("layer", help="a layer of `evonorm layers`")
    plan.add_argument("--groups", type=int | None, default=None, help="default: 32, or a GroupNorm's own")
    plan.add_argument("--group_size", type=int | None, default=None, help="channels a group, in the place of --groups")
    plan.add_argument(
        "--without_activation",
        default="keep",
        type=Literal["keep", "affine", "replace"],
        help="at norms that no activation follows: keep them, put the layer there with its activation off, or whole",
    )
    plan.add_argument("--json", default=None, type=str | None, metavar="FILE", help="writes the plan there too")
    commands.add_subcommand("plan", plan, help="what putting a layer into a known model would do")


def bench(options: Any) -> int:
    """Measures; the exit code."""
    asked = bench_options.from_arguments(options)

    from evonorm.lab.bench.run import bench as measure
    from evonorm.lab.bench.tables import make_console

    outcome = measure(asked, make_console())
    return INTERRUPTED if outcome.interrupted else FAILED if outcome.red else 0


def layers(options: Any) -> int:
    """Prints the table; the exit code."""
    from evonorm.layers.table import rows

    width = max(len(row.name) for row in rows())
    columns = _columns()
    for row in rows():
        own = ", ".join([*(("weight", "bias") if row.affine else ()), *row.parameters, *row.running]) or "none"
        print(_folded(f"{row.name:{width}}  y = {row.text}", columns, width + 2))
        print(_folded(f"{'':{width}}  parameters: {own}. Source: {row.source}", columns, width + 2))
    print()
    print(_folded(_STARTS, columns, 0))
    return 0


def _columns() -> int | None:
    """Where lines are folded, at words: a terminal's width. None for a pipe, which gets whole lines."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _folded(line: str, columns: int | None, indent: int) -> str:
    if columns is None or len(line) <= columns:
        return line
    folded = textwrap.wrap(
        line.strip(),
        max(columns, 40),
        initial_indent=" " * (len(line) - len(line.lstrip())),
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
    return "\n".join(folded)


def plan(options: Any) -> int:
    """Prints the plan; the exit code."""
    from evonorm.lab.planning import plan_of

    values = dict(options.as_dict())
    file = values.pop("json")
    if file is not None:
        require_folder("--json", Path(file))
    made = plan_of(values.pop("model"), values.pop("layer"), **values)
    columns = _columns()
    for line in str(made).splitlines():
        print(_folded(line, columns, min(line.rfind("  ") + 2, 30)))
    if file is not None:
        Path(file).write_text(made.to_json() + "\n", encoding="utf-8")
        print(f"plan: {file}")
    return 0
