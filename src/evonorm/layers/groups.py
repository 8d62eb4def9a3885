"""How many groups a number of channels is split into; needs no torch."""

from __future__ import annotations

from evonorm.layers.arguments import whole


def groups_in_force(channels: int, groups: int = 32, group_size: int | None = None, *, fit: bool = False) -> int:
    """How many groups `channels` channels are split into.

    groups: wanted number of groups; group_size: wanted channels a group, which takes the place of `groups`.
    fit: where the wanted number does not divide, take the largest divisor of `channels` below it.
    Raises ValueError if it does not divide and `fit` is off, or if it is below 1; TypeError if it is no whole number.
    """
    name, given = ("groups", groups) if group_size is None else ("group_size", group_size)
    wanted = given
    if type(given) is not int or given < 1:  # a compiler follows the comparison alone
        wanted = whole(name, given, otherwise=f"without {name} there are 32 groups")
    if channels % wanted != 0:
        fitting = _largest_divisor(channels, wanted)
        if not fit:
            other, remedy = (
                ("group_size", channels // fitting) if group_size is None else ("groups", channels // fitting)
            )
            raise ValueError(
                f"{name} must divide channels: got channels={channels}, {name}={wanted}; "
                f"use {name}={fitting} (or {other}={remedy}), or fit_groups=True"
            )
        wanted = fitting
    return wanted if group_size is None else channels // wanted


def _largest_divisor(number: int, at_most: int) -> int:
    return next(divisor for divisor in range(min(at_most, number), 0, -1) if number % divisor == 0)
