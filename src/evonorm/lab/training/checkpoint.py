"""checkpoint.pt: all that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files

NAME = "checkpoint.pt"


@dataclass
class Position:
    """Where a run stands: epochs behind it, steps into the current one, and that one's sums so far."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    train_seconds: float = 0.0


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, position: Position, seconds: float) -> None:
    """Writes the checkpoint at once: the old one or the new one is there, never half of it."""
    content = io.BytesIO()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state | {"position": asdict(position), "seconds": seconds}, content)
    run_files.write_atomically(folder / NAME, content.getvalue())


def load(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[Position, float, list[dict[str, Any]]] | None:
    """Puts model and optimizer into the checkpoint's state; its position, seconds so far, and metrics of its epochs.

    metrics.jsonl is cut back to those epochs: one written after the checkpoint is computed again, alike. None where
    there is no checkpoint. Raises UserError if it cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        run_files.rewrite_metrics(folder, [])
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        position, seconds = Position(**state["position"]), float(state["seconds"])
    except Exception as error:
        raise UserError(f"cannot resume from {path}: {error}; delete it to train from the start") from error
    epochs = list(run_files.read_metrics(folder))[: position.epoch]
    if len(epochs) < position.epoch:
        raise UserError(
            f"{folder / 'metrics.jsonl'} holds {len(epochs)} epochs, the checkpoint {position.epoch}; "
            f"delete {path} to train from the start"
        )
    run_files.rewrite_metrics(folder, epochs)
    return position, seconds, epochs
