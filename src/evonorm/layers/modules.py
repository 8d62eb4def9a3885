"""NormActivation: every layer of the table as one module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evonorm.layers import table
from evonorm.layers.functional import BACKENDS, Backend, norm_act
from evonorm.layers.statistics import groups_in_force


class NormActivation(nn.Module):
    """Normalization and activation in one layer, in the place of BatchNorm and the ReLU after it.

    y = formula of `layer`; for evonorm-s0, x * sigmoid(v * x) / std_group(x) * weight + bias. x, y: (N, C, *) with one
    to three spatial dimensions; float32, float64, float16 or bfloat16, statistics in float32 at least.

    channels: C. layer: a name of the table (`evonorm layers`). groups, group_size: number of groups, or channels a
    group, of the layers with group statistics; fit_groups takes the largest divisor of C not above it, as the paper's
    code does. activate=False leaves affine alone of an EvoNorm, and normalization with affine of evonorm-s0a, -s1a,
    -s2a and the others. eps: default the layer's own. momentum: weight of the newest batch in running statistics.
    backend, sync: as in norm_act.

    Parameters and buffers, each (C,) and only where the layer has it: weight (1), bias (0), v (1), tau (0),
    running_mean (0), running_var (1). Raises ValueError if the layer is unknown or groups does not divide C.
    Source: arXiv 2004.02967, and each row of the table.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    v: nn.Parameter | None
    tau: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None

    def __init__(
        self,
        channels: int,
        layer: str = "evonorm-s0",
        *,
        groups: int = 32,
        group_size: int | None = None,
        fit_groups: bool = False,
        activate: bool = True,
        eps: float | None = None,
        momentum: float = 0.1,
        backend: Backend = "auto",
        sync: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1: got channels={channels}")
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}: got {backend!r}")
        row = table.get(layer)
        self.channels = channels
        self.layer = layer
        self.grouped = row.grouped
        self.groups = groups_in_force(channels, groups, group_size, fit=fit_groups) if row.grouped else 1
        self.activate = activate
        self.eps = row.eps if eps is None else eps
        self.momentum = momentum
        self.backend = backend
        self.sync = sync

        self._initial = {"weight": 1.0, "bias": 0.0} if row.affine else {}
        if activate:
            self._initial |= row.parameters
        self._running = row.running if activate or row.native else ()
        for name in ("weight", "bias", "v", "tau"):
            value = torch.empty(channels, device=device, dtype=dtype) if name in self._initial else None
            self.register_parameter(name, None if value is None else nn.Parameter(value))
        for name in ("running_mean", "running_var"):
            value = torch.empty(channels, device=device, dtype=dtype) if name in self._running else None
            self.register_buffer(name, value)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Puts parameters and running statistics back to their initial values."""
        with torch.no_grad():
            for name, value in self._initial.items():
                getattr(self, name).fill_(value)
            for name in self._running:
                getattr(self, name).fill_(1.0 if name == "running_var" else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """x, y: (N, C, *). Raises ValueError if x has another number of channels."""
        if x.dim() > 1 and x.shape[1] != self.channels:
            raise ValueError(f"this layer has {self.channels} channels: got x of shape {tuple(x.shape)}")
        return norm_act(
            x,
            self.layer,
            self.weight,
            self.bias,
            v=self.v,
            tau=self.tau,
            running_mean=self.running_mean,
            running_var=self.running_var,
            training=self.training,
            groups=self.groups,
            eps=self.eps,
            momentum=self.momentum,
            activate=self.activate,
            backend=self.backend,
            sync=self.sync,
        )

    def extra_repr(self) -> str:
        """Layer, channels, and the groups in force."""
        parts = [f"{self.channels}", f"layer={self.layer!r}"]
        parts += [f"groups={self.groups}"] if self.grouped else []
        parts += [f"eps={self.eps:g}"] if self._initial else []
        parts += [f"momentum={self.momentum:g}"] if self._running else []
        parts += [] if self.activate else ["activate=False"]
        parts += [] if self.backend == "auto" else [f"backend={self.backend!r}"]
        parts += ["sync=True"] if self.sync else []
        return ", ".join(parts)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # torch's batch norms count batches, which a fixed momentum has no use for.
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)
