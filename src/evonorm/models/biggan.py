"""BigGAN: images of a class from noise, and the network that judges them.

Source: Brock, Donahue, Simonyan 2018, arXiv 1809.11096; self-attention: Zhang, Goodfellow, Metaxas, Odena 2018, arXiv
1805.08318; projection: Miyato, Koyama 2018, arXiv 1802.05637.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from evonorm.layers.functional import Backend
from evonorm.layers.modules import NormActivation
from evonorm.models.seeding import seeded

# By the image's side, in multiples of `width`: what enters the generator's blocks, each of which doubles the side, and
# leaves the last; what leaves the discriminator's, and how many of those, from the first, halve the side.
_GENERATOR = {32: (4, 4, 4, 4), 64: (16, 16, 8, 4, 2), 128: (16, 16, 8, 4, 2, 1)}
_DISCRIMINATOR = {32: ((4, 4, 4, 4), 2), 64: ((1, 2, 4, 8, 16), 4), 128: ((1, 2, 4, 8, 16, 16), 5)}
SIZES = tuple(_GENERATOR)
_SMALLEST = 4  # the side of the map that the generator begins with
_SPECTRAL_EPS = 1e-6
MakeLayer = Callable[[int, int | None], NormActivation]


class BigGAN(nn.Module):
    """Generator and discriminator of images of `size` in `classes` classes; the generator has `layer` at every site.

    size: 32, 64 or 128. width: what all widths are multiples of; the paper's is 96 at 128. attention: the side of the
    map that a self-attention block follows in both networks, default size / 2, as the paper's; 0: none. embedding:
    features of a class. part: features of z that each of the generator's blocks gets, and its first map. layer, eps,
    momentum, backend: as in NormActivation; groups: of the layers that have them, or the largest divisor of a width
    below. source: of the initial weights; default: torch's own generator.

    Convolutions, linear maps and the discriminator's class embedding have spectral norm (one power iteration a pass,
    epsilon 1e-6); their weights begin orthogonal, biases at 0. Raises ValueError for another size, or a map that is
    not there.
    """

    def __init__(
        self,
        classes: int = 10,
        size: int = 32,
        layer: str = "evonorm-s0",
        *,
        width: int = 64,
        attention: int | None = None,
        embedding: int = 128,
        part: int = 20,
        groups: int = 32,
        eps: float | None = None,
        momentum: float = 0.1,
        backend: Backend = "auto",
        source: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(map(str, SIZES))}: got size={size}")
        attention = size // 2 if attention is None else attention
        sides = (size // 4, size // 2)
        if attention and attention not in sides:
            raise ValueError(
                f"attention must be the side of a map of both networks, {' or '.join(map(str, sides))} for "
                f"size={size}, or 0 for none: got attention={attention}"
            )

        def make(channels: int, features: int | None) -> NormActivation:
            return NormActivation(
                channels,
                layer,
                groups=groups,
                fit_groups=True,
                eps=eps,
                momentum=momentum,
                conditional=features,
                backend=backend,
            )

        with seeded(source):
            self.generator = Generator(classes, size, make, width, attention, embedding, part)
            self.discriminator = Discriminator(classes, size, width, attention)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """The generator's images; see there."""
        images: Tensor = self.generator(z, labels)
        return images


class Generator(nn.Module):
    """z: (N, latent), standard normal; labels: (N,) -> images (N, 3, size, size) in [-1, 1].

    The first part of z becomes a map of 4x4; each of the others meets, with the class's features, the layers of one
    block, whose weight and bias they give. The last layer has its own.
    """

    def __init__(
        self, classes: int, size: int, make: MakeLayer, width: int, attention: int, embedding: int, part: int
    ) -> None:
        super().__init__()
        widths = [width * multiple for multiple in _GENERATOR[size]]
        self.part, self.latent = part, part * len(widths)
        self.embedding = nn.Embedding(classes, embedding)
        self.first = nn.Linear(part, widths[0] * _SMALLEST**2)
        self.blocks = nn.ModuleList(
            _Up(inputs, outputs, make, embedding + part) for inputs, outputs in itertools.pairwise(widths)
        )
        attended = (attention // _SMALLEST).bit_length() - 2  # the block whose map has that side
        self.attention = nn.ModuleDict({str(attended): _Attention(widths[attended + 1])} if attention else {})
        self.norm = make(widths[-1], None)
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)
        _prepare(self, bare={self.embedding})

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """labels: numbers of classes, (N,), or points among their features, float (N, embedding), as between two."""
        features = labels if labels.is_floating_point() else self.embedding(labels)
        first, *others = torch.split(z, self.part, 1)
        x: Tensor = self.first(first).view(len(z), -1, _SMALLEST, _SMALLEST)
        for index, (block, given) in enumerate(zip(self.blocks, others, strict=True)):
            x = block(x, torch.cat([features, given], 1))
            if str(index) in self.attention:
                x = self.attention[str(index)](x)
        return torch.tanh(self.last(self.norm(x)))


