"""What every test shares: one thread a worker, memory that is NaN until it is written, Triton without a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

# Workers of pytest-xdist, and what they start, share the cores: their own threads would fight for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without it CUDA's matrix products refuse to be deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch

# Triton decides when it is imported whether its kernels are interpreted; nothing has imported it yet.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from evonorm.layers import kernels


@pytest.fixture
def nan_filled_memory() -> Iterator[None]:
    """Fills torch.empty with NaN, so that an output that is not written cannot pass."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def pytest_configure(config: pytest.Config) -> None:
    """Without kernels the layers say so once; everywhere else warnings are errors."""
    if not kernels.available():
        config.addinivalue_line("filterwarnings", "ignore:evonorm. the kernels .*:UserWarning")


def pytest_report_header() -> str | None:
    """What is left out, and why, where there are no kernels."""
    return None if kernels.available() else f"evonorm: the kernels' tests are skipped: {kernels.reason()}"
