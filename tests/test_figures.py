"""What README and docs say in numbers is what the records in results/ give."""

from __future__ import annotations

import json
import shutil

import pytest
from benchmarks import figures, of_report, publish

from evonorm import cli


@pytest.mark.parametrize(
    ("file", "name", "of"), figures.BLOCKS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_block_is_what_its_records_give(file: str, name: str, of) -> None:
    text = (figures.ROOT / file).read_text(encoding="utf-8")
    assert figures.filled(text, name, of()) == text, "run `make figures`"


def test_a_block_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="there are 0 blocks <!-- nothing -->, not one"):
        figures.filled("<!-- results -->\n<!-- /results -->", "nothing", "x")


def test_published_records_are_small_and_drawn(tmp_path) -> None:
    size = sum(path.stat().st_size for path in (figures.ROOT / "results").rglob("*") if path.is_file())
    assert size < 5_000_000
    assert not list((figures.ROOT / "results").rglob("*.pt"))
    assert cli.main(["report", str(of_report.REPORT), "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Mind how these runs were made" in page
    assert "mix-order reduction" in page


def test_what_is_published_has_ended_and_is_small(tmp_path) -> None:
    runs, to = tmp_path / "runs", tmp_path / "to"
    shutil.copytree(publish.RESULTS / "synthesis-quick", runs)
    first, second, *others = sorted(path.name for path in runs.iterdir() if path.is_dir())
    (runs / first / "checkpoint.pt").write_bytes(b"large")
    summary = runs / second / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "status": "stopped"}))
    to.mkdir()
    (to / "older").write_text("gone")
    assert sorted(publish.publish(runs, to)) == [first, *others]
    assert sorted(path.name for path in to.iterdir() if path.is_dir()) == [first, *others]
    assert sorted(path.name for path in to.iterdir() if path.is_file()) == [path.name for path in runs.glob("*.json")]
    kept = sorted(path.name for path in (publish.RESULTS / "synthesis-quick" / first).iterdir())
    assert sorted(path.name for path in (to / first).iterdir()) == kept
