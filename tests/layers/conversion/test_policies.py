"""The choices of a plan, what a conversion preserves, and the errors that a mistake meets."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import evonorm
from evonorm import NormActivation, Plan
from evonorm.layers.groups import groups_in_force
from tests.tensors import noise


class Block(nn.Module):
    """conv, bn, ReLU, conv, bn2, addition, ReLU."""

    def __init__(self, channels: int = 48) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


def sequence(*norms: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(module for norm in norms for module in (norm, nn.ReLU())))


def test_at_norms_without_activation() -> None:
    x = noise(2, 48, 4, 4)
    expected = {"keep": (nn.BatchNorm2d, None), "affine": (NormActivation, False), "replace": (NormActivation, True)}
    for choice, (kind, activate) in expected.items():
        plan = evonorm.plan(Block(), without_activation=choice)
        bn2: Any = plan.apply().bn2
        assert isinstance(bn2, kind)
        assert getattr(bn2, "activate", None) is activate
        assert plan.sites[1].what.endswith("an addition follows")
        assert plan.apply()(x).isfinite().all()
    whole = evonorm.convert(Block(), "bn-relu", without_activation="affine", backend="reference").eval()
    block = Block().eval()
    whole.load_state_dict(block.state_dict())
    torch.testing.assert_close(whole(x), block(x))


def test_groups() -> None:
    def groups(model: nn.Module, **options: Any) -> list[int]:
        return [s.groups for s in evonorm.plan(model, "evonorm-s0", **options).replaced]

    model = sequence(nn.BatchNorm2d(48), nn.GroupNorm(6, 48), nn.BatchNorm2d(64))
    assert groups(model) == [24, 6, 32]
    assert groups(model, groups=16) == [16, 16, 16]
    assert groups(model, group_size=8) == [6, 6, 8]
    assert groups(model, groups=7) == [groups_in_force(c, 7, fit=True) for c in (48, 48, 64)]
    with pytest.raises(ValueError, match=r"^0: groups must divide channels: got channels=48, groups=32; use groups=24"):
        evonorm.plan(model, fit_groups=False)


def test_predicate_sees_the_site_and_keeps() -> None:
    seen = []

    def where(site: evonorm.layers.conversion.Site) -> bool:
        seen.append((site.name, site.norm, site.family, site.channels, site.activation))
        return False

    plan = evonorm.plan(Block(), where=where)
    assert seen == [("bn1", "BatchNorm2d", "batch", 48, "ReLU"), ("bn2", "BatchNorm2d", "batch", 48, None)]
    assert all("`where` excludes it" in site.what for site in plan.sites)


def test_epsilon_and_momentum() -> None:
    """Kept where the row is of the norm's own kind; otherwise the layer's own epsilon."""

    def bn1(layer: str, **options: Any) -> Any:
        return evonorm.convert(Block(), layer, **options).bn1

    assert (bn1("bn-silu").eps, bn1("bn-silu").momentum) == (1e-3, 0.01)
    assert (bn1("evonorm-b0").eps, bn1("evonorm-b0").momentum) == (1e-5, 0.01)
    assert (bn1("evonorm-b0", eps=1e-2).eps, bn1("evonorm-b0", momentum=0.5).momentum) == (1e-2, 0.5)
    (site,) = evonorm.plan(sequence(nn.BatchNorm2d(8, momentum=None)), "bn-relu").sites
    assert site.momentum == 0.1
    assert "average over all batches becomes one of momentum 0.1" in site.what


def test_convolutions_get_their_bias_back() -> None:
    plan = evonorm.plan(Block(), conv_bias=True)
    converted: Any = plan.apply()
    assert converted.conv1.bias.shape == (48,)
    assert not converted.conv1.bias.any()
    assert converted.conv2.bias is None, "its norm is kept"
    assert "conv1.bias" in Plan.from_json(plan.to_json()).apply(Block()).state_dict()
    assert evonorm.convert(Block()).conv1.bias is None


def test_starting_weights() -> None:
    model = sequence(nn.BatchNorm2d(8))
    for value in model.state_dict().values():
        value.fill_(3)
    carried, fresh = (evonorm.convert(model, "evonorm-b0", start=start)[0] for start in ("carried", "fresh"))
    assert {n: v.unique().item() for n, v in carried.state_dict().items()} == {
        "weight": 3, "bias": 3, "v": 1, "running_var": 3
    }  # fmt: skip
    assert {n: v.unique().item() for n, v in fresh.state_dict().items()} == {
        "weight": 1, "bias": 0, "v": 1, "running_var": 1
    }  # fmt: skip
    assert all((value == 3).all() for value in model.state_dict().values())


def test_freezing() -> None:
    model = sequence(nn.BatchNorm2d(8), nn.BatchNorm2d(8))
    model[0].requires_grad_(False)

    def trainable(**options: Any) -> list[set[bool]]:
        converted = evonorm.convert(model, "evonorm-s0", **options)
        return [{p.requires_grad for p in converted[i].parameters()} for i in (0, 2)]

    assert trainable() == [{False}, {True}]
    assert trainable(trainable=True) == [{True}, {True}]
    assert trainable(trainable=False) == [{False}, {False}]


def test_frozen_batch_norm() -> None:
    ops = pytest.importorskip("torchvision.ops")
    frozen = ops.FrozenBatchNorm2d(8, eps=1e-3)
    for index, value in enumerate(frozen.buffers()):
        value.copy_(noise(8).abs() + index)
    model, x = sequence(frozen).eval(), noise(2, 8, 3, 3)
    plan = evonorm.plan(model, "bn-relu", backend="reference")
    torch.testing.assert_close(plan.apply()(x), model(x))
    assert "frozen until now, will move in training" in plan.sites[0].what
    assert not any(p.requires_grad for p in plan.apply().parameters())
    assert all(p.requires_grad for p in evonorm.convert(model, "evonorm-s0", trainable=True).parameters())


def test_device_dtype_mode_format_hooks() -> None:
    model = Block().to("meta", torch.float64, memory_format=torch.channels_last)
    model.bn1.eval()
    called = []
    model.bn1.register_forward_hook(lambda module, args, output: called.append(type(module)))
    model.relu.register_forward_pre_hook(lambda module, args: called.append(type(module)))
    converted: Any = evonorm.convert(model, "evonorm-b0")
    assert called == [], "a plan runs no hooks"
    assert {(t.device.type, t.dtype) for t in converted.bn1.state_dict().values()} == {("meta", torch.float64)}
    assert (converted.bn1.training, converted.bn2.training) == (False, True)
    assert converted.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    converted(torch.empty(2, 48, 4, 4, device="meta", dtype=torch.float64))
    assert called == [NormActivation, nn.ReLU], "the call in the forward has gone, the one after the addition has not"
    seen = []
    alone = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())
    alone[1].register_forward_hook(lambda module, args, output: seen.append(output))
    y = evonorm.convert(alone)(noise(2, 8, 3, 3))
    assert seen[0] is y


def test_sharing() -> None:
    norm, other = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
    other.weight = norm.weight
    model = nn.Sequential(norm, nn.ReLU(), other, nn.ReLU(), norm, nn.ReLU())
    converted = evonorm.convert(model)
    assert converted[0] is converted[4]
    assert converted[0].weight is converted[2].weight
    assert converted[0].weight is not norm.weight
    assert converted[0].bias is not converted[2].bias


def test_synchronized_statistics() -> None:
    model = sequence(nn.SyncBatchNorm(8))
    x = noise(2, 8, 4, 4)
    assert evonorm.convert(model, "evonorm-b0", example_inputs=x)[0].sync
    assert not evonorm.convert(model, "evonorm-s0", example_inputs=x)[0].sync
    (site,) = evonorm.plan(model).sites
    assert site.what == "kept: its input may be (N, C), without space; example_inputs would tell"
    assert site.missed
    with_sync = evonorm.convert(Block(), "bn-relu", sync=True)
    assert with_sync.bn1.sync
    assert type(with_sync.bn2) is nn.BatchNorm2d, "what is kept is left alone"
    assert not evonorm.convert(Block(), "gn-relu", sync=True).bn1.sync, "no batch statistics, nothing to share"
    read = Plan.from_json(evonorm.plan(Block(), "bn-relu", sync=True).to_json())
    assert read.apply(Block()).bn1.sync
    by_hand = evonorm.convert_sync(evonorm.convert(Block(), "bn-relu"))
    assert (by_hand.bn1.sync, type(by_hand.bn2)) == (True, nn.SyncBatchNorm)


def test_the_given_model_is_untouched() -> None:
    model = Block().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = {name: (id(module), type(module), module.training) for name, module in model.named_modules()}
    evonorm.convert(model, "evonorm-b0", start="fresh", trainable=False, conv_bias=True)
    assert {name: (id(module), type(module), module.training) for name, module in model.named_modules()} == modules
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert F.relu is torch.nn.functional.relu


def test_parameter_groups() -> None:
    model = nn.Sequential(evonorm.convert(Block()), nn.Conv2d(48, 8, 1), nn.GroupNorm(2, 8), nn.Flatten())
    model[1].weight.requires_grad_(False)

    def named(groups: list[dict[str, Any]]) -> list[set[str]]:
        names = {id(p): name for name, p in model.named_parameters()}
        return [{names[id(p)] for p in group["params"]} for group in groups]

    groups = evonorm.parameter_groups(model, weight_decay=0.1)
    decayed, plain = named(groups)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert decayed == {"0.conv1.weight", "0.conv2.weight", "1.bias"}
    assert plain == {"0.bn1.weight", "0.bn1.bias", "0.bn1.v", "0.bn2.weight", "0.bn2.bias", "2.weight", "2.bias"}
    assert named(evonorm.parameter_groups(model, weight_decay=0.1, biases=False))[1] - plain == {"1.bias"}
    torch.optim.SGD(groups, lr=0.1)
    conditional = evonorm.NormActivation(8, "evonorm-s0", group_size=4, conditional=3)
    decayed, plain = (group["params"] for group in evonorm.parameter_groups(conditional, weight_decay=0.1))
    assert {id(p) for p in decayed} == {id(conditional.to_weight.weight), id(conditional.to_bias.weight)}
    assert [id(p) for p in plain] == [id(conditional.v)]
    with pytest.raises(ValueError, match="weight_decay must not be negative: got weight_decay=-1"):
        evonorm.parameter_groups(model, weight_decay=-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "evonorm-s9"}, "did you mean 'evonorm-s"),
        ({"without_activation": "drop"}, "without_activation must be one of keep, affine, replace: got 'drop'"),
        ({"start": "zero"}, "start must be one of carried, fresh: got 'zero'"),
        ({"backend": "gpu"}, "backend must be one of auto, kernel, triton, reference: got 'gpu'"),
        ({"groups": 0}, "groups must be at least 1: got groups=0"),
        ({"groups": 8, "group_size": 4}, "groups and group_size exclude each other: got groups=8, group_size=4"),
        ({"eps": -1.0}, "eps must not be negative: got eps=-1.0"),
        ({"momentum": 2.0}, "momentum must be between 0 and 1: got momentum=2.0"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as told:
        evonorm.plan(Block(), **options)
    assert message in str(told.value)


def test_convert_takes_what_plan_takes() -> None:
    own, plans = inspect.signature(evonorm.convert), inspect.signature(evonorm.plan)
    assert own.parameters == plans.parameters
    assert own.return_annotation == "nn.Module"
    with pytest.raises(TypeError, match="unexpected keyword argument 'group'"):
        evonorm.convert(Block(), group=4)  # type: ignore[call-arg]


def test_mistakes_with_models() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module: got str"):
        evonorm.plan("resnet50")
    model = sequence(nn.BatchNorm2d(8))
    model.kept = model[0].weight * 2
    with pytest.raises(ValueError, match="Sequential cannot be copied, and is not to be changed"):
        evonorm.convert(model)
    (lazy,) = evonorm.plan(sequence(nn.LazyBatchNorm2d())).sites
    assert lazy.what == "kept: it does not know its channels yet; run the model once before planning"


def test_mistakes_with_json() -> None:
    text = evonorm.plan(Block()).to_json()
    read = Plan.from_json(text)
    with pytest.raises(ValueError, match=r"has no model: pass the original one, plan.apply\(model\)"):
        read.apply()
    with pytest.raises(ValueError, match="the plan replaces bn1, which Sequential does not have; make a plan"):
        read.apply(nn.Sequential())
    with pytest.raises(ValueError, match=r"replaces bn1 as BatchNorm2d\(48\), here it is BatchNorm2d\(8\)"):
        read.apply(Block(8))
    for wrong in ("nothing", "[]", "{}", text.replace('"format": 3', '"format": 1')):
        with pytest.raises(ValueError, match=r"this is no plan that Plan.to_json wrote"):
            Plan.from_json(wrong)
    content = json.loads(text)
    content["sites"][0]["removals"][0]["edit"]["text"] = "self.gelu(x)"
    with pytest.raises(ValueError, match=r"takes self.gelu\(x\) out of Block.forward, whose source has changed since"):
        Plan.from_json(json.dumps(content)).apply(Block())


def test_what_a_plan_prints() -> None:
    told = str(evonorm.plan(Block(8)))
    assert told.splitlines() == [
        "Block: evonorm-s0 in the place of 1 of 2 normalizations, 1 kept",
        "  bn1  BatchNorm2d(8)  replaced with its ReLU (self.relu(self.bn1(self.conv1(x))) in the model.forward)",
        "  bn2  BatchNorm2d(8)  kept: an addition follows",
    ]
