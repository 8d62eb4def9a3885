"""Who is measured: ours, fused and in plain torch, and the rivals. The one place that names a backend."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evonorm.lab.bench.devices import Device
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


Build = Callable[[int, int], nn.Module]


class Unavailable(Exception):
    """An implementation that cannot be measured here; the text is the reason."""


@dataclass(frozen=True)
class Implementation:
    """build(channels, groups) -> the layer; it raises Unavailable where this machine has it not.

    layer: the row it implements, None for what is no layer of ours. variant: kernel, reference, timm or torch, and the
    last three compiled: compiled (the reference), timm compiled, torch compiled. over_batch: with statistics of the
    batch, for which all of x is read before the first of y can be written.
    """

    name: str
    layer: str | None
    variant: str
    build: Build
    over_batch: bool = False

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


def implementations(options: BenchOptions, device: Device) -> list[Implementation]:
    """Those that the options name, in the order of the tables, without the copy. Raises UserError for no such layer."""
    wanted = options.implementations
    compiles = device.place.type == "cuda" if options.compiled is None else options.compiled
    found: list[Implementation] = []

    def add(name: str, layer: str | None, variant: str, build: Build, over_batch: bool) -> None:
        found.append(Implementation(name, layer, variant, build, over_batch))
        if compiles and variant != "kernel":
            name = f"{name.removesuffix(' reference')} compiled"
            variant = "compiled" if variant == "reference" else f"{variant} compiled"
            found.append(Implementation(name, layer, variant, _compiled(build), over_batch))

    for layer in dict.fromkeys(options.layers):
        try:
            row = table.get(layer)
        except ValueError as error:
            raise UserError(f"--layers: {error}") from None
        over_batch = bool(row.running)
        if "kernel" in wanted and row.name != NO_LAYER:
            add(f"{layer} {device.fused}", layer, "kernel", _ours(layer, device.fused, device), over_batch)
        if "reference" in wanted and SAME_AS_RIVAL.get(layer) not in wanted:
            add(f"{layer} reference", layer, "reference", _ours(layer, "reference", device), over_batch)
        if "timm" in wanted and layer in TIMM:
            add(f"{layer} timm", layer, "timm", _timm(layer), over_batch)
    rivals: dict[str, Build] = {
        BATCH_NORM_RELU: lambda channels, groups: BatchNormReLU(channels),
        GROUP_NORM_SILU: lambda channels, groups: nn.Sequential(nn.GroupNorm(groups, channels), nn.SiLU()),
        RELU: lambda channels, groups: nn.ReLU(),
    }
    for name, build in rivals.items():
        if name in wanted:
            add(name, None, "torch", build, name == BATCH_NORM_RELU)
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


def _ours(layer: str, backend: Backend, device: Device) -> Build:
    def build(channels: int, groups: int) -> nn.Module:
        why = None if backend == "reference" else kernels.serves(table.get(layer), device.place, backend)
        if why is not None:
            raise Unavailable(f"no kernels here: {why}")
        return NormActivation(channels, layer, groups=groups, fit_groups=True, backend=backend)

    return build


def _compiled(build: Build) -> Build:
    """fullgraph: where torch would fall back to eager in silence, it raises."""

    def compiled(channels: int, groups: int) -> nn.Module:
        from torch._inductor import config as inductor

        module = build(channels, groups)
        # This fusion gives wrong gradients in some programs (pytorch/pytorch#193061); an older torch has it not.
        known = hasattr(inductor.triton, "mix_order_reduction")
        module.compile(fullgraph=True, dynamic=False, options={"triton.mix_order_reduction": False} if known else None)
        return module

    return compiled


def _timm(layer: str) -> Build:
    def build(channels: int, groups: int) -> nn.Module:
        try:
            layers = importlib.import_module("timm.layers")
        except ImportError:
            raise Unavailable("timm is not installed: pip install timm") from None
        grouped = {"groups": groups} if table.get(layer).grouped else {}
        module: nn.Module = getattr(layers, TIMM[layer])(channels, **grouped)
        return module

    return build
