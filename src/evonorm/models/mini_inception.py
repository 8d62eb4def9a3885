"""Mini Inception, the report's network for 32x32 images; larger ones pass too."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evonorm.layers.functional import Backend
from evonorm.layers.modules import NormActivation

MakeLayer = Callable[[int], NormActivation]
DROPOUT = 0.5


class ConvNormAct(nn.Sequential):
    """Convolution with bias, then a normalization-activation layer: (N, inputs, H, W) -> (N, outputs, H', W')."""

    def __init__(self, inputs: int, outputs: int, kernel: int, make: MakeLayer, *, stride: int = 1) -> None:
        # The report's strided convolutions are 'valid', the others 'same'.
        padding = kernel // 2 if stride == 1 else 0
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding)
        self.norm = make(outputs)


class Inception(nn.Module):
    """concat[conv a 1x1, conv b 3x3] of the same input: (N, inputs, H, W) -> (N, a + b, H, W)."""

    def __init__(self, inputs: int, a: int, b: int, make: MakeLayer) -> None:
        super().__init__()
        self.conv1x1 = ConvNormAct(inputs, a, 1, make)
        self.conv3x3 = ConvNormAct(inputs, b, 3, make)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W)."""
        return torch.cat([self.conv1x1(x), self.conv3x3(x)], dim=1)


class Downsample(nn.Module):
    """concat[conv k 3x3 stride 2, max pool 3x3 stride 2]: (N, inputs, H, W) -> (N, k + inputs, (H-1)//2, (W-1)//2)."""

    def __init__(self, inputs: int, k: int, make: MakeLayer) -> None:
        super().__init__()
        self.conv = ConvNormAct(inputs, k, 3, make, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, inputs, H, W)."""
        return torch.cat([self.conv(x), self.pool(x)], dim=1)


class MiniInception(nn.Module):
    """The report's network: (N, 3, 32, 32) -> logits (N, classes).

    layer, eps, momentum, backend: as in NormActivation, at all 19 sites. groups: of the layers that have them; where it
    does not divide a width (32 divides neither 48, 80, 112 nor 176), fit_groups takes the largest divisor below, as the
    paper's code does, and without it that is a ValueError. generator: source of the initial weights (Glorot uniform;
    biases are zero). With ten classes 1,649,402 trainable parameters and those of the layers.
    Source: github.com/sayakpaul/EvoNorms-in-TensorFlow-2.
    """

    def __init__(
        self,
        classes: int = 10,
        layer: str = "evonorm-s0",
        *,
        groups: int = 32,
        fit_groups: bool = True,
        eps: float | None = None,
        momentum: float = 0.1,
        dropout: float = DROPOUT,
        backend: Backend = "auto",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()

        def make(channels: int) -> NormActivation:
            return NormActivation(
                channels, layer, groups=groups, fit_groups=fit_groups, eps=eps, momentum=momentum, backend=backend
            )

        self.stem = ConvNormAct(3, 96, 3, make)
        self.inception1 = Inception(96, 32, 32, make)
        self.inception2 = Inception(64, 32, 48, make)
        self.downsample1 = Downsample(80, 80, make)
        self.inception3 = Inception(160, 112, 48, make)
        self.inception4 = Inception(160, 96, 64, make)
        self.inception5 = Inception(160, 80, 80, make)
        self.inception6 = Inception(160, 48, 96, make)
        self.downsample2 = Downsample(144, 96, make)
        self.inception7 = Inception(240, 176, 160, make)
        self.inception8 = Inception(336, 176, 160, make)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(336, classes)
        self._initialize(generator)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, 32, 32), or larger. Logits: (N, classes)."""
        x = self.inception2(self.inception1(self.stem(x)))
        x = self.downsample1(x)
        x = self.inception6(self.inception5(self.inception4(self.inception3(x))))
        x = self.downsample2(x)
        x = self.inception8(self.inception7(x))
        x = F.avg_pool2d(x, x.shape[2:])  # 7x7 in the report
        logits: Tensor = self.classifier(self.dropout(x).flatten(1))
        return logits

    def _initialize(self, generator: torch.Generator | None) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
