"""What kernels are held to, on every device: the float64 reference, and what the reference rounds in their dtype."""

from __future__ import annotations

from collections.abc import Callable

import torch

from evonorm import norm_act
from evonorm.layers import reference
from evonorm.layers.functional import Backend
from evonorm.layers.row import NormAct
from evonorm.layers.table import Setting
from tests import tensors


def group_count(row: NormAct, channels: int) -> int:
    if not row.grouped:
        return 1
    return next(groups for groups in (7, 8, 5, 3, 2, 1) if channels % groups == 0)


def noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return tensors.noise(*shape, seed=seed, dtype=torch.float64)


def laid(x: torch.Tensor, dtype: torch.dtype, channels_last: bool) -> torch.Tensor:
    x = x.to(dtype)
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else x.contiguous()


def parameters(row: NormAct, channels: int, seed: int = 0) -> dict[str, torch.Tensor]:
    names = ["weight", "bias", *row.parameters]
    return {name: noise((channels,), seed + i).float() for i, name in enumerate(names)}


def results(
    evaluate: Callable[..., torch.Tensor], x: torch.Tensor, p: dict[str, torch.Tensor], dy: torch.Tensor
) -> dict[str, torch.Tensor]:
    """y and every gradient, in float64."""
    x = x.detach().requires_grad_()
    p = {
        name: value.detach().to(torch.promote_types(value.dtype, x.dtype)).requires_grad_() for name, value in p.items()
    }
    y = evaluate(x, p)
    y.backward(dy.to(y.dtype))
    return {"y": y.detach().double(), "dx": x.grad.double(), **{f"d{n}": v.grad.double() for n, v in p.items()}}


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).abs().max() / exact.abs().max().clamp(min=1))


def shuffled(t: torch.Tensor, order: int) -> torch.Tensor:
    """t with its positions in another order, the same for each sample and channel; as it is in order 0."""
    at = torch.randperm(t[0, 0].numel(), generator=torch.Generator().manual_seed(order)).to(t.device)
    return t if order == 0 else t.flatten(2)[:, :, at].reshape(t.shape)


def check(
    row: NormAct,
    x: torch.Tensor,
    dy: torch.Tensor,
    p: dict[str, torch.Tensor],
    *,
    running: dict[str, torch.Tensor] | None = None,
    groups: int | None = None,
    names: str = "",
    backend: Backend = "kernel",
    orders: int = 1,
) -> None:
    """err(kernel) <= 2 * err(reference in the same dtype) + 1e-6, relative to the largest value, or to 1.

    orders: in so many orders of the positions, which change no result but how it is rounded, the reference errs at
    most. For values whose sums cancel: there each order's error is a draw about zero, and one alone may be a lucky one.
    """
    groups = group_count(row, x.shape[1]) if groups is None else groups
    training = running is None
    setting = Setting(groups=groups, training=training)

    def by_reference(x, p):
        return reference.evaluate(row, x, dict(p) | (running or {}), setting)

    def by_kernel(x, p):
        return norm_act(x, row.name, **p, **(running or {}), training=training, groups=groups, backend=backend)

    exact = results(by_reference, x.double(), p, dy.double())
    errors = dict.fromkeys(exact, 0.0)
    for order in range(orders):
        values, flow = shuffled(x, order), shuffled(dy, order)
        right = results(by_reference, values.double(), p, flow.double()) if order else exact
        rounded = results(by_reference, values, p, flow)
        errors = {name: max(known, error(rounded[name], right[name])) for name, known in errors.items()}
    found = results(by_kernel, x, p, dy)
    for name in names.split() or exact:
        bound = 2 * errors[name] + 1e-6
        assert error(found[name], exact[name]) <= bound, f"{name}: {error(found[name], exact[name]):.3g} > {bound:.3g}"


def case(row: NormAct, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool, seed: int = 1):
    x = laid(noise(shape, seed) * 1.7 + 0.4, dtype, channels_last)
    return row, x, laid(noise(shape, seed + 1), dtype, channels_last), parameters(row, shape[1], seed + 2)


def trains(row: NormAct, shape: tuple[int, ...]) -> bool:
    return row.native != "batch_norm" or shape[0] * torch.Size(shape[2:]).numel() > 1
