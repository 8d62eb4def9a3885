"""evonorm bench: what it measures, what it refuses to tell, and what a person meets. No test asserts a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evonorm import cli
from evonorm.lab.bench import devices, gate, implementations, memory, timing
from evonorm.lab.bench.cases import Case, cases, mini_inception_sites
from evonorm.lab.bench.options import BenchOptions
from evonorm.lab.bench.results import Result, compare, must_move
from evonorm.layers import modules

HERE = torch.device("cpu")
TINY = ["--shape", "2,32,7,5", "--dtypes", "fp32", "--layers", "evonorm-s0", "--repeats", "2", "--no-keep-freed-memory"]


def bench(file: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the rows of `evonorm bench`."""
    code = cli.main(["bench", *arguments, "--json", str(file)])
    return code, [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_end_to_end(rows_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = bench(rows_file, *TINY)
    shown = capsys.readouterr().out
    assert code == 0
    names = ["evonorm-s0 kernel", "evonorm-s0 reference", "evonorm-s0 timm"]
    names += ["batch_norm+relu", "group_norm+silu", "relu", "copy"]
    assert [row["implementation"] for row in rows] == 2 * names
    assert {row["figure"] for row in rows} == {"forward", "forward+backward"}
    for row in rows:
        assert (row["shape"], row["dtype"], row["format"]) == ([2, 32, 7, 5], "fp32", "channels_last")
        conditions = row["conditions"]
        assert {"processor", "threads", "instructions", "kernels", "torch", "timm", "commit"} <= conditions.keys()
        assert (conditions["keep_freed_memory"], conditions["repeats"]) == (False, 2)
        if row["status"] == "skipped":  # where no kernel was built
            assert row["variant"] == "kernel"
            assert row["reason"]
            continue
        assert len(row["seconds"]) == 2
        assert row["implementation"] in shown
        if row["variant"] in ("kernel", "reference"):
            assert row["gate"]["ok"] is True
            assert {"y", "dx", "dweight", "dbias", "dv"} == row["gate"]["errors"].keys()
    relu = next(row for row in rows if row["implementation"] == "relu")
    assert (relu["saved_tensors"], relu["saved_bytes"]) == (1, 4 * 2 * 32 * 7 * 5)
    assert "freed memory given back; 2 rounds" in shown


def test_the_network_beside_none(rows_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--network", "--batch-size", "2", "--repeats", "1", "--dtypes", "bf16", "--no-keep-freed-memory"]
    arguments += ["--layers", "evonorm-s0", "--implementations", "reference", "batch_norm+relu"]
    code, rows = bench(rows_file, *arguments)
    assert code == 0
    assert [row["implementation"] for row in rows] == 2 * ["none", "evonorm-s0 reference", "batch_norm+relu"]
    assert [row["figure"] for row in rows] == 3 * ["training step"] + 3 * ["latency"]
    for row, images in zip(rows, [2, 2, 2, 1, 1, 1], strict=True):
        assert row["images_per_second"] == pytest.approx(images / row["median_seconds"])
        assert row["over_floor"] is None
    assert rows[0]["over_no_layer"] == 1.0
    assert rows[1]["gate"] == {"ok": True, "sites": len(mini_inception_sites())}
    assert "images/s" in capsys.readouterr().out


class WrongGradient(torch.autograd.Function):
    """y = x, dx = 1.01 * dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return 1.01 * dy


@pytest.mark.parametrize(
    ("spoil", "tensors"),
    [
        (lambda y: 1.01 * y, {"y", "dx", "dweight", "dbias", "dv"}),
        (lambda y: y + float("nan"), {"y"}),
        (WrongGradient.apply, {"dx", "dweight", "dbias", "dv"}),
    ],
    ids=["scaled", "nan", "gradient"],
)
def test_a_wrong_layer_is_red_and_shows_no_speed(
    spoil: Callable[[Tensor], Tensor],
    tensors: set[str],
    rows_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = modules.norm_act
    monkeypatch.setattr(modules, "norm_act", lambda *args, **kwargs: spoil(right(*args, **kwargs)))
    code, rows = bench(rows_file, *TINY, "--implementations", "reference", "batch_norm+relu", "--figures", "forward")
    assert code == cli.FAILED
    red, yardstick, _ = rows
    assert (red["status"], red["seconds"], red["median_seconds"]) == ("red", [], None)
    assert red["peak_bytes"] is None
    errors = red["gate"]["errors"].items()
    assert {name for name, found in errors if not found["error"] <= found["allowed"]} == tensors
    assert yardstick["status"] == "measured"
    shown = capsys.readouterr().out
    assert "RED, no speed: 2x32x7x5 fp32 channels_last, forward: evonorm-s0 reference: " in shown
    assert all(f"{name}: error " in shown for name in tensors)


def test_a_layer_that_crashes_is_red_and_one_that_declines_is_skipped(
    rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, status in ((RuntimeError("out of bounds"), "red"), (ValueError("float64 input"), "skipped")):

        def fail(*args: Any, error: Exception = error, **kwargs: Any) -> Tensor:
            raise error

        monkeypatch.setattr(modules, "norm_act", fail)
        code, rows = bench(rows_file, *TINY, "--implementations", "reference", "--figures", "forward")
        assert (rows[0]["status"], rows[0]["median_seconds"]) == (status, None)
        assert str(error) in rows[0]["reason"]
        assert code == (cli.FAILED if status == "red" else 0)


def the_reference_of(layer: str) -> implementations.Implementation:
    options = BenchOptions(layers=(layer,), implementations=("reference",))
    (contender,) = implementations.implementations(options, devices.Cpu())
    return contender


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("layer", ["evonorm-s0", "evonorm-b0", "frn-tlu"])
def test_the_gate_passes_the_reference(layer: str, dtype: str) -> None:
    contender = the_reference_of(layer)
    module = contender.build(6, 2)
    gate.randomize(module)
    case = Case((3, 6, 5, 4), dtype, "contiguous", ("forward",))
    assert gate.check(module, case, HERE, training=True).ok
    verdict = gate.check(module, case, HERE, training=False)
    assert verdict.ok
    assert [finding.tensor for finding in verdict.findings] == ["y"]


def test_the_gate_takes_fewer_samples_of_a_large_shape() -> None:
    contender = the_reference_of("none")
    case = Case((128, 96, 32, 32), "bf16", "channels_last", ("forward",))
    assert gate.check(contender.build(96, 32), case, HERE, training=True).batch == 10


def result(implementation: str, *seconds: float, layer: str | None = None, figure: str = "forward+backward") -> Result:
    moved = must_move(figure, over_batch=implementation.startswith("b"))
    variant = implementation.rpartition(" ")[2]
    return Result("a case", figure, implementation, layer, variant, images=10, must_move=moved, seconds=list(seconds))


def test_ratios_of_made_up_times() -> None:
    ours = result("s0 kernel", 9.0, 2.0, 1.0, layer="s0")  # median 2
    timm, yardstick, copy = result("s0 timm", 30.0, layer="s0"), result("batch_norm+relu", 5.0), result("copy", 0.4)
    compared, of_timm, of_yardstick, of_copy = compare([ours, timm, yardstick, copy])
    assert compared.faster_than_timm == 15.0
    assert compared.faster_than_batch_norm_relu == 2.5
    assert compared.floor_seconds == pytest.approx(1.0)  # five tensors move, a copy moves two
    assert compared.over_floor == pytest.approx(2.0)
    assert compared.images_per_second == 5.0
    assert compared.over_no_layer is None
    assert of_yardstick.floor_seconds == pytest.approx(1.6)  # eight
    assert (of_timm.faster_than_timm, of_copy.over_floor) == (None, None)
    forward = compare([result("s0 kernel", 2.0, layer="s0", figure="forward"), result("copy", 0.4, figure="forward")])
    assert forward[0].over_floor == pytest.approx(5.0)  # x and y move: as a copy
    ours.status = "red"
    assert compare([ours, yardstick])[0].faster_than_batch_norm_relu is None


class MadeUp(devices.Cpu):
    """A clock that goes a second a look."""

    def timed(self, work: devices.Work, calls: int) -> devices.Timing:
        for _ in range(calls):
            work()
        return devices.Timing(1.0, host=0.5)


def test_implementations_take_turns_after_a_round_that_warms_up() -> None:
    calls: list[str] = []
    samples: dict[str, timing.Samples] = {}
    works = {name: lambda name=name: calls.append(name) for name in "ABC"}
    timing.in_turn(works, samples, repeats=2, device=MadeUp())
    assert "".join(calls[-6:]) == "ABCABC"
    assert [sample.seconds for sample in samples.values()] == 3 * [[1.0, 1.0]]
    assert [sample.host for sample in samples.values()] == 3 * [[0.5, 0.5]]


def test_ctrl_c_keeps_what_was_measured(
    rows_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timed, seen = timing._timed, 0

    def interrupted(work: devices.Work, calls: int, device: devices.Device) -> devices.Timing:
        nonlocal seen
        seen += 1
        # Two that are timed twice to warm up and in three rounds; then the second figure, to its second sample.
        if seen == 2 * (2 + 3) + 2 * 2 + 2:
            raise KeyboardInterrupt
        return timed(work, calls, device)

    monkeypatch.setattr(timing, "_timed", interrupted)
    code, rows = bench(rows_file, *TINY, "--repeats", "3", "--implementations", "reference")
    assert code == cli.INTERRUPTED
    kept = [(row["figure"], row["implementation"], len(row["seconds"])) for row in rows]
    assert kept == [
        ("forward", "evonorm-s0 reference", 3),
        ("forward", "copy", 3),
        ("forward+backward", "evonorm-s0 reference", 1),
    ]
    shown = capsys.readouterr().out
    assert "evonorm-s0 reference" in shown
    assert "stopped: what was measured so far is above" in shown


def test_saved_for_backward_counts_memory_once_and_no_parameters() -> None:
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    weight = torch.randn(3, 1, 1, requires_grad=True)

    def saved(function: Callable[[], Tensor]) -> tuple[int, int]:
        found = memory.saved_for_backward(function, elements=x.numel(), parameters=[weight])
        return found.full_size_tensors, found.bytes // x.nbytes

    assert saved(lambda: torch.relu(x)) == (1, 1)
    assert saved(lambda: x * torch.sigmoid(x)) == (2, 2)  # x, and the sigmoid for both products
    assert saved(lambda: x * weight) == (1, 1)
    assert saved(lambda: x + 1) == (0, 0)


def test_peak_growth_sees_temporaries() -> None:
    x = torch.randn(64, 64)
    assert memory.peak_growth(lambda: torch.relu(x)) == x.nbytes
    assert memory.peak_growth(lambda: (x + 1).exp().sum()) == pytest.approx(2 * x.nbytes, rel=0.02)


def test_mini_inceptions_shapes_are_read_off_the_network() -> None:
    sites = mini_inception_sites()
    assert sites[0] == (96, 32, 32)
    assert {channels for channels, _, _ in sites} == {32, 48, 64, 80, 96, 112, 160, 176}
    assert {height for _, height, _ in sites} == {32, 15, 7}


def test_cases() -> None:
    assert [str(case) for case in cases(BenchOptions(dtypes=("bf16",)))] == ["128x96x32x32 bf16 channels_last"]
    assert cases(BenchOptions(network=True)) == []
    for case in cases(BenchOptions(presets=("inference",))):
        assert (case.shape[0], case.figures) == (1, ("inference",))
    assert len(cases(BenchOptions(presets=("resnet50",), formats=("channels_last", "contiguous")))) == 5 * 2 * 2


def test_missing_kernels_are_said(
    rows_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(implementations.kernels, "_REASON", "built without a compiler")
    code, rows = bench(rows_file, *TINY, "--implementations", "kernel", "relu", "--figures", "inference")
    assert code == 0
    assert [row["status"] for row in rows] == ["skipped", "measured", "measured"]
    assert rows[0]["conditions"]["kernels"] == "none: built without a compiler"
    assert "skipped: evonorm-s0 kernel: no kernels here: built without a compiler" in capsys.readouterr().out


def test_a_missing_timm_is_said(
    rows_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "timm.layers", None)
    code, rows = bench(rows_file, *TINY, "--implementations", "timm", "relu", "--figures", "inference")
    assert code == 0
    assert [row["status"] for row in rows] == ["skipped", "measured", "measured"]
    assert "skipped: evonorm-s0 timm: timm is not installed: pip install timm" in capsys.readouterr().out


def test_a_picture(rows_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "picture.png"
    arguments = ["--implementations", "reference", "batch_norm+relu", "--figures", "inference", "--plot", str(picture)]
    assert bench(rows_file, *TINY, *arguments)[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--shape", "1,2,3"],
            "--shape takes N,C,H,W, four whole numbers of at least 1: got '1,2,3'; try 128,96,32,32",
        ),
        (["--shape", "a,b,c,d"], "got 'a,b,c,d'"),
        (["--layers", "evonorm-z9"], "no layer is called 'evonorm-z9'"),
        (["--repeats", "0"], "--repeats must be at least 1: got 0"),
        (["--batch-size", "-1"], "--batch-size must be at least 1: got -1"),
        (["--json", "nowhere/rows.jsonl"], "there is no folder nowhere"),
        (["--plot", "picture.gif"], "--plot takes a file that ends in .png, .svg or .pdf: got picture.gif"),
        (["--plot", "picture.png"], "--plot needs matplotlib: pip install matplotlib"),
        (["--layers", "none", "--implementations", "kernel"], "nothing to measure"),
    ],
)
def test_a_users_mistake(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(["bench", *arguments]) == cli.USER_ERROR
    told = capsys.readouterr()
    assert message in told.err
    assert "Traceback" not in told.err + told.out
    assert list(tmp_path.iterdir()) == []
