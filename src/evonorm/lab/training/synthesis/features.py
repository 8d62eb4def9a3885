"""The network whose features samples are judged by: a classifier that was trained on the same images, in this lab."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evonorm.lab.data.sets import ImageDataset
from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.training import checkpoint, inputs, tasks
from evonorm.lab.training.config import Seeds, TrainConfig

NOTE = "features of a network trained here, not Inception's: not comparable with published figures"
BATCH = 256


@dataclass(frozen=True)
class Judge:
    """A classifier's features: what its last linear layer is given. accuracy: its last validation accuracy."""

    network: nn.Module
    scaling: inputs.Scaling | None
    name: str
    accuracy: float

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, F) and logits (N, classes) of images (N, 3, H, W) in [-1, 1], on the CPU."""
        seen: list[Tensor] = []
        last = [module for module in self.network.modules() if isinstance(module, nn.Linear)][-1]
        hook = last.register_forward_pre_hook(lambda module, args: seen.append(args[0].float().cpu()))
        try:
            logits = []
            for part in torch.split((images + 1) / 2, BATCH):
                logits.append(self.network(part if self.scaling is None else self.scaling(part)).float().cpu())
        finally:
            hook.remove()
        return torch.cat(seen), torch.cat(logits)


def load(folder: Path, dataset: ImageDataset, device: torch.device) -> Judge:
    """The classifier of a finished run. Raises UserError if it is none, or was trained on other images."""
    if not (folder / checkpoint.NAME).is_file() or not (folder / "config.json").is_file():
        raise UserError(
            f"features: {folder} is no run folder with a checkpoint; make one with `evonorm train` on the same images"
        )
    record = run_files.read(folder)
    kept = dict(record.config)
    if record.status != "finished" or tasks.of(kept).name != tasks.DEFAULT:
        raise UserError(
            f"features: {folder} must be a finished classification, got a {record.status} {kept.get('task')}"
        )
    if record.dataset["fingerprint"] != dataset.fingerprint:
        raise UserError(f"features: {folder} was trained on {record.dataset['name']}, not on these images")
    config = _config(kept)
    network = tasks.get(tasks.DEFAULT).work().network(config, dataset)
    state = torch.load(folder / checkpoint.NAME, map_location="cpu", weights_only=True)
    network.load_state_dict(state["model"])
    network = network.to(device).eval().requires_grad_(False)
    images, _ = inputs.on_device(config, dataset, device)
    scaling = inputs.standardization(images.pixels) if config.standardize else None
    return Judge(network, scaling, folder.name, float(record.metrics[-1]["val_accuracy"]))


def _config(kept: dict[str, Any]) -> TrainConfig:
    return TrainConfig(**{**kept, "seeds": Seeds(**kept["seeds"])})
