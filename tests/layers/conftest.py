"""On which device the layers are tested: the processor, or what EVONORM_TEST_DEVICE names.

With EVONORM_TEST_DEVICE=cuda the same tests make their tensors and layers on the GPU, and its kernels serve wherever
the processor's would; they then carry the marker `gpu`. Those marked `own_device` are left as they are. cpu:0, the
processor by another name, shows without a GPU that the tests bear to be moved.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from evonorm.layers import kernels

DEVICE = os.environ.get("EVONORM_TEST_DEVICE", "cpu")


def _moved(item: pytest.Item) -> bool:
    here = Path(__file__).parent in item.path.parents
    return here and DEVICE != "cpu" and item.get_closest_marker("own_device") is None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what runs on a GPU."""
    for item in filter(_moved, items):
        item.add_marker("gpu")


@pytest.fixture(autouse=True)
def on_the_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test makes without naming a device lies on this one."""
    if not _moved(request.node):
        yield
        return
    monkeypatch.setattr(kernels, "TRITON_WHERE_CUDA", True)
    # Convolutions give the same bits every time, and float32 is float32.
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with torch.device(DEVICE), exact:
        yield
