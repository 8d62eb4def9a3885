"""Trials as tasks of Ray Core, on this machine (`local`) or a cluster: where to, with what, and what came back.

What travels there: see ray_here. Results: where a node sees the sweep's folder, a trial writes there, and a training
run that is tried again goes on from its checkpoint. Where it does not, the trial works in a folder of its node, which
comes back whole when the attempt ends; one that was killed or stopped then begins anew.

Ray itself retries nothing: an attempt that its node or worker took along is Lost, and the driver decides.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evonorm.lab.errors import UserError
from evonorm.lab.jobs.executors import ray_here
from evonorm.lab.jobs.executors.interface import Ended, Lost, Message, Moved, Told
from evonorm.lab.jobs.executors.ray_task import MARK, Mailbox, Settings, run, unpack
from evonorm.lab.jobs.job import Carrying, Job, Outcome, Target

# Ray's nodes are asked again after so long: a cluster may have grown, or lost one.
NODES_SECONDS = 5.0
CANCEL_SECONDS = 2.0
_GIGABYTE = 2**30


@dataclass
class _Running:
    serial: int
    job: Job
    task: Any


class OnRay:
    """As many trials at once as the cluster's nodes hold, or `workers`, if that is less.

    address: `local` starts a Ray of its own, which ends with this process; else of a running cluster, or `auto`. Where
    this process has a Ray already, that one is used and left running. cpus, gpus: of each trial; default: one
    processor, and one GPU where any node has one. gigabytes: of memory for each trial; None: not counted. Raises
    UserError if Ray is not installed or not there, or no node can hold a trial.
    """

    def __init__(
        self,
        target: Target,
        *,
        address: str,
        workers: int | None = None,
        cpus: float | None = None,
        gpus: float | None = None,
        gigabytes: float | None = None,
    ) -> None:
        self._ray = ray_here.imported(local=address == ray_here.LOCAL)
        self._workers = workers
        self._cpus = 1.0 if cpus is None else cpus
        self._ours = not self._ray.is_initialized()
        self._running: dict[int, _Running] = {}
        self._serial = 0
        self._closed = False
        self._slots_asked = -NODES_SECONDS
        self._mark = secrets.token_hex(8)
        self._marked: Path | None = None
        try:
            if self._ours:
                ray_here.connect(self._ray, address, target, (workers or 0) * self._cpus)
            nodes = self._nodes()
            any_gpu = any(node.get("GPU", 0) > 0 for node in nodes)
            self._gpus = (1.0 if any_gpu else 0.0) if gpus is None else gpus
            self._memory = _memory(gigabytes, nodes)
            self._slots = 0
            if self.slots == 0:
                raise UserError(_no_node_fits(nodes, self._cpus, self._gpus))
            here = self._ray.get_runtime_context().get_node_id()
            strategies = self._ray.util.scheduling_strategies
            on_this = strategies.NodeAffinitySchedulingStrategy(here, soft=False)
            self._mailbox = self._ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=on_this).remote()
            self._target = ray_here.put(self._ray, target)
            self._cargo = self._ray.put(target.cargo()) if isinstance(target, Carrying) else None
        except BaseException:
            if self._ours:
                self._ray.shutdown()
            raise

    @property
    def slots(self) -> int:
        """See Executor."""
        now = time.monotonic()
        if now - self._slots_asked >= NODES_SECONDS:
            self._slots_asked = now
            self._slots = sum(self._holds(node) for node in self._nodes())
        return self._slots if self._workers is None else min(self._slots, self._workers)

    def free(self) -> int:
        """See Executor."""
        return max(0, self.slots - len(self._running))

    def submit(self, job: Job) -> None:
        """See Executor."""
        if self._marked is None:
            self._marked = job.sweep_folder / MARK
            self._write_mark(self._marked)
        # A node may work in another folder than the driver.
        job = replace(job, folder=job.folder.absolute(), sweep_folder=job.sweep_folder.absolute())
        self._serial += 1
        settings = Settings(self._serial, self._mark, str(Path.cwd()))
        task = (
            self._ray.remote(run)
            .options(
                name=f"trial {job.number}",
                num_cpus=self._cpus,
                num_gpus=self._gpus,
                memory=self._memory,
                max_retries=0,
                scheduling_strategy="SPREAD",
            )
            .remote(self._target, self._cargo, job, self._mailbox, settings)
        )
        self._running[self._serial] = _Running(self._serial, job, task)

    def wait(self, seconds: float) -> list[Message]:
        """See Executor."""
        messages = self._received(seconds)
        tasks = {one.task: one for one in self._running.values()}
        if tasks:
            ended, _ = self._ray.wait(list(tasks), num_returns=len(tasks), timeout=0)
            if ended:
                messages += self._received(0)  # what they told last
            for task in ended:
                one = tasks[task]
                if one.serial in self._running:
                    messages.append(self._without_a_word(one))
        return messages

    def stop(self, number: int) -> None:
        """See Executor."""
        for one in self._running.values():
            if one.job.number == number:
                self._mailbox.stop.remote(one.serial)

    def close(self) -> None:
        """See Executor."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Exception):  # the cluster may be gone
            tasks = [one.task for one in self._running.values()]
            for force in (False, True):
                for task in tasks:
                    self._ray.cancel(task, force=force)
                if tasks:
                    _, tasks = self._ray.wait(tasks, num_returns=len(tasks), timeout=CANCEL_SECONDS)
            self._ray.kill(self._mailbox)
        self._running.clear()
        if self._marked is not None:
            with contextlib.suppress(OSError):
                self._marked.unlink(missing_ok=True)
        if self._ours:
            self._ray.shutdown()

    def _received(self, seconds: float) -> list[Message]:
        try:
            posts = self._ray.get(self._mailbox.receive.remote(seconds))
        except self._ray.exceptions.RayError as error:
            raise UserError(f"Ray is gone ({ray_here.first_line(error)}); repeat the command to go on") from None
        messages: list[Message] = []
        for serial, post in posts:
            one = self._running.get(serial)
            if one is None:  # an attempt that counts as lost speaks still
                continue
            if isinstance(post, Outcome):
                messages.append(self._ended(one, post))
            elif isinstance(post, float):
                messages.append(Moved(one.job.number, post))
            else:
                messages.append(Told(one.job.number, post))
        return messages

    def _ended(self, one: _Running, outcome: Outcome) -> Message:
        """The attempt's end; its folder is back before anyone hears of it."""
        del self._running[one.serial]
        try:
            brought = self._ray.get(one.task)
        except self._ray.exceptions.RayError as error:
            return Lost(one.job.number, self._why(error))
        if brought is not None:
            unpack(brought, one.job)
        return Ended(one.job.number, outcome)

    def _without_a_word(self, one: _Running) -> Message:
        del self._running[one.serial]
        try:
            self._ray.get(one.task)
        except self._ray.exceptions.RuntimeEnvSetupError as error:
            raise UserError(f"Ray cannot set up the nodes: {ray_here.first_line(error)}") from None
        except self._ray.exceptions.RayTaskError as error:
            return Ended(one.job.number, Outcome("failed", error=_last_line(error)))
        except self._ray.exceptions.RayError as error:
            return Lost(one.job.number, self._why(error))
        return Lost(one.job.number, "its task ended and told nothing")

    def _why(self, error: Exception) -> str:
        exceptions = self._ray.exceptions
        reasons = {
            exceptions.NodeDiedError: "its node died",
            exceptions.OutOfMemoryError: "its node ran out of memory: try fewer --workers",
            exceptions.WorkerCrashedError: "its process was killed",
            exceptions.ObjectLostError: "its node died before its result was fetched",
        }
        told = (words for kind, words in reasons.items() if isinstance(error, kind))
        return next(told, f"Ray lost it: {ray_here.first_line(error)}")

    def _write_mark(self, path: Path) -> None:
        """By this file a node knows that it sees the sweep's folder."""
        path.write_text(self._mark, encoding="ascii")

    def _nodes(self) -> list[dict[str, float]]:
        """What each living node has."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _holds(self, node: dict[str, float]) -> int:
        wanted = {"CPU": self._cpus, "GPU": self._gpus, "memory": self._memory}
        # Fractions of a GPU add up in binary: 0.1 ten times is one.
        return min(int(node.get(name, 0) / amount + 1e-6) for name, amount in wanted.items() if amount)


def _memory(gigabytes: float | None, nodes: list[dict[str, float]]) -> float | None:
    """Bytes to ask Ray for; None where not even one trial fits by that count: it is let run all the same."""
    wanted = (gigabytes or 0) * _GIGABYTE
    return wanted if wanted and any(node.get("memory", 0) >= wanted for node in nodes) else None


def _no_node_fits(nodes: list[dict[str, float]], cpus: float, gpus: float) -> str:
    there = "; ".join(f"{node.get('CPU', 0):g} processors, {node.get('GPU', 0):g} GPUs" for node in nodes)
    return (
        f"no node of Ray holds a trial of {cpus:g} processors and {gpus:g} GPUs: they have {there or 'nothing'}; "
        "lower --cpus-per-trial or --gpus-per-trial"
    )


def _last_line(error: Exception) -> str:
    return ([type(error).__name__, *str(error).strip().splitlines()])[-1]
