"""Small networks, one for each way in which a normalization meets its activation; each says what must become of it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Network(nn.Module):
    """sites: for each normalization, how its line in the plan begins."""

    sites: ClassVar[dict[str, str]]
    shape: ClassVar[tuple[int, ...]] = (2, 8, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)


class FunctionalRelu(Network):
    sites: ClassVar = {"bn": "replaced with its ReLU (F.relu(self.bn(self.conv(x))) in the model.forward)"}

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class FunctionalInPlace(Network):
    sites: ClassVar = {"bn": "replaced with its ReLU (F.relu(x, inplace=True) in the model.forward)"}

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x, inplace=True)


class InPlaceWithoutAssignment(Network):
    """What is read after the call is activated, although it is the norm's own output."""

    sites: ClassVar = {"bn": "replaced with its ReLU"}

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        F.relu_(y)
        return y + x


class InPlaceAfterReading(Network):
    """The addition reads the norm's output before it is overwritten."""

    sites: ClassVar = {"bn": "kept: ReLU follows, but its output is read elsewhere too: an addition follows"}

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        z = y + x
        return z * y.relu_()


class Method(Network):
    sites: ClassVar = {"bn": "replaced with its ReLU (self.bn(self.conv(x)).relu() in the model.forward)"}

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class HelperMethod(Network):
    """The call stands in another method, over several lines, with super() beside it."""

    sites: ClassVar = {"bn": "replaced with its SiLU"}

    def _activated(self, x: Tensor, *, twice: bool = False) -> Tensor:
        assert super().__getattr__("bn") is self.bn
        y = F.silu(
            self.bn(self.conv(x)),
        )
        return y + y if twice else y

    def forward(self, x: Tensor) -> Tensor:
        return self._activated(x, twice=True)


def outside(x: Tensor) -> Tensor:
    return F.relu(x) + 1


class HelperFunction(Network):
    sites: ClassVar = {
        "bn": "kept: ReLU follows, which cannot be switched off for it alone: it is called outside the model's own"
    }

    def forward(self, x: Tensor) -> Tensor:
        return outside(self.bn(self.conv(x)))


class Residual(Network):
    """torchvision's BasicBlock: one ReLU module for both its places."""

    sites: ClassVar = {
        "bn": "replaced with its ReLU (self.relu(y) in the model.forward)",
        "bn2": "kept: an addition follows",
    }

    def __init__(self) -> None:
        super().__init__()
        self.bn2 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        y = self.relu(y)
        y = self.bn2(self.conv(y))
        y += x
        return self.relu(y)


class TrainingOnly(Network):
    """What depends on training stays so after a call has been taken out of the method."""

    sites: ClassVar = {"bn": "replaced with its ReLU"}

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        x = F.dropout(x, 0.5, training=self.training)
        if self.training:
            x = x * 2
        return x


class OneModuleInTwoSlots(nn.Module):
    """The same ReLU object twice in a sequence, once after an average that keeps it."""

    sites: ClassVar = {"body.1": "replaced with its ReLU (body[2])", "body.3": "kept: AvgPool2d follows"}
    shape: ClassVar = (2, 8, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        relu = nn.ReLU()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), relu, nn.BatchNorm2d(8), nn.AvgPool2d(2), relu)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class LoopOverOneLine(Network):
    """One call in the source for three norms, of which one is followed by something else."""

    sites: ClassVar = {
        "bn": "kept: Conv2d follows",
        "norms.0": "replaced with its ReLU",
        "norms.1": "replaced with its ReLU",
    }

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.norms:
            x = F.relu(norm(x))
        return self.conv(self.bn(x))


class LoopThatServesOthers(Network):
    """The line's ReLU is also needed after the convolution."""

    sites: ClassVar = {
        "bn": "kept: ReLU follows, which cannot be switched off for it alone: the same line of code serves others"
    }

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.bn, self.conv):
            x = F.relu(layer(x))
        return x


class Branches(Network):
    sites: ClassVar = {
        "bn": "replaced with its ReLU",
        "bn2": "kept: ReLU follows, but its output is read elsewhere too: a multiplication follows",
        "bn3": "kept: several activations follow: ReLU, SiLU",
    }

    def __init__(self) -> None:
        super().__init__()
        self.bn2, self.bn3 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        a = self.bn(self.conv(x))
        b = self.bn2(self.conv(x))
        c = self.bn3(x)
        return F.relu(a) + torch.relu(a) + F.relu(b) + b * 2 + F.relu(c) + F.silu(c)


