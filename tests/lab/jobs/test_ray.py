"""Trials on a real Ray: two nodes on this machine, one of which dies; no shared disk; trouble, stops, Ctrl-C."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

# No word to anyone, the loopback address alone, no secret in the user's home.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "disabled",
}

from evonorm import cli
from evonorm.lab.errors import UserError
from evonorm.lab.jobs import executors
from evonorm.lab.jobs.executors.on_ray import OnRay
from evonorm.lab.jobs.job import Function, Job, Outcome, Reporter
from evonorm.lab.jobs.training_job import Training
from evonorm.lab.records import run_files
from evonorm.lab.sweep import journal, schema
from evonorm.lab.sweep.driver import drive
from evonorm.lab.sweep.program import Program
from tests.lab.sweep import toys
from tests.lab.sweeps import config, facts, quiet
from tests.processes import PATIENCE_SECONDS, until

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the extra `ray` is not installed")

TINY = {"data": "digits", "train_images": 20, "test_images": 10, "batch_size": 5, "precision": "fp32"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one node with two processors; a test adds others."""
    cluster = cluster_utils.Cluster()
    started(cluster, num_cpus=2, include_dashboard=False)
    yield cluster
    cluster.shutdown()


def started(cluster: Any, **node: Any) -> Any:
    """A new node. Ray gives one 30 seconds to start, which a machine busy with other tests may miss."""
    for _ in range(2):
        with contextlib.suppress(Exception):
            return cluster.add_node(**node)
    return cluster.add_node(**node)


def test_a_cluster_gives_the_trials_of_this_process(cluster: Any, tmp_path: Path) -> None:
    early = {"type": "hyperband", "min_iter": 2, "eta": 2}
    result = quiet(config(run_cap=6), toys.parabola, tmp_path / "ray", ray=cluster.address)
    assert facts(result) == facts(quiet(config(run_cap=6), toys.parabola, tmp_path / "here", workers=0))
    assert not (tmp_path / "ray" / ".ray").exists()
    # A lambda goes by value; a trial that early_terminate ends hears of it.
    result = quiet(config(run_cap=6, early_terminate=early), lambda p: toys.curve(p), tmp_path / "b", ray="auto")
    assert {trial.status for trial in result.trials} == {"finished", "pruned"}


def test_trouble_has_its_log_and_is_retried_by_the_driver_alone(cluster: Any, tmp_path: Path) -> None:
    kinds = ["raises", "dies", "exits", "sound"]
    grid = config(method="grid", parameters={"kind": {"values": kinds}})
    result = quiet(grid, toys.troubled, tmp_path, ray=cluster.address)
    found = {trial.parameters["kind"]: trial for trial in result.trials}
    assert {kind: trial.status for kind, trial in found.items()} == {
        **dict.fromkeys(("raises", "dies", "exits"), "failed"),
        "sound": "finished",
    }
    assert (found["raises"].errors, found["raises"].error) == (2, "RuntimeError: the roof fell in")
    log = (journal.trial_folder(tmp_path, found["raises"].number) / "log.txt").read_text()
    assert (log.count("before the fall"), log.count("Traceback")) == (2, 2)
    assert (found["dies"].deaths, found["dies"].error) == (4, "its process was killed")


class OwnDisks(OnRay):
    """Nodes that do not see the sweep's folder."""

    def _write_mark(self, path: Path) -> None:
        pass


def test_folders_come_back_from_a_node_with_its_own_disk(cluster: Any, tmp_path: Path) -> None:
    target = Training(TINY, "fingerprint", sources=[("classification", "digits")])
    sweep = schema.parse({"method": "grid", "metric": {"name": "val_loss"}, "parameters": {"epochs": {"value": 2}}})
    result = drive(sweep, target, tmp_path / "a", OwnDisks(target, address=cluster.address))
    assert [(trial.status, len(trial.history)) for trial in result.trials] == [("finished", 2)]
    for trial in result.trials:
        assert trial.run is not None
        record = run_files.read(tmp_path / "a" / trial.run)
        assert record.status == "finished"
        assert record.metrics[-1]["val_loss"] == trial.history[-1]
        assert (tmp_path / "a" / trial.run / "checkpoint.pt").exists()
        assert not (tmp_path / "a" / trial.run / "lock").exists()
    function = Function(toys.troubled, "loss")
    grid = schema.parse(config(method="grid", parameters={"kind": {"values": ["raises"]}}))
    drive(grid, function, tmp_path / "b", OwnDisks(function, address=cluster.address))
    log = (journal.trial_folder(tmp_path / "b", 0) / "log.txt").read_text()
    assert (log.count("before the fall"), log.count("Traceback")) == (2, 2)


