"""Each way in which a normalization meets its activation: what becomes of it, and that it is the same function."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import evonorm
from evonorm import NormActivation, Plan
from tests.layers.conversion import networks
from tests.layers.conversion.checks import OWN, check, own_kind, own_rows, scramble
from tests.tensors import noise

pytestmark = pytest.mark.filterwarnings("ignore::evonorm.layers.conversion.ConversionWarning")  # plans tell it
EACH = pytest.mark.parametrize("kind", networks.NETWORKS, ids=lambda kind: kind.__name__)


def made(kind: Any) -> nn.Module:
    torch.manual_seed(0)
    return scramble(kind()).eval()


@EACH
def test_every_site_is_told(kind: Any) -> None:
    model = made(kind)
    plan = evonorm.plan(model, "bn-relu")
    told = {site.name: site.what for site in plan.sites}
    assert list(told) == [name for name, m in model.named_modules() if "Norm" in type(m).__name__ and m is not model]
    for name, expected in kind.sites.items():
        assert told[name].startswith(expected), f"{name}: {told[name]}"
        assert f"{name} " in str(plan)
    assert {site.name for site in plan.replaced} == {n for n, what in kind.sites.items() if what.startswith("replaced")}


@EACH
def test_own_kind_is_the_same_function(kind: Any) -> None:
    """Outputs and running statistics, in both modes, of every kind that the network has."""
    model, x = made(kind), noise(*kind.shape)
    kinds = {(site.family, site.activation) for site in evonorm.plan(model).sites}
    for family, label in sorted(kinds & set(itertools.product(("batch", "group"), OWN))):
        with own_rows():
            converted = evonorm.convert(
                model,
                f"{family[0]}n-{label}",
                where=lambda s, family=family, label=label: (s.family, s.activation) == (family, label),
                backend="reference",
            )
            for training in (False, True):
                outputs = []
                for network in (copy.deepcopy(model), copy.deepcopy(converted)):
                    if training and kind is networks.OtherNorms:
                        del network.sync  # torch trains it on GPUs alone
                    torch.manual_seed(3)
                    outputs.append((network.train(training)(x.clone()), network.state_dict()))
                torch.testing.assert_close(outputs[0][0], outputs[1][0])
                for name, value in outputs[1][1].items():
                    torch.testing.assert_close(value, outputs[0][1][name])


@EACH
@pytest.mark.parametrize("layer", ["evonorm-s0", "evonorm-b0"])
def test_converted_networks_count_train_and_load(kind: Any, layer: str) -> None:
    if kind in (networks.Ours, *networks.Norms.__subclasses__()):  # what amounts to one is no operator of torch
        converted = evonorm.convert(made(kind), layer)
        assert converted(noise(*kind.shape)).isfinite().all()
        return
    x = noise(*kind.shape)
    check(made(kind), lambda m: m(x), layer=layer)


@EACH
def test_copies_and_pickles(kind: Any) -> None:
    converted, x = evonorm.convert(made(kind), "evonorm-s0"), noise(*kind.shape)
    y = converted.eval()(x.clone())
    file = io.BytesIO()
    torch.save(converted, file)
    file.seek(0)
    for again in (
        copy.deepcopy(converted),
        pickle.loads(pickle.dumps(converted)),
        torch.load(file, weights_only=False),
    ):
        assert torch.equal(again(x.clone()), y)
        assert type(again).__name__ == kind.__name__
        assert isinstance(again, kind)


def test_the_faults_of_public_converters() -> None:
    """No activation is dropped, none added before a residual addition: facts, section 2."""
    model, x = made(networks.Residual), noise(2, 8, 6, 6)
    converted = evonorm.convert(model, "evonorm-s0", groups=4)
    assert isinstance(converted.bn, NormActivation)
    assert isinstance(converted.bn2, nn.BatchNorm2d)
    assert isinstance(converted.relu, nn.ReLU)
    y = converted.bn(converted.conv(x))
    expected = F.relu(converted.bn2(converted.conv(y)) + x)
    assert torch.equal(converted(x), expected)
    off = evonorm.convert(model, "evonorm-s0", without_activation="affine")
    assert not off.bn2.activate
    assert list(off.bn2.state_dict()) == ["weight", "bias"]
    added = evonorm.convert(model, "evonorm-s0", without_activation="replace")
    assert added.bn2.activate


def test_converted_twice() -> None:
    """A second conversion takes more calls out of a class that has lost some already; pickles hold both."""
    model, x = made(networks.NormTwice), noise(2, 8, 6, 6)
    first = evonorm.convert(made(networks.LoopOverOneLine), "bn-relu", where=lambda s: s.name == "norms.0")
    assert isinstance(first.norms[0], nn.BatchNorm2d), "one call in the source serves both"
    once = evonorm.convert(model, "bn-relu", where=lambda s: s.name == "bn", backend="reference")
    torch.testing.assert_close(once(x), model(x))
    block = made(networks.Branches)
    one = evonorm.convert(block, "bn-relu", where=lambda s: s.name == "bn", backend="reference")
    one.bn2 = nn.Sequential(nn.BatchNorm2d(8))
    two = evonorm.convert(one, "evonorm-s0")
    again = pickle.loads(pickle.dumps(two))
    assert torch.equal(again(x), two(x))
    assert isinstance(again, networks.Branches)


def test_a_branch_taken_in_training_alone() -> None:
    """GoogLeNet's auxiliary heads: in evaluation nothing calls them."""

    class Auxiliary(networks.Network):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())

        def forward(self, x: torch.Tensor) -> Any:
            y = F.relu(self.bn(x))
            return (y, self.head(y)) if self.training else y

    model = Auxiliary().eval()
    assert [site.replaced for site in evonorm.plan(model).sites] == [True, True]
    assert not model.training


