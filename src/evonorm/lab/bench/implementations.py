"""Who is measured: ours, fused and in plain torch, and the rivals. The one place that names a backend."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evonorm.lab.bench.options import BenchOptions
from evonorm.lab.errors import UserError
from evonorm.layers import kernels, table
from evonorm.layers.functional import Backend
from evonorm.layers.groups import groups_in_force
from evonorm.layers.modules import NormActivation

BATCH_NORM_RELU, GROUP_NORM_SILU, RELU, COPY, NO_LAYER = "batch_norm+relu", "group_norm+silu", "relu", "copy", "none"
TIMM = {
    "evonorm-b0": "EvoNorm2dB0",
    "evonorm-b1": "EvoNorm2dB1",
    "evonorm-b2": "EvoNorm2dB2",
    "evonorm-s0": "EvoNorm2dS0",
    "evonorm-s1": "EvoNorm2dS1",
    "evonorm-s2": "EvoNorm2dS2",
    "evonorm-s0a": "EvoNorm2dS0a",
    "evonorm-s1a": "EvoNorm2dS1a",
    "evonorm-s2a": "EvoNorm2dS2a",
    "frn-tlu": "FilterResponseNormTlu2d",
}
# Ours in plain torch is torch's own layer for these rows: the rival already in the table.
SAME_AS_RIVAL = {"bn-relu": BATCH_NORM_RELU, "gn-silu": GROUP_NORM_SILU}


class Unavailable(Exception):
    """An implementation that cannot be measured here; the text is the reason."""


@dataclass(frozen=True)
class Implementation:
    """build(channels, groups) -> the layer; it raises Unavailable where this machine has it not.

    layer: the row it implements, None for what is no layer of ours. variant: kernel, reference, compiled, timm, torch.
    """

    name: str
    layer: str | None
    variant: str
    build: Callable[[int, int], nn.Module]

    @property
    def gated(self) -> bool:
        """Whether it must pass the gate before its speed is told: all of ours.

        Rows that torch has itself are torch's own in plain torch, and its float32 rounding is beyond the gate.
        """
        torchs = self.layer is not None and table.get(self.layer).native is not None
        return self.variant == "kernel" or (self.variant in ("reference", "compiled") and not torchs)


class BatchNormReLU(nn.Module):
    """relu(F.batch_norm(x)) and nothing else: the yardstick at its leanest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W)."""
        return F.relu(
            F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=self.training)
        )


def implementations(options: BenchOptions) -> list[Implementation]:
    """Those that the options name, in the order of the tables, without the copy. Raises UserError for no such layer."""
    wanted = options.implementations
    found = []
    for layer in dict.fromkeys(options.layers):
        try:
            row = table.get(layer)
        except ValueError as error:
            raise UserError(f"--layers: {error}") from None
        if "kernel" in wanted and row.name != NO_LAYER:
            found.append(Implementation(f"{layer} kernel", layer, "kernel", _ours(layer, "kernel")))
        if "reference" in wanted and SAME_AS_RIVAL.get(layer) not in wanted:
            found.append(Implementation(f"{layer} reference", layer, "reference", _ours(layer, "reference")))
        if options.compiled:
            found.append(Implementation(f"{layer} compiled", layer, "compiled", _compiled(layer)))
        if "timm" in wanted and layer in TIMM:
            found.append(Implementation(f"{layer} timm", layer, "timm", _timm(layer)))
    rivals: dict[str, Callable[[int, int], nn.Module]] = {
        BATCH_NORM_RELU: lambda channels, groups: BatchNormReLU(channels),
        GROUP_NORM_SILU: lambda channels, groups: nn.Sequential(nn.GroupNorm(groups, channels), nn.SiLU()),
        RELU: lambda channels, groups: nn.ReLU(),
    }
    found += [Implementation(name, None, "torch", build) for name, build in rivals.items() if name in wanted]
    if not found:
        raise UserError(
            f"nothing to measure: --implementations {' '.join(wanted)} has none of --layers {' '.join(options.layers)}"
        )
    return found


def kernels_here() -> str:
    """The kernels' instruction set, or why there are none."""
    return kernels.instructions() if kernels.available() else f"none: {kernels.reason()}"


def fitting_groups(channels: int, groups: int) -> int:
    """`groups`, or the largest divisor of `channels` below."""
    return groups_in_force(channels, groups, fit=True)


def _ours(layer: str, backend: Backend) -> Callable[[int, int], nn.Module]:
    def build(channels: int, groups: int) -> nn.Module:
        if backend == "kernel" and not kernels.available():
            raise Unavailable(f"no kernels here: {kernels.reason()}")
        return NormActivation(channels, layer, groups=groups, fit_groups=True, backend=backend)

    return build


def _compiled(layer: str) -> Callable[[int, int], nn.Module]:
    def build(channels: int, groups: int) -> nn.Module:
        module = _ours(layer, "reference")(channels, groups)
        # fullgraph: where torch would fall back to eager in silence, it raises.
        module.compile(fullgraph=True, dynamic=False)
        return module

    return build


def _timm(layer: str) -> Callable[[int, int], nn.Module]:
    def build(channels: int, groups: int) -> nn.Module:
        try:
            layers = importlib.import_module("timm.layers")
        except ImportError:
            raise Unavailable("timm is not installed: pip install timm") from None
        grouped = {"groups": groups} if table.get(layer).grouped else {}
        module: nn.Module = getattr(layers, TIMM[layer])(channels, **grouped)
        return module

    return build
