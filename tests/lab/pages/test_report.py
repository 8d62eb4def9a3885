"""The page: every state of a run, claims by rule, hostile names, and a real browser."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from evonorm.lab.analysis import claims, evidence
from evonorm.lab.analysis.comparison import read
from evonorm.lab.errors import UserError
from evonorm.lab.experiments.experiment import Budget, Images
from evonorm.lab.experiments.report import EXPERIMENT
from evonorm.lab.pages import page
from evonorm.lab.records import run_files
from evonorm.lab.records.report import REPORT_RUNS, VARIANTS
from evonorm.lab.training.config import TrainConfig
from tests.lab.pages import browser

FULL = Budget("full", 60, None, None, "the report's own")
IMAGES = (50_000, 10_000)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HOSTILE = "</script><script>window.harmed = true</script><img src=x onerror='window.harmed = true'>"

Accuracy = Callable[[str, str, int], float | None]


def epochs_of(
    config: TrainConfig, accuracy: float, gap: float = 0.02, rise: float = 1.0, wobble: float = 0.0
) -> list[dict[str, Any]]:
    """Curves that end at `accuracy`, with a training accuracy `gap` above, and a loss `rise` times its lowest.

    wobble: by how much of itself the validation loss goes up in every other epoch.
    """
    out = []
    for epoch in range(1, config.epochs + 1):
        share = epoch / config.epochs
        loss = 2.3 - 1.8 * share if share < 0.8 else 0.86 * (1 + (rise - 1) * (share - 0.8) / 0.2)
        figures = {"train_loss": loss * 0.9, "train_accuracy": (accuracy + gap) * share}
        figures |= {"val_loss": loss * (1 + wobble * (epoch % 2)), "val_accuracy": accuracy * share}
        out.append({"epoch": epoch, **figures, "learning_rate": 0.01, "images_per_second": 200.0, "seconds": 5.0})
    return out


def make_run(
    folder: Path, config: TrainConfig, epochs: list[dict[str, Any]], *, status: str = "finished", **summary: Any
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    train, test = config.train_images or IMAGES[0], config.test_images or IMAGES[1]
    dataset = {"name": "pictures", "fingerprint": "f" * 16, "notice": "", "classes": list(CLASSES)}
    dataset |= {"train_images": train, "test_images": config.validation_images or test}
    resolved = config.resolved(precision="fp32", grouped="s0" in config.layer, eps=1e-5)
    run_files.write_json(folder / "config.json", {"config": asdict(resolved), "dataset": dataset})
    run_files.rewrite_metrics(folder, epochs)
    best = max(epochs, key=lambda e: e["val_accuracy"], default=None)
    content = {"status": status, "epochs_done": len(epochs), "best": best, "last": epochs[-1] if epochs else None}
    content |= {"diagnosis": None, "error": None, "seconds": 60.0} | summary
    run_files.write_json(folder / "summary.json", content)
    environment = {"evonorm": "0.1.0", "torch": "2.14.1", "python": "3.11", "processor": "a processor", "threads": 2}
    run_files.write_json(folder / "environment.json", environment)


DIAGNOSIS = {
    "epoch": 2,
    "step": 408,
    "kind": "forward",
    "tensor": "inception3.conv1x1.conv",
    "cause": "Activations grew to 1e+30 at stem.norm: lower the learning rate.",
    "magnitudes": [{"module": "stem.conv", "largest": 12.5}, {"module": "stem.norm", "largest": 1e30}],
}


def make_comparison(
    runs: Path,
    accuracy: Accuracy = lambda id, variant, seed: 0.7,
    *,
    budget: Budget = FULL,
    seeds: tuple[int, ...] = (0,),
    gap: float = 0.02,
    rise: float = 1.0,
    wobble: float = 0.0,
    notice: str = "",
    classes: tuple[str, ...] = CLASSES,
    leave_out: tuple[str, ...] = (),
) -> None:
    """Runs of all experiments. accuracy(id, variant, seed): None for a run that diverged in its second epoch."""
    train, test = budget.train_images or IMAGES[0], budget.test_images or IMAGES[1]
    entries = []
    for experiment, variant, seed in itertools.product(REPORT_RUNS, VARIANTS, seeds):
        cell = {"experiment": experiment.id, "variant": variant, "seed": seed}
        config = EXPERIMENT.config(cell, budget, Images(train, test))
        grouped = config.layer == "evonorm-s0"
        parts = [config.layer, f"g{config.groups}" if grouped else "", config.optimizer, str(config.batch_size)]
        name = "-".join([*parts, "aug" * config.augment, str(seed)])
        entries.append({"experiment": experiment.id, "variant": variant, "seed": seed, "run": name})
        if experiment.id in leave_out:
            continue
        value = accuracy(experiment.id, variant, seed)
        if value is None:
            epochs = epochs_of(config, 0.5)[:1]
            make_run(runs / name, config, epochs, status="diverged", diagnosis=DIAGNOSIS)
        else:
            make_run(runs / name, config, epochs_of(config, value, gap, rise, wobble))
    dataset = {"name": "pictures", "fingerprint": "f" * 16, "notice": notice, "classes": list(classes)}
    dataset |= {"train_images": train, "test_images": test}
    content = {"schema": 1, "updated": "2026-11-24T12:00:00Z", "budget": asdict(budget), "dataset": dataset}
    run_files.write_json(runs / f"comparison-{budget.name}-ffff.json", content | {"entries": entries})


def verdicts(runs: Path) -> dict[str, list[str]]:
    return {s.anchor: [finding.verdict for finding in s.findings] for s in claims.sections(read(runs))}


def text_of(html: str) -> str:
    """What a reader sees, without markup and scripts."""
    body = re.sub(r"<(script|style).*?</\1>", " ", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def layered(bn: float, b0: float, s0: float, identity: float) -> Accuracy:
    def accuracy(id: str, variant: str, seed: int) -> float:
        jitter = 0.001 * seed
        if id.startswith("bn"):
            return bn + jitter
        return (identity if variant == "published" else b0 if id.startswith("b0") else s0) + jitter

    return accuracy


def test_evonorm_below_batch_norm_supports_the_report(tmp_path: Path) -> None:
    make_comparison(tmp_path, layered(0.84, 0.76, 0.75, 0.70), seeds=(0, 1, 2))
    found = verdicts(tmp_path)
    assert found["b0"] == ["holds", "does not hold"]  # below BN-ReLU; no NaN
    assert found["s0"] == ["holds", "within noise", "does not hold"]
    assert found["conclusion"] == ["holds", "holds", "holds"]
    assert found["sweep"] == ["not examined"]


def test_one_seed_gives_leads_only(tmp_path: Path) -> None:
    make_comparison(tmp_path, layered(0.84, 0.76, 0.75, 0.70), gap=0.25, rise=1.5, wobble=0.3)
    told = [verdict for found in verdicts(tmp_path).values() for verdict in found]
    assert set(told) == {"a lead: holds", "a lead: does not hold", "within noise", "not examined"}
    answer = text_of(page.render(tmp_path))
    assert "one seed (n = 1)" in answer
    assert "EvoNorm-B0 is 8.0 points below BN-ReLU, one seed: a lead." in answer
    assert "EvoNorm-S0 is 9.0, 9.0 and 9.0 points below BN-ReLU with 8, 16 and 32 groups, one seed: a lead." in answer


def test_evonorm_above_batch_norm_contradicts_it(tmp_path: Path) -> None:
    make_comparison(tmp_path, layered(0.76, 0.84, 0.83, 0.76), seeds=(0, 1, 2))
    assert verdicts(tmp_path)["conclusion"] == ["does not hold", "does not hold", "holds"]


def test_one_above_one_below_is_mixed(tmp_path: Path) -> None:
    make_comparison(tmp_path, layered(0.80, 0.84, 0.76, 0.80), seeds=(0, 1))
    assert verdicts(tmp_path)["conclusion"][0] == "mixed"
    one = tmp_path / "one"
    make_comparison(one, layered(0.80, 0.84, 0.76, 0.80))
    assert verdicts(one)["conclusion"][0] == "a lead: mixed"


def test_equal_layers_are_within_noise(tmp_path: Path) -> None:
    make_comparison(tmp_path, layered(0.80, 0.801, 0.799, 0.80))
    assert verdicts(tmp_path)["conclusion"] == ["within noise", "within noise", "within noise"]


def test_seed_noise_widens_the_margin(tmp_path: Path) -> None:
    """Two points apart, but seeds scatter by three: one seed alone would have called it a lead."""
    noise = {0: -0.03, 1: 0.0, 2: 0.03}
    make_comparison(
        tmp_path, lambda id, variant, seed: 0.80 if id.startswith("bn") else 0.78 + noise[seed], seeds=(0, 1, 2)
    )
    assert verdicts(tmp_path)["conclusion"][0] == "within noise"
    one = tmp_path / "one"
    make_comparison(one, lambda id, variant, seed: 0.80 if id.startswith("bn") else 0.78)
    assert verdicts(one)["conclusion"][0] == "a lead: holds"


def test_seeds_that_scatter_together_are_paired(tmp_path: Path) -> None:
    """Seeds scatter by three points in both layers alike: the difference of two points is the same in each."""
    noise = {0: -0.03, 1: 0.0, 2: 0.03}
    make_comparison(
        tmp_path, lambda id, variant, seed: (0.80 if id.startswith("bn") else 0.78) + noise[seed], seeds=(0, 1, 2)
    )
    assert verdicts(tmp_path)["conclusion"][0] == "holds"


def test_paired_interval_by_hand(tmp_path: Path) -> None:
    values = {"bn-relu-sgd": (0.80, 0.82, 0.81, 0.80, 0.82), "b0": (0.70, 0.75, 0.72, 0.77, 0.71)}
    make_comparison(tmp_path, lambda id, variant, seed: values.get(id, (0.5,) * 5)[seed], seeds=(0, 1, 2, 3, 4))
    comparison = read(tmp_path)
    found = evidence.difference(comparison.cell("b0", "intended"), comparison.cell("bn-relu-sgd", "intended"))
    # Differences -10, -7, -9, -3, -11 points: mean -8, squares 4+1+1+25+9 = 40, deviation sqrt(10), t(4) = 2.7764.
    assert found is not None
    assert (found.value, found.seeds) == (pytest.approx(-0.08), 5)
    assert found.margin == pytest.approx(0.01 * (10 / 5) ** 0.5 * 2.7764, rel=1e-3)
    assert "paired by seed (n = 5)" in found.noise


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    # From Wilson's formula with z = 1.96; 0 and all of them touch the ends.
    [(1, 4, 0.0456, 0.6994), (0, 5, 0.0, 0.4345), (5, 5, 0.5655, 1.0), (1, 1, 0.2065, 1.0), (2, 10, 0.0567, 0.5098)],
)
def test_wilson_interval(count: int, of: int, low: float, high: float) -> None:
    assert evidence.wilson(count, of) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_welch_interval_by_hand(tmp_path: Path) -> None:
    """Where the seeds that finished differ there is nothing to pair."""
    values = {"bn-relu-sgd": (0.80, 0.82, 0.81, None, None, None), "b0": (None, None, None, 0.70, 0.74, 0.72)}
    make_comparison(tmp_path, lambda id, variant, seed: values.get(id, (0.5,) * 6)[seed], seeds=(0, 1, 2, 3, 4, 5))
    comparison = read(tmp_path)
    found = evidence.difference(comparison.cell("b0", "intended"), comparison.cell("bn-relu-sgd", "intended"))
    # Variances 4e-4 and 1e-4 over 3 each: error sqrt(5e-4 / 3); freedom (5/3)^2 / ((4/3)^2/2 + (1/3)^2/2) = 2.941.
    assert found is not None
    assert found.value == pytest.approx(-0.09)
    assert found.margin == pytest.approx((5e-4 / 3) ** 0.5 * 3.2202, rel=1e-3)


def test_seeds_that_agree_too_well_keep_the_error_of_counting(tmp_path: Path) -> None:
    make_comparison(tmp_path, lambda id, variant, seed: 0.80 if id.startswith("bn") else 0.795, seeds=(0, 1))
    comparison = read(tmp_path)
    found = evidence.difference(comparison.cell("b0", "intended"), comparison.cell("bn-relu-sgd", "intended"))
    assert found is not None
    assert found.margin == pytest.approx(1.96 * ((0.8 * 0.2 + 0.795 * 0.205) / 10_000) ** 0.5, rel=1e-3)
    assert not found.clear


def test_three_pairs_of_groups_are_judged_together(tmp_path: Path) -> None:
    """1.2 points are clear between two layers chosen beforehand (margin 1.1), not among three pairs (margin 1.35)."""
    values = {"s0-g8": 0.800, "s0-g16": 0.806, "s0-g32": 0.812}
    make_comparison(tmp_path, lambda id, variant, seed: values.get(id, 0.80))
    comparison = read(tmp_path)
    g8, g32 = comparison.cell("s0-g8", "intended"), comparison.cell("s0-g32", "intended")
    alone, together = evidence.difference(g8, g32), evidence.difference(g8, g32, among=3)
    assert alone is not None
    assert together is not None
    assert alone.clear
    assert not together.clear
    assert verdicts(tmp_path)["s0"][1] == "within noise"


def test_fluctuation(tmp_path: Path) -> None:
    make_comparison(tmp_path, wobble=0.3)
    assert verdicts(tmp_path)["bn-adam"][0] == "a lead: holds"
    text = text_of(page.render(tmp_path))
    assert re.search(
        r"fluctuates a lot\. It changes from epoch to epoch by \d+ % of its level, one seed\. a lead", text
    )


def test_an_identity_that_diverged_is_not_an_absent_one(tmp_path: Path) -> None:
    make_comparison(
        tmp_path, lambda id, variant, seed: None if variant == "published" and id[:2] in ("b0", "s0") else 0.5
    )
    finding = claims.sections(read(tmp_path))[-1].findings[-1]
    assert finding.verdict == "a lead: holds"
    assert "the identity: 1 of 1 (95 %: 21 to 100 %) diverged" in finding.answer
    assert "the layers as defined: 0 of 4 diverged, 4 finished" in finding.answer


def test_a_baseline_that_diverged_leaves_nothing_to_compare(tmp_path: Path) -> None:
    make_comparison(tmp_path, lambda id, variant, seed: None if id.startswith("bn") else 0.5)
    found = verdicts(tmp_path)
    assert found["bn-adam"] == ["not examined", "not examined"]
    assert found["conclusion"][:2] == ["not examined", "not examined"]


@pytest.mark.parametrize("budget", ["quick", "hour"])
def test_short_budgets_leave_claims_open(tmp_path: Path, budget: str) -> None:
    make_comparison(tmp_path, layered(0.40, 0.30, 0.31, 0.2), budget=EXPERIMENT.budget(budget))
    told = {verdict for found in verdicts(tmp_path).values() for verdict in found}
    assert told == {"too little budget to tell", "not examined"}
    html = text_of(page.render(tmp_path))
    assert "That is too little training to confirm or refute the report" in html
    assert "BN-ReLU keeps the report's running averages" in html.replace("&#39;", "'")
    assert ("they still hold 67 % of their initial value" in html) == (budget == "quick")  # 0.99 ** 40; 0.99 ** 300
    # Numbers that running averages depress are no ground for a guess either.
    assert not re.search(r"depressed by the budget, as said at the top of the page\.[^.]* it looks", html)
    assert "bn-relu-sgd ends at 42.0 % in training and 40.0 % in validation" in html


def test_overfitting_and_balance(tmp_path: Path) -> None:
    make_comparison(tmp_path, gap=0.25, rise=1.5)
    found = verdicts(tmp_path)
    assert found["bn-adam"] == ["a lead: does not hold", "a lead: holds"]  # a smooth loss; overfitting
    assert found["bn-sgd"] == ["a lead: holds"]
    assert found["bn-aug"] == ["a lead: does not hold"]
    balanced = tmp_path / "balanced"
    make_comparison(balanced, gap=0.01)
    assert verdicts(balanced)["bn-aug"] == ["a lead: holds"]
    assert verdicts(balanced)["bn-sgd"] == ["a lead: does not hold"]
    assert evidence.stale_averages(read(balanced).cells.values()) == ""


def test_divergence_stays_in_every_table_and_plot(tmp_path: Path) -> None:
    make_comparison(tmp_path, lambda id, variant, seed: None if id.endswith("-aug") and id[0] != "n" else 0.7)
    found = verdicts(tmp_path)
    assert found["b0"][1] == "a lead: holds"
    assert found["s0"][2] == "a lead: mixed"  # with augmentation every run, with 32 groups and without it none
    html = page.render(tmp_path)
    text = text_of(html)
    assert "diverged 1 of 1" in text
    assert "first non-finite forward: inception3.conv1x1.conv" in text
    assert "Activations grew to 1e+30" in text
    assert "1e+30" in text
    assert '"x-thin"' in html
    assert "diverged 1 of 1: at step 408, in epoch 2 of 60" in text
    lost = sum(record.status == "diverged" for record in read(tmp_path).records)
    assert f"{lost} diverged; 1 of the {lost} that diverged trained identities." in text
    assert "of its 11 experiments 5 ended in a NaN loss." in text


def test_every_state_of_a_run(tmp_path: Path) -> None:
    make_comparison(tmp_path, leave_out=("b0",), seeds=(0, 1))
    failed = next(tmp_path.glob("evonorm-s0-g8-sgd-128--0"))
    config = TrainConfig(**{**run_files.read(failed).config, "seeds": TrainConfig().seeds})
    make_run(failed, config, [], status="failed", error="RuntimeError: the roof fell in")
    stopped = next(tmp_path.glob("evonorm-s0-g16-sgd-128--1"))
    make_run(stopped, config, epochs_of(replace(config, epochs=3), 0.3), status="stopped")
    text = text_of(page.render(tmp_path))
    for expected in (
        "not run",
        "failed 1 of 2",
        "the roof fell in",
        "stopped 1 of 2",
        "same run as published",
        "same run as b0",
        "80.9 and 84.0",
        "NaN",
        "a processor",
    ):
        assert expected in text, expected


def test_mean_spread_and_count_over_seeds(tmp_path: Path) -> None:
    make_comparison(tmp_path, lambda id, variant, seed: 0.70 + 0.01 * seed, seeds=(0, 1, 2))
    assert "71.0 ± 1.0 (n=3)" in text_of(page.render(tmp_path))


def test_names_and_values_cannot_break_out(tmp_path: Path) -> None:
    make_comparison(tmp_path, lambda id, v, s: None if id == "b0-aug" else 0.7, notice=HOSTILE)
    for path in tmp_path.glob("*/summary.json"):
        summary = run_files.read_json(path)
        if summary["diagnosis"]:
            run_files.write_json(path, summary | {"diagnosis": DIAGNOSIS | {"cause": HOSTILE, "tensor": HOSTILE}})
    config = TrainConfig(layer="none", epochs=2)
    make_run(tmp_path / "<b>bold<b>", config, epochs_of(config, 0.5))
    make_run(tmp_path / "failed", replace(config, layer=HOSTILE), [], status="failed", error=HOSTILE)
    html = page.render(tmp_path)
    assert HOSTILE not in html
    assert "<img src=x" not in html
    assert "<b>bold" not in html
    (download,) = re.findall(r'href="(data:text/csv[^"]*)"', html)
    assert not re.search(r"[<>'\s]", download)
    html = html.replace(download, "")
    assert html.count("window.harmed") == text_of(html).count("window.harmed") > 0


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    html = page.render(tmp_path)
    outside_scripts = re.sub(r"<script>.*?</script>", "", html, flags=re.S)
    # What a reader may follow is not loaded.
    outside_scripts = re.sub(r'<a href="https://[^"]*">', "", outside_scripts)
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:|//)""", outside_scripts)
    assert html.count("Plotly.newPlot") >= 1
    assert html.count("plotly.js v") == 1


