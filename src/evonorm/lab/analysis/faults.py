"""Why a run diverged, as pages say it: from its record's diagnosis, and not more than that knows."""

from __future__ import annotations

from dataclasses import dataclass

from evonorm.lab.records.run_files import Record


@dataclass(frozen=True)
class Fault:
    """where: epoch and step. kind, tensor: what went non-finite first; empty where that is not known.

    magnitudes: largest |output| of each module that the replay saw, in order, as text.
    """

    where: str
    kind: str
    tensor: str
    cause: str
    magnitudes: tuple[tuple[str, str], ...] = ()


def fault(record: Record) -> Fault:
    """A diverged run's. A loss that was non-finite after no module was seen is a replay that saw nothing."""
    found = record.summary.get("diagnosis") or {}
    places = [f"in epoch {found['epoch']}" if found.get("epoch") else "in an epoch that is not recorded"]
    places += [f"step {found['step']}"] if found.get("step") else []
    kind, tensor, cause = (str(found.get(name) or "") for name in ("kind", "tensor", "cause"))
    magnitudes = tuple(
        (str(entry.get("module")), "not finite" if entry.get("largest") is None else f"{entry['largest']:.3g}")
        for entry in found.get("magnitudes") or ()
    )
    if kind == "loss" and not magnitudes:
        cause = (
            "The loss was not finite. The replay saw none of the network's modules, as when torch.compile hides them, "
            "so it cannot say where that began."
        )
    if kind == "not reproduced" or (kind == "loss" and not magnitudes):
        kind = tensor = ""
    return Fault(", ".join(places), kind, tensor, cause, magnitudes)
