"""A stem for small images: networks made for 224 pixels throw away most of 32 before their first block."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

SIZE = 32
LARGE_KERNEL, SMALL_KERNEL = 7, 3
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def fit(model: nn.Module) -> None:
    """Changes the stem for images of SIZE, in place, by one rule for every network.

    In the order in which the image meets them: the first convolution with a stride gets stride 1, and a kernel of
    3x3 if it has one of 7x7 or larger, as the CIFAR ResNets of He et al. 2016 (arXiv 1512.03385). If what next
    makes the map smaller is a max pool, and nothing beside it does that to the same map, it goes. A network that pools
    before it strides, such as VGG, stays as it is.

    The small kernel is the middle of the large one, scaled by the ratio of their widths: usual rules draw weights
    with a variance proportional to 1 / (kernel area), so that these are drawn as if for the small one.
    """
    met = _met(model)
    strided: nn.Conv2d | None = None
    for name, module, x in met:
        if strided is None:
            if isinstance(module, _POOLS):
                return
            if isinstance(module, nn.Conv2d):
                strided = module
        else:
            alone = sum(other is x for _, _, other in met) == 1
            if isinstance(module, nn.MaxPool2d) and alone:
                model.set_submodule(name, nn.Identity())
            break
    if strided is not None:
        _fit(strided)


def _met(model: nn.Module) -> list[tuple[str, nn.Module, Tensor]]:
    """Convolutions and pools that make a map smaller, and the map, in the order of the forward pass.

    A network that fails on so small a map as its own stem leaves has met its stem by then.
    """
    met: list[tuple[str, nn.Module, Tensor]] = []
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, *_POOLS)) and _strides(module):

            def note(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                met.append((name, module, inputs[0]))

            hooks.append(module.register_forward_pre_hook(note))
    was_training = model.training
    with contextlib.suppress(Exception), torch.no_grad():
        model.eval()(torch.zeros(1, 3, SIZE, SIZE))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return met


def _strides(module: nn.Module) -> bool:
    stride = module.stride
    return max(stride) > 1 if isinstance(stride, tuple) else isinstance(stride, int) and stride > 1


def _fit(conv: nn.Conv2d) -> None:
    conv.stride = (1, 1)
    height, width = conv.kernel_size
    if min(height, width) < LARGE_KERNEL:
        return
    top, left = (height - SMALL_KERNEL) // 2, (width - SMALL_KERNEL) // 2
    middle = conv.weight.detach()[:, :, top : top + SMALL_KERNEL, left : left + SMALL_KERNEL]
    scale = (height * width) ** 0.5 / SMALL_KERNEL
    conv.weight = nn.Parameter(scale * middle.clone(memory_format=torch.contiguous_format))
    conv.kernel_size = (SMALL_KERNEL, SMALL_KERNEL)
    if not isinstance(conv.padding, str):
        conv.padding = (SMALL_KERNEL // 2, SMALL_KERNEL // 2)
