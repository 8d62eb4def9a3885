"""The architectures experiment's rules on made-up runs whose truth is known, and its page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from evonorm.lab.analysis import architectures
from evonorm.lab.analysis.findings import Analysis
from evonorm.lab.analysis.trials import Trials
from evonorm.lab.pages import experiment_page, lines, page
from evonorm.lab.records import run_files
from tests.lab import listed

NAME = "architectures-hour-0123456789abcdef.json"
PARAMETERS = {"bn-relu": 1_000, "evonorm-b0": 1_100, "evonorm-s0": 1_200}
# By model, layer and seed; None: diverged.
Truth = Callable[[str, str, int], float | None]


def made(
    folder: Path,
    truth: Truth,
    *,
    models: Iterable[str] = ("timm:zed", "resnet18", "mini-inception"),
    layers: Iterable[str] = ("bn-relu", "evonorm-b0", "evonorm-s0"),
    seeds: Iterable[int] = (0, 1),
    images: int = 1000,
) -> Path:
    entries = []
    for model in models:
        for layer in layers:
            for seed in seeds:
                run = f"{model}-{layer}-{seed}".replace(":", "-").replace("<", "")
                entries.append({"model": model, "layer": layer, "seed": seed, "run": run})
                _record(folder / run, model, layer, seed, truth(model, layer, seed), images)
    listed.write(folder / NAME, entries)
    return folder


def _record(folder: Path, model: str, layer: str, seed: int, accuracy: float | None, images: int) -> None:
    folder.mkdir(parents=True)
    config = {"model": model, "layer": layer, "seeds": {"model": seed}, "norm_momentum": 0.1, "epochs": 2}
    config |= {"batch_size": 32}
    run_files.write_json(folder / "config.json", {"config": config, "dataset": {"train_images": images}})
    summary = {"status": "finished", "parameters": PARAMETERS[layer], "seconds": 1.0}
    if accuracy is None:
        summary |= {"status": "diverged", "diagnosis": {"epoch": 1, "step": 3, "cause": "<b>too fast</b>"}}
    else:
        epoch = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0, "val_accuracy": accuracy}
        run_files.append_metrics(folder, epoch | {"images_per_second": 100.0 + seed})
    run_files.write_json(folder / "summary.json", summary)


def read(folder: Path) -> Trials[str]:
    return experiment_page.read(folder / NAME)[1]


def analysis(found: Trials[str]) -> Analysis:
    return experiment_page.catalogue.EXPERIMENTS["architectures"].analyse(found)


def plain(model: str, layer: str, seed: int) -> float | None:
    """S0 wins in ResNet-18 by 20 points, loses in zed by 10; B0 diverges in zed; 0.4 points between seeds."""
    if (model, layer) == ("timm:zed", "evonorm-b0"):
        return None
    gain = {"resnet18": 0.2, "timm:zed": -0.1}.get(model, 0.0) if layer == "evonorm-s0" else 0.0
    return 0.5 + gain + 0.004 * seed


def test_the_experiments_own_models_come_first(tmp_path: Path) -> None:
    rows = analysis(read(made(tmp_path, plain))).tables[0].rows
    assert [row[0] for row in rows] == ["mini-inception", "resnet18", "timm:zed"]


def test_each_layer_is_held_to_the_baseline(tmp_path: Path) -> None:
    found = read(made(tmp_path, plain))
    b0, s0 = analysis(found).findings
    assert s0.question == "Is evonorm-s0 better than bn-relu?"
    assert s0.answer == "better in resnet18, worse in timm:zed, not to be told apart in the others"
    assert "resnet18 +20.0 ± 0.7; timm:zed -10.0 ± 0.7" in s0.text
    # Diverged runs count as chance, a tenth.
    assert b0.answer == "worse in timm:zed, not to be told apart in the others"
    assert "timm:zed -40.2 ± 0.7" in b0.text


def test_tables(tmp_path: Path) -> None:
    found = read(made(tmp_path, plain))
    accuracies, compared, costs = analysis(found).tables
    rows = accuracies.rows
    assert rows[1] == (
        "resnet18",
        "50.2 (50.0 to 50.4, n=2)",
        "50.2 (50.0 to 50.4, n=2)",
        "70.2 (70.0 to 70.4, n=2)",
    )
    assert rows[2][2] == "10.0 (10.0 to 10.0, n=2), 2 diverged"
    differences = compared.rows
    assert [row[0] for row in differences] == ["mini-inception", "resnet18", "timm:zed"]
    assert differences[1] == ("resnet18", "+0.0 ± 0.7", "+20.0 ± 0.7")
    assert costs.rows[2] == ("timm:zed", "1,000", "100", "1,100", "–", "1,200", "100")
    assert "Each misses one time in twenty; there are 6." in analysis(found).method


def test_the_chart_and_its_table_hold_the_same_numbers(tmp_path: Path) -> None:
    found = read(made(tmp_path, plain))
    chart = lines.chart(found, analysis(found).panels[0])
    bn, b0, s0 = chart.figure["data"]
    assert chart.figure["layout"]["xaxis"]["ticktext"] == ["mini-inception", "resnet18", "timm:zed"]
    assert dict(zip(s0["text"], s0["y"], strict=True)) == pytest.approx(
        {"mini-inception": 50.2, "resnet18": 70.2, "timm:zed": 40.2}
    )
    # Side by side, each nearest to its own mark.
    for trace in (bn, b0, s0):
        assert [chart.figure["layout"]["xaxis"]["ticktext"][round(at)] for at in trace["x"]] == trace["text"]
    assert len({*bn["x"], *b0["x"], *s0["x"]}) == 9
    assert ("evonorm-s0", "resnet18", "70.2", "70.0, 70.4", "0") in chart.rows


@pytest.mark.parametrize("name", [None, NAME])
def test_the_picture_is_written(tmp_path: Path, name: str | None) -> None:
    (path,) = page.draw(made(tmp_path / "runs", plain), tmp_path / "out", comparison=name)
    assert path == tmp_path / "out" / "architectures.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_legend_of_many_layers_stays_in_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    layers = ("bn-relu", "bn-silu", "evonorm-b0", "evonorm-s0a", "evonorm-s0", "frn-tlu", "gn-relu")
    monkeypatch.setattr(f"{__name__}.PARAMETERS", dict.fromkeys(layers, 1_000))
    folder = made(tmp_path / "runs", lambda *_: 0.4, layers=layers, models=("resnet18",))
    (path,) = page.draw(folder, tmp_path / "out")
    with Image.open(path) as picture:
        grey = picture.convert("L")
        for edge in (0, grey.width - 3):
            assert grey.crop((edge, 0, edge + 3, grey.height)).getextrema() == (255, 255)


def test_too_few_steps_for_running_statistics_are_said(tmp_path: Path) -> None:
    """160 images are 5 steps an epoch, 10 in all: 0.9 to the power of 10."""
    found = read(made(tmp_path / "short", plain, images=160))
    assert architectures.caveat(found).startswith("After 10 steps running statistics still hold 35 %")
    assert architectures.caveat(read(made(tmp_path / "long", plain))) == ""
    page.write(tmp_path / "short", tmp_path / "page.html")
    assert "still hold 35 %" in (tmp_path / "page.html").read_text()


def test_noise_that_hides_the_differences_is_said(tmp_path: Path) -> None:
    def noisy(model: str, layer: str, seed: int) -> float:
        return 0.4 + 0.01 * (layer == "bn-relu") + (0.05 if seed else -0.05)

    found = read(made(tmp_path, noisy))
    assert {finding.answer for finding in analysis(found).findings} == {"not to be told apart anywhere"}


def test_without_the_baseline_the_best_layer_in_each_model(tmp_path: Path) -> None:
    found = read(made(tmp_path, plain, layers=("evonorm-b0", "evonorm-s0")))
    assert [table.header[0] for table in analysis(found).tables] == ["model", "model"]  # accuracies and costs alone
    answers = {finding.question: finding.answer for finding in analysis(found).findings}
    assert answers == {
        "Which layer is best in mini-inception?": "no winner: evonorm-b0 and evonorm-s0 cannot be told apart",
        "Which layer is best in resnet18?": "evonorm-s0",
        "Which layer is best in timm:zed?": "evonorm-s0",
    }


@pytest.mark.parametrize("name", [None, NAME])
def test_the_page_holds_it_all_and_escapes_names(tmp_path: Path, name: str | None) -> None:
    made(tmp_path, plain, models=("timm:zed", "<i>mine"))
    page.write(tmp_path, tmp_path / "page.html", comparison=name)
    text = (tmp_path / "page.html").read_text()
    assert "Each layer in each network" in text
    assert "timm:zed" in text
    assert "1,200" in text
    assert "&lt;i&gt;mine" in text
    assert "<i>mine" not in text
    assert "<b>too fast" not in text
    assert "&lt;b&gt;too fast" in text


def test_the_newest_experiment_of_a_folder_is_drawn_and_any_by_its_name(tmp_path: Path) -> None:
    made(tmp_path, plain)
    assert "Each layer in each network" in page.render(tmp_path)
    newer = run_files.read_json(tmp_path / NAME) | {"updated": "2026-02-01T00:00:00Z"}
    entries = [{"layer": e["layer"], "batch_size": 4, "seed": e["seed"], "run": e["run"]} for e in newer["entries"][:6]]
    run_files.write_json(tmp_path / "batch-size-hour-0.json", newer | {"entries": entries})
    assert "What small batches cost each layer" in page.render(tmp_path)
    assert "Each layer in each network" in page.render(tmp_path, comparison=NAME)
