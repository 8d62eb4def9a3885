"""How fast whole runs train: images a second of the report's network, by layer, kernels and capturing of steps.

`python -m benchmarks.training --device cuda`: runs of `evonorm train` as they are, with data, augmentation, optimizer
and the looks at what is finite, in turn in one process. Of each run the last epoch counts, when all is compiled and
recorded.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evonorm.lab import machine
from evonorm.lab.data.sets import ImageDataset
from evonorm.lab.errors import UserError
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.progress import Silent
from evonorm.lab.training.training import train
from evonorm.layers import kernels, table


@dataclass(frozen=True)
class Plan:
    """What is measured. images: of an epoch."""

    device: str = "cuda"
    layers: tuple[str, ...] = ("none", "bn-relu", "evonorm-s0", "evonorm-b0")
    images: int = 128 * 100
    batch_size: int = 128
    epochs: int = 3
    rounds: int = 3
    augmented: tuple[bool, ...] = (False, True)


REHEARSAL = Plan("cpu", layers=("none", "evonorm-s0"), images=32, batch_size=16, epochs=1, rounds=1, augmented=(False,))


def rows(plan: Plan) -> Iterator[list[dict[str, Any]]]:
    """After each run: a row a layer and variant, images a second of every round, their median, and trouble if any."""
    dataset, cases = _noise(plan.images), _cases(plan)
    found: dict[TrainConfig, list[float]] = {case: [] for case in cases}
    trouble: dict[TrainConfig, str] = {}
    for number, case in itertools.product(range(plan.rounds), cases):
        heard = _Heard()
        try:
            with tempfile.TemporaryDirectory() as folder:
                record = train(case, dataset, Path(folder), watch=heard)
        except (UserError, RuntimeError) as error:
            trouble[case] = str(error).partition("\n")[0]
        else:
            if record.status != "finished" or heard.uncaptured:
                trouble[case] = heard.uncaptured or f"the run {record.status}"
            else:
                found[case].append(record.metrics[-1]["images_per_second"])
                print(f"round {number + 1}: {_said(case)}: {found[case][-1]:,.0f} images/s", flush=True)
        yield [
            {
                **_said(case),
                "images_per_second": found[case],
                "median": statistics.median(found[case]) if found[case] else None,
                "trouble": trouble.get(case),
                "batch_size": plan.batch_size,
                "images": plan.images,
            }
            for case in cases
        ]


def _cases(plan: Plan) -> list[TrainConfig]:
    """Kernels where they are ours: torch's own layers are what the others are compared with."""
    fused: Any = "triton" if plan.device == "cuda" else "kernel"
    captured = (False, True) if plan.device == "cuda" else (False,)
    return [
        TrainConfig(
            layer=layer,
            groups=8,
            backend=backend,
            capture=capture,
            augment=augment,
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            check_steps=32,
            precision="bf16",
            device=plan.device,
        )
        for layer in plan.layers
        for backend in (("reference", fused) if kernels.written(table.get(layer)) else ("reference",))
        for capture, augment in itertools.product(captured, plan.augmented)
        if backend == "reference" or table.get(layer).native is None
    ]


def _said(case: TrainConfig) -> dict[str, Any]:
    return {"layer": case.layer, "backend": case.backend, "captured": case.capture, "augmented": case.augment}


class _Heard(Silent):
    """Whether a run says that its steps could not be captured."""

    uncaptured = ""

    def say(self, text: str) -> None:
        """See Watch."""
        if "cannot be captured" in text:
            self.uncaptured = text


def _noise(images: int) -> ImageDataset:
    random = np.random.default_rng(0)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        return random.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % 10

    classes = tuple(str(number) for number in range(10))
    return ImageDataset("noise", "0" * 16, classes, *split(images), *split(10))


def main(arguments: list[str] | None = None) -> int:
    """Prints a line of JSON a row, and what they were measured on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip(), formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--device", default="cuda", choices=("cuda", "cpu"), help="cpu: a rehearsal, which tells nothing"
    )
    options = parser.parse_args(arguments)
    try:
        conditions = machine.environment(machine.choose_device(options.device))
        plan = Plan() if options.device == "cuda" else REHEARSAL
        *_, last = rows(plan)
    except UserError as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    for row in last:
        print(json.dumps(row | {"conditions": conditions}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
