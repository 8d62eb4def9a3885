"""Writes the figures of README and docs from the records in results/: marked blocks of text, and pictures.

`make figures` runs it; a block stands between <!-- NAME --> and <!-- /NAME -->, and nothing in it is written by hand.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import of_gpu, of_keras, of_pixels, of_plan, of_report, of_short, of_speed, of_tasks

ROOT = Path(__file__).parents[1]


# Which block of which file is written by what.
BLOCKS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("README.md", "results", of_report.short),
    ("README.md", "speed", of_speed.cpu),
    ("README.md", "gpu", of_speed.gpu_told),
    ("docs/results.md", "answer", of_report.whole),
    ("docs/results.md", "training", of_report.training),
    ("docs/results.md", "pixels", of_pixels.table),
    ("docs/which-layer.md", "standing", of_report.standing),
    ("docs/which-layer.md", "rates", of_short.rates),
    ("docs/which-layer.md", "batches", partial(of_short.answers, "batch-size")),
    ("docs/which-layer.md", "networks", partial(of_short.answers, "architectures")),
    *(("docs/short-runs.md", name, shown) for name, shown in of_short.BLOCKS),
    ("docs/speed.md", "cpu", of_speed.cpu),
    ("docs/speed.md", "network", of_speed.network),
    ("docs/speed.md", "gpu", of_speed.gpu),
    ("docs/speed.md", "fused", of_gpu.tables),
    ("docs/kernels.md", "plan", of_plan.planned),
    ("docs/detection.md", "runs", of_tasks.detection),
    ("docs/synthesis.md", "runs", of_tasks.synthesis),
    ("docs/keras.md", "runs", of_keras.notebook),
)


def filled(text: str, name: str, content: str) -> str:
    """The text with this content in its block. Raises ValueError if there is not one such block."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    found, count = pattern.subn(lambda match: f"{match[1]}{content}\n{match[2]}", text)
    if count != 1:
        raise ValueError(f"there are {count} blocks <!-- {name} -->, not one")
    return found


def main() -> None:
    """Writes everything."""
    for file, name, of in BLOCKS:
        path = ROOT / file
        path.write_text(filled(path.read_text(encoding="utf-8"), name, of()), encoding="utf-8")
        print(f"{file}: {name}")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(of_report.draw(Path(folder)), ROOT / "docs" / "results.png")
    for picture in (ROOT / "docs" / "results.png", *of_short.draw(ROOT / "docs")):
        print(picture.relative_to(ROOT))


if __name__ == "__main__":
    main()
