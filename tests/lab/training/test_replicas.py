"""One run over two processes against the same run in one: metrics to rounding, resuming, divergence, deaths."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from evonorm.lab.data.sets import ImageDataset
from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.training import replicas
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.training import train
from tests.lab.pictures import pictures
from tests.lab.training.test_training import StopAfter, curves
from tests.processes import PATIENCE_SECONDS, children, until

# 19 images in batches of 15, which two do not divide, and a last one of 4. At the report's learning rate weights that
# differ by 1e-7 make the second epoch's loss differ by tens of percent, in one process alone; at this one by 1e-4.
CONFIG = TrainConfig(
    groups=8, epochs=2, batch_size=15, learning_rate=1e-4, precision="fp32", augment=True, standardize=True
)
LAYERS = ("evonorm-b0", "evonorm-s0", "bn-relu")
# Keeps batch normalizations of torch's own.
RESNET = replace(CONFIG, model="timm:test_resnet")
ALIKE = {layer: replace(CONFIG, layer=layer) for layer in LAYERS} | {"resnet": RESNET}
STOPPED = replace(CONFIG, layer="evonorm-b0", epochs=3)
DIVERGING = replace(CONFIG, layer="none", learning_rate=1e4)
STOP_STEPS = 3
SOME = "some"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


def few() -> ImageDataset:
    return pictures(19, 12)


def replica(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.TCPStore("127.0.0.1", port, is_master=False)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    out = Path(folder)
    for config in ALIKE.values():
        train(config, few(), out)
    # The wish to stop comes to one process alone.
    assert train(STOPPED, few(), out, watch=StopAfter(STOP_STEPS)).status == "stopped"
    assert train(DIVERGING, few(), out).status == "diverged"
    for config in (ALIKE["bn-relu"], DIVERGING):
        train(replace(config, check_steps=3), few(), out / SOME)
    again = train(replace(CONFIG, layer=LAYERS[0]), few(), out)
    assert again.status == "finished"
    for wrong, message in (({"batch_size": 1}, "2 processes needs an image of every batch"), ({"layer": "x"}, "no la")):
        with pytest.raises(UserError, match=message):
            train(replace(CONFIG, **wrong), few(), out)
    replicas.leave(replicas.current(), wait=True)
    os._exit(0)  # as in the layers' test of replicas


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes trained."""
    folder = tmp_path_factory.mktemp("together")
    # The store lives in this process, which outlives both.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    mp.spawn(replica, (str(folder), store.port), nprocs=2)
    return folder


def assert_alike(one: run_files.Record, other: run_files.Record) -> None:
    assert len(one.metrics) == len(other.metrics)
    for a, b in zip(curves(one), curves(other), strict=True):
        assert a == pytest.approx(b, rel=3e-4)


@pytest.mark.parametrize(
    "config", [*(replace(CONFIG, layer=layer) for layer in LAYERS), RESNET], ids=[*LAYERS, "resnet"]
)
def test_two_processes_give_the_metrics_of_one(together: Path, tmp_path: Path, config: TrainConfig) -> None:
    alone = train(config, few(), tmp_path)
    record = run_files.read(together / alone.name)
    assert_alike(record, alone)
    assert [session["processes"] for session in record.environment["sessions"]] == [2]
    weights = [torch.load(f / alone.name / "checkpoint.pt", weights_only=True)["model"] for f in (together, tmp_path)]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-3)


def test_looking_every_few_steps_finds_the_same(together: Path) -> None:
    looked = run_files.read_all(together / SOME).records
    assert sorted(record.status for record in looked) == ["diverged", "finished"]
    for some in looked:
        each = run_files.read(together / some.name)
        assert curves(some) == curves(each)
        assert some.summary["diagnosis"] == each.summary["diagnosis"]


def test_batch_norms_that_cannot_be_of_the_whole_batch_are_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm1d(4))
    with pytest.raises(UserError, match="a BatchNorm1d that the network keeps takes the statistics"):
        replicas.Replicas(0, 2).spread(model)


def test_what_two_began_one_ends(together: Path, tmp_path: Path) -> None:
    alone = train(STOPPED, few(), tmp_path)
    resumed = train(STOPPED, few(), together)
    assert resumed.status == "finished"
    assert_alike(resumed, alone)
    assert [session["processes"] for session in resumed.environment["sessions"]] == [2, 1]


def test_divergence_is_told_by_all_and_diagnosed_as_of_one(together: Path, tmp_path: Path) -> None:
    alone = train(DIVERGING, few(), tmp_path)
    record = run_files.read(together / alone.name)
    assert record.status == "diverged"
    assert {key: record.summary["diagnosis"][key] for key in ("kind", "tensor", "step")} == {
        key: alone.summary["diagnosis"][key] for key in ("kind", "tensor", "step")
    }


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A long run of two processes under torchrun, with its first checkpoint behind it."""
    options = ["--data", "digits", "--train-images", "20", "--test-images", "10", "--batch-size", "10"]
    options += ["--epochs", "500", "--precision", "fp32", "--out", str(tmp_path)]
    process = subprocess.Popen([*TORCHRUN, "evonorm", "train", *options], start_new_session=True)
    try:
        until(lambda: list(tmp_path.glob("*/checkpoint.pt")) or process.poll() is not None)
        assert process.poll() is None
        yield process
    finally:
        for left in [process.pid, *children(process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
        process.wait()


def test_ctrl_c_of_torchrun_stops_all_at_a_checkpoint(launched: subprocess.Popen[bytes], tmp_path: Path) -> None:
    workers = children(launched.pid)
    os.killpg(launched.pid, signal.SIGINT)
    assert launched.wait(timeout=PATIENCE_SECONDS) != 0
    assert_stopped(tmp_path, workers)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.kills), 1])
def test_the_death_of_one_ends_the_other(launched: subprocess.Popen[bytes], tmp_path: Path, rank: int) -> None:
    workers = children(launched.pid)
    of_rank = {environment(worker)["RANK"]: worker for worker in workers}
    os.kill(of_rank[str(rank)], signal.SIGKILL)
    assert launched.wait(timeout=PATIENCE_SECONDS) != 0
    if rank == 1:
        assert_stopped(tmp_path, workers)
    else:
        assert not [worker for worker in workers if Path(f"/proc/{worker}/environ").exists()]
        (folder,) = (path.parent for path in tmp_path.glob("*/checkpoint.pt"))
        assert run_files.read(folder).status == "running"  # as after any kill -9: it goes on from its last epoch


def assert_stopped(out: Path, workers: list[int]) -> None:
    assert not [worker for worker in workers if Path(f"/proc/{worker}/environ").exists()]
    (folder,) = (path.parent for path in out.glob("*/checkpoint.pt"))
    record = run_files.read(folder)
    assert record.status == "stopped"
    position = torch.load(folder / "checkpoint.pt", weights_only=True)["position"]
    assert position["epoch"] == len(record.metrics) == record.summary["epochs_done"]


def environment(pid: int) -> dict[str, str]:
    words = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)