def test_a_folder_of_plain_runs(tmp_path: Path) -> None:
    config = TrainConfig(layer="gn-silu", epochs=3)
    make_run(tmp_path / "gn-silu-sgd-1", config, epochs_of(config, 0.61))
    text = text_of(page.render(tmp_path))
    assert "gn-silu-sgd-1" in text
    assert "61.0" in text
    assert "recorded by the report" not in text


def test_several_comparisons(tmp_path: Path) -> None:
    make_comparison(tmp_path, budget=EXPERIMENT.budget("quick"))
    later = run_files.read_json(tmp_path / "comparison-quick-ffff.json") | {"updated": "2027-01-01T00:00:00Z"}
    run_files.write_json(tmp_path / "comparison-later-ffff.json", later)
    assert read(tmp_path).name == "comparison-later-ffff.json"
    assert "comparison-quick-ffff.json" in text_of(page.render(tmp_path))
    assert read(tmp_path, "comparison-quick-ffff.json").name == "comparison-quick-ffff.json"


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda runs: None, "there is no folder"),
        (lambda runs: runs.mkdir(), "holds no runs; make them with `evonorm reproduce"),
        (
            lambda runs: (make_comparison(runs), (runs / "comparison-full-ffff.json").write_text("{}")),
            "is not a compar",
        ),
        (lambda runs: (make_comparison(runs), (runs / "comparison-full-ffff.json").write_text("{")), "is not JSON"),
    ],
)
def test_folders_without_a_page(tmp_path: Path, prepare: Callable[[Path], object], message: str) -> None:
    prepare(tmp_path / "runs")
    with pytest.raises(UserError, match=message):
        page.render(tmp_path / "runs")


