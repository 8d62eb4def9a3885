"""Norms with something inside: whether it is their activation shows in what they do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import evonorm
from tests.tensors import noise

OWN = "has a forward of its own, which may do more than normalize"


class Holding(nn.Module):
    """Plain norms that hold an activation and a dropout, which the model calls itself or does not."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.bn, self.bn2, self.conv = norm(), norm(), nn.Conv2d(8, 8, 1)
        self.bn.act, self.bn2.act, self.bn2.drop = nn.ReLU(), nn.ReLU(), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn.act(self.bn(self.conv(x)))
        return self.bn2.drop(self.bn2(self.conv(y)) + x)


class Fused(nn.BatchNorm2d):
    def __init__(self, act: nn.Module, before: nn.Module | None = None, name: str = "nonlinearity") -> None:
        super().__init__(8)
        self.before = before
        self.add_module(name, act)
        self.act_name = name

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        y = y if self.before is None else self.before(y)
        return self.get_submodule(self.act_name)(y)


class FusedGroup(nn.GroupNorm):
    def __init__(self) -> None:
        super().__init__(2, 8)
        self.f = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(super().forward(x))


class ActivatedBefore(nn.BatchNorm2d):
    def __init__(self) -> None:
        super().__init__(8)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.act(x))


class Doubled(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class HoldsUnused(nn.BatchNorm2d):
    """An `act` that its forward does not apply."""

    def __init__(self) -> None:
        super().__init__(8)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize("norm", [lambda: nn.BatchNorm2d(8), lambda: nn.GroupNorm(2, 8)])
def test_what_a_plain_norm_holds_is_not_in_it(norm: Any) -> None:
    model, x = Holding(norm).eval(), noise(2, 8, 5, 5)
    layer = "bn-relu" if isinstance(model.bn, nn.BatchNorm2d) else "gn-relu"
    first, second = evonorm.plan(model, layer).sites
    assert first.what == "replaced with its ReLU (bn.act)"
    assert second.what == "kept: an addition follows"
    for without in ("keep", "affine"):
        converted = evonorm.convert(model, layer, without_activation=without, backend="reference")
        torch.testing.assert_close(converted(x), model(x))
        converted.train()(x).sum().backward()
        assert isinstance(converted.bn2.act, nn.ReLU)
    assert isinstance(model.bn.act, nn.ReLU), "the given model is untouched"


@pytest.mark.parametrize(
    ("norm", "what"),
    [
        (lambda: Fused(nn.ReLU()), "replaced with its ReLU"),
        (lambda: Fused(nn.ReLU(inplace=True), name="act"), "replaced with its ReLU"),
        (lambda: Fused(nn.ReLU(), nn.Identity()), "replaced with its ReLU"),
        (FusedGroup, "replaced with its ReLU"),
        (lambda: Fused(nn.ReLU(), nn.Dropout(0.5)), "kept: Dropout lies between it and its activation"),
        (lambda: Fused(nn.Sigmoid()), "kept: it holds Sigmoid, which is no activation that can be taken over"),
        (ActivatedBefore, f"kept: ActivatedBefore {OWN}"),
        (lambda: Doubled(8), f"kept: Doubled {OWN}"),
        (HoldsUnused, f"kept: HoldsUnused {OWN}"),
    ],
)
def test_what_a_norm_does(norm: Any, what: str) -> None:
    model, x = nn.Sequential(nn.Conv2d(8, 8, 1), norm(), nn.Conv2d(8, 8, 1)).eval(), noise(2, 8, 5, 5)
    model[1].register_forward_hook(lambda *_: pytest.fail("the user's hooks see no numbers of ours"))
    layer = "gn-relu" if isinstance(model[1], nn.GroupNorm) else "bn-relu"
    plan = evonorm.plan(model, layer, backend="reference")
    assert plan.sites[0].what == what
    model[1]._forward_hooks.clear()
    converted = plan.apply()
    torch.testing.assert_close(converted(x), model(x))
    converted.train()(x).sum().backward()


def test_a_fused_norm_with_an_activation_after_it() -> None:
    """Its own goes with it, the other stays."""
    model, x = nn.Sequential(nn.Conv2d(8, 8, 1), Fused(nn.ReLU()), nn.Hardswish()).eval(), noise(2, 8, 5, 5)
    converted = evonorm.convert(model, "bn-relu", backend="reference")
    torch.testing.assert_close(converted(x), F.hardswish(model[1](model[0](x))))
