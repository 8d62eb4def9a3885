"""How near samples are to images: Frechet distance and Inception-style score, of a network's features and logits.

With the Inception network of the papers these are FID and IS. With any other they are not comparable with published
figures: only with each other, by the same network, on the same images, over the same number of samples.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frechet(one: Tensor, other: Tensor) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 sqrt(S1 S2)), of means m and covariances S of two sets of features, (n, F) each.

    In float64. NaN where a feature is not finite. Needs two rows at least of each; it grows as they get fewer.
    Source: Heusel et al. 2017, arXiv 1706.08500.
    """
    one, other = one.double(), other.double()
    if not (one.isfinite().all() and other.isfinite().all()):
        return float("nan")
    s1, s2 = one.T.cov(), other.T.cov()
    # The trace of a product's root: the eigenvalues of S1 S2 are real and not negative, up to rounding.
    shared = torch.linalg.eigvals(s1 @ s2).real.clamp(min=0).sqrt().sum()
    means = (one.mean(0) - other.mean(0)).square().sum()
    return float(means + s1.trace() + s2.trace() - 2 * shared)


def inception_style(logits: Tensor) -> float:
    """exp(mean KL(p(class | sample) || p(class))), between 1 and the number of classes; logits: (n, classes).

    The logarithm is the mean's entropy less the mean entropy, over all samples at once, without the papers' splits.
    Source: Salimans et al. 2016, arXiv 1606.03498.
    """
    p = logits.double().softmax(1)
    entropies = torch.special.entr(p).sum(1)
    return float((torch.special.entr(p.mean(0)).sum() - entropies.mean()).exp())
