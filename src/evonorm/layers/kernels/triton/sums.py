"""The sums of backward: what is written of them, and what they feed back through the statistics of a sample.

sums: (N, chunks, SUMS, C): of each chunk its share of the gradients of bias, weight and extra and, in rows with
statistics of both batch and instance, what flows into the two. dx = alpha * h + kappa * (x - centre) + lambda.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def keep_sums(
    sums, at, c, live, C, by_bias, by_weight, by_extra, by_instance, by_batch, w, scale,
    EXTRA: tl.constexpr, FACTOR: tl.constexpr, SCALED: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """Writes the shares of the gradients, and in rows of 5 sums what flows into statistics."""
    to = sums + at * SUMS * C + c
    tl.store(to, by_bias, mask=live)
    tl.store(to + C, by_weight * scale, mask=live)
    if EXTRA:
        factor = w * scale * FACTOR if SCALED else FACTOR
        tl.store(to + 2 * C, by_extra * factor, mask=live)
    if SUMS == 5:
        tl.store(to + 3 * C, by_instance, mask=live)
        tl.store(to + 4 * C, by_batch, mask=live)


@triton.jit
def of_chunks(sums, j, n, c, live, C, chunks, SUMS: tl.constexpr, CH: tl.constexpr, K: tl.constexpr):
    """Sum j of each channel over K or fewer chunks."""
    k = tl.arange(0, K)
    at = sums + ((n * chunks + k[:, None]) * SUMS + j) * C + c[None, :]
    return tl.sum(tl.load(at, mask=live[None, :] & (k < chunks)[:, None], other=0.0), 0)


@triton.jit
def fed_back(by_scale, by_centre, scale, number, S, SUBTRACTS: tl.constexpr):
    """kappa and lambda of statistics of a sample alone, from sums over `number` channels of S positions."""
    per_value = scale / (tl.maximum(number, 1.0) * S)
    kappa = -by_scale * per_value * scale
    lam = -by_centre * per_value if SUBTRACTS else tl.zeros_like(kappa)
    return kappa, lam
