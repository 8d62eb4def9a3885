"""The learning-rate experiment's rules on made-up runs whose truth is known, and its page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from evonorm.lab.analysis import usable_range
from evonorm.lab.analysis.learning_rate import analysis
from evonorm.lab.analysis.usable_range import Ladder, Setting
from evonorm.lab.errors import UserError
from evonorm.lab.pages import experiment_page, lines, page
from evonorm.lab.records import run_files
from tests.lab import listed

RATES = (0.001, 0.01, 0.1)
NAME = "learning-rate-hour-0123456789abcdef.json"
# By layer, optimizer, pixels, learning rate and seed; None: diverged. absent: was not run.
Truth = Callable[[str, str, str, float, int], float | None]


def made(
    folder: Path,
    truth: Truth,
    *,
    layers: Iterable[str] = ("bn-relu", "evonorm-s0"),
    seeds: Iterable[int] = (0, 1),
    absent: Callable[[str, float, int], bool] = lambda layer, rate, seed: False,
) -> Path:
    entries = []
    for layer in layers:
        for optimizer in ("sgd", "adam"):
            for pixels in ("raw", "standardized"):
                for rate in RATES:
                    for seed in seeds:
                        run = f"{layer}-{optimizer}-{pixels}-{rate}-{seed}".replace("<", "")
                        place = {"layer": layer, "optimizer": optimizer, "pixels": pixels, "learning_rate": rate}
                        entries.append({**place, "seed": seed, "run": run})
                        if not absent(layer, rate, seed):
                            _record(folder / run, layer, rate, seed, truth(layer, optimizer, pixels, rate, seed))
    listed.write(folder / NAME, entries)
    return folder


def _record(folder: Path, layer: str, rate: float, seed: int, accuracy: float | None) -> None:
    folder.mkdir(parents=True)
    config = {"layer": layer, "learning_rate": rate, "batch_size": 32, "seeds": {"model": seed}}
    run_files.write_json(folder / "config.json", {"config": config, "dataset": {}})
    status = "finished" if accuracy is not None else "diverged"
    diagnosis = None if accuracy is not None else {"epoch": 1, "step": 3, "kind": "output", "cause": "<b>too fast</b>"}
    if accuracy is not None:
        epoch = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0, "val_accuracy": accuracy}
        run_files.append_metrics(folder, epoch)
    run_files.write_json(folder / "summary.json", {"status": status, "diagnosis": diagnosis, "seconds": 1.0})


def read(folder: Path, name: str = NAME) -> Ladder:
    return experiment_page.read(folder / name)[1]


def plain(layer: str, optimizer: str, pixels: str, rate: float, seed: int) -> float | None:
    """S0 is better by 10 points at its best, 0.1; worse by 20 at the report's setting; adam diverges at 0.1."""
    if optimizer == "adam" and rate == 0.1:
        return None
    noise = 0.004 * seed
    if layer == "bn-relu":
        return 0.5 + noise if rate == 0.01 else 0.48 + noise if rate == 0.1 else 0.3
    return {0.001: 0.2, 0.01: 0.3, 0.1: 0.6}[rate] + noise


def test_the_winner_is_found_at_its_own_best_setting(tmp_path: Path) -> None:
    found = read(made(tmp_path, plain))
    assert usable_range.layers(found) == ["evonorm-s0", "bn-relu"]
    assert (found.each, found.missing) == (24, 0)
    assert found.best("evonorm-s0").place.learning_rate == 0.1
    winner, fairness, pixels, *_ = analysis(found).findings
    assert winner.answer == "evonorm-s0"
    assert "evonorm-s0 is 10.0 ±" in winner.text
    assert fairness.answer == "evonorm-s0 -20.0, then +10.0"
    assert pixels.answer == "no difference that can be told from noise"


def test_noise_that_hides_the_difference_makes_no_winner(tmp_path: Path) -> None:
    def noisy(layer, optimizer, pixels, rate, seed):
        return 0.4 + 0.01 * (layer == "bn-relu") + (0.05 if seed else -0.05)

    winner = analysis(read(made(tmp_path, noisy))).findings[0]
    assert winner.answer == "no winner: bn-relu and evonorm-s0 cannot be told apart"


