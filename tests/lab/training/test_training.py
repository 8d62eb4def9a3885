"""The training loop: records, determinism, stopping and resuming to the last bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evonorm import names
from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.stopping import locked
from evonorm.lab.training import training
from evonorm.lab.training.config import Seeds, TrainConfig
from evonorm.lab.training.loop import Run
from evonorm.lab.training.progress import Silent
from evonorm.lab.training.training import resolve, run_folder, train
from evonorm.layers import kernels
from tests.lab.pictures import pictures

# 16 images in batches of 4: four steps an epoch.
CONFIG = TrainConfig(
    layer="evonorm-s0",
    groups=8,
    epochs=3,
    batch_size=4,
    train_images=16,
    test_images=8,
    precision="fp32",
    augment=True,
)
TIMES = ("seconds", "images_per_second")


def curves(record: run_files.Record) -> list[dict]:
    return [{key: value for key, value in epoch.items() if key not in TIMES} for epoch in record.metrics]


class StopAfter(Silent):
    """Presses Ctrl-C after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, **_: object) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> run_files.Record:
    """The uninterrupted run that others are compared with."""
    return train(CONFIG, pictures(), tmp_path_factory.mktemp("whole"))


def test_record_of_a_finished_run(whole: run_files.Record) -> None:
    assert whole.status == "finished"
    assert whole.name.startswith("evonorm-s0-g8-sgd-aug-")
    assert [epoch["epoch"] for epoch in whole.metrics] == [1, 2, 3]
    for epoch in whole.metrics:
        assert set(epoch) == {
            *("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
            *("learning_rate", "images_per_second", "seconds"),
        }
        assert 0 <= epoch["val_accuracy"] <= 1
    assert whole.summary["last"] == whole.metrics[-1]
    assert whole.summary["best"]["val_accuracy"] == max(epoch["val_accuracy"] for epoch in whole.metrics)
    assert whole.summary["epochs_done"] == 3
    assert whole.summary["groups_in_force"]["48"] == 8
    assert {"torch", "processor", "threads", "commit", "evonorm"} <= set(whole.environment)
    # lr / (1 + decay * t) with decay = 1e-2 / epochs, 4 steps an epoch
    assert whole.metrics[-1]["learning_rate"] == pytest.approx(1e-2 / (1 + 1e-2 / 3 * 12))
    assert whole.config["data"] == "pictures"


def test_it_learns(tmp_path: Path) -> None:
    """Four classes that differ by colour: well above the chance of a quarter after a few epochs."""
    config = TrainConfig(layer="bn-relu", epochs=6, batch_size=8, precision="fp32", norm_momentum=0.5)
    record = train(config, pictures(32, 8), tmp_path)
    assert record.metrics[-1]["train_loss"] < record.metrics[0]["train_loss"]
    assert record.metrics[-1]["train_accuracy"] > 0.6


def test_same_seeds_same_run(whole: run_files.Record, tmp_path: Path) -> None:
    torch.manual_seed(int(time.time()))  # the global generator has no part in it
    before = torch.get_rng_state()
    again = train(CONFIG, pictures(), tmp_path)
    assert curves(again) == curves(whole)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seed", ["model", "order", "augmentation"])
def test_each_seed_moves_the_run(whole: run_files.Record, tmp_path: Path, seed: str) -> None:
    other = train(replace(CONFIG, epochs=1, seeds=Seeds(**{seed: 1}), decay=1e-2 / 3), pictures(), tmp_path)
    assert other.metrics[0]["train_loss"] != whole.metrics[0]["train_loss"]


@pytest.mark.parametrize("steps", [1, 4, 6], ids=["first step", "end of an epoch", "middle of an epoch"])
def test_ctrl_c_stops_and_resumes_exactly(whole: run_files.Record, tmp_path: Path, steps: int) -> None:
    handler = signal.getsignal(signal.SIGINT)
    stopped = train(CONFIG, pictures(), tmp_path, watch=StopAfter(steps))
    assert stopped.status == "stopped"
    assert len(stopped.metrics) == steps // 4
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = train(CONFIG, pictures(), tmp_path)
    assert resumed.status == "finished"
    assert curves(resumed) == curves(whole)
    assert len(resumed.environment["sessions"]) == 2
    weights = [torch.load(path, weights_only=True)["model"] for path in (tmp_path / whole.name).glob("checkpoint.pt")]
    assert all(torch.isfinite(value).all() for value in weights[0].values())


def test_kill_9_and_resume_exactly(whole: run_files.Record, tmp_path: Path) -> None:
    """The process dies without a word in the middle of the second epoch, once more later, and goes on."""
    program = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from evonorm.lab.training import loop, training
        from evonorm.lab.training.progress import Silent
        from tests.lab.pictures import pictures
        from tests.lab.training.test_training import CONFIG

        class Die(Silent):
            left = int(sys.argv[2])
            def step(self, **_):
                Die.left -= 1
                if Die.left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        loop.CHECKPOINT_SECONDS = float(sys.argv[3])
        training.train(CONFIG, pictures(), Path(sys.argv[1]), watch=Die())
    """)
    root = Path(__file__).parents[3]
    # Dies with the epoch's checkpoint alone, then with one at every step.
    for steps, checkpoint_seconds in [("6", "1000"), ("3", "0")]:
        died = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), steps, checkpoint_seconds], cwd=root, check=False
        )
        assert died.returncode == -signal.SIGKILL
        assert run_files.read(tmp_path / whole.name).status == "running"
    resumed = train(CONFIG, pictures(), tmp_path)
    assert resumed.status == "finished"
    assert curves(resumed) == curves(whole)


def test_an_epoch_written_after_the_checkpoint_is_not_doubled(whole: run_files.Record, tmp_path: Path) -> None:
    """The process died between metrics.jsonl and checkpoint.pt, and tore the last line."""
    train(CONFIG, pictures(), tmp_path, watch=StopAfter(6))
    folder = tmp_path / whole.name
    run_files.append_metrics(folder, whole.metrics[1])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "train')
    assert curves(train(CONFIG, pictures(), tmp_path)) == curves(whole)


def test_a_finished_run_is_not_run_again(whole: run_files.Record, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    first = train(config, pictures(), tmp_path)
    stamp = (tmp_path / first.name / "checkpoint.pt").stat().st_mtime_ns
    said = []

    class Listening(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    assert train(config, pictures(), tmp_path, watch=Listening()) == first
    assert (tmp_path / first.name / "checkpoint.pt").stat().st_mtime_ns == stamp
    assert said == [f"{first.name}: already finished"]


def test_divergence_stops_at_once_and_is_diagnosed(tmp_path: Path) -> None:
    config = replace(CONFIG, layer="none", learning_rate=1e4, augment=False)
    record = train(config, pictures(), tmp_path)
    assert record.status == "diverged"
    diagnosis = record.summary["diagnosis"]
    assert diagnosis["step"] <= 4
    assert diagnosis["kind"] in ("forward", "parameter", "gradient")
    assert diagnosis["tensor"]
    assert "learning rate" in diagnosis["cause"]
    assert train(config, pictures(), tmp_path) == record  # known to diverge: not run again


def test_standardized_input_has_mean_0_and_deviation_1(tmp_path: Path) -> None:
    config, device = training.resolve(replace(CONFIG, standardize=True))
    run = Run(config, pictures(), _folder(tmp_path), device, Silent())
    images = run.work.scaled(run.work.floats(run.work.train_set.pixels))
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)
    flat = replace(pictures(), train_images=np.zeros((64, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match="a colour channel is constant"):
        Run(config, flat, _folder(tmp_path / "flat"), device, Silent())


def test_published_fault_shortens_epoch_and_validation(tmp_path: Path) -> None:
    record = train(replace(CONFIG, epochs=1, steps_per_epoch=2, validation_images=5), pictures(), tmp_path)
    assert record.dataset["test_images"] == 5
    assert record.metrics[0]["val_accuracy"] * 5 == pytest.approx(round(record.metrics[0]["val_accuracy"] * 5))


def test_bf16_runs_and_is_another_run(whole: run_files.Record, tmp_path: Path) -> None:
    record = train(replace(CONFIG, epochs=1, precision="bf16"), pictures(), tmp_path)
    assert record.status == "finished"
    assert record.name != whole.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "evonorm-s00"}, "no layer is called 'evonorm-s00'; did you mean 'evonorm-s0'"),
        ({"device": "gpu"}, "device must be auto, cpu or cuda: got 'gpu'"),
    ],
)
def test_user_errors(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(replace(CONFIG, **change), pictures(), tmp_path)


def test_out_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the run folder"):
        train(CONFIG, pictures(), tmp_path / "file")


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    folder = _folder(run_folder(CONFIG, pictures(), tmp_path))
    (folder / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"cannot resume from .*checkpoint\.pt"):
        train(CONFIG, pictures(), tmp_path)


def test_checkpoints_that_carry_code_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harmed"),))

    folder = _folder(run_folder(CONFIG, pictures(), tmp_path))
    torch.save({"model": Evil()}, folder / "checkpoint.pt")
    with pytest.raises(UserError, match="cannot resume"):
        train(CONFIG, pictures(), tmp_path)
    assert not (tmp_path / "harmed").exists()


def test_a_second_process_on_the_same_folder_refuses(tmp_path: Path) -> None:
    class Second(Silent):
        refused = ""

        def step(self, **_: object) -> None:
            if not Second.refused:
                with pytest.raises(UserError, match="another process is training in") as caught:
                    train(replace(CONFIG, epochs=1), pictures(), tmp_path)
                Second.refused = str(caught.value)

    train(replace(CONFIG, epochs=1), pictures(), tmp_path, watch=Second())
    assert Second.refused


def test_an_error_is_recorded_and_the_run_can_go_on(whole: run_files.Record, tmp_path: Path) -> None:
    class Failing(Silent):
        def step(self, **_: object) -> None:
            raise RuntimeError("the roof fell in")

    with pytest.raises(RuntimeError, match="the roof fell in"):
        train(CONFIG, pictures(), tmp_path, watch=Failing())
    failed = run_files.read(tmp_path / whole.name)
    assert (failed.status, failed.summary["error"]) == ("failed", "RuntimeError: the roof fell in")
    assert curves(train(CONFIG, pictures(), tmp_path)) == curves(whole)


def test_json_files_are_strict_json(tmp_path: Path) -> None:
    run_files.write_json(tmp_path / "a.json", {"loss": float("nan"), "deep": [{"x": float("inf")}, 1.5]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": None, "deep": [{"x": None}, 1.5]}


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def test_ours_run_fused_and_the_rivals_as_torch_has_them() -> None:
    """The comparison is with the BatchNorm that users have."""
    fused = "kernel" if kernels.available() else "reference"
    found = {layer: resolve(TrainConfig(layer=layer, device="cpu"))[0].backend for layer in names()}
    assert found == {layer: fused if layer.startswith(("evonorm", "frn")) else "reference" for layer in found}
    with pytest.raises(
        UserError, match="backend=kernel does not serve none here: none has no kernel; use backend=auto"
    ):
        resolve(TrainConfig(layer="none", backend="kernel"))


SHORT = replace(CONFIG, epochs=1)


def test_the_name_is_the_same_without_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What names a run is the experiment: one planned where kernels were is found where none are, and goes on there."""
    names = {}
    for reason in (None, "the library was not built"):
        monkeypatch.setattr(kernels, "_REASON", reason)
        names[reason] = [run_folder(replace(CONFIG, layer=layer), pictures(), tmp_path).name for layer in LAYERS]
    assert len({tuple(found) for found in names.values()}) == 1
    assert resolve(CONFIG)[0].backend == "reference"
    record = train(SHORT, pictures(), tmp_path)
    monkeypatch.setattr(kernels, "_REASON", None)
    assert run_folder(SHORT, pictures(), tmp_path).name == record.name
    assert train(SHORT, pictures(), tmp_path).metrics == record.metrics


LAYERS = ("evonorm-s0", "evonorm-b0", "bn-relu", "gn-silu", "frn-tlu", "none", "evonorm-s2")


def test_a_run_named_without_kernels_in_earlier_versions_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(SHORT, backend="reference")
    older = train(asked, pictures(), tmp_path)
    monkeypatch.setattr(kernels, "_REASON", None)
    environment = tmp_path / older.name / "environment.json"
    made = run_files.read_json(environment)
    for kernels_there, device, same in (("avx2", "cpu", False), ("none", "cpu", True), ("avx2", "a GPU", True)):
        run_files.write_json(environment, made | {"kernels": kernels_there, "device": device})
        found = run_folder(SHORT, pictures(), tmp_path)
        # Where there were kernels, plain torch was asked for: another run.
        assert (found.name == older.name) == same
        assert run_folder(asked, pictures(), tmp_path).name == older.name


@pytest.mark.parametrize(
    "wrong",
    [{"model": "timm:test_vit"}, {"model": "squeezenet1_1"}, {"train_images": 2}, {"test_images": 3}],
    ids=str,
)
def test_what_is_refused_leaves_no_folder(wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        train(replace(SHORT, **wrong), pictures(), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "notes.txt").write_text("mine")
    with pytest.raises(UserError):
        train(replace(SHORT, **wrong), pictures(), kept)
    assert [path.name for path in kept.iterdir()] == ["notes.txt"]


def test_more_images_than_there_are_is_told(tmp_path: Path) -> None:
    class Told(Silent):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def say(self, text: str) -> None:
            self.lines.append(text)

    data, told = pictures(20, 8), Told()
    train(replace(SHORT, train_images=50_000, validation_images=9), data, tmp_path, watch=told)
    images = len(data.train_labels)
    assert f"train_images=50,000: there are {images}; all of them are used" in told.lines
    assert "validation_images=9: there are 8; all of them are used" in told.lines
    assert not any("test_images=8" in line for line in told.lines)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_schedules_and_weight_decay_resume_exactly(optimizer: str, tmp_path: Path) -> None:
    config = replace(
        CONFIG, optimizer=optimizer, schedule="cosine", warmup_epochs=0.75, weight_decay=1e-2, clip_norm=1.0, epochs=2
    )
    whole = train(config, pictures(), tmp_path / "whole")
    assert whole.metrics[-1]["learning_rate"] == pytest.approx(0.0, abs=1e-12)
    stopped = train(config, pictures(), tmp_path, watch=StopAfter(2))
    assert stopped.status == "stopped"
    resumed = train(config, pictures(), tmp_path)
    assert curves(resumed) == curves(whole)
    final = [torch.load(f / whole.name / "checkpoint.pt")["model"] for f in (tmp_path / "whole", tmp_path)]
    assert all(torch.equal(final[0][name], final[1][name]) for name in final[0])


def test_who_holds_a_folder_is_told_and_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from evonorm.lab.stopping import locked\n"
        f"with locked(Path({str(tmp_path)!r})):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"\(process {process.pid} on .+\); wait for it, or choose"),
            locked(tmp_path),
        ):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with locked(tmp_path):
        pass
