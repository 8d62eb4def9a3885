"""A captured step gives what the plain one does. Here graphs are made up; on a GPU they are CUDA's (marker gpu)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from evonorm.lab.errors import UserError
from evonorm.lab.training import capture, loop, tasks
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.tasks.image_work import ImageWork
from evonorm.lab.training.training import train
from evonorm.layers import table
from tests.lab.pictures import pictures
from tests.lab.training.reconstruction import Reconstruction
from tests.lab.training.test_check_steps import CONFIG, TASKS, assert_alike, state
from tests.lab.training.test_keeping import Overflowing
from tests.lab.training.test_training import StopAfter, curves
from tests.on_device import on_device


class Repeated:
    """Records the function by keeping it. As a graph it computes without the host: no hooks of modules are called."""

    made: ClassVar[list[Repeated]] = []

    def __init__(self) -> None:
        self.replays = 0
        Repeated.made.append(self)

    def warm(self, run: Callable[[], capture.Tensors]) -> capture.Tensors:
        return run()

    def record(self, run: Callable[[], capture.Tensors]) -> capture.Tensors:
        self._run, self._found = run, dict[str, Tensor]()
        return self._found

    def replay(self) -> None:
        self.replays += 1
        with mock.patch.object(nn.Module, "__call__", lambda module, *a, **k: module.forward(*a, **k)):
            fresh = self._run()
        for name, value in fresh.items():  # a replay fills the tensors of the one before
            self._found.setdefault(name, torch.empty_like(value)).copy_(value)


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Repeated]]:
    monkeypatch.setitem(capture.GRAPHS, "cpu", Repeated)
    Repeated.made.clear()
    yield Repeated.made
    Repeated.made.clear()


ADAM = replace(CONFIG, optimizer="adam", learning_rate=1e-2, weight_decay=0.01, schedule="cosine", warmup_epochs=1.0)
RUNS = {
    "sgd": replace(CONFIG, augment=True, standardize=True, weight_decay=0.01, clip_norm=0.1),
    "adam": ADAM,
    "short last batch": replace(CONFIG, batch_size=12, augment=True),
    "dropout": replace(TASKS["classification"], steps_per_epoch=1, epochs=3, test_images=8),
}


def captured(config: TrainConfig) -> TrainConfig:
    return replace(config, capture=True, check_steps=3)


@pytest.mark.parametrize("run", RUNS)
def test_a_captured_run_is_the_plain_one_to_the_last_bit(run: str, tmp_path: Path, graphs: list[Repeated]) -> None:
    plain = train(RUNS[run], pictures(), tmp_path / "plain")
    assert not graphs
    some = train(captured(RUNS[run]), pictures(), tmp_path / "captured")
    assert (some.name, some.status) == (plain.name, "finished")
    assert curves(some) == curves(plain)
    assert_alike(state(tmp_path / "captured", some), state(tmp_path / "plain", plain))
    assert some.environment["sessions"][-1]["captured"] is True
    # Once plainly and then replayed: each shape of a step, and of the validation's batches.
    steps = RUNS[run].steps_per_epoch or -(-some.dataset["train_images"] // RUNS[run].batch_size)
    assert len(graphs) == (3 if run == "short last batch" else 2)
    assert sum(graph.replays for graph in graphs) == RUNS[run].epochs * (steps + 1) - len(graphs)


@pytest.mark.parametrize(("layer", "rate"), [("none", 1e3), ("evonorm-b0", 1e18)])
def test_it_diverges_at_the_same_step_for_the_same_reason(layer: str, rate: float, tmp_path: Path) -> None:
    config = replace(CONFIG, layer=layer, learning_rate=rate)
    plain = train(config, pictures(), tmp_path / "plain")
    some = train(captured(config), pictures(), tmp_path / "captured")
    assert plain.status == some.status == "diverged"
    assert some.summary["diagnosis"] == plain.summary["diagnosis"]
    assert curves(some) == curves(plain)


def test_a_run_that_was_stopped_goes_on_with_it_or_without(tmp_path: Path) -> None:
    config = RUNS["adam"]
    whole = curves(train(config, pictures(), tmp_path / "plain"))
    for first, then in ((captured(config), config), (config, captured(config))):
        out = tmp_path / str(first.capture)
        assert train(first, pictures(), out, watch=StopAfter(3)).status == "stopped"
        assert curves(train(then, pictures(), out)) == whole


def test_after_a_false_alarm_tensors_are_recorded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graphs: list[Repeated]
) -> None:
    """Going back gives the optimizer new tensors; a graph of the old ones would move them in vain."""
    config = RUNS["adam"]
    plain = train(config, pictures(), tmp_path / "plain")
    again, looks = loop.Run._look, iter(range(1000))

    def look(self: loop.Run, order: Tensor) -> None:
        if self._unread and next(looks) == 1:
            self.work.faults += 1  # type: ignore[operator]
        again(self, order)

    monkeypatch.setattr(loop.Run, "_look", look)
    some = train(captured(config), pictures(), tmp_path / "captured")
    assert len(graphs) == 3
    assert_alike(state(tmp_path / "captured", some), state(tmp_path / "plain", plain))


def test_where_a_last_validation_broke_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Reconstruction.network
    monkeypatch.setattr(Reconstruction, "network", lambda self: nn.Sequential(network(self), Overflowing()))
    record = train(captured(CONFIG), pictures(), tmp_path)
    assert record.status == "diverged"
    found = record.summary["diagnosis"]
    assert (found["epoch"], found["kind"], found["tensor"]) == (CONFIG.epochs, "forward", "1")


def test_what_cannot_be_recorded_is_said_once_and_run_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unable(Repeated):
        def record(self, run: Callable[[], capture.Tensors]) -> capture.Tensors:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setitem(capture.GRAPHS, "cpu", Unable)
    watch = StopAfter(10**6)
    said: list[str] = []
    monkeypatch.setattr(watch, "say", said.append, raising=False)
    plain = train(RUNS["sgd"], pictures(), tmp_path / "plain")
    some = train(captured(RUNS["sgd"]), pictures(), tmp_path / "captured", watch=watch)
    assert curves(some) == curves(plain)
    assert some.environment["sessions"][-1]["captured"] is False
    why = "cannot be captured, and is launched piece by piece: operation not permitted when stream is capturing"
    assert [why in line for line in said].count(True) == 2  # the step, and validation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"check_steps": 1}, "check_steps=1 looks at each step"),
        ({"task": "adversarial", "layer": "gn-relu"}, "task adversarial take more from the host"),
    ],
)
def test_what_has_no_captured_step_says_why(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        train(replace(captured(CONFIG), **change), pictures(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_device_without_graphs_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(capture.GRAPHS, "cpu")
    with pytest.raises(UserError, match="device=cpu has no graphs; it is for cuda"):
        train(captured(CONFIG), pictures(), tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("run", RUNS)
def test_on_a_gpu_too(run: str, tmp_path: Path) -> None:
    config = replace(RUNS[run], device="cuda", check_steps=3)
    plain = train(config, pictures(), tmp_path / "plain")
    some = train(replace(config, capture=True), pictures(), tmp_path / "captured")
    assert curves(some) == curves(plain)
    assert_alike(state(tmp_path / "captured", some), state(tmp_path / "plain", plain))


STEPS = {
    **{f"reconstruction, {row.name}": replace(RUNS["sgd"], layer=row.name) for row in table.TABLE},
    "adam": ADAM,
    "dropout": replace(RUNS["dropout"], augment=True),
}


@pytest.mark.parametrize("step", STEPS)
def test_the_host_has_no_part_in_a_step(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's meta device, which holds no values, so that reading one fails."""
    meta = torch.device("meta")
    monkeypatch.setitem(capture.GRAPHS, "meta", Repeated)
    monkeypatch.setattr(ImageWork, "autocast", contextlib.nullcontext)  # there is none on meta
    config = STEPS[step].resolved(precision="fp32", grouped=True, eps=1e-5)
    # The values of the images, which standardization is taken of, are read before training.
    work: Any = tasks.get(config.task).work_class(replace(config, standardize=False), pictures(), meta, Path())
    work.build(3)
    work.spread()
    work.faults = torch.zeros((), dtype=torch.int64, device=meta)
    steps = capture.Steps(work, lambda function: capture.Recorded(_guarded(function), meta, str))
    steps.let_validation_go()
    work.model.train()
    for number in range(3):
        loss, _ = steps(torch.arange(16), number)
    assert loss.device == meta
    work.model.eval()
    validation = _guarded(work.sums_of)
    with torch.inference_mode():
        assert validation({"chosen": torch.arange(16, device=meta)})["loss"].dtype == torch.float64
        with pytest.raises(AssertionError, match=" on "):
            validation({"chosen": torch.arange(16)})


def _guarded(function: capture.Function) -> capture.Function:
    def run(given: capture.Tensors) -> capture.Tensors:
        with on_device():
            return function(given)

    return run
