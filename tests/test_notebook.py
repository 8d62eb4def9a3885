"""The notebook runs from top to bottom, on a budget of seconds, and is committed without outputs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "evonorm_report.ipynb"
# Real images where they lie beside the checkout; without them and without a network, digits.
REAL = ROOT.parent / "shared" / "data" / "cifar10-images.zip"


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_committed_without_outputs(notebook: Any) -> None:
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def few_images(folder: Path) -> str:
    """A folder with six real images a class, or digits."""
    if not REAL.exists():
        return "digits"
    with zipfile.ZipFile(REAL) as archive:
        taken: dict[str, int] = {}
        for name in archive.namelist():
            place = name.rpartition("/")[0]
            if name.endswith("/") or taken.get(place, 0) == 6:
                continue
            taken[place] = taken.get(place, 0) + 1
            archive.extract(name, folder)
    return str(next(folder.rglob("train")).parent)


def test_it_runs_from_top_to_bottom(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("EVONORM_NOTEBOOK_BUDGET", "tiny")
    monkeypatch.setenv("EVONORM_NOTEBOOK_DATA", few_images(tmp_path / "images"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "the published layer is the identity: True" in said
    assert "evonorm-s0   y = x * sigmoid(v * x) / std_group * weight + bias" in said
    assert "EvoNorm-S0: finished, validation accuracy 0." in said
    assert "2 of 2 trials, 2 finished" in said
    assert "\x1b" not in said
    kinds = [kind for output in outputs if "data" in output for kind in output.data]
    assert kinds.count("application/vnd.plotly.v1+json") == 2
    assert "image/png" in kinds
    assert (tmp_path / "evonorm_notebook" / "sweep" / "sweep.json").exists()


def test_without_evonorm_it_says_what_to_set(notebook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install = next(cell.source for cell in notebook.cells if "pip" in cell.source and cell.cell_type == "code")
    ran: list[list[str]] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda command, check: ran.append(command))
    with pytest.raises(RuntimeError, match="set REPOSITORY, above"):
        exec(install, {})
    assert ran == []
    exec(install.replace('REPOSITORY = ""', 'REPOSITORY = "https://example.org/e"'), {})
    assert ran[0][-1] == "evonorm[lab] @ git+https://example.org/e"
