"""Mini Inception with each layer, beside the same network with none: a training step, and one image's latency."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evonorm.lab.bench import gate, timing
from evonorm.lab.bench.cases import TORCH_FORMATS, Case, mini_inception_sites
from evonorm.lab.bench.devices import Device, Work
from evonorm.lab.bench.implementations import NO_LAYER, RELU, Implementation, Unavailable, fitting_groups
from evonorm.lab.bench.measure import collected, gated, part_of
from evonorm.lab.bench.results import LATENCY, STEP, Result
from evonorm.layers.modules import NormActivation
from evonorm.models import MiniInception


def measure_network(
    contenders: list[Implementation],
    *,
    device: Device,
    dtype: str,
    format: str,
    batch_size: int,
    groups: int,
    repeats: int,
    into: list[Result],
    tick: Callable[[float], None],
) -> None:
    """Adds to `into` the step and latency of every contender and of no layer; after KeyboardInterrupt, those so far.

    A step is forward, loss and backward, with bf16 under autocast; the latency is one image's, not training. Ours pass
    the gate at the shape of every site first. relu alone and compiled layers are left out.
    """
    none = Implementation(NO_LAYER, None, "torch", lambda channels, groups: nn.Identity())
    served = [none, *(c for c in contenders if c.name not in (RELU, NO_LAYER) and "compiled" not in c.variant)]
    for number, figure in enumerate((STEP, LATENCY)):
        training = figure == STEP
        count = batch_size if training else 1
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(count, 3, 32, 32, generator=generator).contiguous(memory_format=TORCH_FORMATS[format])
        labels = torch.randint(10, (count,), generator=generator).to(device.place)
        images = images.to(device.place)
        results: dict[str, Result] = {}
        works: dict[str, Work] = {}
        with collected(results, into) as samples:
            for contender in served:
                result = Result(
                    f"Mini Inception, batch {count}, {dtype} {format}",
                    figure,
                    contender.name,
                    contender.layer,
                    contender.variant,
                    images=count,
                    details={"shape": list(images.shape), "dtype": dtype, "format": format},
                )
                results[contender.name] = result
                model = _gated_network(contender, result, groups, device, dtype, format, training=training)
                if model is not None:
                    work = _step if training else _latency
                    works[contender.name] = partial(work, model.train(training), images, labels, dtype == "bf16")
            timing.in_turn(works, samples, repeats=repeats, device=device, tick=part_of(tick, number, 2))


def network_with(contender: Implementation, groups: int) -> MiniInception:
    """Mini Inception with this implementation at every site. Raises Unavailable where this machine has it not."""
    model = MiniInception(layer=NO_LAYER, generator=torch.Generator().manual_seed(0))
    for module in model.modules():
        site = getattr(module, "norm", None)
        if isinstance(site, NormActivation):
            module.norm = contender.build(site.channels, fitting_groups(site.channels, groups))
    return model


def _gated_network(
    contender: Implementation,
    result: Result,
    groups: int,
    device: Device,
    dtype: str,
    format: str,
    *,
    training: bool,
) -> MiniInception | None:
    try:
        model = network_with(contender, groups)
        sites = mini_inception_sites() if contender.gated else []
        for site in sites:
            case = Case((2, *site), dtype, format, ())
            layer = contender.build(site[0], fitting_groups(site[0], groups))
            gate.randomize(layer)
            layer.to(device.place)
            if not gated(layer, contender, case, device, training=training, result=result):
                result.reason = f"at {case}: {result.reason}"
                return None
    except Unavailable as error:
        result.status, result.reason = "skipped", str(error)
        return None
    if sites:
        result.gate = {"ok": True, "sites": len(sites)}
    return model.to(device.place).to(memory_format=TORCH_FORMATS[format])


def _step(model: nn.Module, images: Tensor, labels: Tensor, bf16: bool) -> None:
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        logits = model(images)
    torch.autograd.backward(F.cross_entropy(logits.float(), labels))
    model.zero_grad()


def _latency(model: nn.Module, images: Tensor, labels: Tensor, bf16: bool) -> None:
    with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        model(images)
