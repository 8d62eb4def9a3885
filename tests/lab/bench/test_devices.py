"""The bench's way over a GPU, without one: a queue that is made up, and Triton's kernels interpreted in its place."""

from __future__ import annotations

import importlib.util
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from evonorm import cli
from evonorm.lab.bench import devices, implementations, timing
from evonorm.lab.bench.cases import cases
from evonorm.lab.bench.devices import Cuda, Timing
from evonorm.lab.bench.options import BenchOptions
from evonorm.lab.bench.tables import conditions_line
from evonorm.layers.kernels.triton import INTERPRETED

L2_BYTES = 1000


class Queue:
    """A host that hands work over and a device that does it in order, each with its own clock, in seconds."""

    def __init__(self) -> None:
        self.host = self.device = 0.0

    def launch(self, seconds: float, host: float = 0.0) -> None:
        self.host += host
        self.device = max(self.device, self.host) + seconds

    def finish(self) -> None:
        self.host = max(self.host, self.device)


class Event:
    """When the device gets to it."""

    queue: Queue

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = max(self.queue.device, self.queue.host)

    def query(self) -> bool:
        return self.queue.host >= self.at

    def synchronize(self) -> None:
        self.queue.host = max(self.queue.host, self.at)

    def elapsed_time(self, other: Event) -> float:
        return 1e3 * (other.at - self.at)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """torch.cuda as Cuda calls it, on a queue."""
    queue = Queue()
    Event.queue = queue

    class Properties:
        L2_cache_size = L2_BYTES

    made_up: dict[str, Any] = {
        "Event": Event,
        "_sleep": lambda cycles: queue.launch(cycles / devices.CYCLES_A_SECOND),
        "synchronize": lambda device: queue.finish(),
        "get_device_properties": lambda device: Properties,
        "reset_peak_memory_stats": lambda device: None,
        "memory_allocated": lambda device: 100,
        "max_memory_allocated": lambda device: 350,
    }
    for name, value in made_up.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(devices.time, "perf_counter", lambda: queue.host)
    return queue


@pytest.fixture
def cuda(queue: Queue) -> Cuda:
    return Cuda(torch.device("cuda"))


@pytest.mark.parametrize("host", [1e-6, 1e-4, 1e-3])
def test_the_devices_time_has_no_gap_of_the_hosts(queue: Queue, cuda: Cuda, host: float) -> None:
    found = cuda.timed(lambda: queue.launch(1e-5, host), 10)
    assert found.seconds == pytest.approx(1e-5)
    assert found.host == pytest.approx(host)


def test_a_host_that_is_never_ahead_shows_its_gaps(queue: Queue, cuda: Cuda) -> None:
    found = cuda.timed(lambda: queue.launch(1e-5, 1e-1), 3)
    assert found.seconds == pytest.approx(1e-1, rel=1e-3)
    assert found.host == pytest.approx(1e-1)


def test_the_peak_and_the_inputs_that_outgrow_the_cache(queue: Queue, cuda: Cuda) -> None:
    assert cuda.peak_growth(lambda: queue.launch(1.0)) == 250
    for size in (10, 300, L2_BYTES, 10**6):
        assert cuda.input_sets(size) * size >= 2 * L2_BYTES
    assert cuda.input_sets(10**6) == 2
    assert cuda.input_sets(1) == devices.MOST_SETS


def test_inputs_take_turns_and_what_comes_out_is_kept_meanwhile() -> None:
    sets = [(torch.full((1, 2, 3, 3), float(i)), torch.ones(1, 2, 3, 3)) for i in range(3)]
    seen: list[float] = []
    outputs: list[weakref.ref[torch.Tensor]] = []

    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            seen.append(x[0, 0, 0, 0].item())
            outputs.append(weakref.ref(y))
            return y

    def alive(pairs: int) -> list[bool]:
        outputs.clear()
        work = timing.layer_work("forward", Layer(), sets[:pairs])
        for _ in range(6):
            work()
        return [output() is not None for output in outputs]

    assert alive(3) == [False] * 4 + [True] * 2
    assert seen == [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]
    assert alive(1) == [False] * 6


