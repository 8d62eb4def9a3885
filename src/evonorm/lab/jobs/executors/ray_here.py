"""Ray itself: imported, started or joined, and what of ours travels to its nodes.

Code: this package, whole, goes to a cluster's nodes as a module of the job; a training function from outside installed
packages goes by value, with its module; for a program Ray ships the folder the sweep was started in (what its
.gitignore leaves out, it leaves out too). Data: what the target carries is put into Ray's object store once and shared
by the trials of a node.
"""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from evonorm.lab.errors import UserError
from evonorm.lab.jobs.executors.capacity import cores
from evonorm.lab.jobs.executors.interface import cannot_travel
from evonorm.lab.jobs.job import Function, Target

LOCAL = "local"
STARTS = 3


def imported(*, local: bool) -> Any:
    """Ray. local: for a Ray of our own. Raises UserError if it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A task that asks for no GPU sees those that there are, as a process does; Ray's next default.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if local:
        # Despite its name, what makes Ray keep to the loopback address.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise UserError(f"--ray needs Ray, which is not here ({error}): pip install 'evonorm[ray]'") from None
    return ray


def connect(ray: Any, address: str, target: Target, processors: float) -> None:
    """Starts Ray here, or joins the cluster. processors: that a Ray of our own has at least.

    Raises UserError if it does not start, or there is none.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if address == LOCAL:
        options |= {"num_cpus": max(cores(), round(processors)), "include_dashboard": False}
    else:
        options["runtime_env"] = _code(target)
    # A machine that is busy with other work starts Ray too slowly for its liking, and the next time sooner.
    for left in range(STARTS if address == LOCAL else 1, 0, -1):
        try:
            ray.init(address, **options)
            return
        except Exception as error:  # of many kinds, a plain Exception among them
            ray.shutdown()
            if left > 1:
                continue
            if address == LOCAL:
                remedy = "repeat the command, or leave --ray out"
                raise UserError(f"Ray does not start on this machine: {first_line(error)}; {remedy}") from error
            remedy = "start one with `ray start --head`, or use --ray local"
            raise UserError(f"no Ray at {address!r}: {first_line(error)}; {remedy}") from error


def put(ray: Any, target: Target) -> Any:
    """The target in Ray's object store. Raises UserError if it cannot travel."""
    if isinstance(target, Function):
        _by_value(ray, sys.modules.get(target.module))
    try:
        return ray.put(target)
    except (AttributeError, TypeError, ImportError, ValueError) as error:
        raise UserError(cannot_travel(error)) from None


def first_line(error: Exception) -> str:
    """Of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _code(target: Target) -> dict[str, Any]:
    """What a cluster's nodes need to run the target."""
    import evonorm

    package = Path(evonorm.__file__).parent
    shipped: dict[str, Any] = {"py_modules": [str(package)], "excludes": ["__pycache__", "csrc"]}
    if target.ships_folder:
        shipped["working_dir"] = str(Path.cwd())
    return shipped


def _by_value(ray: Any, module: ModuleType | None) -> None:
    """Lets what the module defines travel whole, unless the nodes have it: this package, Python's, installed ones."""
    file = getattr(module, "__file__", None)
    if module is None or file is None or module.__name__.split(".")[0] == "evonorm":
        return
    installed = (sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
    if not any(Path(file).is_relative_to(folder) for folder in installed):
        ray.cloudpickle.register_pickle_by_value(module)
