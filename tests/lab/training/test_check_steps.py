"""Looking every few steps whether all was finite gives what looking at each step does. On a CPU: no GPU has run it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evonorm.lab.records import run_files
from evonorm.lab.training import checkpoint, loop, tasks
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.progress import Silent
from evonorm.lab.training.training import train
from tests.lab.pictures import pictures
from tests.lab.training import reconstruction
from tests.lab.training.test_training import StopAfter, curves

# Four steps an epoch: 3 and 5 divide nothing.
CONFIG = TrainConfig(
    task="reconstruction", layer="evonorm-b0", groups=4, epochs=3, batch_size=16, learning_rate=0.1, precision="fp32"
)
TASKS = {
    "reconstruction": CONFIG,
    "classification": replace(CONFIG, task="classification", layer="bn-relu", train_images=32, epochs=2),
    "adversarial": replace(CONFIG, task="adversarial", layer="gn-relu", optimizer="adam", learning_rate=1e-2),
}
ADVERSARIAL = tasks.find(str(Path(__file__).with_name("adversarial.py")))
assert {reconstruction.RECONSTRUCTION.name, ADVERSARIAL.name} <= {task.name for task in tasks.added()}


def state(folder: Path, record: run_files.Record) -> dict[str, Any]:
    kept = torch.load(folder / record.name / checkpoint.NAME, weights_only=True)
    position = {name: value for name, value in kept["position"].items() if name != "train_seconds"}
    return {**kept, "position": position, "seconds": None}


def assert_alike(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_alike(one[name], other[name])
    elif isinstance(one, list):
        for mine, theirs in zip(one, other, strict=True):
            assert_alike(mine, theirs)
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("each")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("steps", [3, 5])
def test_metrics_and_state_are_the_same_to_the_last_bit(task: str, steps: int, folder: Path, tmp_path: Path) -> None:
    each = train(TASKS[task], pictures(), folder)
    some = train(replace(TASKS[task], check_steps=steps), pictures(), tmp_path)
    assert (some.name, some.status) == (each.name, "finished")
    assert curves(some) == curves(each)
    assert_alike(state(tmp_path, some), state(folder, each))


class Steps(Silent):
    """What was told of each step."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def step(self, **of: Any) -> None:
        self.told.append((of["epoch"], of["step"], repr(of["metrics"])))


@pytest.mark.parametrize("steps", [3, 4, 100])
@pytest.mark.parametrize(("layer", "rate"), [("none", 1e3), ("evonorm-b0", 1e18), ("gn-relu", 1e30)])
def test_a_run_diverges_at_the_same_step_for_the_same_reason(
    layer: str, rate: float, steps: int, tmp_path: Path
) -> None:
    config = replace(CONFIG, layer=layer, learning_rate=rate)
    records, told = [], []
    for number, check_steps in enumerate((1, steps)):
        watch = Steps()
        records.append(train(replace(config, check_steps=check_steps), pictures(), tmp_path / str(number), watch=watch))
        told.append(watch.told)
    each, some = records
    assert each.status == some.status == "diverged"
    assert some.summary["diagnosis"] == each.summary["diagnosis"]
    assert curves(some) == curves(each)
    assert told[0] == told[1]


@pytest.mark.parametrize("steps", [1, 4, 6])
def test_ctrl_c_stops_at_a_checkpoint_and_it_goes_on(steps: int, folder: Path, tmp_path: Path) -> None:
    each = train(CONFIG, pictures(), folder)
    stopped = train(replace(CONFIG, check_steps=3), pictures(), tmp_path, watch=StopAfter(steps))
    assert stopped.status == "stopped"
    # Another interval may go on with it.
    assert curves(train(replace(CONFIG, check_steps=2), pictures(), tmp_path)) == curves(each)


def test_a_stop_between_two_looks_keeps_the_steps_since(folder: Path, tmp_path: Path) -> None:
    asked = iter([False, False, True])
    stopped = train(replace(CONFIG, check_steps=3), pictures(), tmp_path, stop=lambda: next(asked))
    assert state(tmp_path, stopped)["position"]["step"] == 2
    assert curves(train(CONFIG, pictures(), tmp_path)) == curves(train(CONFIG, pictures(), folder))