class Pretended(devices.Cpu):
    """The processor in a GPU's place: Triton's kernels, several inputs, a host's time."""

    fused = "triton"
    most_calls = 2

    def timed(self, work: devices.Work, calls: int) -> Timing:
        return Timing(super().timed(work, calls).seconds, host=1e-3)

    def input_sets(self, size: int) -> int:
        return 3


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(not INTERPRETED, reason="Triton's kernels are not interpreted here")
@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")
def test_the_bench_on_a_gpu_that_is_pretended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "choose", lambda name: Pretended())
    file = tmp_path / "rows.jsonl"
    arguments = ["--shape", "2,32,3,3", "--layers", "evonorm-s0", "evonorm-b0", "--repeats", "1", "--verbose"]
    arguments += ["--implementations", "kernel", "reference", "batch_norm+relu", "--no-compiled"]
    assert cli.main(["bench", "--device", "cuda", *arguments, "--json", str(file)]) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    names = ["evonorm-s0 triton", "evonorm-s0 reference", "evonorm-b0 triton", "evonorm-b0 reference"]
    names += ["batch_norm+relu", "copy"]
    assert [row["implementation"] for row in rows] == 2 * names
    assert {row["dtype"] for row in rows} == {"bf16"}
    for row in rows:
        assert (row["status"], row["input_sets"], row["median_host_seconds"]) == ("measured", 3, 1e-3), row
        both, over_batch = row["figure"] == "forward+backward", row["implementation"].startswith(("evonorm-b", "batch"))
        assert row["must_move"] == ((8 if both else 3) if over_batch else 5 if both else 2)
        if row["variant"] == "kernel":
            assert row["gate"]["ok"] is True
            assert row["plan"].keys() == {"forward", "backward"}
            assert row["first_call_seconds"] > 0
        assert row["peak_over_x"] is None or row["peak_over_x"] == row["peak_bytes"] / (2 * 2 * 32 * 9)
    shown = capsys.readouterr().out
    assert "host" in shown
    assert "Up to 3 inputs take turns" in shown
    assert "evonorm-s0 triton: first call" in shown
    assert "one kernel" in shown


def test_what_a_gpu_is_asked_for_where_nothing_is_named() -> None:
    options = BenchOptions(device="cuda")
    shapes = [case.shape for case in cases(options)]
    assert {case.dtype for case in cases(options)} == {"bf16"}
    assert {(128, 96, 32, 32), (256, 256, 56, 56), (2, 256, 200, 304)} <= set(shapes)
    found = implementations.implementations(options, Pretended())
    assert not any("compiled" in each.name for each in found)  # Pretended is a processor
    found = implementations.implementations(BenchOptions(device="cuda", compiled=True), Pretended())
    names = [each.name for each in found if "compiled" in each.name]
    assert names == [
        *(f"{layer}{who} compiled" for layer in ("evonorm-s0", "evonorm-b0") for who in ("", " timm")),
        *(f"{rival} compiled" for rival in ("batch_norm+relu", "group_norm+silu", "relu")),
    ]
    assert [each.variant for each in found if each.name.endswith("timm compiled")] == 2 * ["timm compiled"]


def test_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["bench", "--device", "cuda"]) == cli.USER_ERROR
    assert "torch sees no CUDA device here; take --device cpu" in capsys.readouterr().err


def test_a_gpus_conditions_in_a_line() -> None:
    stated = {"device": "A card", "l2_bytes": 50 * 2**20, "driver": "580.1", "torch": "2.11.0", "triton": "3.6.0"}
    stated |= {
        "timm": None,
        "evonorm": "0.1.0",
        "commit": "abc",
        "repeats": 7,
        "groups": 32,
        "processor": "A processor",
    }
    line = conditions_line(stated | {"load_average": 0.1})
    assert line.startswith("A card, 50 MiB L2, driver 580.1; torch 2.11.0, Triton 3.6.0, timm missing, evonorm 0.1.0")
