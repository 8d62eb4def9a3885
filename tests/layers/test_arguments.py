"""What is written wrongly is answered with the argument, its value and what to write instead."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from evonorm import NormActivation, norm_act
from evonorm.layers.table import TABLE
from tests.tensors import noise


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (("evonorm-s0", 96), {}, "got 'evonorm-s0' as channels; write NormActivation(96, 'evonorm-s0')"),
        (("bn-relu", 64), {"groups": 8}, "got 'bn-relu' as channels; write NormActivation(64, 'bn-relu')"),
        (("evonorm-b0",), {}, "got 'evonorm-b0' as channels; write NormActivation(96, 'evonorm-s0')"),
        (("96",), {}, "channels must be a whole number: got channels='96'; write channels=96, without"),
        ((96.0,), {}, "channels must be a whole number: got channels=96.0; write channels=96"),
        ((96.5,), {}, "channels must be a whole number: got channels=96.5"),
        ((None,), {}, "channels must be a whole number: got channels=None"),
        ((True,), {}, "channels must be a whole number: got channels=True"),
        ((torch.nn.Conv2d(3, 96, 1),), {}, "channels must be a whole number: got channels=Conv2d"),
        ((0,), {}, "channels must be at least 1: got channels=0"),
        ((-3,), {}, "channels must be at least 1: got channels=-3"),
        ((96, 32), {}, "got layer=32; groups go by name, groups=32"),
        ((96, None), {}, "layer must be a name (evonorm.names() has them all): got layer=None"),
        ((96, "evonorm_s0"), {}, "no layer is called 'evonorm_s0'; did you mean 'evonorm-s0'?"),
        ((96,), {"groups": None}, "groups must be a whole number: got groups=None; without groups there are 32 groups"),
        ((96,), {"groups": "32"}, "groups must be a whole number: got groups='32'; write groups=32, without"),
        ((96,), {"groups": 8.0}, "groups must be a whole number: got groups=8.0; write groups=8"),
        ((96,), {"groups": True}, "groups must be a whole number: got groups=True"),
        ((96,), {"groups": 0}, "groups must be at least 1: got groups=0"),
        ((96,), {"group_size": "16"}, "group_size must be a whole number: got group_size='16'; write group_size=16"),
        ((96,), {"group_size": -1}, "group_size must be at least 1: got group_size=-1"),
        ((96,), {"eps": "1e-5"}, "eps must be a number: got eps='1e-5'"),
        ((96,), {"eps": -1e-5}, "eps must be 0 or above, and finite: got eps=-1e-05"),
        ((96,), {"eps": float("nan")}, "eps must be 0 or above, and finite: got eps=nan"),
        ((96,), {"eps": float("inf")}, "eps must be 0 or above, and finite: got eps=inf"),
        ((96,), {"momentum": "0.1"}, "momentum must be a number: got momentum='0.1'"),
        ((96,), {"momentum": 1.5}, "momentum must be between 0 and 1: got momentum=1.5"),
        ((96, "bn-relu"), {"momentum": -0.1}, "momentum must be between 0 and 1: got momentum=-0.1"),
    ],
    ids=str,
)
def test_a_module_says_what_is_wrong(arguments, settings, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(words)):
        NormActivation(*arguments, **settings)


@pytest.mark.parametrize("groups", ["8", None, 8.0, True, 0])
def test_a_function_says_what_is_wrong_with_groups(groups) -> None:
    with pytest.raises((ValueError, TypeError), match="groups must be"):
        norm_act(torch.ones(1, 8, 2, 2), "evonorm-s1", groups=groups)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"eps": "1e-5"}, "eps must be a number: got eps='1e-5'"),
        ({"eps": True}, "eps must be a number: got eps=True"),
        ({"momentum": "0.1"}, "momentum must be a number: got momentum='0.1'"),
        ({"momentum": None}, "momentum must be a number: got momentum=None; an average over all batches needs a count"),
        ({"momentum": 2}, "momentum must be between 0 and 1: got momentum=2"),
    ],
    ids=str,
)
@pytest.mark.parametrize("layer", ["evonorm-b1", "bn-relu"])
def test_a_function_says_what_is_wrong_with_numbers(layer: str, settings, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(words)):
        norm_act(torch.ones(2, 8, 2, 2), layer, training=True, **settings)


@pytest.mark.parametrize("x", [np.ones((1, 8, 2, 2)), [1.0], None, 3.0])
def test_what_is_no_tensor(x) -> None:
    for call in (NormActivation(8, groups=4), lambda x: norm_act(x, "evonorm-s1", groups=4)):
        with pytest.raises(TypeError, match=f"x must be a torch.Tensor: got {type(x).__name__}"):
            call(x)


def test_whole_numbers_of_other_kinds_count() -> None:
    layer = NormActivation(np.int64(96), groups=np.int32(8), eps=np.float32(1e-3), momentum=0)
    assert (layer.channels, layer.groups, layer.momentum) == (96, 8, 0.0)
    assert {type(layer.channels), type(layer.groups)} == {int}
    assert NormActivation(96, groups=None, group_size=16).groups == 6  # groups is not asked then


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_torchscript(row) -> None:
    """Scripting is refused in words, wherever in a model the layer is; tracing gives the layer's own outputs."""
    layer = NormActivation(8, row.name, groups=4).eval()
    x = noise(2, 8, 4, 4, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated, and warns of checks on shapes
        for model in (layer, nn.Sequential(nn.ReLU(), nn.Sequential(layer))):
            with pytest.raises(
                TypeError, match=r"torch.jit.script does not follow .* use torch.export or torch.compile"
            ):
                torch.jit.script(model)
        traced = torch.jit.trace(layer, x)
    torch.testing.assert_close(traced(x), layer(x))
    other = noise(5, 8, 4, 4, seed=1)
    torch.testing.assert_close(traced(other), layer(other))
    assert "evonorm::" not in str(traced.inlined_graph)
