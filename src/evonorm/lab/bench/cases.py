"""What is measured: shapes by preset, and one case for each shape, dtype and memory format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evonorm.lab.bench.options import DTYPES_BY_DEVICE, PRESETS_BY_DEVICE, BenchOptions, Figure, Shape
from evonorm.layers.modules import NormActivation
from evonorm.models import MiniInception

DETECTION = (2, 256, 200, 304)
RESNET50_BATCHES = {"resnet50": 16, "resnet50-256": 256}
RESNET50_STAGES = ((64, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7))
TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TORCH_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Case:
    """One layer input: x of this shape, dtype and order in memory, and the figures taken of it."""

    shape: Shape
    dtype: str
    format: str
    figures: tuple[Figure, ...]

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} {self.dtype} {self.format}"

    def tensor(self, generator: torch.Generator, *, batch: int | None = None) -> Tensor:
        """Normal values, N or `batch` samples of them, on the generator's device."""
        shape = (self.shape[0] if batch is None else batch, *self.shape[1:])
        values = torch.randn(shape, generator=generator, device=generator.device).to(TORCH_DTYPES[self.dtype])
        return values.contiguous(memory_format=TORCH_FORMATS[self.format])


def cases(options: BenchOptions) -> list[Case]:
    """Every case that the options ask for, each once; the headline where they name nothing."""
    presets = options.presets
    if not (presets or options.shapes or options.network):
        presets = PRESETS_BY_DEVICE[options.device]
    wanted: dict[tuple[Shape, tuple[Figure, ...]], None] = {}
    for preset in presets:
        own: tuple[Figure, ...] = ("inference",) if preset == "inference" else ("forward", "forward+backward")
        for shape in preset_shapes(preset):
            wanted[shape, options.figures or own] = None
    for shape in options.shapes:
        wanted[shape, options.figures or ("forward", "forward+backward")] = None
    return [
        Case(shape, dtype, format, figures)
        for dtype in options.dtypes or DTYPES_BY_DEVICE[options.device]
        for format in options.formats
        for shape, figures in wanted
    ]


def preset_shapes(preset: str) -> Iterable[Shape]:
    """The shapes of a preset of `options.PRESETS`."""
    if preset == "headline":
        return [(128, *mini_inception_sites()[0])]
    if preset == "mini-inception":
        return [(128, *site) for site in mini_inception_sites()]
    if preset in RESNET50_BATCHES:
        return [(RESNET50_BATCHES[preset], *stage) for stage in RESNET50_STAGES]
    if preset == "detection":
        return [DETECTION]
    return [(1, *site) for site in dict.fromkeys((*mini_inception_sites(), *RESNET50_STAGES))]


def mini_inception_sites() -> list[tuple[int, int, int]]:
    """(C, H, W) at each layer of Mini Inception in the order of its forward pass, each once; read off the network."""
    found: dict[tuple[int, int, int], None] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        _, channels, height, width = inputs[0].shape
        found[channels, height, width] = None

    model = MiniInception(layer="none", generator=torch.Generator().manual_seed(0)).eval()
    for module in model.modules():
        if isinstance(module, NormActivation):
            module.register_forward_pre_hook(note)
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    return list(found)