def test_one_seed_has_the_error_of_counting(tmp_path: Path) -> None:
    found = read(made(tmp_path, plain, seeds=[0]))
    spread, freedom = found.spread()
    assert freedom == 0
    assert spread == pytest.approx((0.6 * 0.4 / 1000) ** 0.5)
    assert "with one seed nothing else can be known" in analysis(found).method


def test_the_pooled_spread_is_the_noise(tmp_path: Path) -> None:
    def noisy(layer, optimizer, pixels, rate, seed):
        return rate + 0.02 * seed

    spread, freedom = read(made(tmp_path, noisy)).spread()
    assert freedom == 2 * 12
    assert spread == pytest.approx(0.02 / 2**0.5)


def test_usable_rates_end_at_worse_ones_and_at_divergence(tmp_path: Path) -> None:
    found = read(made(tmp_path, plain))
    usable = usable_range.usable(found, "bn-relu", "sgd", "raw")
    assert usable is not None
    assert (usable.low, usable.high, usable.open_below, usable.open_above) == (0.01, 0.1, False, True)
    assert usable.decades == pytest.approx(1)
    adam = usable_range.usable(found, "bn-relu", "adam", "raw")
    assert adam is not None
    assert (adam.low, adam.high, adam.open_above) == (0.01, 0.01, False)


def test_a_layer_no_better_than_chance_has_no_usable_rate(tmp_path: Path) -> None:
    found = read(made(tmp_path, lambda layer, *place: 0.1 if layer == "bn-relu" else 0.5))
    assert usable_range.usable(found, "bn-relu", "sgd", "raw") is None


def test_divergence_counts_as_chance(tmp_path: Path) -> None:
    found = read(made(tmp_path, plain))
    point = found.at("bn-relu", Setting("adam", "raw", 0.1))
    assert point is not None
    assert (point.values, point.diverged) == ((0.1, 0.1), 2)
    assert analysis(found).findings[-1].text.startswith("evonorm-s0 4 of 24, the lowest adam at 0.1")


def test_only_places_that_every_layer_has_run_count(tmp_path: Path) -> None:
    found = read(made(tmp_path, plain, absent=lambda layer, rate, seed: layer == "bn-relu" and seed == 1))
    assert (found.each, found.missing) == (12, 24)
    assert all(len(point.values) == 1 for points in found.points.values() for point in points)


def test_nothing_shared_is_said(tmp_path: Path) -> None:
    made(tmp_path, plain, absent=lambda layer, rate, seed: layer == "bn-relu")
    with pytest.raises(UserError, match=r"nothing in .* has ended for every layer yet"):
        read(tmp_path)
    with pytest.raises(UserError, match="holds no learning-rate-full"):
        read(tmp_path, "learning-rate-full-0.json")


def test_charts_and_tables_hold_the_same_numbers(tmp_path: Path) -> None:
    found = read(made(tmp_path, plain))
    chart = lines.chart(found, usable_range.charts(found)[0])
    trace = next(trace for trace in chart.figure["data"] if trace["name"] == "bn-relu")
    assert trace["x"] == list(RATES)
    assert trace["y"] == pytest.approx([30, 50.2, 48.2])
    assert trace["error_y"]["array"] == pytest.approx([0, 0.2, 0.2])
    assert ("bn-relu", "0.01", "50.2", "50.0, 50.4", "0") in chart.rows


def test_the_page_holds_it_all_and_escapes_names(tmp_path: Path) -> None:
    made(tmp_path, plain, layers=("bn-relu", "<i>mine"))
    page.write(tmp_path, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "Each layer at its own best learning rate" in text
    assert "<i>mine" not in text
    assert "&lt;i&gt;mine" in text
    assert "<b>too fast" not in text


def test_the_picture_is_written(tmp_path: Path) -> None:
    (path,) = page.draw(made(tmp_path / "runs", plain), tmp_path / "out")
    assert path == tmp_path / "out" / "learning-rate.png"
    assert path.read_bytes().startswith(b"\x89PNG")
