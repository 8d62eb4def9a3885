"""How long does a training step of Mini Inception take, with each layer, beside the network with none?

One process, implementations in turn (A B C A B C ...), medians. Prints a line of JSON for each, then a table of ratios.

    python benchmarks/training_step.py --layers none bn-relu evonorm-b0 evonorm-s0 --precision bf16 --repeats 7
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

from evonorm import names
from evonorm.lab import machine
from evonorm.models import MiniInception


def timm_s0(model: MiniInception) -> MiniInception:
    """The same network with timm's EvoNorm-S0 at every site."""
    from timm.layers import EvoNorm2dS0

    for module in model.modules():
        if hasattr(module, "norm"):
            module.norm = EvoNorm2dS0(module.norm.channels, groups=module.norm.groups)
    return model


def step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, bf16: bool) -> float:
    """Seconds of forward, loss and backward."""
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(images)
    F.cross_entropy(logits.float(), labels).backward()
    model.zero_grad()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ["none", "bn-relu", "gn-silu", "evonorm-b0", "evonorm-s0", "timm-s0"]
    parser.add_argument("--layers", nargs="+", default=default, choices=[*names(), "timm-s0"], metavar="LAYER")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--keep-freed-memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="as `evonorm train` does; off: the allocator's default, under which large tensors cost page faults",
    )
    options = parser.parse_args()

    if options.keep_freed_memory:
        machine.keep_freed_memory()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(options.batch_size, 3, 32, 32, generator=generator).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (options.batch_size,), generator=generator)
    models: dict[str, nn.Module] = {}
    for layer in options.layers:
        model = MiniInception(layer="evonorm-s0" if layer == "timm-s0" else layer, groups=options.groups)
        model = timm_s0(model) if layer == "timm-s0" else model
        models[layer] = model.to(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {layer: [] for layer in models}
    for repeat in range(options.repeats + 1):
        for layer, model in models.items():
            taken = step(model, images, labels, options.precision == "bf16")
            if repeat > 0:  # the first round warms up
                seconds[layer].append(taken)

    conditions = machine.environment(torch.device("cpu")) | vars(options)
    for layer, taken in seconds.items():
        print(json.dumps({"layer": layer, "step_seconds": [round(value, 4) for value in taken], **conditions}))
    medians = {layer: statistics.median(taken) for layer, taken in seconds.items()}
    base = medians[options.layers[0]]
    print(f"\n{'layer':12} {'step ms':>8}  times {options.layers[0]}")
    for layer, median in medians.items():
        print(f"{layer:12} {1e3 * median:8.0f}  {median / base:.2f}")


if __name__ == "__main__":
    main()