def test_a_comparison_that_is_not_there(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    with pytest.raises(UserError, match=r"holds no nope; it holds comparison-full-ffff\.json"):
        page.render(tmp_path, comparison="nope")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    make_comparison(tmp_path / "runs")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the page"):
        page.write(tmp_path / "runs", tmp_path / "file" / "report.html")


def test_curves_can_be_told_apart(tmp_path: Path) -> None:
    """One legend entry for all seeds; published hollow; augmented runs in charts of their own; a cross: diverged."""
    make_comparison(tmp_path, lambda id, v, s: None if (id, v, s) == ("b0", "intended", 1) else 0.7, seeds=(0, 1, 2))
    html = page.render(tmp_path)
    titles = re.findall(r"<h3>(.*?)</h3>", html)
    assert titles[-4:] == [
        f"{what}, {how} augmentation" for how in ("without", "with") for what in ("Loss", "Accuracy")
    ]
    charts = [json.loads(text) for text in re.findall(r'json">(.*?)</script>', html, flags=re.S)]
    legends = [[trace["name"] for trace in chart["data"] if trace["showlegend"]] for chart in charts]
    assert legends[5] == ["bn-relu-sgd-aug published", "bn-relu-sgd-aug intended"]
    assert {trace["marker"]["symbol"] for trace in charts[5]["data"]} == {"circle-open", "circle"}
    assert legends[7] == ["identity (published)", "b0 intended: 2 finished, 1 diverged"]
    assert charts[7]["layout"]["yaxis"].get("type") is None


def test_a_loss_on_its_way_to_infinity_leaves_the_others_visible(tmp_path: Path) -> None:
    config = TrainConfig(layer="none", epochs=3)
    epochs = epochs_of(config, 0.1)
    make_run(tmp_path / "none", config, [*epochs[:2], epochs[2] | {"val_loss": 1e30}])
    assert "loss (logarithmic)" in page.render(tmp_path)


def test_in_a_browser(tmp_path: Path) -> None:
    # Two seeds, some of them diverged: what fills a legend most.
    make_comparison(
        tmp_path,
        lambda id, v, s: None if id == "b0-aug" else 0.7,
        notice=HOSTILE,
        seeds=(0, 1),
        budget=EXPERIMENT.budget("hour"),
    )
    hostile = TrainConfig(layer="none", epochs=2)
    make_run(tmp_path / "<img src=x onerror=alert(1)>", hostile, epochs_of(hostile, 0.5))
    page.write(tmp_path, tmp_path / "report.html")
    with browser.started() as chromium:
        for scheme, width in (("light", 1300), ("dark", 360)):
            with browser.shown(chromium, tmp_path / "report.html", scheme, width) as tab:
                assert tab.evaluate("document.querySelectorAll('.chart .main-svg').length") >= 12
                assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
                # The legend leaves the plot a good part of the chart, and stays above it.
                assert tab.evaluate(
                    """[...document.querySelectorAll('.chart')].every(chart => {
                        const plot = chart.querySelector('.nsewdrag').getBoundingClientRect();
                        const legend = chart.querySelector('.legend').getBoundingClientRect();
                        return plot.height > 0.35 * chart.clientHeight && legend.bottom <= plot.top + 2;
                    })"""
                )
                assert tab.evaluate("window.harmed") is None
                ink = tab.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill")
                light_ink = max(int(part) for part in re.findall(r"\d+", ink)[:3]) > 128
                assert light_ink == (scheme == "dark")
                # A reader who switches the theme, or prints, gets charts to match.
                for media in ({"color_scheme": "light" if scheme == "dark" else "dark"}, {"media": "print"}):
                    tab.emulate_media(**media)
                    tab.wait_for_function(
                        """() => getComputedStyle(document.querySelector('.xtick text')).fill
                            === getComputedStyle(document.body).color"""
                    )
