"""Inputs without space, code that asks for shapes, maps of one value, and what a conversion warns of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import evonorm
from evonorm import ConversionWarning, NormActivation, Plan
from tests.tensors import noise

FLAT = "kept: its input is (N, C), without space"
UNKNOWN = "kept: its input may be (N, C), without space; example_inputs would tell"
REPLACED = "replaced with its ReLU"


class Line(nn.Module):
    """conv1d, then `way` to a norm of 8 channels, then ReLU."""

    def __init__(self, way: Callable[[Tensor], Tensor], norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.way = nn.Conv1d(4, 8, 3), norm, way

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.way(self.conv(x))).relu()


class Recurrent(nn.Module):
    def __init__(self, kind: Any, *, last: bool) -> None:
        super().__init__()
        self.rnn, self.bn, self.last = kind(9, 8, batch_first=True), nn.BatchNorm1d(8), last

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x)
        return F.relu(self.bn(y[:, -1] if self.last else y.transpose(1, 2)))


WAYS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "amax": (lambda y: y.amax(2), FLAT),
    "max": (lambda y: y.max(2)[0], FLAT),
    "sum": (lambda y: y.sum(-1), FLAT),
    "mean": (lambda y: y.mean(dim=2), FLAT),
    "select": (lambda y: y.select(2, 0), FLAT),
    "index": (lambda y: y[:, :, -1], FLAT),
    "einsum": (lambda y: torch.einsum("ncl,ncl->nc", y, y), FLAT),
    "cat": (lambda y: torch.cat([y.amax(2)[:, :4], y.mean(2)[:, 4:]], 1), FLAT),
    "squeeze": (lambda y: F.adaptive_avg_pool1d(y, 1).squeeze(-1), FLAT),
    "flatten": (lambda y: F.adaptive_avg_pool1d(y, 1).flatten(1), FLAT),
    "view": (lambda y: y.amax(2).view(-1, 8), FLAT),
    "keepdim": (lambda y: y.amax(2, keepdim=True), REPLACED),
    "slice": (lambda y: y[:, :, 1:], REPLACED),
    "unsqueeze": (lambda y: y.amax(2).unsqueeze(2), REPLACED),
    "stack": (lambda y: torch.stack([y.amax(2), y.mean(2)], 2), REPLACED),
    "reshape": (lambda y: y.reshape(y.shape[0], 8, -1), REPLACED),
    "transpose twice": (lambda y: y.transpose(1, 2).transpose(1, 2), REPLACED),
}
NORMS = {"BatchNorm1d": lambda: nn.BatchNorm1d(8), "GroupNorm": lambda: nn.GroupNorm(2, 8)}


def runs(model: nn.Module, x: Tensor, **options: Any) -> None:
    """What a plan replaces must run, in evaluation and training, and learn."""
    for layer in ("evonorm-s0", "evonorm-b0", "bn-relu"):
        converted = evonorm.plan(model, layer, **options).apply()
        assert converted.eval()(x).isfinite().all()
        y = converted.train()(x)
        y.backward(noise(*y.shape, seed=0))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("way", WAYS)
def test_whether_there_is_space(way: str, norm: str) -> None:
    model, x = Line(WAYS[way][0], NORMS[norm]()), noise(3, 4, 9)
    for given in (None, x):
        (site,) = evonorm.plan(model, example_inputs=given).sites
        assert site.what.startswith(WAYS[way][1])
        assert site.missed == (WAYS[way][1] == FLAT)
    runs(model, x)
    own = evonorm.plan(model, "bn-relu" if norm == "BatchNorm1d" else "gn-relu", backend="reference").apply()
    torch.testing.assert_close(own.eval()(x), model.eval()(x))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind: Any) -> None:
    for last, expected in ((True, FLAT), (False, REPLACED)):
        model = Recurrent(kind, last=last)
        assert evonorm.plan(model).sites[0].what.startswith(expected)
        runs(model, noise(3, 5, 9))


@pytest.mark.parametrize("norm", [*NORMS.values(), lambda: nn.InstanceNorm1d(8), lambda: nn.SyncBatchNorm(8)])
def test_what_is_unknown_is_kept_until_inputs_tell(norm: Any) -> None:
    model = nn.Sequential(norm(), nn.ReLU())
    assert evonorm.plan(model).sites[0].what == UNKNOWN
    assert evonorm.plan(model, example_inputs=noise(2, 8, 5)).sites[0].what.startswith(REPLACED)
    space = nn.Sequential(norm(), nn.ReLU(), nn.Conv1d(8, 8, 1))
    assert evonorm.plan(space).sites[0].what.startswith(REPLACED), "the convolution after it takes maps alone"
    if not isinstance(model[0], nn.InstanceNorm1d):
        assert evonorm.plan(model, example_inputs=noise(2, 8)).sites[0].what == FLAT


class Checked(nn.Module):
    """Raises by shape, in the model itself and in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.padded = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Padded(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != 3:
            raise ValueError("an image, please")
        return self.padded(F.relu(self.bn(self.conv(x))))


class Asks(nn.Module):
    """Asks an input for what has nothing to do with its values."""

    def __init__(self, question: Any) -> None:
        super().__init__()
        self.question, self.conv, self.bn = question, nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        if self.question(x):
            x = x.float().contiguous()
        return F.relu(self.bn(self.conv(x)))


class Padded(nn.Module):
    """Pads by shape as TensorFlow does, with parts that may be missing."""

    def __init__(self, inputs: int, outputs: int, *, activated: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, bias=False)
        self.bn: nn.Module | None = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU6() if activated else None

    def forward(self, x: Tensor) -> Tensor:
        height, width = (int(n) for n in x.shape[-2:])
        along = [max(3 - 2, 0) if n % 2 == 0 else max(3 - n % 2, 0) for n in (width, height)]
        x = F.pad(x, [n for whole in along for n in (whole // 2, whole - whole // 2)])
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        return x if self.act is None else self.act(x)


class ByName(nn.Module):
    """An argument that may be left out, and must not be; a dict comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = Padded(3, 8), nn.ModuleList([Padded(8, 8), Padded(8, 8, activated=False)])

    def forward(self, pixels: Tensor | None = None, scale: float | None = None) -> dict[str, Tensor]:
        if pixels is None:
            raise ValueError("pixels are missing")
        x = self.stem(pixels)
        for block in self.blocks:
            x = block(x)
        return {"features": x if scale is None else x * scale}


class TwoWays(nn.Module):
    """Another activation for small maps, and features before the activation, if asked."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu, self.silu = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.SiLU()

    def forward(self, x: Tensor, features: bool = False) -> Tensor:
        y = self.bn(self.conv(x))
        if features:
            return y
        return self.relu(y) if y.shape[-1] > 8 else self.silu(y)


def test_a_plan_says_which_way_it_followed() -> None:
    def told(**given: Any) -> tuple[str, dict[str, str]]:
        plan = evonorm.plan(TwoWays(), example_inputs=given or None)
        return plan.sites[0].what, plan.assumed

    assert told() == ("replaced with its ReLU (relu)", {"": "x (2, 3, 224, 224), features=False"})
    assert told(x=noise(2, 3, 4, 4)) == ("replaced with its SiLU (silu)", {"": "features=False"})
    assert told(x=noise(2, 3, 4, 4), features=False) == ("replaced with its SiLU (silu)", {})
    assert told(x=noise(2, 3, 4, 4), features=True) == ("kept: it is the output of the model", {})
    line = "  the model itself: followed as if given x (2, 3, 224, 224), features=False; other ways are not seen"
    assert str(evonorm.plan(TwoWays())).splitlines()[-1] == line


class Lists(nn.Module):
    """A head over a list of levels: a tensor in its place would lead past some."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(4))

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        if xs[0].shape[1] != 3:
            raise ValueError
        return [level(x) for level, x in zip(self.levels, xs, strict=True)]


@pytest.mark.parametrize(
    ("model", "given", "replaced", "assumed"),
    [
        (Checked, (noise(2, 3, 31, 32),), 2, {"": "x (2, 3, 224, 224)"}),
        (lambda: nn.Sequential(Checked()), (noise(2, 3, 31, 32),), 2, {"0": "x (2, 3, 224, 224)"}),
        (ByName, {"pixels": noise(2, 3, 33, 34), "scale": 2.0}, 2, {"": "pixels (2, 3, 224, 224)"}),
        (Lists, ([noise(2, 3, 4, 4)] * 4,), 4, {}),
    ],
)
def test_code_that_asks_for_shapes(model: Any, given: Any, replaced: int, assumed: dict[str, str]) -> None:
    model = model()
    told = evonorm.plan(model)
    assert len(told.replaced) == replaced
    assert told.assumed == assumed
    assert Plan.from_json(told.to_json()) == told
    known = evonorm.plan(model, example_inputs=given)
    assert [(site.name, site.replaced) for site in known.sites] == [(s.name, s.replaced) for s in told.sites]
    assert (len(known.replaced), known.assumed, known.unfollowed) == (replaced, {}, {})
    converted = known.apply().train()
    outputs = converted(**given) if isinstance(given, dict) else converted(*given)
    outputs = list(outputs.values()) if isinstance(outputs, dict) else outputs
    for y in outputs if isinstance(outputs, list) else [outputs]:
        y.sum().backward()
    assert all(m.bias.grad is not None for m in converted.modules() if isinstance(m, NormActivation))


@pytest.mark.parametrize(
    "question",
    [
        lambda x: x.is_cuda and x.dtype == torch.half,
        lambda x: not x.is_contiguous(),
        lambda x: x.is_sparse or x.is_quantized or x.is_nested,
        lambda x: x.device.type == "cuda",
        lambda x: min([*x.shape][2:]) < 4,
        lambda x: len(x) > 100 or x.ndim != 4,
        lambda x: x.size(-1) % 2 and not torch.jit.is_scripting(),
    ],
)
def test_code_that_asks_for_no_value(question: Any) -> None:
    model = Asks(question).eval()
    own = evonorm.plan(model, "bn-relu")
    assert (len(own.replaced), own.unfollowed) == (1, {})
    torch.testing.assert_close(own.apply()(noise(2, 3, 9, 9)), model(noise(2, 3, 9, 9)))


def test_example_inputs_are_run_on_a_copy_or_refused() -> None:
    model = Checked()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen: list[int] = []
    model.bn.register_forward_hook(lambda *_: seen.append(1))
    evonorm.plan(model, example_inputs=noise(2, 3, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="example_inputs are not what Checked takes: ValueError: an image, please"):
        evonorm.plan(model, example_inputs=noise(2, 4, 16, 16))


def pooled() -> nn.Sequential:
    """A squeezed branch, as in squeeze-and-excitation and ASPP."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU()),
    )


@pytest.mark.parametrize(
    ("layer", "options", "warned"),
    [
        ("evonorm-s0", {}, True),
        ("evonorm-s0", {"groups": 2}, False),
        ("gn-relu", {}, True),
        ("frn-tlu", {}, True),
        ("evonorm-b0", {}, False),
        ("bn-relu", {}, False),
    ],
)
def test_maps_of_one_value(layer: str, options: dict[str, Any], warned: bool) -> None:
    first, last = evonorm.plan(pooled(), layer, **options).sites
    assert "WARNING" not in first.what
    assert ("WARNING: its map is 1x1" in last.what) == warned
    map_alone = nn.Sequential(*list(pooled())[:3])
    for side, single in ((3, True), (9, False)):
        (site,) = evonorm.plan(map_alone, "evonorm-s0", example_inputs=noise(2, 3, side, side)).sites
        assert ("WARNING" in site.what) == single


def test_what_a_conversion_warns_of() -> None:
    def told(model: nn.Module, *layer: Any, **options: Any) -> str:
        with pytest.warns(ConversionWarning) as caught:
            evonorm.convert(model, *layer, **options)
        assert caught[0].filename == __file__
        return str(caught[0].message)

    assert "Linear: evonorm-s0 in the place of 0 of 0 normalizations, 0 kept; it has no norm" in told(nn.Linear(2, 2))
    words = told(Line(WAYS["amax"][0], nn.BatchNorm1d(8)))
    assert f"1 of them have an activation after them, or may: 1 {FLAT}" in words
    assert "pass example_inputs" in told(nn.Sequential(nn.GroupNorm(2, 8), nn.ReLU()))
    assert "without_activation='affine' or 'replace'" in told(nn.Sequential(nn.BatchNorm2d(8)))
    assert "nothing replaced of 2 normalizations" in told(pooled(), lambda name: None)
    with warnings.catch_warnings(action="error"):
        evonorm.convert(pooled(), where=lambda site: site.name == "1")
        evonorm.convert(pooled(), {"1": "evonorm-s0"})
        evonorm.convert(Checked())
