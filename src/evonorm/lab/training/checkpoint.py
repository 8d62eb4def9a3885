"""checkpoint.pt: all that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files

NAME = "checkpoint.pt"
# What sums were called before there were tasks but classification.
_OLDER = {"loss_sum": "loss", "correct": "accuracy"}


@dataclass
class Position:
    """Where a run stands: epochs behind it, steps into the current one, and that one's sums so far, by name."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seen: int = 0
    train_seconds: float = 0.0

    def add(self, sums: Mapping[str, float], seen: int) -> None:
        """A step is done: its sums, over so many images."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.seen += seen
        self.step += 1


def save(folder: Path, state: Mapping[str, Any], position: Position, seconds: float) -> None:
    """Writes the checkpoint at once: the old one or the new one is there, never half of it. state: see Work.state."""
    content = io.BytesIO()
    torch.save({**state, "position": asdict(position), "seconds": seconds}, content)
    run_files.write_atomically(folder / NAME, content.getvalue())


def load(
    folder: Path, take: Callable[[Mapping[str, Any]], None], device: torch.device
) -> tuple[Position, float, list[dict[str, Any]]] | None:
    """The checkpoint's position, seconds so far, and metrics of its epochs. take: gets the state, see Work.load.

    metrics.jsonl is cut back to those epochs: one written after the checkpoint is computed again, alike. None where
    there is no checkpoint. Raises UserError if it cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        run_files.rewrite_metrics(folder, [])
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        take(state)
        position, seconds = _position(state["position"]), float(state["seconds"])
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


def _position(kept: Mapping[str, Any]) -> Position:
    """As the checkpoint has it. Before an epoch's first step there are no sums."""
    own = {name: value for name, value in kept.items() if name not in _OLDER}
    older = {name: kept[former] for former, name in _OLDER.items() if former in kept and kept["seen"]}
    return Position(**{"sums": older, **own})
