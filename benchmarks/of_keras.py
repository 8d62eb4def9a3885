"""What the docs say of the report's notebook in Keras, from the records in results/."""

from __future__ import annotations

from pathlib import Path

from evonorm.lab.records import run_files
from evonorm.lab.records.run_files import Record

RESULTS = Path(__file__).parents[1] / "results" / "keras-notebook"


def notebook() -> str:
    """What both ran on, and the last epoch of each layer beside that of `evonorm train`."""
    records = run_files.read_all(RESULTS).records
    here = {record.config["layer"]: record for record in records if "keras" in record.environment}
    lab = {record.config["layer"]: record for record in records if "keras" not in record.environment}
    (machine,) = {_ran_on(record) for record in here.values()}
    (torch,) = {record.environment["torch"].partition("+")[0] for record in lab.values()}
    (setting,) = {_setting(record) for record in records}
    lines = [
        f"{setting} {machine}; `evonorm train`: torch {torch}.",
        "",
        "| layer | training / test images | Keras: training loss, accuracy; test loss, accuracy "
        "| `evonorm train`: the same |",
        "|---|---|---|---|",
    ]
    for layer, record in sorted(here.items(), key=lambda item: -item[1].dataset["train_images"]):
        images = f"{record.dataset['train_images']:,} / {record.dataset['test_images']:,}"
        lines.append(f"| {layer} | {images} | {_last(record)} | {_last(lab[layer])} |")
    return "\n".join(lines)


def _setting(record: Record) -> str:
    config = record.config
    assert not config["augment"]
    return (
        f"{config['optimizer'].upper()}, batches of {config['batch_size']}, seed {config['seeds']['model']}, no "
        f"augmentation, dropout {config['dropout']}, {config['precision']}; epoch {len(record.metrics)} of "
        f"{config['epochs']}."
    )


def _ran_on(record: Record) -> str:
    found = record.environment
    return f"Keras {found['keras']} with {found['backend']} {found[found['backend']]}, {found['cores']} cores"


def _last(record: Record) -> str:
    epoch = record.metrics[-1]
    return "; ".join(
        f"{epoch[f'{split}_loss']:.3f}, {100 * epoch[f'{split}_accuracy']:.1f} %" for split in ("train", "val")
    )