class Separated(Network):
    """Something between norm and activation: identities pass, dropout, pooling and concatenation do not."""

    sites: ClassVar = {
        "bn": "replaced with its ReLU (act)",
        "bn2": "kept: Dropout follows",
        "bn3": "kept: a concatenation follows",
        "bn4": "kept: Sigmoid follows",
    }

    def __init__(self) -> None:
        super().__init__()
        self.bn2, self.bn3, self.bn4 = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.between, self.drop, self.act = nn.Identity(), nn.Dropout(0.5), nn.ReLU()
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        a = self.act(self.between(self.bn(self.conv(x))))
        b = F.relu(self.drop(self.bn2(a)))
        c = F.relu(torch.cat([self.bn3(b), x], 1))[:, :8]
        return c * self.gate(self.bn4(x))


class PreActivation(Network):
    sites: ClassVar = {"bn": "replaced with its ReLU (act)"}

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.act(self.bn(x)))


class NormTwice(Network):
    """One module called twice: with an activation each time, or not."""

    sites: ClassVar = {
        "bn": "replaced with its ReLU",
        "bn2": "kept: it is called several times, and what follows differs",
    }

    def __init__(self) -> None:
        super().__init__()
        self.bn2 = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(x)) + F.relu(self.bn(self.conv(x)))
        return F.relu(self.bn2(x)) + self.bn2(self.conv(x))


class UnderTwoNames(Network):
    """One block registered twice: it stays one."""

    sites: ClassVar = {"bn": "kept: no forward", "first.1": "replaced with its ReLU (first.2)"}

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class Gelu(Network):
    sites: ClassVar = {"bn": "replaced with its GELU"}

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.bn(x), approximate="tanh")


