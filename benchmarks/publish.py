"""Takes an experiment's records into results/: python -m benchmarks.publish RUNS NAME; then `make figures`.

Of each run that has ended what its page and the figures read, no checkpoints and no pictures: a few kilobytes a run.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from evonorm.lab.records import run_files

RESULTS = Path(__file__).parents[1] / "results"
KEPT = ("config.json", "environment.json", "metrics.jsonl", "summary.json", "classes.json", "judge.json", "fid.json")


def publish(runs: Path, to: Path) -> list[str]:
    """Puts the listings and records in `runs` in place of what is in `to`; the names of the runs."""
    ended = [one.name for one in run_files.read_all(runs).records if one.status in ("finished", "diverged")]
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for listing in runs.glob("*-*-*.json"):
        shutil.copy(listing, to)
    for name in ended:
        (to / name).mkdir()
        for file in KEPT:
            if (runs / name / file).exists():
                shutil.copy(runs / name / file, to / name)
    return ended


if __name__ == "__main__":
    published = publish(Path(sys.argv[1]), RESULTS / sys.argv[2])
    print(f"{len(published)} runs: {', '.join(published)}")
