"""Triton's kernels on more than 2^31 elements."""

from __future__ import annotations

import pytest
import torch

from evonorm import norm_act
from evonorm.layers import kernels
from evonorm.layers.table import Setting, get
from tests.layers.on_triton import DEVICE, MARKS, on_device
from tests.layers.yardstick import noise, parameters

# Where there is no Triton, on_triton ends this here.
# isort: split
import triton
import triton.language as tl
from triton.runtime import interpreter

from evonorm.layers.kernels.triton import plan, tiles

pytestmark = MARKS


@triton.jit
def last_offset(to, n, C, S, LAST: tl.constexpr):
    c, live = tiles.channels(C - 1, C, 1)
    s = S - 1 + tl.arange(0, 1)
    tl.store(to + tl.arange(0, 1)[:, None], tiles.offsets(tl.cast(n, tl.int64), c, s, C, S, LAST), mask=live[:, None])


def test_offsets_go_beyond_31_bits() -> None:
    for n, c, s in [(3, 2**20, 2**12), (40_000, 64, 56 * 56), (1, 3, 2**30), (1, 2**30, 3)]:
        for last in (False, True):
            to = torch.zeros(1, dtype=torch.int64, device=DEVICE)
            last_offset[(1,)](to, n, c, s, LAST=last)
            assert int(to) == (n + 1) * c * s - 1


def test_a_map_of_too_many_positions_is_left_to_the_reference() -> None:
    """Positions are counted in 32 bits, and a chunk's end may lie one chunk behind the last one."""
    x, setting = torch.empty(1, device=DEVICE), Setting()
    assert kernels.supports(get("evonorm-s0"), x.expand(1, 1, 2**15, 2**15), setting, "triton") is None
    why = kernels.supports(get("evonorm-s0"), x.expand(1, 1, 2**15, 2**15 + 1), setting, "triton")
    assert why == "1073774592 positions in space; Triton's kernels take at most 2^30"


@pytest.mark.parametrize(
    ("name", "way", "channels_last"),
    [
        ("evonorm-s0", "split", False),
        ("evonorm-s0", "split", True),
        ("evonorm-s0", "held", True),
        ("evonorm-b0", "held", False),
    ],
)
def test_the_last_sample_of_more_than_31_bits_of_elements(name, way, channels_last, monkeypatch) -> None:
    """What the others' programs would touch is never touched, so that it takes no memory: addresses alone are large."""
    n, sample = 2**15 + 2, (16, 64, 64)
    if DEVICE == "cpu":
        run_the_last_sample_alone(n, monkeypatch)
    if way == "split":
        held = {"held_forward": 0, "held_backward": 0, "whole": 0}
        monkeypatch.setattr(plan, "LIMITS", plan.LIMITS._replace(**held, programs=2**20, chunks=2))
    row, layout = get(name), torch.channels_last if channels_last else torch.contiguous_format
    x, dy = (torch.empty(n, *sample, dtype=torch.bfloat16, device=DEVICE, memory_format=layout) for _ in range(2))
    assert x.numel() > 2**31
    for seed, t in enumerate((x, dy)):
        t[-1] = noise(sample, seed)
    given = on_device(parameters(row, 16)) | {name: noise((16,), 7).float().abs().to(DEVICE) for name in row.running}
    found = []
    for values, flow, backend in ((x, dy, "triton"), (x[-1:].clone(), dy[-1:], "reference")):
        y = norm_act(values.requires_grad_(), name, **given, groups=8, backend=backend)
        found.append((y.detach()[-1:], *torch.autograd.grad(y, values, flow)[0][-1:]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)


def run_the_last_sample_alone(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each kernel that has as many programs for every sample, those of the last one."""
    builder, call = interpreter.interpreter_builder, interpreter.GridExecutor.__call__

    def last(self, *args, **options):
        programs = self.grid[0]
        own = programs if programs % n else programs // n
        self.grid = (own,)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                builder, "set_grid_idx", lambda *at: setattr(builder, "grid_idx", (programs - own + at[0], 0, 0))
            )
            call(self, *args, **options)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", last)
    # Device and host are the same memory: copying it onto itself would touch all of it.
    monkeypatch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *args: None)
