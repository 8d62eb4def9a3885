"""The runs that the published answer still needs, in their order, by one command that any machine can go on with.

`make campaign DATA=pictures.zip OUT=campaign FOR=9m`: stops after that time at a checkpoint; repeat it, on another
machine too if the folder was copied there, until it says that all has run. `--rehearse` does the same with budgets that
tell nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from evonorm import cli
from evonorm.lab.errors import UserError
from evonorm.lab.stopping import seconds_of

SWEEP = Path(__file__).parents[1] / "examples" / "report_sweep.yaml"
# A command that could not even load its data in what is left is not begun.
LEAST_SECONDS = 15.0


@dataclass(frozen=True)
class Part:
    """A command of the campaign. name: of its folder. full, rehearsal: what its budget adds to it."""

    name: str
    command: tuple[str, ...]
    full: tuple[str, ...]
    rehearsal: tuple[str, ...]


def _experiment(
    name: str, *always: str, budget: str, seeds: int, own: tuple[str, ...] = (), rehearsal: tuple[str, ...]
) -> Part:
    command = ("reproduce", "--experiment", name, *always)
    full = ("--budget", budget, "--seeds", *map(str, range(seeds)), *own)
    return Part(name, command, full, ("--budget", "quick", "--seeds", "0", *rehearsal))


def _sweep(name: str, *fixed: str) -> Part:
    tiny = ("epochs=1", "train_images=200", "test_images=50")
    return Part(
        name,
        ("sweep", str(SWEEP)),
        ("--trials", "60", *(("--set", *fixed) if fixed else ())),
        ("--trials", "2", "--set", *fixed, *tiny),
    )


SIZES = tuple(str(2**power) for power in range(1, 11))
PARTS = (
    # Every layer with seed 0 first, then with seed 1 ...: whenever it is stopped, it is fair.
    _experiment("report", budget="full", seeds=5, rehearsal=("--only", "bn-relu-sgd", "s0-g8")),
    _experiment(
        "learning-rate",
        *("--layers", "bn-relu", "evonorm-b0", "evonorm-s0", "none"),
        budget="quarter",
        seeds=2,
        rehearsal=("--optimizers", "sgd", "--learning-rates", "0.01"),
    ),
    _experiment(
        "batch-size", budget="quarter", seeds=2, own=("--batch-sizes", *SIZES), rehearsal=("--batch-sizes", "64", "128")
    ),
    _experiment(
        "batch-steps",
        budget="quarter",
        seeds=2,
        own=("--batch-sizes", *SIZES),
        rehearsal=("--batch-sizes", "64", "256"),
    ),
    _sweep("sweep-intended"),
    _sweep("sweep-published", "layer=none"),
)


def main() -> int:
    """Runs what is left; the exit code: 0 when all has run, 130 when the time was over."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip(), formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", help="as evonorm reproduce takes it")
    parser.add_argument("--out", default="campaign", help="folder of all its folders")
    parser.add_argument("--for", dest="time", metavar="TIME", help="stop after this time: 90s, 9m, 1.5h")
    parser.add_argument("--rehearse", action="store_true", help="budgets of minutes, which tell nothing")
    options = parser.parse_args()
    try:
        seconds = seconds_of(options.time)
    except UserError as error:
        parser.error(str(error))
    end = None if seconds is None else time.monotonic() + seconds
    failed = []
    for part in PARTS:
        left = None if end is None else end - time.monotonic()
        if left is not None and left < LEAST_SECONDS:
            print(f"the time is over before {part.name}; repeat the command to go on")
            return cli.INTERRUPTED
        words = (*part.command, *(part.rehearsal if options.rehearse else part.full))
        words += ("--data", options.data) if options.data else ()
        words += ("--out", str(Path(options.out) / part.name), *(() if left is None else ("--for", f"{left:.0f}s")))
        print(f"== {part.name}: evonorm {' '.join(words)}", flush=True)
        code = subprocess.run([sys.executable, "-m", "evonorm", *words], check=False).returncode
        if code == cli.INTERRUPTED:
            print(f"stopped in {part.name}; repeat the command to go on")
            return code
        failed += [part.name] if code else []
    print(f"all has run; failed: {', '.join(failed)}" if failed else "all has run")
    return cli.FAILED if failed else 0


if __name__ == "__main__":
    sys.exit(main())
