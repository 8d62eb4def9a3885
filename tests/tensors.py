"""Numbers for tests to compute with."""

from __future__ import annotations

import torch


def noise(*shape: int, seed: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """From a normal distribution, the same every time and on every device: it lies where tensors are made now."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype, device="cpu")
    return drawn.to(torch.get_default_device())
