"""The layers' formulas in float64 NumPy, written from facts and papers, sharing no code with the package."""

from __future__ import annotations

import numpy as np


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(z / 2))


def oracle(name: str, x: np.ndarray, *, groups: int = 1, eps: float = 1e-5, activate: bool = True, **p: np.ndarray):
    """y for x: (N, C, H, W), training mode. p: weight, bias, v, tau, each (C,); var, mean: fixed batch statistics."""
    n, c = x.shape[:2]
    x = x.astype(np.float64)
    p = {key: value.astype(np.float64).reshape(1, c, 1, 1) for key, value in p.items()}
    weight, bias = p.get("weight", 1.0), p.get("bias", 0.0)
    batch_mean = p.get("mean", x.mean((0, 2, 3), keepdims=True))
    batch_std = np.sqrt(p.get("var", x.var((0, 2, 3), keepdims=True)) + eps)
    instance_std = np.sqrt(x.var((2, 3), keepdims=True) + eps)
    instance_rms = np.sqrt((x**2).mean((2, 3), keepdims=True) + eps)
    per_group = x.reshape(n, groups, -1)

    def spread(statistic: np.ndarray) -> np.ndarray:
        return np.repeat(statistic, c // groups, axis=1).reshape(n, c, 1, 1)

    group_mean = spread(per_group.mean(2))
    group_std = spread(np.sqrt(per_group.var(2) + eps))
    group_rms = spread(np.sqrt((per_group**2).mean(2) + eps))
    silu = x * sigmoid(x)
    if name.startswith("evonorm") and not activate and not name.endswith("a"):
        return x * weight + bias
    match name:
        case "evonorm-b0":
            return x / np.maximum(batch_std, p["v"] * x + instance_std) * weight + bias
        case "evonorm-b1":
            return x / np.maximum(batch_std, (x + 1) * instance_rms) * weight + bias
        case "evonorm-b2":
            return x / np.maximum(batch_std, instance_rms - x) * weight + bias
        case "evonorm-s0a" | "evonorm-s1a" | "evonorm-s2a" if not activate:
            return x / (group_rms if name == "evonorm-s2a" else group_std) * weight + bias
        case "evonorm-s0" | "evonorm-s0a":
            return x * sigmoid(p["v"] * x) / group_std * weight + bias
        case "evonorm-s1" | "evonorm-s1a":
            return silu / group_std * weight + bias
        case "evonorm-s2" | "evonorm-s2a":
            return silu / group_rms * weight + bias
        case "frn-tlu":
            y = x / instance_rms * weight + bias
            return np.maximum(y, p["tau"]) if activate else y
        case "bn-relu" | "bn-silu":
            y = (x - batch_mean) / batch_std * weight + bias
        case "gn-relu" | "gn-silu":
            y = (x - group_mean) / group_std * weight + bias
        case "none":
            return x
        case _:
            raise AssertionError(f"the oracle does not know {name}")
    if not activate:
        return y
    return np.maximum(y, 0) if name.endswith("relu") else y * sigmoid(y)
