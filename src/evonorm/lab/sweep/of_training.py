"""A sweep of this lab's training, checked before any trial runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evonorm.lab.errors import UserError
from evonorm.lab.jobs.training_job import check_names, config_of, types_of
from evonorm.lab.sweep.distributions import quantile
from evonorm.lab.sweep.schema import Sweep
from evonorm.lab.training import tasks
from evonorm.spelling import meant


def check(sweep: Sweep, fixed: Mapping[str, Any]) -> list[str]:
    """Tries every value a trial may get, before any runs. Returns notes; raises UserError with the value's path."""
    notes = []
    task = task_names(sweep, fixed)[0]  # whose options are meant
    for parameter in sorted(sweep.parameters, key=lambda parameter: parameter.name != "task"):
        distribution = parameter.distribution
        tried = distribution.values or (quantile(distribution, 1e-9), quantile(distribution, 1 - 1e-9))
        for place, value in enumerate(tried):
            at = parameter.place + (f".values[{place}]" if len(distribution.values) > 1 else "")
            try:
                check_names(config_of({"task": task, parameter.name: value}))
            except UserError as error:
                raise UserError(f"{at}: {error}") from None
        kinds = types_of(parameter.name, tasks.find(task))
        if not distribution.choices and int in kinds and not isinstance(tried[0], int):
            steps = "integer bounds, or q: 1" if distribution.kind == "uniform" else "an integer q"
            raise UserError(
                f"{parameter.place}: {parameter.name} takes integers, {distribution.kind} draws others; {steps}"
            )
        if distribution.kind == "int_uniform" and float in kinds:
            notes.append(
                f"{parameter.place}: integer bounds draw integers alone, as W&B does; write {distribution.minimum}.0 "
                f"for the numbers between, which {parameter.name} takes too"
            )
    check_names(config_of({"task": task, **fixed}))
    metrics = reported(sweep, fixed)
    if sweep.metric is not None and sweep.metric.name not in metrics:
        near = meant(sweep.metric.name, metrics)
        raise UserError(
            f"metric.name: training reports no {sweep.metric.name!r}{near}; it reports {', '.join(metrics)}"
        )
    return notes


def task_names(sweep: Sweep, fixed: Mapping[str, Any]) -> list[str]:
    """What `task` is in any trial."""
    tried = [str(value) for one in sweep.parameters if one.name == "task" for value in one.distribution.values]
    return tried or [str(fixed.get("task") or tasks.DEFAULT)]


def reported(sweep: Sweep, fixed: Mapping[str, Any]) -> list[str]:
    """The names of what every trial reports once an epoch, others' names for them included."""
    found = [tasks.find(name) for name in task_names(sweep, fixed)]
    return [
        name
        for name in (*found[0].figures, *found[0].aliases)
        if all(name in (*task.figures, *task.aliases) for task in found)
    ]