def test_a_program_runs_where_its_files_are(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shipped with the folder it lies in, and finds what lies beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.txt").write_text("3")
    (tmp_path / "program.py").write_text(
        "import json, sys\n"
        "x = float(dict(word.split('=') for word in sys.argv[1:])['--x'])\n"
        "print(json.dumps({'loss': x + float(open('beside.txt').read())}))\n"
    )
    sweep = schema.parse(config(program="program.py", run_cap=2))
    target = Program(sweep)
    for out, executor in (("shared", OnRay), ("own", OwnDisks)):
        for trial in drive(sweep, target, Path(out), executor(target, address=cluster.address)).trials:
            assert (trial.status, trial.value) == ("finished", trial.parameters["x"] + 3)
            assert (journal.trial_folder(tmp_path / out, trial.number) / "log.txt").exists()


class Held(Training):
    """Runs that wait after their second epoch until the gate is there: none ends before the other has begun."""

    gate = Path()

    def run(self, job: Job, reporter: Reporter) -> Outcome:
        tell, told = reporter.tell, itertools.count(1)

        def held(metrics: Mapping[str, Any]) -> None:
            tell(metrics)
            if next(told) == 2:
                until(self.gate.exists)

        reporter.tell = held  # type: ignore[method-assign]
        return super().run(job, reporter)


def test_a_sweep_outlives_a_node(cluster: Any, tmp_path: Path) -> None:
    """A run whose node is killed goes on from its checkpoint on another; it is lost once, and ends once."""
    node = started(cluster, num_cpus=2)
    target = Held({**TINY, "epochs": 4}, "fingerprint", sources=[("classification", "digits")])
    target.gate = tmp_path / "gate"
    grid = {"learning_rate": {"values": [1e-3, 2e-3]}}
    sweep = schema.parse({"method": "grid", "metric": {"name": "val_loss"}, "parameters": grid})

    def kill() -> None:
        # When both trials, of which one is on that node, have a checkpoint.
        until(lambda: len(list(tmp_path.glob("*/checkpoint.pt"))) == 2)
        cluster.remove_node(node, allow_graceful=False)
        target.gate.touch()

    killer = threading.Thread(target=kill)
    executor = OnRay(target, address=cluster.address, workers=2)
    killer.start()
    result = drive(sweep, target, tmp_path, executor)
    killer.join()
    assert [(trial.status, len(trial.history)) for trial in result.trials] == [("finished", 4)] * 2
    assert sorted((trial.errors, trial.deaths) for trial in result.trials) == [(0, 0), (0, 1)]
    for trial in result.trials:
        sessions = run_files.read(tmp_path / str(trial.run)).environment["sessions"]
        assert len(sessions) == 1 + trial.deaths
        assert sessions[-1]["epoch"] > 1 or not trial.deaths  # gone on with, not begun again


def test_fractions_and_what_no_node_holds(cluster: Any) -> None:
    target = Function(toys.parabola, "loss")
    with contextlib.closing(OnRay(target, address=cluster.address, cpus=0.5, gigabytes=1e-3)) as executor:
        # A node that another test has killed is alive to Ray for some time yet.
        alive = [node["Resources"] for node in sys.modules["ray"].nodes() if node["Alive"]]
        assert executor.slots == sum(2 * node["CPU"] for node in alive) >= 4
        executor.close()
    with contextlib.closing(OnRay(target, address=cluster.address, workers=1)) as executor:
        assert (executor.slots, executor.free()) == (1, 1)
    with pytest.raises(UserError, match=r"no node of Ray holds a trial of 1 processors and 0.25 GPUs: they"):
        OnRay(target, address=cluster.address, gpus=0.25)


def test_options_that_do_not_go_together() -> None:
    target = Function(toys.parabola, "loss")
    for options, message in (
        ({"gpus_per_trial": 0.5}, "--gpus-per-trial 0.5 is for --ray"),
        ({"workers": 0, "ray": "local"}, "workers=0, which runs trials in this process, does not go with ray"),
        ({"cpus_per_trial": 0.0, "ray": "local"}, "--cpus-per-trial must be above 0: got 0"),
        ({"gpus_per_trial": 1.5, "ray": "local"}, "must be a fraction, or a whole number of GPUs: got 1.5"),
    ):
        with pytest.raises(UserError, match=message):
            executors.make(target, **options)


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--ray needs Ray, which is not here .*: pip install 'evonorm\[ray\]'"):
        quiet(config(run_cap=1), toys.parabola, tmp_path, ray="local")


def test_ctrl_c_stops_a_local_ray_at_a_checkpoint(tmp_path: Path) -> None:
    """The whole terminal hears it; the run stops at a step, and the repeated command goes on."""
    file = tmp_path / "s.yaml"
    file.write_text("method: grid\nmetric: {name: val_loss}\nparameters: {epochs: {values: [200]}}")
    settings = [f"{name}={value}" for name, value in TINY.items() if name != "data"]
    arguments = ["sweep", str(file), "--out", str(tmp_path / "out"), "--ray", "local", "--data", "digits", "--set"]
    process = subprocess.Popen([sys.executable, "-m", "evonorm", *arguments, *settings], start_new_session=True)
    until(lambda: list((tmp_path / "out").glob("*/checkpoint.pt")) or process.poll() is not None)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=PATIENCE_SECONDS) == cli.INTERRUPTED
    (trial,) = journal.read_trials(tmp_path / "out")
    assert (trial.status, trial.errors, trial.deaths) == ("waiting", 0, 0)
    (path,) = (tmp_path / "out").glob("*/config.json")
    assert run_files.read(path.parent).status == "stopped"
