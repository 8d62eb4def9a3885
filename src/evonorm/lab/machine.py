"""What a run computes on: processor, precision, memory, versions."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

import evonorm
from evonorm.lab.errors import UserError
from evonorm.layers import kernels
from evonorm.layers.kernels import triton


def choose_device(name: str) -> torch.device:
    """cpu or cuda; `auto` is cuda where there is one. Raises UserError for what this machine has not."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device must be auto, cpu or cuda: got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device must be auto, cpu or cuda: got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r} asked for, but torch sees no CUDA device here; use device=cpu or auto")
    return device


def fast_precision(device: torch.device) -> tuple[Literal["fp32", "bf16"], str]:
    """The faster precision on this device, and why."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "this GPU computes in bf16") if fast else ("fp32", "this GPU has no bf16")
    flags = _cpuinfo("flags").split()
    found = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    if found:
        return "bf16", f"this processor has {found[0]}"
    return "fp32", "this processor has neither amx_bf16 nor avx512_bf16"


def keep_freed_memory() -> None:
    """Asks glibc to keep freed memory instead of giving it back to the system.

    Each training step frees and takes large tensors; taking them from the system anew costs a page fault every 4 kB,
    three to five times the arithmetic of an elementwise operation. Elsewhere than on glibc this does nothing.
    """
    trim_threshold, mmap_max = -1, -4
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
    except (OSError, AttributeError):
        return


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Inside, a GPU computes the same bits each time, where torch can: a run that goes on depends on that.

    What it costs is not measured. An operation that torch has in no repeatable form warns. On a CPU this does nothing:
    it is so there.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first matrices are multiplied
    memory: Any = torch.utils.deterministic  # which it would fill with NaN before use, for nothing
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills, memory.fill_uninitialized_memory = memory.fill_uninitialized_memory, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fills


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, processor, threads and commit: the conditions of a result."""
    return {
        "evonorm": evonorm.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _cpuinfo("model name") or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernels.instructions(),
        **(card(device) if device.type == "cuda" else {"device": "cpu"}),
    }


def card(device: torch.device) -> dict[str, Any]:
    """A GPU's name and sizes, its driver, and what compiles for it."""
    found = torch.cuda.get_device_properties(device)
    return {
        "device": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_bytes": found.total_memory,
        "l2_bytes": found.L2_cache_size,
        "driver": _said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda": torch.version.cuda,
        "triton": version_of("triton"),
    }


def version_of(package: str) -> str | None:
    """The installed version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _said_by(*command: str) -> str | None:
    """The first line that a program says; None where there is no such program, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0].strip() or None


def layers_by(backend: str, device: torch.device) -> str:
    """What computes the layers that it serves, of a resolved configuration: the kernels by name, or torch."""
    if backend == "reference":
        return "torch"
    if backend == "triton" or device.type == "cuda":
        return "triton, interpreted" if triton.INTERPRETED else "triton"
    return f"C++, {kernels.instructions()}"


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")


@functools.cache  # what was loaded, whatever happens to the checkout while this process runs
def _commit() -> str | None:
    """The checkout's commit, with `+` where files differ from it; None for an installed package."""
    root = Path(evonorm.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
