"""NormActivation: every layer of the table as one module."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from evonorm.layers import table
from evonorm.layers.arguments import channels_and_layer, real, refuse_as_norm_layer, whole
from evonorm.layers.functional import BACKENDS, Backend, norm_act
from evonorm.layers.groups import groups_in_force

_CUMULATIVE = "for an average over all batches build the layer with momentum=None, or call evonorm.update_statistics"


class NormActivation(nn.Module):
    """Normalization and activation in one layer, in the place of BatchNorm and the ReLU after it.

    y = formula of `layer`; for evonorm-s0, x * sigmoid(v * x) / std_group(x) * weight + bias. x, y: (N, C, *) with one
    to three spatial dimensions; float32, float64, float16 or bfloat16, statistics in float32 at least.

    channels: C. layer: a name of the table (`evonorm layers`). groups, group_size: number of groups, or channels a
    group, of the layers with group statistics; fit_groups takes the largest divisor of C not above it, as the paper's
    code does. activate=False leaves affine alone of an EvoNorm, and normalization with affine of evonorm-s0a, -s1a,
    -s2a and the others. eps: default the layer's own. momentum: weight of the newest batch in running statistics; None
    gives every batch the same, as in torch's norms, and as those reads its count from the device in each step: no CUDA
    graph captures it. backend, sync: as in norm_act.

    conditional: features of a condition that each sample brings: layer(x, condition), condition (N, features), as in
    generators, diffusion's U-Nets and style layers. Then weight = 1 + to_weight(condition) and bias =
    to_bias(condition), (N, C) both, with to_weight and to_bias linear maps without bias, (C, features), that begin at
    0; any other module may stand in their place. A layer without weight and bias takes the condition, and leaves it.

    Parameters and buffers, each (C,) and only where the layer has it: weight (1), bias (0), v (1), tau (0),
    running_mean (0), running_var (1); with momentum=None also num_batches_tracked, a number.

    torch's helpers know torch's own norms alone: in the place of torch.optim.swa_utils.update_bn stands
    evonorm.update_statistics, of SyncBatchNorm.convert_sync_batchnorm evonorm.convert_sync. torch.fx records this
    layer as one step. torch.jit.script refuses it; torch.compile, torch.export and torch.jit.trace take it.

    Raises ValueError if the layer is unknown, groups does not divide C or a number is out of range; TypeError if one
    is none, or if a constructor of torchvision or timm makes this as its norm_layer, since it adds an activation of
    its own: see evonorm.convert and evonorm.norm_layer.
    Source: arXiv 2004.02967, and each row of the table; conditional: Brock, Donahue, Simonyan 2018, arXiv 1809.11096.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    v: nn.Parameter | None
    tau: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    to_weight: nn.Module | None
    to_bias: nn.Module | None

    def __init__(
        self,
        channels: int,
        layer: str = "evonorm-s0",
        *,
        groups: int = 32,
        group_size: int | None = None,
        fit_groups: bool = False,
        activate: bool = True,
        eps: float | None = None,
        momentum: float | None = 0.1,
        conditional: int | None = None,
        backend: Backend = "auto",
        sync: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        refuse_as_norm_layer(self)
        channels = channels_and_layer(channels, layer)
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}: got {backend!r}")
        row = table.get(layer)
        self.channels = channels
        self.layer = layer
        self.grouped = row.grouped
        self.groups = groups_in_force(channels, groups, group_size, fit=fit_groups) if row.grouped else 1
        self.activate = activate
        self.eps = row.eps if eps is None else real("eps", eps)
        self.momentum = None if momentum is None else real("momentum", momentum, at_most=1.0, otherwise=_CUMULATIVE)
        self.conditional = None if conditional is None else whole("conditional", conditional)
        self.backend = backend
        self.sync = sync

        used = row.read(activate=activate)
        self._initial = {"weight": 1.0, "bias": 0.0} if row.affine and conditional is None else {}
        self._initial |= {name: row.parameters[name] for name in used.parameters}
        self._running = used.running
        self._others = tuple(name for name in used.parameters if name not in ("v", "tau"))
        if taken := [name for name in self._others if hasattr(self, name)]:
            raise ValueError(f"{layer}: a parameter cannot be called {taken[0]!r}, which every module has; rename it")
        for name in ("weight", "bias", "v", "tau", *self._others):
            value = torch.empty(channels, device=device, dtype=dtype) if name in self._initial else None
            self.register_parameter(name, None if value is None else nn.Parameter(value))
        self.to_weight = self.to_bias = None  # not registered, or every layer's repr would tell of them
        if row.affine and self.conditional is not None:
            self.to_weight = nn.Linear(self.conditional, channels, bias=False, device=device, dtype=dtype)
            self.to_bias = nn.Linear(self.conditional, channels, bias=False, device=device, dtype=dtype)
        for name in ("running_mean", "running_var"):
            value = torch.empty(channels, device=device, dtype=dtype) if name in self._running else None
            self.register_buffer(name, value)
        counts = momentum is None and self._running
        self.register_buffer("num_batches_tracked", torch.tensor(0, device=device) if counts else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Puts parameters and running statistics back to their initial values."""
        with torch.no_grad():
            for name, value in self._initial.items():
                getattr(self, name).fill_(value)
            for parameter in (p for child in self.children() for p in child.parameters()):
                parameter.zero_()
        self.reset_running_stats()

    def reset_running_stats(self) -> None:
        """Puts running statistics back to their initial values, as the method of torch's norms does."""
        with torch.no_grad():
            for name in self._running:
                getattr(self, name).fill_(1.0 if name == "running_var" else 0.0)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.zero_()

    def __call__(self, x: Any, condition: Any = None) -> Any:
        """As any module's; but torch.fx, whatever its tracer, records this layer as one step, with nothing inside.

        So a graph's train() and eval() reach it, and hooks see values alone.
        """
        given = (x,) if condition is None else (x, condition)
        if not (isinstance(x, fx.Proxy) or isinstance(condition, fx.Proxy)):
            return super().__call__(*given)
        tracer: Any = (x if isinstance(x, fx.Proxy) else condition).tracer

        def step(*args: Any) -> fx.Proxy:
            return tracer.create_proxy("call_module", tracer.path_of_module(self), args, {})  # type: ignore[no-any-return]

        return tracer.call_module(self, step, given, {})

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script calls first."""
        raise TypeError(
            "torch.jit.script does not follow NormActivation, whose formula is chosen from a table: use torch.export "
            "or torch.compile, or torch.jit.trace where it must be TorchScript"
        )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x, y: (N, C, *). condition: (N, features), for a conditional layer, and for none other.

        Raises ValueError if x has another number of channels, or the condition is missing or of another shape.
        """
        if isinstance(x, Tensor) and x.dim() > 1 and x.shape[1] != self.channels:
            raise ValueError(f"this layer has {self.channels} channels: got x of shape {tuple(x.shape)}")
        weight, bias = self._affine(x, condition)
        return norm_act(
            x,
            self.layer,
            weight,
            bias,
            v=self.v,
            tau=self.tau,
            parameters={name: getattr(self, name) for name in self._others} if self._others else None,
            running_mean=self.running_mean,
            running_var=self.running_var,
            training=self.training,
            groups=self.groups,
            eps=self.eps,
            momentum=self._share(),
            activate=self.activate,
            backend=self.backend,
            sync=self.sync,
        )

    def _affine(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        # torch.fx gives a layer that it traces by itself a symbol for what is left out.
        symbolic = isinstance(condition, fx.Proxy)
        if self.conditional is None and (condition is None or symbolic):
            return self.weight, self.bias
        if condition is None:
            raise ValueError(
                f"this layer is conditional, with {self.conditional} features: call layer(x, condition), condition "
                f"(N, {self.conditional})"
            )
        if self.conditional is None:
            raise ValueError(
                f"this layer takes no condition, got one of shape {tuple(condition.shape)}: build it with "
                f"conditional={condition.shape[-1]}, or call layer(x)"
            )
        if not symbolic and condition.shape != (x.shape[0], self.conditional):
            raise ValueError(
                f"condition must be (N, features), here {(x.shape[0], self.conditional)}: got shape "
                f"{tuple(condition.shape)} for x of shape {tuple(x.shape)}"
            )
        if self.to_weight is None or self.to_bias is None:
            return None, None
        return 1 + self.to_weight(condition), self.to_bias(condition)

    def _share(self) -> float:
        """Of this batch in the running statistics; counts it."""
        if self.num_batches_tracked is not None and self.training:
            self.num_batches_tracked.add_(1)
        if self.momentum is not None:
            return self.momentum
        if not (self.training and self._running):
            return 0.0
        if self.num_batches_tracked is None:
            raise ValueError(f"momentum=None was set after construction; {_CUMULATIVE}")
        return 1.0 / float(self.num_batches_tracked)

    def extra_repr(self) -> str:
        """Layer, channels, and the groups in force."""
        parts = [f"{self.channels}", f"layer={self.layer!r}"]
        parts += [f"groups={self.groups}"] if self.grouped else []
        parts += [f"eps={self.eps:g}"] if self._initial or self.to_weight is not None else []
        parts += ["momentum=None" if self.momentum is None else f"momentum={self.momentum:g}"] if self._running else []
        parts += [] if self.activate else ["activate=False"]
        parts += [] if self.conditional is None else [f"conditional={self.conditional}"]
        parts += [] if self.backend == "auto" else [f"backend={self.backend!r}"]
        parts += ["sync=True"] if self.sync else []
        return ", ".join(parts)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        # A module pickled whole before there was a count, or a condition.
        self._buffers.setdefault("num_batches_tracked", None)
        if "conditional" not in self.__dict__:
            self.conditional = self.to_weight = self.to_bias = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # torch's batch norms always count batches, for which a fixed momentum has no use.
        if self.num_batches_tracked is None:
            state_dict.pop(f"{prefix}num_batches_tracked", None)
        else:
            state_dict.setdefault(f"{prefix}num_batches_tracked", self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *args)
