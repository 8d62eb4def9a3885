"""The axis that nearly every experiment has: layers of the table, by name."""

from __future__ import annotations

from evonorm.lab.experiments.experiment import Axis, of


def layers(*names: str) -> Axis:
    """These layers unless others are asked for; without names, every row of the table that is no variant of another."""

    def known(name: str) -> str:
        from evonorm.layers import table

        return table.get(name).name

    def every() -> tuple[str, ...]:
        from evonorm.layers import table

        return table.distinct()

    return Axis(
        "layer", of(*names) if names else lambda cell: every(), help="" if names else "the whole table", known=known
    )