class MySwish(nn.Module):
    """An activation that torch does not know."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Ours(Network):
    sites: ClassVar = {
        "bn": "replaced with its MySwish (acts.0)",
        "bn2": "replaced with its Hardswish",
        "bn3": "replaced with its ReLU6",
        "bn4": "replaced with its PReLU",
    }

    def __init__(self) -> None:
        super().__init__()
        self.bn2, self.bn3, self.bn4 = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.acts = nn.ModuleList([MySwish(), nn.Hardswish(inplace=True), nn.ReLU6(), nn.PReLU(8)])

    def forward(self, x: Tensor) -> Tensor:
        for norm, act in zip((self.bn, self.bn2, self.bn3, self.bn4), self.acts, strict=True):
            x = act(norm(x))
        return x


class UntracedPlain(Network):
    """Its forward asks for values; what the source says plainly is taken, the rest is not."""

    sites: ClassVar = {
        "bn": "replaced with its ReLU (act); by structure, not followed",
        "bn2": "kept: what follows is unknown",
        "part.1": "replaced with its SiLU (part.2)",
        "last.1": "kept: it is the output of last, beyond which the data could not be followed",
    }

    def __init__(self) -> None:
        super().__init__()
        self.bn2 = nn.BatchNorm2d(8)
        self.act, self.act2 = nn.ReLU(), nn.ReLU()
        self.part = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.SiLU())
        self.last = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        y = self.act(y)
        if float(y.detach().sum()) > 1e9:
            return y
        z = self.bn2(self.conv(y))
        z = z + x
        return self.last(self.part(self.act2(z)))


class Norms(Network):
    """Many norms, one after another."""

    def __init__(self) -> None:
        super().__init__()
        for name in self.sites:
            self.add_module(name, nn.BatchNorm2d(8))
        self.sigmoid = nn.Sigmoid()


class WrittenOut(Norms):
    """Operations that amount to an activation, in one expression or in several statements."""

    sites: ClassVar = {
        "bn": "replaced with its SiLU (x * torch.sigmoid(x) in the model.forward)",
        "bn1": "replaced with its SiLU (self.sigmoid(x) * x in the model.forward)",
        "bn2": "replaced with its SiLU (x * gate in the model.forward)",
        "bn3": "replaced with its ReLU (x.clamp(min=0) in the model.forward)",
        "bn4": "replaced with its ReLU6 (torch.clamp(input=x, min=0, max=6) in the model.forward)",
        "bn5": "replaced with its Hardswish (x * F.relu6(x + 3) / 6 in the model.forward)",
        "bn6": "replaced with its ReLU (torch.where(x > 0, x, torch.zeros_like(x)) in the model.forward)",
        "bn7": "replaced with its GELU (tanh) (0.5 * x * (1 + torch.tanh(",
        "bn8": "replaced with its LeakyReLU (torch.maximum(x, x * 0.1) in the model.forward)",
        "bn9": "replaced with its Mish (z.mul(z.exp().log1p().tanh()) in the model.forward)",
    }

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        x = x * torch.sigmoid(x)
        x = self.bn1(x)
        x = self.sigmoid(x) * x
        x = self.bn2(x)
        gate = x.sigmoid()
        x = x * gate
        x = self.bn3(x)
        x = x.clamp(min=0)
        x = self.bn4(x)
        x = torch.clamp(input=x, min=0, max=6)
        x = self.bn5(x)
        x = x * F.relu6(x + 3) / 6
        x = self.bn6(x)
        x = torch.where(x > 0, x, torch.zeros_like(x))
        x = self.bn7(x)
        x = (
            0.5
            * x
            * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3)))
        )  # fmt: skip
        x = self.bn8(x)
        x = torch.maximum(x, x * 0.1)
        z = self.bn9(x)
        return z.mul(z.exp().log1p().tanh())


class WrittenOutOtherwise(Norms):
    """What looks like an activation written out, and is none, or cannot be taken out; and two that can."""

    sites: ClassVar = {
        "bn": "kept: Sigmoid follows",
        "bn1": "kept: SiLU follows, which cannot be switched off for it alone: it is no expression of its own",
        "bn2": "kept: a multiplication follows",
        "bn3": "kept: dropout follows",
        "bn4": "replaced with its SiLU (x * torch.sigmoid(x) in the model.forward)",
        "bn5": "kept: Hardswish follows, which cannot be switched off for it alone: F.relu6(shifted)",
        "bn6": "replaced with its ReLU (x.clamp_(min=0) in the model.forward)",
        "bn7": "kept: mean follows",
        "bn8": "kept: a multiplication follows",
    }

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        x = x + y * self.sigmoid(y) + y
        x = self.bn1(x)
        x *= torch.sigmoid(x)
        x = self.bn2(x)
        x = F.relu(x * 2)
        x = F.relu(F.dropout(self.bn3(x), 0.0))
        x = self.bn4(x)
        x = x * torch.sigmoid(x) * 2
        x = self.bn5(x)
        shifted = x + 3
        x = F.relu6(shifted) * (shifted - 3) / 6
        x = self.bn6(x)
        x.clamp_(min=0)
        x = self.bn7(x)
        x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
        x = self.bn8(x)
        return x * torch.sigmoid(x * self.bn.weight[:, None, None])


class OneAndThreeDimensional(nn.Module):
    sites: ClassVar = {
        "line.1": "replaced with its ReLU",
        "space.1": "replaced with its ReLU",
        "head.1": "kept: its input is (N, C), without space",
    }
    shape: ClassVar = (2, 8, 4)

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU())
        self.space = nn.Sequential(nn.Conv3d(8, 8, 1), nn.BatchNorm3d(8), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.space(self.line(x)[..., None, None])
        return self.head(x.flatten(2).mean(2))


class OtherNorms(nn.Module):
    sites: ClassVar = {
        "group.0": "replaced with its ReLU",
        "sync.0": "replaced with its ReLU",
        "instance.0": "replaced with its ReLU",
        "layer.0": "kept: its statistics are not those of a feature map's channels",
        "untracked.0": "kept: it tracks no running statistics, which bn-relu needs",
    }
    shape: ClassVar = (2, 8, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        norms: dict[str, Any] = {
            "group": nn.GroupNorm(4, 8),
            "sync": nn.SyncBatchNorm(8),
            "instance": nn.InstanceNorm2d(8, affine=True),
            "layer": nn.LayerNorm(6),
            "untracked": nn.BatchNorm2d(8, track_running_stats=False),
        }
        for name, norm in norms.items():
            self.add_module(name, nn.Sequential(norm, nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.children():
            x = part(x)
        return x


NETWORKS = [
    *(kind for kind in Network.__subclasses__() if kind is not Norms),
    *Norms.__subclasses__(),
    OneModuleInTwoSlots,
    OneAndThreeDimensional,
    OtherNorms,
]
