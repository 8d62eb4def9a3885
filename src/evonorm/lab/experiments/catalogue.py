"""The experiments there are, by name; and a user's own, from a Python file."""

from __future__ import annotations

from pathlib import Path

from evonorm.lab import python_file
from evonorm.lab.errors import UserError
from evonorm.lab.experiments import architectures, batch_size, detection, learning_rate, report, synthesis
from evonorm.lab.experiments.experiment import Axis, Budget, Cell, Experiment, Images, of
from evonorm.lab.records import run_files
from evonorm.lab.training.config import TrainConfig

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        report.EXPERIMENT,
        learning_rate.EXPERIMENT,
        batch_size.EXPERIMENT,
        batch_size.EQUAL_STEPS,
        architectures.EXPERIMENT,
        detection.EXPERIMENT,
        synthesis.EXPERIMENT,
    )
}


def of_listing(path: Path) -> Experiment:
    """The experiment whose listing this is; one that has no name here as far as its listing describes it.

    Raises UserError for a file that is no listing.
    """
    for experiment in EXPERIMENTS.values():
        if path.match(experiment.listings):
            return experiment
    try:
        about = run_files.read_json(path)["experiment"]
        axes = tuple(Axis(str(name), of()) for name in about["axes"])
        return Experiment(
            str(about["name"]), str(about["title"]), "", "", axes, (), _no_config, lane=str(about["lane"])
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not an experiment that can be read: {error!r}; delete it") from error


def _no_config(cell: Cell, budget: Budget, images: Images) -> TrainConfig:
    raise UserError("a listing alone does not say how its runs are configured; give the experiment's own file")


def find(name: str) -> Experiment:
    """The experiment of this name, or the one in this Python file, which is run. Raises UserError if there is none."""
    if name in EXPERIMENTS:
        return EXPERIMENTS[name]
    path = Path(name)
    if path.suffix != ".py":
        raise UserError(
            f"no experiment is called {name!r}; choose from {', '.join(EXPERIMENTS)}, or give a Python file"
        )
    if not path.is_file():
        raise UserError(f"there is no file {name}; an experiment of your own is a Python file with one Experiment")
    content = vars(python_file.run(python_file.read(name)))
    own = [value for value in content.values() if isinstance(value, Experiment) and value not in EXPERIMENTS.values()]
    if len(own) != 1:
        raise UserError(f"{name} must define one Experiment, got {len(own)}; see evonorm.lab.experiments.experiment")
    if own[0].name in EXPERIMENTS:
        raise UserError(f"{name}: an experiment is called {own[0].name!r} already; give yours another name")
    return own[0]
