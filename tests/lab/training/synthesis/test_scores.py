"""Frechet distance and Inception-style score against closed forms and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from evonorm.lab.training.synthesis.scores import frechet, inception_style


def drawn(rows: int, features: int, seed: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    mixed = torch.randn(features, features, generator=source, dtype=torch.float64)
    return torch.randn(rows, features, generator=source, dtype=torch.float64) @ mixed + seed


@pytest.mark.parametrize("rows", [40, 5])  # 5: fewer than features, so that covariances are singular
def test_frechet_is_the_papers_formula(rows: int) -> None:
    one, other = drawn(rows, 7, 1), drawn(rows + 3, 7, 2)
    s1, s2 = np.cov(one.numpy(), rowvar=False), np.cov(other.numpy(), rowvar=False)
    root = scipy.linalg.sqrtm(s1 @ s2).real
    means = one.numpy().mean(0) - other.numpy().mean(0)
    assert frechet(one, other) == pytest.approx(means @ means + np.trace(s1 + s2 - 2 * root), rel=1e-5)


def test_frechet_of_what_is_known() -> None:
    x = drawn(50, 6, 1)
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet(x, x + 2) == pytest.approx(4 * 6)
    centred = x - x.mean(0)
    assert frechet(centred, 3 * centred) == pytest.approx(4 * centred.T.cov().trace().item())
    assert frechet(x, drawn(30, 6, 2)) == pytest.approx(frechet(drawn(30, 6, 2), x))
    assert math.isnan(frechet(x, torch.full_like(x, torch.nan)))


def test_the_score_of_what_is_known() -> None:
    sure = 1e3 * torch.eye(10)
    assert inception_style(sure) == pytest.approx(10)  # each its own class, all alike often
    assert inception_style(sure[:2]) == pytest.approx(2)
    assert inception_style(torch.zeros(5, 10)) == pytest.approx(1)  # unsure of each
    assert inception_style(sure[:1].expand(6, 10)) == pytest.approx(1)  # sure, of one class