def test_exports_and_compiles_after_a_call_was_taken_out() -> None:
    converted, x = evonorm.convert(made(networks.Residual), "evonorm-s0").eval(), noise(2, 8, 6, 6)
    torch.compiler.reset()
    compiled = torch.compile(converted, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x.clone()), converted(x.clone()))
    exported = torch.export.export(converted, (x.clone(),)).module()
    torch.testing.assert_close(exported(x.clone()), converted(x.clone()))


def test_a_source_that_is_not_to_be_had() -> None:
    space: dict[str, Any] = {"nn": nn, "F": F}
    text = "class Hidden(nn.Module):\n def __init__(s):\n  super().__init__(); s.bn = nn.BatchNorm2d(8)\n"
    exec(text + " def forward(s, x):\n  return F.relu(s.bn(x))\n", space)
    model = space["Hidden"]()
    (site,) = evonorm.plan(model).sites
    assert "the source of Hidden.forward is not to be had" in site.what
    assert not site.replaced


def test_the_model_itself_is_a_normalization() -> None:
    assert isinstance(evonorm.convert(nn.BatchNorm2d(8), "bn-relu", without_activation="affine"), NormActivation)


def test_own_kind_test_can_fail() -> None:
    """A converter that forgets a ReLU would be caught."""
    model, x = made(networks.Residual), noise(2, 8, 6, 6)
    assert own_kind(model, lambda m: m(x))[1] == 0
    wrong = evonorm.convert(model, "bn-silu", backend="reference")
    assert (wrong(x) - model(x)).abs().max() > 1e-3


def test_rebuilt_from_json() -> None:
    model, x = made(networks.Residual), noise(2, 8, 6, 6)
    plan = evonorm.plan(model, "evonorm-s0", groups=4, conv_bias=True, without_activation="affine")
    converted = plan.apply()
    fresh = networks.Residual()
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert str(again) == str(plan)
    rebuilt = again.apply(fresh)
    assert rebuilt.load_state_dict(converted.state_dict(), strict=True)
    assert torch.equal(rebuilt.eval()(x), converted.eval()(x))
