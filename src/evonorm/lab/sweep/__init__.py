"""Sweeps: any W&B sweep file, without a server. `run` from Python, `log` from inside a trial."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonorm.lab.jobs.job import log

if TYPE_CHECKING:
    from evonorm.lab.sweep.driver import Result
    from evonorm.lab.sweep.schema import Sweep

__all__ = ["log", "run"]


def run(
    config: Sweep | Mapping[str, Any] | str | os.PathLike[str],
    train: Callable[[dict[str, Any]], Any],
    *,
    out: str | os.PathLike[str],
    workers: int | None = None,
    ray: str | None = None,
    seed: int | None = None,
    trials: int | None = None,
    show: bool = True,
) -> Result:
    """Runs `train` for every trial of a W&B sweep configuration, or goes on with what is in the folder `out`.

    config: a file, a dict of the same shape, or a schema.Sweep. train(parameters): yields metrics (it can then be
    stopped early), returns them, or calls `log`. workers: processes, to which `train` must be able to travel; default:
    one a core; 0: in this process, one trial after another. ray: `local` or a cluster's address, where trials
    then run instead. seed, trials: see driver.drive. show: whether to draw what
    goes on. Raises UserError for a configuration that does not hold, with the key's path.
    """
    from rich.console import Console

    from evonorm.lab.jobs import executors
    from evonorm.lab.jobs.job import Function
    from evonorm.lab.sweep import schema, view
    from evonorm.lab.sweep.driver import drive

    if isinstance(config, str | os.PathLike):
        sweep = schema.read(Path(config))
    else:
        sweep = config if isinstance(config, schema.Sweep) else schema.parse(config)
    target = Function(train, sweep.metric.name if sweep.metric else None)
    executor = executors.make(target, workers=workers, ray=ray)
    console = Console(quiet=not show)
    with view.shown(console, Path(out)) as watch:
        return drive(sweep, target, Path(out), executor, seed=seed, trials=trials, view=watch)
