"""A trial on a node of Ray: the task that runs it, and the mailbox between it and the driver."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evonorm.lab.jobs.executors.interface import logged_attempt
from evonorm.lab.jobs.job import Carrying, Job, Outcome, Target, plain
from evonorm.lab.jobs.logs import LOG

MARK = ".ray"
# A training step asks whether to go on; so often the question goes over the network.
ASK_SECONDS = 0.1


@dataclass(frozen=True)
class Settings:
    """What a task is told of its attempt. serial: its own number; mark: what MARK holds if the node sees the folder.

    folder: where the driver runs.
    """

    serial: int
    mark: str
    folder: str


# Metrics, the part that is done, or how it ended.
Post = Mapping[str, Any] | float | Outcome


class Mailbox:
    """An actor on the driver's node: attempts post metrics, and at last their Outcome; the driver posts stops."""

    def __init__(self) -> None:
        self._posts: list[tuple[int, Post]] = []
        self._stops: set[int] = set()
        self._something = asyncio.Event()

    async def post(self, serial: int, what: Post) -> bool:
        """Keeps a post for the driver; whether the attempt should end."""
        self._posts.append((serial, what))
        self._something.set()
        return serial in self._stops

    async def stopping(self, serial: int) -> bool:
        """Whether the attempt should end."""
        return serial in self._stops

    async def stop(self, serial: int) -> None:
        """The attempt should end."""
        self._stops.add(serial)

    async def receive(self, seconds: float) -> list[tuple[int, Post]]:
        """Every post since the last call, as soon as there is one, or when the time is over."""
        if not self._posts and seconds > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._something.wait(), seconds)
        self._something.clear()
        posts, self._posts = self._posts, []
        return posts


def run(target: Target, cargo: Any, job: Job, mailbox: Any, settings: Settings) -> bytes | None:
    """One attempt; posts its Outcome. Returns what it wrote where the driver does not see it, as a tar; else None."""
    # Ray's workers hold Ctrl-C back, and a program would inherit that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    if isinstance(target, Carrying):
        target.unload(cargo)
    reporter = _ToMailbox(mailbox, settings.serial)
    shared = _sees(job.sweep_folder, settings.mark)
    with contextlib.ExitStack() as stack:
        if not shared:
            here = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evonorm-")))
            job = replace(job, folder=here / job.folder.relative_to(job.sweep_folder), sweep_folder=here)
        else:
            stack.enter_context(_working_in(settings.folder))
        outcome = logged_attempt(target, job, reporter)
        brought = None if shared else _packed(job.sweep_folder)
    reporter.post(outcome)
    return brought


class _ToMailbox:
    """A trial's Reporter. Each post waits until it is there, so that they keep their order."""

    def __init__(self, mailbox: Any, serial: int) -> None:
        self._mailbox, self._serial = mailbox, serial
        self._stop, self._asked = False, 0.0

    def tell(self, metrics: Mapping[str, Any]) -> None:
        self.post(plain(metrics))

    def moved(self, part: float) -> None:
        self.post(float(part))

    def post(self, what: Post) -> None:
        import ray

        self._stop |= ray.get(self._mailbox.post.remote(self._serial, what))

    def stop_requested(self) -> bool:
        import ray

        now = time.monotonic()
        if not self._stop and now - self._asked >= ASK_SECONDS:
            self._asked = now
            self._stop = ray.get(self._mailbox.stopping.remote(self._serial))
        return self._stop


def _sees(folder: Path, mark: str) -> bool:
    try:
        return (folder / MARK).read_text(encoding="ascii") == mark
    except OSError:
        return False


@contextlib.contextmanager
def _working_in(folder: str) -> Iterator[None]:
    """In the driver's folder, where this node has it: relative paths mean what they mean there."""
    before = Path.cwd()
    with contextlib.suppress(OSError):
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _packed(folder: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, arcname=path.name, filter=_kept)
    return content.getvalue()


def unpack(archive: bytes, job: Job) -> None:
    """Puts what an attempt wrote elsewhere into the sweep's folder, its log after those of earlier attempts."""
    log = job.folder / LOG
    before = log.read_bytes() if log.exists() else b""
    log.unlink(missing_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(job.sweep_folder, filter="data")
    if before:
        log.write_bytes(before + (log.read_bytes() if log.exists() else b""))


def _kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(member.name).name == "lock" else member
