"""`make zoo`: converts every model of torchvision and timm and writes docs/zoo.md, the table of what was found.

Each model runs in a process of its own, on small inputs and random weights; those with many parameters on the meta
device, where calls are counted and nothing is computed. Results go to a file, one line a model: repeat to go on.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import multiprocessing
import os
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tests.layers.conversion import checks, models

ROOT = Path(__file__).parents[3]
RESULTS, PAGE = ROOT / "build" / "zoo.jsonl", ROOT / "docs" / "zoo.md"
MOST_PARAMETERS, MOST_SECONDS = 30e6, 180
# A server without threads forks each process, with the libraries imported already.
APART = multiprocessing.get_context("forkserver")
APART.set_forkserver_preload(["tests.layers.conversion.models", "timm", "torchvision"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no model after so many minutes")
    parser.add_argument("--only", default="", help="only models whose FAMILY:NAME contains this")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="models at a time; default one a processor")
    parser.add_argument("--again", action="store_true", help="models that failed are tried again")
    options = parser.parse_args()
    started = time.monotonic()
    RESULTS.parent.mkdir(exist_ok=True)
    done = {key for key, row in read().items() if not (options.again and "error" in row)}
    every = listed()
    wanted = [
        (family, name) for family, name in every if (key := f"{family}:{name}") not in done and options.only in key
    ]

    def judge(model: tuple[str, str]) -> dict[str, Any] | None:
        began = time.monotonic()
        return (
            None if began - started > options.minutes * 60 else {**apart(*model), "seconds": time.monotonic() - began}
        )

    # Each worker waits for a process of its own.
    with ThreadPoolExecutor(options.workers) as workers:
        for (family, name), row in zip(wanted, workers.map(judge, wanted), strict=True):
            if row is None:
                break
            print(f"{family}:{name}", row.get("error", "ok"), f"{row['seconds']:.1f} s", flush=True)
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"family": family, "name": name, **row}) + "\n")
            PAGE.write_text(page(read(), len(every)), encoding="utf-8")
    PAGE.write_text(page(read(), len(every)), encoding="utf-8")


def listed() -> list[tuple[str, str]]:
    """torchvision's models and timm's in turn, timm's one from each of its files at a time: a part is a sample."""
    import timm

    files = [timm.list_models(module=module) for module in timm.list_modules()]
    longest = max(map(len, files))
    turns = [names[i] for i in range(longest) for names in files if i < len(names)]
    theirs = [("timm", name) for name in dict.fromkeys(turns)]
    pairs = itertools.zip_longest(models.torchvision_names(), theirs)
    return [model for pair in pairs for model in pair if model is not None]


def read() -> dict[str, dict[str, Any]]:
    """The newest result of each model."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return {f"{row['family']}:{row['name']}": row for row in map(json.loads, lines)}


def apart(family: str, name: str) -> dict[str, Any]:
    """The result from a process that may die or hang without harm."""
    queue: Any = APART.SimpleQueue()
    process = APART.Process(target=work, args=(family, name, queue))
    process.start()
    process.join(MOST_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return {"error": f"not done after {MOST_SECONDS} s"}
    return queue.get() if not queue.empty() else {"error": f"the process ended with {process.exitcode}"}


def work(family: str, name: str, queue: Any) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        with checks.quiet():
            queue.put(judged(family, name))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        queue.put({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]} ({place.name})"})


def judged(family: str, name: str) -> dict[str, Any]:
    if family == "timm":
        model, run = models.timm_model(name, device="meta")
        training = None
        small = sum(p.numel() for p in model.parameters()) < MOST_PARAMETERS
        if small:
            model, run = models.timm_model(name)
    else:
        model, run, training = models.torchvision_model(name, family)
        small = sum(p.numel() for p in model.parameters()) < MOST_PARAMETERS or family == "detection"
        if not small:
            model, x = model.to("meta"), torch.empty(2, 3, *([16, 224, 224] if family == "video" else [224, 224]))
            run = lambda m: m(x.to("meta"))  # noqa: E731
    if not any(norm is not None and norm.family != "other" for norm in map(checks.norm_of, model.modules())):
        return {"without": True}
    return asdict(checks.check(model, run, training=training) if small else checks.check_counts(model, run))


def page(results: dict[str, dict[str, Any]], total: int) -> str:
    """docs/zoo.md."""
    import timm
    import torchvision

    rows = sorted(results.values(), key=lambda row: (row["family"] == "timm", row["family"], row["name"]))
    without = [row for row in rows if row.get("without")]
    failed = [row for row in rows if "error" in row]
    judged_rows = [row for row in rows if "norms" in row]
    exact = [row for row in judged_rows if row["own_kind"] is not None]
    worst = max((row["own_kind_error"] for row in exact), default=0.0)
    own, replaced = (sum(row[what] for row in exact) for what in ("own_kind", "replaced"))
    lines = [
        "# Every model of torchvision and timm, converted",
        "",
        "Written by `make zoo` (tests/layers/conversion/zoo.py), not by hand. Each model, with random weights, was",
        'converted by `evonorm.convert(model, "evonorm-s0")`, and this was checked: every normalization has its site;',
        "activations that torch ran before = those that it runs after + those inside the new layers, likewise for",
        "normalizations; outputs are finite; one training step (of up to four, where depth is random) changes every",
        "new parameter; the plan's JSON rebuilds a model that loads the state_dict strictly and gives the same",
        "outputs; the original is untouched. *Own kind*: sites that are BatchNorm or GroupNorm with ReLU, SiLU, ReLU6,",
        "Hardswish, Mish or GELU, converted to a row of just that (bn-relu, bn-silu, gn-relu, gn-silu; the others made",
        "for the test), give the original's outputs; the error is relative to the largest. Models of more than",
        f"{MOST_PARAMETERS / 1e6:.0f} million parameters ran on the meta device: counts and names alone.",
        "",
        f"torch {torch.__version__.split('+')[0]}, torchvision {torchvision.__version__.split('+')[0]}, "
        f"timm {timm.__version__}. Of {total} models (torchvision's quantized ones left out) {len(rows)} were run: "
        f"{len(judged_rows)} passed, {len(exact)} of them with values: {own} of {replaced} sites replaced were made "
        f"their own kind too, with an error of at most {worst:.1g}; "
        f"{len(failed)} did not pass; {len(without)} have no BatchNorm, GroupNorm or InstanceNorm: "
        "left out below.",
        "",
        "| model | normalizations | replaced | activations before, after | own kind: sites, error | why kept |",
        "|---|---|---|---|---|---|",
    ]
    for row in judged_rows:
        why = "; ".join(f"{count} {reason}" for reason, count in collections.Counter(row["why_kept"]).most_common(4))
        own = "meta" if row["own_kind"] is None else f"{row['own_kind']}, {row['own_kind_error']:.1g}"
        parts = "" if row["followed"] else " (followed in parts)"
        lines.append(
            f"| {label(row)}{parts} | {row['norms']} | {row['replaced']} | "
            f"{row['activations_before']}, {row['activations_after']} | {own} | {why} |"
        )
    if failed:
        lines += ["", "## Not passed", "", "| model | why |", "|---|---|"]
        lines += [f"| {label(row)} | {row['error'].replace('|', '/')} |" for row in failed]
    return "\n".join(lines) + "\n"


def label(row: dict[str, Any]) -> str:
    return row["name"] if row["family"] != "timm" else f"timm: {row['name']}"


if __name__ == "__main__":
    main()
