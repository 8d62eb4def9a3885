"""One direction of imports: layers <- models <- lab <- cli, layers <- keras, among the lab's wings; a light start."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import evonorm

SOURCE = Path(evonorm.__file__).parent
WINGS = ["layers", "keras", "models", "lab", "search", "cli"]
# The lab's wings, each of which knows those before it alone. What lies beside them (errors, stopping, ...) knows none.
LAB_WINGS = ["data", "records", "training", "jobs", "sweep", "analysis", "experiments", "pages", "bench"]
# What a run is configured as, and what its task measures, is what its record holds, and is checked against.
UPWARD = {
    "records/record_shape.py": {"training.config", "training.tasks"},
    "records/export.py": {"training.config", "training.tasks"},
}
# Nothing after the record touches torch, and parsing a command line does not either.
WITHOUT_TORCH = [
    "lab/errors.py",
    "lab/records",
    "lab/training/config.py",
    "lab/training/sinks",
    "lab/jobs",
    "lab/sweep",
    "lab/analysis",
    "lab/pages",
    "cli",
]
CORE_NEEDS = {"torch", "evonorm"}
# Imported where a name asks for them.
OPTIONAL = {
    "models/names.py": {"torchvision", "timm"},
    "models/mask_rcnn.py": {"torchvision"},
    "layers/constructors.py": {"timm"},
}
# Itself imported only by the call that needs it.
TRITON = "layers/kernels/triton/"


def imported(path: Path, *, at_top: bool = False) -> set[str]:
    """Modules that a file imports, anywhere in it or only when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def wing(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "evonorm" and parts[1] in WINGS else None


FILES = sorted(SOURCE.rglob("*.py"))
INNER = [path for path in FILES if path.relative_to(SOURCE).parts[0].removesuffix(".py") in WINGS]


@pytest.mark.parametrize("path", INNER, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_downward(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    upward = {m for m in imported(path) if (w := wing(m)) and WINGS.index(w) > WINGS.index(own)}
    assert not upward, f"{path.relative_to(SOURCE)} imports upward: {sorted(upward)}"


def lab_module(module: str) -> str | None:
    """The module below evonorm.lab, without what is taken from it: `jobs.job` of `evonorm.lab.jobs.job.Job`."""
    parts = module.split(".")
    return ".".join(parts[2:4]) if parts[:2] == ["evonorm", "lab"] and len(parts) > 2 else None


LAB = SOURCE / "lab"
LAB_FILES = sorted(LAB.rglob("*.py"))


@pytest.mark.parametrize("path", LAB_FILES, ids=lambda path: str(path.relative_to(LAB)))
def test_the_wings_of_the_lab_run_downward(path: Path) -> None:
    own, *inner = path.relative_to(LAB).parts
    above = LAB_WINGS[LAB_WINGS.index(own) + 1 :] if inner else LAB_WINGS
    upward = {name for m in imported(path) if (name := lab_module(m)) and name.split(".")[0] in above}
    allowed = UPWARD.get(path.relative_to(LAB).as_posix(), set())
    assert not upward - allowed - {name.split(".")[0] for name in allowed}
    assert allowed <= upward, "an exception that nothing needs"


def test_every_wing_of_the_lab_has_its_place() -> None:
    assert {path.name for path in LAB.iterdir() if (path / "__init__.py").exists()} == set(LAB_WINGS)
    assert {(LAB / name).exists() for name in UPWARD} == {True}


@pytest.mark.parametrize("path", [p for p in INNER if p.relative_to(SOURCE).parts[0] in ("layers", "models")], ids=str)
def test_layers_and_models_need_torch_alone(path: Path) -> None:
    place = path.relative_to(SOURCE).as_posix()
    optional = OPTIONAL.get(place, set())
    core = CORE_NEEDS | ({"triton"} if place.startswith(TRITON) else set())
    for at_top, allowed in ((True, core), (False, core | optional)):
        needs = {module.split(".")[0] for module in imported(path, at_top=at_top)} - sys.stdlib_module_names
        assert needs <= allowed


@pytest.mark.parametrize("place", WITHOUT_TORCH)
def test_files_that_must_not_import_torch(place: str) -> None:
    files = [SOURCE / place] if place.endswith(".py") else sorted((SOURCE / place).rglob("*.py"))
    for path in files:
        assert not {
            m for m in imported(path, at_top=True) if m.split(".")[0] == "torch" or wing(m) in ("layers", "models")
        }


def test_keras_needs_keras_and_what_it_reads_of_the_layers_needs_no_torch() -> None:
    """Where Keras computes with TensorFlow or JAX, torch is imported for to_torch and from_torch alone."""
    own = sorted((SOURCE / "keras").rglob("*.py"))
    read = {m for path in own for m in imported(path, at_top=True) if wing(m) == "layers"}
    below = [p for p in sorted((SOURCE / "layers").glob("*.py")) if f"evonorm.layers.{p.stem}" in read]
    assert {p.stem for p in below} >= {"table", "formula"}
    for path in [*own, *below]:
        needs = {module.split(".")[0] for module in imported(path, at_top=True)} - sys.stdlib_module_names
        conditional = {"torch", "tensorflow"} if path.name == "interchange.py" or path in below else set()
        assert needs <= {"evonorm", "keras", "numpy"} | conditional
    others = [path for path in INNER if path.relative_to(SOURCE).parts[0] != "keras"]
    assert not {path for path in others if any(wing(m) == "keras" for m in imported(path))}


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_imports_neither_torch_nor_numpy() -> None:
    """What makes `evonorm --help` answer at once."""
    loaded = modules_after("import evonorm.cli; evonorm.cli.build_parser().format_help()")
    assert not loaded & {"torch", "numpy", "plotly", "sklearn", "PIL", "optuna", "evonorm.lab.sweep"}


def test_a_sweep_of_programs_starts_without_torch() -> None:
    loaded = modules_after("import evonorm.lab.sweep.command, evonorm.lab.jobs.executors")
    assert not loaded & {"torch", "numpy", "scipy", "optuna"}


def test_import_evonorm_loads_only_what_is_used() -> None:
    assert "torch" not in modules_after("import evonorm")
    loaded = modules_after("import evonorm; evonorm.NormActivation(32)")
    assert "torch" in loaded
    assert "triton" not in modules_after("import evonorm, torch; evonorm.NormActivation(32)(torch.ones(1, 32, 2, 2))")
    assert not {name for name in loaded if name.startswith("evonorm.lab")}


def test_public_names() -> None:
    for name in evonorm.__all__:
        assert getattr(evonorm, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'EvoNorm'"):
        _ = evonorm.EvoNorm
