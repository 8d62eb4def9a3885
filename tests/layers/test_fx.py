"""A layer is one step to torch.fx and whatever builds on it: its graph is the eager model, in both modes."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import fx, nn

import evonorm
from evonorm import NormActivation, norm_act
from evonorm.layers.row import NormAct
from evonorm.layers.table import TABLE
from tests.tensors import noise

ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


class Net(nn.Module):
    """Two layers, the first called twice, the second inside a container and by keyword."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.norm = NormActivation(8, layer, groups=4)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 1), NormActivation(8, layer, groups=2, activate=False))
        self.last = NormActivation(8, layer, groups=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x=self.norm(self.norm(x)) + self.body(x))


def step(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = model(x)
    y.backward(noise(*y.shape, seed=7))
    gradients = {f"d {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"y": y.detach(), "dx": x.grad, **gradients, **{n: b.clone() for n, b in model.named_buffers()}}


def assert_same(graph: nn.Module, eager: nn.Module, x: torch.Tensor) -> None:
    """Outputs, gradients and running statistics to the bit, in training, then in evaluation."""
    for training in (True, False, True):
        expected, found = step(eager.train(training), x), step(graph.train(training), x)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key


@ROWS
@pytest.mark.parametrize("traced_in_training", [True, False])
def test_the_graph_is_the_model(row: NormAct, traced_in_training: bool) -> None:
    eager = Net(row.name)
    graph = fx.symbolic_trace(copy.deepcopy(eager).train(traced_in_training))
    steps = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert steps == ["norm", "norm", "body.0", "body.1", "last"]
    assert_same(graph, eager, noise(2, 8, 4, 4))


def test_hooks_see_values_once() -> None:
    """A hook that ran on symbols would be in the graph and on the layer: twice."""
    model = nn.Sequential(NormActivation(8, groups=4))
    model[0].register_forward_hook(lambda module, args, y: y * 2 if y.mean().item() < 1e9 else y)
    x = noise(2, 8, 4, 4)
    assert torch.equal(fx.symbolic_trace(model)(x), model(x))


def test_a_subclass_is_one_step_too() -> None:
    class Mine(NormActivation):
        pass

    graph = fx.symbolic_trace(nn.Sequential(Mine(8, groups=4)))
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "output"]


@ROWS
def test_a_layer_by_itself(row: NormAct) -> None:
    """Traced as the whole model it is the function, in the mode it was in, as torch's own norms are."""
    for training in (True, False):
        layer = NormActivation(8, row.name, groups=4).train(training)
        x = noise(2, 8, 4, 4)
        assert torch.equal(fx.symbolic_trace(copy.deepcopy(layer))(x), layer(x))


def test_the_function_is_one_step() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(noise(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return norm_act(x, "evonorm-s1", self.weight, groups=4).relu()

    model = Net()
    graph = fx.symbolic_trace(model)
    assert [node.target for node in graph.graph.nodes if node.op == "call_function"] == [norm_act]
    x = noise(2, 8, 4, 4)
    assert torch.equal(graph(x), model(x))


def test_kinds_of_tensors_and_modes_see_one_call() -> None:
    seen = []

    class Logged(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            seen.append(function)
            return super().__torch_function__(function, types, args, kwargs or {})

    x = noise(2, 8, 4, 4)
    y = NormActivation(8, groups=4)(x.as_subclass(Logged))
    assert type(y) is Logged
    assert seen.count(norm_act) == 1
    expected = NormActivation(8, groups=4)(x)
    assert torch.equal(y.as_subclass(torch.Tensor), expected)
    with torch.device(x.device):
        assert torch.equal(NormActivation(8, groups=4)(x), expected)


@pytest.mark.parametrize("layer", ["evonorm-s0", "evonorm-b0", "bn-relu", "frn-tlu"])
def test_torchvisions_feature_extraction(layer: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    torch.manual_seed(0)
    model = evonorm.convert(torchvision.models.resnet18(), layer)
    names = get_graph_node_names(model)
    assert names[0] == names[1]
    assert "layer1.0.bn1" in names[0]
    extractor = create_feature_extractor(copy.deepcopy(model), {"layer1.0.bn1": "early", "layer4": "late", "fc": "y"})
    x = noise(2, 3, 64, 64)
    seen = {}
    for key, name in {"early": "layer1.0.bn1", "late": "layer4"}.items():
        model.get_submodule(name).register_forward_hook(lambda m, a, y, key=key: seen.update({key: y}))
    for training in (True, False):
        y = model.train(training)(x)
        found = extractor.train(training)(x)
        assert torch.equal(found["y"], y)
        assert torch.equal(found["early"], seen["early"])
        assert torch.equal(found["late"], seen["late"])


@pytest.mark.parametrize("layer", ["evonorm-s0", "evonorm-b0"])
def test_timms_feature_extraction(layer: str) -> None:
    timm = pytest.importorskip("timm")
    from timm.models._features_fx import FeatureGraphNet, GraphExtractNet

    torch.manual_seed(0)
    model = evonorm.convert(timm.create_model("resnet10t"), layer).eval()
    x = noise(2, 3, 64, 64)
    expected = model.forward_intermediates(x, intermediates_only=True)
    last = GraphExtractNet(copy.deepcopy(model), {"layer4": "late"}, squeeze_out=True)
    assert torch.equal(last(x), expected[-1])
    features = FeatureGraphNet(copy.deepcopy(model), out_indices=(1, 2))
    for found, value in zip(features(x), expected[1:3], strict=True):
        assert torch.equal(found, value)


@pytest.mark.own_device  # quantized convolutions are the processor's
@pytest.mark.parametrize("layer", ["evonorm-s0", "evonorm-b0", "gn-relu"])
def test_quantization_leaves_the_layer_whole(layer: str) -> None:
    """Prepared, the model computes what it computed; converted, convolutions are quantized and the layer is not."""
    torchvision = pytest.importorskip("torchvision")
    quantize_fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
    from torch.ao.quantization import get_default_qconfig_mapping

    torch.manual_seed(0)
    model = evonorm.convert(torchvision.models.resnet18(), layer).eval()
    x = noise(2, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its own quantization deprecated
        prepared = quantize_fx.prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping(), (x,))
        # Preparing folds the batch norms that were kept into their convolutions, which rounds otherwise.
        torch.testing.assert_close(prepared(x), model(x), rtol=1e-3, atol=1e-3)
        if "fbgemm" not in torch.backends.quantized.supported_engines:
            pytest.skip("no engine for quantized convolutions here")
        quantized = quantize_fx.convert_fx(prepared)
        assert torch.isfinite(quantized(x)).all()
    layers = [name for name, module in model.named_modules() if isinstance(module, NormActivation)]
    assert layers
    assert all(isinstance(quantized.get_submodule(name), NormActivation) for name in layers)
