"""Networks of many layers and widths under torch.compile: kernels are opaque to it, so gradients are those of eager.

A reason to test it: Inductor's fusion of reductions over two axes failed on the composed layers in several widths, and
gives wrong gradients in some programs (pytorch/pytorch#193061).
"""

from __future__ import annotations

import contextlib
import copy
import inspect

import pytest
import torch
from torch import nn

from evonorm import NormActivation
from evonorm.layers import table
from tests.layers.conftest import DEVICE

WIDTHS = (8, 16, 24, 32, 48, 64, 96, 12, 40)
# Inductor takes minutes of a processor; there the tracing alone is tried.
BACKEND = "inductor" if DEVICE.startswith("cuda") else "aot_eager"


def network(layers: list[str]) -> nn.Sequential:
    parts: list[nn.Module] = []
    before = 3
    for number, layer in enumerate(layers):
        width = WIDTHS[number % len(WIDTHS)]
        groups = (1, 2, 4)[number % 3]
        parts += [nn.Conv2d(before, width, 3, padding=1), NormActivation(width, layer, groups=groups)]
        before = width
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 4))


@pytest.mark.parametrize(
    "layers",
    [[row.name for row in table.TABLE], *([name] * len(WIDTHS) for name in ("evonorm-s0", "evonorm-b0", "gn-silu"))],
    ids=["every layer", "evonorm-s0", "evonorm-b0", "gn-silu"],
)
def test_a_compiled_network_is_the_eager_one(layers: list[str]) -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    eager = network(layers)
    found = []
    x = torch.randn(4, 3, 8, 8)
    for model in (eager, torch.compile(copy.deepcopy(eager), fullgraph=True, backend=BACKEND)):
        for _ in range(2):  # the second batch meets running statistics that have moved
            model.zero_grad()
            y = model(x)
            y.square().sum().backward()
        gradients = [p.grad for p in model.parameters()]
        found.append([y, *gradients, *(buffer for buffer in model.buffers())])
    assert len(found[0]) > 3 * len(layers)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5 * one.detach().abs().max().clamp(min=1).item())


@pytest.mark.skipif(
    "isolate_recompiles" not in inspect.signature(torch.compile).parameters, reason="this torch has no such argument"
)
def test_layers_compiled_apart_are_not_counted_together(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """As docs/formats.md says; without the argument the ninth is not compiled any more."""
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    layers = [NormActivation(8, row.name, groups=4) for row in table.TABLE[: torch._dynamo.config.recompile_limit + 1]]
    for isolated in (True, False):
        torch.compiler.reset()
        request.addfinalizer(torch.compiler.reset)  # or a later test would run uncompiled
        with contextlib.nullcontext() if isolated else pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
            for layer in layers:
                compiled = torch.compile(layer, backend="eager", isolate_recompiles=isolated)
                compiled(torch.randn(2, layer.channels, 4, 4))
