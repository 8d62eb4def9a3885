"""The stem's one rule, on networks small enough to see it, and on those it was made for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evonorm.models import stem, zoo


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def strides(model: nn.Sequential) -> list[int | None]:
    """Of every module; None where a pool was removed."""
    found = []
    for module in model:
        stride = getattr(module, "stride", None)
        found.append(stride[0] if isinstance(stride, tuple) else stride)
    return found


@pytest.mark.parametrize(
    ("model", "left"),
    [
        ([conv(3, 4, 7, 2), nn.MaxPool2d(2), conv(4, 4, 3, 2)], [1, None, 2]),
        # several convolutions before the pool, as in the deep stems of ResNet-D
        ([conv(3, 4, 3, 2), conv(4, 4), nn.MaxPool2d(2), conv(4, 4, 3, 2)], [1, 1, None, 2]),
        # the map shrinks in a convolution first: a later pool is no part of the stem
        ([conv(3, 4, 3, 2), conv(4, 4, 3, 2), nn.MaxPool2d(2)], [1, 2, 2]),
        ([conv(3, 4, 3, 2), nn.AvgPool2d(2), nn.MaxPool2d(2)], [1, 2, 2]),
        # pools alone, as in VGG
        ([conv(3, 4), nn.MaxPool2d(2), conv(4, 4, 3, 2)], [1, 2, 2]),
        # the pool does not make the map smaller
        ([conv(3, 4, 3, 2), nn.MaxPool2d(3, 1, 1), conv(4, 4, 3, 2)], [1, 1, 2]),
        # too much for 32 pixels as it stands, but its stem is met before it fails
        ([conv(3, 4, 3, 4), nn.MaxPool2d(4), nn.Conv2d(4, 4, 5)], [1, None, 1]),
    ],
    ids=["resnet", "deep", "mobilenet", "average", "vgg", "same size", "too deep"],
)
def test_the_first_stride_goes_and_the_pool_after_it(model: list[nn.Module], left: list[int | None]) -> None:
    network = nn.Sequential(*model)
    stem.fit(network)
    assert strides(network) == left
    assert network.training
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_the_order_is_that_of_the_forward_pass() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.later, self.first = conv(4, 4, 3, 2), conv(3, 4, 3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.later(self.first(x))

    network = Backwards()
    stem.fit(network)
    assert (network.first.stride, network.later.stride) == ((1, 1), (2, 2))


def test_a_pool_beside_a_convolution_stays() -> None:
    """As in DLA and in inceptions: both halve the same map, and their outputs meet."""

    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.conv = nn.MaxPool2d(2), conv(4, 4, 3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pool(x) + self.conv(x)

    network = nn.Sequential(conv(3, 4, 3, 2), Halved())
    stem.fit(network)
    assert network[0].stride == (1, 1)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 16, 16)


def test_a_small_kernel_is_the_middle_of_the_large_one() -> None:
    network = nn.Sequential(nn.Conv2d(3, 400, 7, stride=2, padding=3))
    nn.init.kaiming_normal_(network[0].weight, mode="fan_out", generator=torch.Generator().manual_seed(0))
    before = network[0].weight.detach().clone()
    stem.fit(network)
    torch.testing.assert_close(network[0].weight.detach(), before[:, :, 2:5, 2:5] * 7 / 3)
    # as if drawn for 3x3: a variance of 2 / fan
    assert network[0].weight.std().item() == pytest.approx((2 / (400 * 9)) ** 0.5, rel=0.03)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 400, 32, 32)


@pytest.mark.parametrize(
    ("name", "first", "width"),
    [("resnet18", "layer1", 32), ("mobilenet_v2", "features.1", 32), ("timm:test_resnet", "layer1", 32)],
)
def test_blocks_start_at_full_resolution(name: str, first: str, width: int) -> None:
    model = zoo.build(name, 10, "bn-relu", generator=torch.Generator().manual_seed(0)).eval()
    seen = []
    model.get_submodule(first).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert seen == [width]
