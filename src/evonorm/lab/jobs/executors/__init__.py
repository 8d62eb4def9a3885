"""Where trials run: one small interface; processes on this machine, a thread of this process, or Ray."""

from __future__ import annotations

from evonorm.lab.errors import UserError
from evonorm.lab.jobs.executors.capacity import TRAINING_GB, cores, default_workers
from evonorm.lab.jobs.executors.gpus import Measured, Shared, gpus
from evonorm.lab.jobs.executors.in_process import InThisProcess
from evonorm.lab.jobs.executors.interface import Ended, Executor, Lost, Message, Moved, Told
from evonorm.lab.jobs.executors.processes import Processes
from evonorm.lab.jobs.job import Target

__all__ = [
    "TRAINING_GB",
    "Ended",
    "Executor",
    "InThisProcess",
    "Lost",
    "Message",
    "Moved",
    "Processes",
    "Told",
    "cores",
    "default_workers",
    "make",
]


def make(
    target: Target,
    *,
    workers: int | None = None,
    ray: str | None = None,
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    gigabytes_each: float | None = None,
    most: int | None = None,
) -> Executor:
    """The executor that these options choose.

    workers: trials at once; 0: in this process, one after another; default: as many as cores (or Ray's nodes) and
    memory hold, and of this lab's trainings on GPUs no more than keep these busy and fit into their memory, which is
    measured as they are added. ray: `local`, or a cluster's address, or `auto`. cpus_per_trial, gpus_per_trial: of each
    of Ray's tasks, fractions too; default: one processor, and one GPU where there is any. gigabytes_each: of memory a
    trial takes: TRAINING_GB for this lab's trainings, None for others. most: trials that there are; fewer than cores
    share them alike. Raises UserError for options that do not go together, and if Ray is not there.
    """
    if workers is not None and workers < 0:
        raise UserError(f"workers must be 0 or above: got {workers}")
    if ray is None:
        for name, value in (("cpus", cpus_per_trial), ("gpus", gpus_per_trial)):
            if value is not None:
                raise UserError(f"--{name}-per-trial {value:g} is for --ray: without it trials share the cores alike")
        if workers == 0:
            return InThisProcess(target)
        there = gpus()
        # Of what is no training of this lab's it is not known that it computes on a GPU.
        measured = workers is None and gigabytes_each is not None
        shared = Measured(there) if measured else Shared([gpu.name for gpu in there])
        workers = workers or default_workers(gigabytes_each)
        return Processes(target, min(workers, most or workers), shared if there else None)
    if workers == 0:
        raise UserError("workers=0, which runs trials in this process, does not go with ray; leave one of them out")
    if cpus_per_trial is not None and cpus_per_trial <= 0:
        raise UserError(f"--cpus-per-trial must be above 0: got {cpus_per_trial:g}")
    if gpus_per_trial is not None and (gpus_per_trial < 0 or (gpus_per_trial > 1 and gpus_per_trial % 1)):
        raise UserError(f"--gpus-per-trial must be a fraction, or a whole number of GPUs: got {gpus_per_trial:g}")
    from evonorm.lab.jobs.executors.on_ray import OnRay

    return OnRay(
        target,
        address=ray,
        workers=workers,
        cpus=cpus_per_trial,
        gpus=gpus_per_trial,
        gigabytes=gigabytes_each,
    )
