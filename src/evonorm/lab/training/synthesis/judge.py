"""The network whose features samples are judged by: a classifier trained here, on the same images.

It is a run like any other, beside the runs that ask for it, and is made by the first of them; each takes it from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evonorm.lab.data.sets import ImageDataset
from evonorm.lab.errors import UserError
from evonorm.lab.stopping import Held
from evonorm.lab.training import checkpoint, inputs, tasks
from evonorm.lab.training.config import TrainConfig

BATCH = 256
_WAIT_SECONDS = 2.0


@dataclass(frozen=True)
class Judge:
    """A classifier's features: what its last linear layer is given. accuracy: its last validation accuracy."""

    network: nn.Module
    scaling: inputs.Scaling | None
    name: str
    accuracy: float

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, F) and logits (N, classes), on the CPU, of images (N, 3, H, W) in [-1, 1]."""
        seen: list[Tensor] = []
        logits: list[Tensor] = []
        last = [module for module in self.network.modules() if isinstance(module, nn.Linear)][-1]
        hook = last.register_forward_pre_hook(lambda module, args: seen.append(args[0].float().cpu()))
        try:
            for part in torch.split((images + 1) / 2, BATCH):
                logits.append(self.network(part if self.scaling is None else self.scaling(part)).float().cpu())
        finally:
            hook.remove()
        return torch.cat(seen), torch.cat(logits)


def config(of: TrainConfig, *, epochs: int, images: int | None) -> TrainConfig:
    """The run of the classifier for runs like this one: the report's network with BN-ReLU, by Adam."""
    return TrainConfig(
        layer="bn-relu",
        optimizer="adam",
        epochs=epochs,
        train_images=images,
        test_images=of.test_images,
        standardize=True,
        precision=of.precision,
        device=of.device,
        data=of.data,
    )


def ready(
    config: TrainConfig, dataset: ImageDataset, out: Path, device: torch.device, stop: Callable[[], bool]
) -> Judge:
    """The classifier that a run of this config in `out` gives; trained first, or waited for, where it is not there.

    Raises UserError if that run diverged, KeyboardInterrupt if it, or waiting for it, was stopped.
    """
    from evonorm.lab.training.training import resolve, run_folder, train  # which trains every task, this file's too

    while True:
        try:
            record = train(config, dataset, out, stop=stop)
            break
        except Held:  # another run of the experiment is at it
            if stop():
                raise KeyboardInterrupt from None
            time.sleep(_WAIT_SECONDS)
    if record.status == "stopped":
        raise KeyboardInterrupt
    if record.status != "finished":
        raise UserError(f"the judge of samples, {record.name}, has {record.status}; see its folder for why")
    folder = run_folder(config, dataset, out)
    work: Any = tasks.get(config.task).work_class(resolve(config)[0], dataset, device, folder)
    network: nn.Module = work.network()
    state = torch.load(folder / checkpoint.NAME, map_location=device, weights_only=True)
    network.load_state_dict(state["model"])
    network = network.to(device).eval().requires_grad_(False)
    return Judge(network, work.scaling, record.name, float(record.metrics[-1]["val_accuracy"]))
