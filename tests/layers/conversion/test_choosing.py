"""Layers by site: a dict of names and globs, or a function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import evonorm
from evonorm import NormActivation, Plan
from tests.tensors import noise


def network() -> nn.Sequential:
    block = lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())  # noqa: E731
    return nn.Sequential(block(), nn.Sequential(block(), block()), block())


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ({"*": "bn-silu"}, ["bn-silu"] * 4),
        ({"1.*": "evonorm-s0"}, [None, "evonorm-s0", "evonorm-s0", None]),
        ({"1.*": "gn-relu", "*": "evonorm-b0"}, ["evonorm-b0", "gn-relu", "gn-relu", "evonorm-b0"]),
        ({"*": "evonorm-b0", "1.1.1": None}, ["evonorm-b0", "evonorm-b0", None, "evonorm-b0"]),
        ({"[02].1": "frn-tlu"}, ["frn-tlu", None, None, "frn-tlu"]),
        (lambda name: "evonorm-s1" if name.startswith("1") else None, [None, "evonorm-s1", "evonorm-s1", None]),
    ],
)
def test_mixed(layer: Any, expected: list[str | None]) -> None:
    model, x = network(), noise(2, 8, 5, 5)
    plan = evonorm.plan(model, layer)
    assert [site.layer for site in plan.sites] == expected
    converted = plan.apply()
    assert [getattr(converted.get_submodule(s.name), "layer", None) for s in plan.sites] == expected
    again = Plan.from_json(plan.to_json())
    assert (again, str(again)) == (plan, str(plan))
    rebuilt = again.apply(model)
    rebuilt.load_state_dict(converted.state_dict())
    assert torch.equal(rebuilt.eval()(x), converted.eval()(x))
    converted.train()(x).sum().backward()
    for site in plan.sites:
        assert isinstance(model.get_submodule(site.name), nn.BatchNorm2d)
        assert isinstance(converted.get_submodule(site.name), NormActivation) == (site.layer is not None)
        if len({name for name in expected if name}) > 1 and site.replaced:
            assert f"{site.what} -> {site.layer}" in str(plan)


def test_a_function_is_asked_once_for_each_site() -> None:
    seen: list[str] = []
    evonorm.plan(network(), lambda name: seen.append(name) or "bn-relu")  # type: ignore[func-returns-value]
    assert seen == ["0.1", "1.0.1", "1.1.1", "2.1"]


@pytest.mark.parametrize(
    ("layer", "kind", "message"),
    [
        ({"9.1": "bn-relu"}, ValueError, r"the key '9.1' matches no normalization of Sequential: there are "),
        ({"1": "bn-relu"}, ValueError, r"the key '1' matches .*; for all that begin with it write '1\.\*'"),
        ({"*": "bn-rely"}, ValueError, "did you mean 'bn-relu"),
        (lambda name: "bn-rely", ValueError, "did you mean 'bn-relu"),
        (lambda name: 3, TypeError, r"layer\('0.1'\) must give a layer's name or None: got int"),
        (7, TypeError, "layer must be a layer's name, a dict .* or a function .*: got int"),
    ],
)
def test_mistakes(layer: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        evonorm.plan(network(), layer)


def test_plans_written_before_there_were_mixtures_are_read() -> None:
    import json

    plan = evonorm.plan(network(), "bn-relu")
    content = json.loads(plan.to_json()) | {"format": 2}
    del content["assumed"], content["policy"]["sync"]
    for site in content["sites"]:
        del site["layer"], site["missed"]
    assert Plan.from_json(json.dumps(content)).apply(network())[0][1].layer == "bn-relu"
