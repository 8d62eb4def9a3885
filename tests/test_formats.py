"""Models with our layers in other forms: ONNX run by onnxruntime, torch.export, torch.compile; how lean they are."""

from __future__ import annotations

import collections
import copy
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import evonorm
from evonorm import NormActivation
from evonorm.models import MiniInception
from tests.tensors import noise

LAYERS = pytest.mark.parametrize("layer", ["evonorm-s0", "evonorm-b0", "bn-relu"])
BATCH = torch.export.Dim.DYNAMIC
# One layer in evaluation, as the exporter writes it: the formula's own arithmetic. A standard deviation costs six nodes
# (mean, minus, square, mean, plus, root); v, running statistics and their root are constants.
ONNX_NODES = {
    "evonorm-s0": "Mul Sigmoid Mul Reshape ReduceMean Sub Pow ReduceMean Add Sqrt Expand Reshape Div Mul Add",
    "evonorm-s2": "Sigmoid Mul Pow ReduceMean Reshape ReduceMean Add Sqrt Expand Reshape Div Mul Add",
    "evonorm-b0": "Mul ReduceMean Sub Pow ReduceMean Add Sqrt Add Max Div Mul Add",
    "frn-tlu": "Pow ReduceMean Add Sqrt Div Mul Add Max",
    "bn-relu": "BatchNormalization Relu",
    "none": "Identity",
}
# What a layer must not leave behind: conversions to the dtype it has, views back and forth, and training's updates.
WASTE = {
    "to",
    "_to_copy",
    "_assert_tensor_metadata",
    "promote_types",
    "clone",
    "contiguous",
    "lerp_",
    "detach",
    "copy_",
}


def scrambled(model: nn.Module) -> nn.Module:
    """In evaluation, with every layer's parameters and statistics away from their initial values."""
    for seed, module in enumerate(m for m in model.modules() if isinstance(m, NormActivation)):
        for offset, value in enumerate(module.state_dict().values()):
            value.copy_(0.2 * noise(*value.shape, seed=10 * seed + offset).abs() + 0.7)
    return model.eval()


def converted(layer: str) -> nn.Module:
    """torchvision's ResNet with bottlenecks, one in each of two stages."""
    from torchvision.models.resnet import Bottleneck, ResNet

    torch.manual_seed(0)
    model = ResNet(Bottleneck, [1, 1, 1, 1])
    model.layer3, model.layer4, model.fc = nn.Identity(), nn.Identity(), nn.Linear(512, 5)
    return scrambled(evonorm.convert(model, layer))


def onnx_program(model: nn.Module, x: Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # raised by torch inside its own exporter
        return torch.onnx.export(model, (x,), dynamo=True, dynamic_shapes=({0: BATCH},), verbose=False)


def exported(model: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(model, (x,), dynamic_shapes=({0: BATCH},))


def assert_onnx_gives(model: nn.Module, program: Any, x: Tensor, path: Path) -> None:
    """onnxruntime gives the model's outputs, and not merely ones near them, for another batch than the exported."""
    onnxruntime = pytest.importorskip("onnxruntime")
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        given = x[:1].expand(batch, *x.shape[1:]).contiguous() * torch.arange(1, batch + 1).view(-1, 1, 1, 1)
        with torch.no_grad():
            expected = model(given)
        (y,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("layer", ONNX_NODES)
def test_a_layer_in_onnx_is_its_formula_and_nothing_else(layer: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = scrambled(NormActivation(64, layer))
    x = noise(2, 64, 5, 3)
    program = onnx_program(model, x)
    assert [node.op_type for node in program.model.graph] == ONNX_NODES[layer].split()
    assert_onnx_gives(model, program, x, tmp_path / "layer.onnx")


@pytest.mark.parametrize("layer", evonorm.names())
def test_a_layer_in_torch_export_leaves_nothing_behind(layer: str) -> None:
    program = exported(scrambled(NormActivation(64, layer)), noise(2, 64, 5, 3))
    calls = collections.Counter(
        getattr(node.target, "overloadpacket", node.target).__name__
        for node in program.graph.nodes
        if node.op == "call_function"
    )
    assert not WASTE & calls.keys()
    parameters = sum(1 for _ in program.state_dict)
    assert calls["view"] <= parameters
    assert calls["expand"] <= 1


def test_mini_inception_in_onnx(tmp_path: Path) -> None:
    """With one layer: what each layer becomes in a network, a converted one shows."""
    pytest.importorskip("onnxscript")
    model = scrambled(MiniInception(layer="evonorm-s0", generator=torch.Generator().manual_seed(0)))
    x = noise(2, 3, 32, 32)
    assert_onnx_gives(model, onnx_program(model, x), x, tmp_path / "model.onnx")


@LAYERS
def test_a_converted_resnet_in_onnx(layer: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model, x = converted(layer), noise(2, 3, 32, 32)
    assert_onnx_gives(model, onnx_program(model, x), x, tmp_path / "model.onnx")


@pytest.mark.parametrize("layer", ["evonorm-s0", "evonorm-b0"])
def test_a_converted_resnet_in_torch_export(layer: str, tmp_path: Path) -> None:
    """Written, read and run without the class."""
    model, x = converted(layer), noise(2, 3, 32, 32)
    path = tmp_path / "model.pt2"
    torch.export.save(exported(model, x), path)
    other = noise(3, 3, 32, 32, seed=5)
    torch.testing.assert_close(torch.export.load(path).module()(other), model(other), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("layer", "training"), [("evonorm-s0", True), ("evonorm-s0", False), ("evonorm-b0", True)])
def test_a_converted_resnet_compiled(layer: str, training: bool) -> None:
    """One graph, with the same output and gradients; what torch makes of it is another's test."""
    eager = converted(layer).train(training)
    torch.compiler.reset()  # or the cases before this one count as recompilations of it
    compiled: Any = torch.compile(copy.deepcopy(eager), fullgraph=True, backend="aot_eager")
    found = []
    for model in (eager, compiled):
        x = noise(2, 3, 64, 64).requires_grad_()
        y = model(x)
        y.backward(noise(2, 5, seed=1))
        found.append([y.detach(), x.grad])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch generates C++, which needs a compiler")
def test_generated_code_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile as users call it, over a layer whose kernel is in the graph and one whose operations are fused."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    layers = [NormActivation(8, groups=4), NormActivation(8, groups=4, backend="reference")]
    eager = scrambled(nn.Sequential(nn.Conv2d(3, 8, 1), *layers))
    compiled: Any = torch.compile(copy.deepcopy(eager), fullgraph=True, options={"compile_threads": 1})
    x = noise(2, 3, 5, 4)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # raised by torch inside its own compiler
        y = compiled(x)
    torch.testing.assert_close(y, eager(x))
