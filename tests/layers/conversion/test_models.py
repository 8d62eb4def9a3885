"""A sample of torchvision's and timm's models; `make zoo` asks the same of all of them."""

from __future__ import annotations

import pytest
import torch

from evonorm import ConversionWarning, convert, plan
from tests.layers.conversion import models
from tests.layers.conversion.checks import check, check_counts, counts, quiet

pytest.importorskip("torchvision")

# (family, name, normalizations, replaced), counted by hand in the papers' tables or by the blocks' structure.
TORCHVISION = [
    ("classification", "resnet18", 20, 9),  # stem and one of two a block
    ("classification", "mobilenet_v2", 52, 35),  # 17 linear bottlenecks
    ("classification", "shufflenet_v2_x0_5", 56, 37),
    ("segmentation", "lraspp_mobilenet_v3_large", 47, 32),
    ("detection", "ssdlite320_mobilenet_v3_large", 70, 55),
    ("video", "r3d_18", 20, 9),
]
# On the meta device: no values, the same counts.
COUNTED = [
    ("classification", "resnet50", 53, 33),
    ("classification", "efficientnet_b0", 49, 33),
    ("classification", "mnasnet1_0", 52, 35),
    ("classification", "densenet121", 121, 121),
    ("classification", "googlenet", 59, 59),  # two of them only in training's auxiliary heads
]
# The report's: none may fall back to its parts.
REPORTED = ("mobilenet_v2", "resnet50", "mnasnet1_0", "efficientnet_b0")
TIMM = [
    ("test_resnet", 15, 8),
    ("test_efficientnet", 13, 9),  # BatchNormAct2d
    ("test_byobnet", 14, 6),
]
TIMM_COUNTED = [("resnetv2_50d_gn", 51, 51), ("regnetz_b16", 68, 46), ("efficientnet_b0", 49, 33)]


@pytest.mark.parametrize(("family", "name", "norms", "replaced"), TORCHVISION, ids=lambda value: str(value))
def test_torchvision(family: str, name: str, norms: int, replaced: int) -> None:
    with quiet(), torch.random.fork_rng([]):
        torch.manual_seed(0)
        model, run, training = models.torchvision_model(name, family)
        found = check(model, run, training=training)
    assert (found.norms, found.replaced) == (norms, replaced)
    assert found.own_kind == replaced
    assert found.followed or name not in REPORTED


@pytest.mark.parametrize(("family", "name", "norms", "replaced"), COUNTED, ids=lambda value: str(value))
def test_torchvision_on_the_meta_device(family: str, name: str, norms: int, replaced: int) -> None:
    with quiet(), torch.device("meta"):
        model, _, _ = models.torchvision_model(name, family)
        x = torch.empty(2, 3, 96, 96)
        found = check_counts(model, lambda m: m(x))
    assert (found.norms, found.replaced) == (norms, replaced)
    assert found.followed or name not in REPORTED


@pytest.mark.parametrize(("name", "norms", "replaced"), TIMM)
def test_timm(name: str, norms: int, replaced: int) -> None:
    pytest.importorskip("timm")
    with quiet(), torch.random.fork_rng([]):
        torch.manual_seed(0)
        found = check(*models.timm_model(name))
    assert (found.norms, found.replaced) == (norms, replaced)
    assert found.own_kind == replaced


@pytest.mark.parametrize(("name", "norms", "replaced"), TIMM_COUNTED)
def test_timm_on_the_meta_device(name: str, norms: int, replaced: int) -> None:
    pytest.importorskip("timm")
    with quiet():
        model, run = models.timm_model(name, device="meta")
        found = check_counts(model, run)
    assert (found.norms, found.replaced) == (norms, replaced)


def test_the_counts_catch_a_lost_activation() -> None:
    """What a converter would do that puts an identity in the place of a shared ReLU."""
    with torch.device("meta"):
        model, _, _ = models.torchvision_model("resnet18", "classification")
        x = torch.empty(1, 3, 64, 64)
        before, broken = counts(model.eval(), lambda m: m(x)), convert(model).eval()
        broken.layer1[0].relu = torch.nn.Identity()
        after = counts(broken, lambda m: m(x))
    assert (before.activations, before.norms) == (17, 20)
    assert after.activations + after.ours == 16


def test_frozen_backbones() -> None:
    """What torchvision's detectors are made of."""
    from torchvision import models as theirs
    from torchvision.ops import FrozenBatchNorm2d

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = theirs.resnet18(weights=None, norm_layer=FrozenBatchNorm2d)
        found = check(model, lambda m: m(models.noise(2, 3, 64, 64)))
    assert (found.norms, found.replaced, found.own_kind) == (20, 9, 9)


@pytest.mark.parametrize("wrap", ["DataParallel", "compile", "checkpoint", "fx", "feature extractor", "export"])
def test_wrapped_models(wrap: str) -> None:
    """Sites are found through wrappers; what torch.fx or torch.export has written as code is kept, and says so."""
    from torch.utils.checkpoint import checkpoint
    from torchvision import models as theirs
    from torchvision.models.feature_extraction import create_feature_extractor

    class Checkpointed(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = checkpoint(self.model, x, use_reentrant=False)
            return result

    x = models.noise(2, 3, 64, 64)
    with quiet(), torch.random.fork_rng([]):
        torch.manual_seed(0)
        original = theirs.ResNet(theirs.resnet.BasicBlock, [1, 1, 1, 1]).eval()
        wrapped = {
            "DataParallel": torch.nn.DataParallel,
            "compile": lambda m: torch.compile(m, backend="eager"),
            "checkpoint": Checkpointed,
            "fx": torch.fx.symbolic_trace,
            "feature extractor": lambda m: create_feature_extractor(m, ["layer2"]),
            "export": lambda m: torch.export.export(m, (x,)).module(),
        }[wrap](original)
        if wrap in ("DataParallel", "compile", "checkpoint"):
            assert check(wrapped, lambda m: m(x)).replaced == 5
            return
        sites = {site.name: site for site in plan(wrapped).sites}
    if wrap == "export":
        assert [site.what for site in sites.values()] == ["kept: called as a function, not a module"]
        return
    assert sites["bn1"].replaced
    assert "convert the model before torch.fx does" in sites["layer1.0.bn1"].what
    with pytest.warns(ConversionWarning, match="in the place of 1 of .* convert the model before torch.fx does"):
        assert convert(wrapped)(x) is not None


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_scripted_models_are_refused() -> None:
    scripted = torch.jit.script(torch.nn.Sequential(torch.nn.BatchNorm2d(8), torch.nn.ReLU()))
    with pytest.raises(TypeError, match="of TorchScript, whose parts cannot be exchanged: convert it before"):
        plan(scripted)