class Discriminator(nn.Module):
    """Images (N, 3, size, size) in [-1, 1], labels (N,) -> how real each looks for its class, (N,); without layers."""

    def __init__(self, classes: int, size: int, width: int, attention: int) -> None:
        super().__init__()
        multiples, halvings = _DISCRIMINATOR[size]
        widths = [3, *(width * multiple for multiple in multiples)]
        self.blocks = nn.ModuleList(
            _Down(inputs, outputs, halves=index < halvings, begins=index == 0)
            for index, (inputs, outputs) in enumerate(itertools.pairwise(widths))
        )
        attended = (size // attention).bit_length() - 2 if attention else 0
        self.attention = nn.ModuleDict({str(attended): _Attention(widths[attended + 1])} if attention else {})
        self.linear = nn.Linear(widths[-1], 1)
        self.embedding = nn.Embedding(classes, widths[-1])
        _prepare(self, bare=set())

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """labels: numbers of classes."""
        x = images
        for index, block in enumerate(self.blocks):
            x = block(x)
            if str(index) in self.attention:
                x = self.attention[str(index)](x)
        features = F.relu(x).sum((2, 3))
        judged: Tensor = self.linear(features).squeeze(1) + (self.embedding(labels) * features).sum(1)
        return judged


class _Up(nn.Module):
    """(N, inputs, H, W), condition (N, features) -> (N, outputs, 2 H, 2 W)."""

    def __init__(self, inputs: int, outputs: int, make: MakeLayer, features: int) -> None:
        super().__init__()
        self.norm1 = make(inputs, features)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = make(outputs, features)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(F.interpolate(self.norm1(x, condition), scale_factor=2))
        h = self.conv2(self.norm2(h, condition))
        # A kernel of one pixel commutes with the doubling, and costs a quarter before it.
        y: Tensor = h + F.interpolate(self.shortcut(x), scale_factor=2)
        return y


class _Down(nn.Module):
    """(N, inputs, H, W) -> (N, outputs, H, W), or half that side. begins: it meets the image, without a ReLU before."""

    def __init__(self, inputs: int, outputs: int, *, halves: bool, begins: bool) -> None:
        super().__init__()
        self.begins = begins
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.pool = nn.AvgPool2d(2) if halves else nn.Identity()
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if halves or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.begins else F.relu(x))
        y: Tensor = self.pool(self.conv2(F.relu(h))) + self.shortcut(self.pool(x))
        return y


class _Attention(nn.Module):
    """x + gamma * attention over the map, of keys and values from its 2x2 maxima; gamma begins at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        few, half = max(1, channels // 8), max(1, channels // 2)
        self.query = nn.Conv2d(channels, few, 1, bias=False)
        self.key = nn.Conv2d(channels, few, 1, bias=False)
        self.value = nn.Conv2d(channels, half, 1, bias=False)
        self.out = nn.Conv2d(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.query(x), F.max_pool2d(self.key(x), 2), F.max_pool2d(self.value(x), 2)
        q, k, v = (t.flatten(2).transpose(1, 2) for t in (query, key, value))
        met = F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2)
        y: Tensor = x + self.gamma * self.out(met.reshape(len(x), -1, *x.shape[2:]))
        return y


def _prepare(network: nn.Module, bare: set[nn.Module]) -> None:
    """Orthogonal weights and zero biases, then spectral norm. bare: what goes without it.

    The paper's authors leave the generator's embedding without.
    """
    for module in [*network.modules()]:
        if not isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
            continue
        nn.init.orthogonal_(module.weight)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if module not in bare:
            spectral_norm(module, eps=_SPECTRAL_EPS)
