"""norm_act: every layer of the table as a function without state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from evonorm.layers import kernels, native, reference, table
from evonorm.layers.arguments import real
from evonorm.layers.groups import groups_in_force
from evonorm.layers.row import NormAct

Backend = Literal["auto", "kernel", "triton", "reference"]
BACKENDS = ("auto", "kernel", "triton", "reference")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_OF_AFFINE = ("weight", "bias")


def norm_act(
    x: Tensor,
    layer: str = "evonorm-s0",
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    v: Tensor | None = None,
    tau: Tensor | None = None,
    parameters: Mapping[str, Tensor] | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool = False,
    groups: int = 32,
    eps: float | None = None,
    momentum: float = 0.1,
    activate: bool = True,
    backend: Backend = "auto",
    sync: bool = False,
) -> Tensor:
    """y = formula of `layer` (see `evonorm layers`); for evonorm-s0, x * sigmoid(v * x) / std_group * weight + bias.

    x: (N, C, *) with one to three spatial dimensions; float32, float64, float16 or bfloat16; statistics are computed
    in float32 at least. y: as x, in shape, dtype and memory format. weight, bias, v, tau, running_mean, running_var:
    (C,), each only for the layers that have it; a missing weight counts as 1, a missing bias as 0. weight, bias: also
    (N, C), each sample's own, as a conditional layer has them. parameters: those of an added layer that has others, by
    name. When training,
    running statistics are updated in place, running = (1 - momentum) * running + momentum * batch, and no gradient
    flows into them; otherwise they stand in for the batch's. eps: default the layer's own. activate=False leaves
    affine alone of an EvoNorm, and normalization with affine of evonorm-s0a, -s1a, -s2a and the others.

    backend: `kernel` is the fused kernel of x's device, `reference` plain torch (for bn-* and gn-* torch's own layers),
    `auto` the kernel wherever one serves. `triton` asks by name for the kernels in Triton: on CUDA, or on the CPU under
    TRITON_INTERPRET=1. sync: batch statistics are taken over all processes of torch.distributed, where it
    is initialized; each must then call this together with the others.

    x and parameters may differ in dtype. torch.fx and every other kind of tensor with __torch_function__ see one call.

    Raises ValueError if the layer is unknown, x has another shape or dtype, groups does not divide C, a parameter has
    another shape, is missing, or is none of the layer's, and if the kernels asked for do not serve, with the reason;
    TypeError if x is no tensor, or a number is none.
    """
    others = dict(parameters or {})
    tensors = (x, weight, bias, v, tau, *others.values(), running_mean, running_var)
    if has_torch_function_variadic(*tensors):
        dispatch: Any = handle_torch_function
        return dispatch(  # type: ignore[no-any-return]
            norm_act,
            tensors,
            x,
            layer,
            weight,
            bias,
            v=v,
            tau=tau,
            parameters=parameters,
            running_mean=running_mean,
            running_var=running_var,
            training=training,
            groups=groups,
            eps=eps,
            momentum=momentum,
            activate=activate,
            backend=backend,
            sync=sync,
        )
    row = table.get(layer)
    given = {
        "weight": weight,
        "bias": bias,
        "v": v,
        "tau": tau,
        **others,
        "running_mean": running_mean,
        "running_var": running_var,
    }
    _check(row, x, given, training=training, activate=activate)
    if type(momentum) is not float:
        counted = "an average over all batches needs a count, which NormActivation(..., momentum=None) keeps"
        momentum = real("momentum", momentum, at_most=1.0, otherwise=counted)
    if eps is not None and type(eps) is not float:
        eps = real("eps", eps)
    setting = table.Setting(
        groups=groups_in_force(x.shape[1], groups) if row.grouped else 1,
        eps=row.eps if eps is None else eps,
        momentum=momentum,
        training=training,
        activate=activate,
        replicas=_replicas() if sync and training and row.running else 1,
        conditional=any(affine is not None and affine.dim() == 2 for affine in (weight, bias)),
    )
    if _takes_kernel(row, x, setting, backend):
        return kernels.evaluate(row, x, given, setting, backend)
    # torch's own batch_norm knows one process alone.
    evaluate = native.evaluate if row.native and setting.replicas == 1 else reference.evaluate
    return evaluate(row, x, given, setting)


def _takes_kernel(row: NormAct, x: Tensor, setting: table.Setting, backend: Backend) -> bool:
    if backend == "reference":
        return False
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}: got {backend!r}")
    why = kernels.supports(row, x, setting, backend)
    if why is None:
        return True
    if backend != "auto":
        raise ValueError(
            f"backend={backend!r} does not serve {row.name} here: {why}; use backend='auto' or 'reference'"
        )
    if x.device.type == "cpu":
        kernels.warn_once()
    return False


def _replicas() -> int:
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def _check(row: NormAct, x: Tensor, parameters: dict[str, Tensor | None], *, training: bool, activate: bool) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor: got {type(x).__name__}")
    if not 3 <= x.dim() <= 5:
        raise ValueError(f"x must be (N, C, *) with one to three spatial dimensions: got shape {tuple(x.shape)}")
    if x.dtype not in DTYPES:
        raise ValueError(f"x must be one of {', '.join(str(dtype) for dtype in DTYPES)}: got {x.dtype}")
    channels = x.shape[1]
    known = {*(_OF_AFFINE if row.affine else ()), *row.parameters, *row.running}
    for name, value in parameters.items():
        if value is None:
            continue
        if name not in known:
            raise ValueError(f"{row.name} has no {name}; it has {', '.join(sorted(known)) or 'no parameters'}")
        # A compiler that follows this may compare shapes of one length alone, or it would tie the batch to a number.
        one_a_sample = name in _OF_AFFINE and value.dim() == 2
        expected = (x.shape[0], channels) if one_a_sample else (channels,)
        if value.dim() != len(expected) or value.shape != expected:
            also = f", or one a sample and channel, {(x.shape[0], channels)}" if name in _OF_AFFINE else ""
            raise ValueError(
                f"{name} must have one value a channel{also}: got {tuple(value.shape)} for {channels} channels"
            )
    needed = row.read(activate=activate)
    for name in (*needed.parameters, *(() if training else needed.running)):
        if parameters.get(name) is None:
            when = " when not training" if name in row.running else ""
            how = f"{name}=..." if name in parameters else f"parameters={{{name!r}: ...}}"
            raise ValueError(f"{row.name} needs {name}{when}: pass {how}, one value a channel")