def test_checkpoints_between_two_looks(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    assert curves(train(replace(CONFIG, check_steps=3), pictures(), tmp_path)) == curves(
        train(CONFIG, pictures(), folder)
    )


def test_kill_9_goes_on_from_the_last_checkpoint(folder: Path, tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import os, signal, sys
        from dataclasses import replace
        from pathlib import Path
        from evonorm.lab.training.training import train
        from tests.lab.pictures import pictures
        from tests.lab.training.test_check_steps import CONFIG
        asked = iter(range(100))
        kill = lambda: next(asked) == 6 and os.kill(os.getpid(), signal.SIGKILL)
        train(replace(CONFIG, check_steps=3), pictures(), Path(sys.argv[1]), stop=kill)
    """)
    root = Path(__file__).parents[3]
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=root, check=False)
    assert died.returncode == -signal.SIGKILL
    each = train(CONFIG, pictures(), folder)
    assert len((tmp_path / each.name / "metrics.jsonl").read_text().splitlines()) == 1
    assert curves(train(CONFIG, pictures(), tmp_path)) == curves(each)


def test_a_false_alarm_is_taken_again_and_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The norm of gradients overflows from 1e19 on, though each is finite."""
    each = train(CONFIG, pictures(), folder)
    norm, calls = nn.utils.get_total_norm, iter(range(1000))

    def overflowing(gradients: Any, norm_type: float = 2.0) -> torch.Tensor:
        found = norm(gradients, norm_type=norm_type)
        return found * torch.inf if next(calls) == 1 else found

    monkeypatch.setattr(nn.utils, "get_total_norm", overflowing)
    some = train(replace(CONFIG, check_steps=3), pictures(), tmp_path)
    assert curves(some) == curves(each)
    assert next(calls) == 12 + 2 + 1  # each step once, two of a block of three again... and this look


def test_an_error_after_what_was_not_finite_is_told_as_divergence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that refuses NaN may break before the next look."""
    work = reconstruction.Reconstruction
    original = work.loss

    def strict(self: Any, output: torch.Tensor, *rest: Any) -> torch.Tensor:
        if self.faults is not None and not output.isfinite().all():
            raise ValueError("not a number")
        return original(self, output, *rest)

    monkeypatch.setattr(work, "loss", strict)
    config = replace(CONFIG, layer="none", learning_rate=1e3)
    each = train(config, pictures(), tmp_path / "each")
    some = train(replace(config, check_steps=100), pictures(), tmp_path / "some")
    assert some.status == "diverged"
    assert json.dumps(some.summary["diagnosis"]) == json.dumps(each.summary["diagnosis"])


def test_a_step_that_broke_off_behind_its_backward_pass_leaves_no_gradient(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = train(CONFIG, pictures(), folder)
    norm, calls = nn.utils.get_total_norm, iter(range(1000))

    def breaking(gradients: Any, norm_type: float = 2.0) -> torch.Tensor:
        if next(calls) == 1:
            raise RuntimeError("once")
        return norm(gradients, norm_type=norm_type)

    monkeypatch.setattr(nn.utils, "get_total_norm", breaking)
    assert curves(train(replace(CONFIG, check_steps=3), pictures(), tmp_path)) == curves(each)


def test_nothing_is_read_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way from a tensor to a number of the host is counted."""
    reads: list[str] = []
    looks = 0
    for name in ("item", "__bool__", "__float__", "__int__", "tolist"):
        original = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, original: Any = original, name: str = name) -> Any:
            reads.append(name)
            return original(self)

        monkeypatch.setattr(torch.Tensor, name, counted)
    update = reconstruction.Reconstruction.update

    def watched(self: Any, *arguments: Any) -> Any:
        before = len(reads)
        found = update(self, *arguments)
        assert len(reads) == before
        nonlocal looks
        looks += 1
        return found

    monkeypatch.setattr(reconstruction.Reconstruction, "update", watched)
    train(replace(CONFIG, check_steps=4, epochs=1), pictures(), tmp_path)
    assert looks == 4
