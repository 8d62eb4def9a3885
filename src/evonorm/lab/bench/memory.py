"""What a layer holds: tensors saved for backward, and the peak of allocated memory while it runs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Saved:
    """Memory that autograd keeps from forward to backward, parameters excluded, each piece of memory counted once."""

    full_size_tensors: int
    bytes: int


def saved_for_backward(forward: Callable[[], Tensor], *, elements: int, parameters: Iterable[Tensor] = ()) -> Saved:
    """Runs `forward` and looks at what it saves. elements: of x; a tensor with at least as many is full-size.

    x counts if it is saved. Masks count as tensors, with their own bytes.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    found: dict[int, tuple[int, int]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes() // tensor.element_size(), storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = forward()  # kept until all is counted: freed memory would be handed out again
    full = sum(count >= elements for count, _ in found.values())
    del y
    return Saved(full, sum(size for _, size in found.values()))


def peak_growth(work: Callable[[], object]) -> int:
    """Bytes that torch had allocated at most while `work` ran, above what was there before.

    From the allocator's own log, so a temporary that lives for one operation counts; memory taken outside torch does
    not. Run `work` once before, so that what it makes only once is not counted.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else torch's profiler writes its own news to stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    log = sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"])
    peak = held = 0
    for event in log:
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak
