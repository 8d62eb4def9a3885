"""What `evonorm bench` is asked for. Imports no torch, so that `--help` answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evonorm.lab.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Shape = tuple[int, int, int, int]
Figure = Literal["forward", "forward+backward", "inference"]

PRESETS = {
    "headline": "(128, 96, 32, 32), the first site of Mini Inception",
    "mini-inception": "every width and map of Mini Inception, batch 128",
    "resnet50": "the stages of ResNet-50, batch 16",
    "resnet50-256": "the same, batch 256",
    "detection": "(2, 256, 200, 304), a feature pyramid's finest map",
    "inference": "both networks' shapes at batch 1, not training",
}
FIGURES: tuple[Figure, ...] = ("forward", "forward+backward", "inference")
DTYPES = ("bf16", "fp32")
# What is measured where nothing is named.
DTYPES_BY_DEVICE = {"cpu": DTYPES, "cuda": ("bf16",)}
PRESETS_BY_DEVICE = {"cpu": ("headline",), "cuda": ("headline", "resnet50-256", "detection")}
FORMATS = ("channels_last", "contiguous")
# In the order of the tables. A copy is always measured: it is the floor.
IMPLEMENTATIONS = {
    "kernel": "ours, fused; on cuda Triton's, shown as triton",
    "reference": "ours in plain torch",
    "timm": "timm's layer of the same name",
    "batch_norm+relu": "torch's, the yardstick",
    "group_norm+silu": "torch's",
    "relu": "torch's, alone",
}


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """As the options of `evonorm bench --help`.

    compiled, dtypes: None takes those that suit the device; figures: None takes those that suit each shape.
    """

    device: str = "cpu"
    layers: tuple[str, ...] = ("evonorm-s0", "evonorm-b0")
    implementations: tuple[str, ...] = tuple(IMPLEMENTATIONS)
    compiled: bool | None = None
    presets: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()
    figures: tuple[Figure, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    formats: tuple[str, ...] = ("channels_last",)
    groups: int = 32
    network: bool = False
    batch_size: int = 128
    repeats: int = 7
    threads: int | None = None
    keep_freed_memory: bool = True
    verbose: bool = False
    json: Path | None = None
    plot: Path | None = None

    def __post_init__(self) -> None:
        if self.device not in DTYPES_BY_DEVICE:
            raise UserError(f"--device must be {' or '.join(DTYPES_BY_DEVICE)}: got {self.device!r}")
        for name in ("repeats", "groups", "batch_size", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1: got {value}")
        for option, file in (("--json", self.json), ("--plot", self.plot)):
            if file is not None and not file.parent.is_dir():
                raise UserError(f"{option} {file}: there is no folder {file.parent}; make it, or name another file")
        if self.plot is not None and self.plot.suffix not in (".png", ".svg", ".pdf"):
            raise UserError(f"--plot takes a file that ends in .png, .svg or .pdf: got {self.plot}")


def parse_shape(text: str) -> Shape:
    """'128,96,32,32' -> (128, 96, 32, 32). Raises UserError for anything but four whole numbers of at least 1."""
    try:
        sizes = [int(size) for size in text.replace("x", ",").split(",")]
    except ValueError:
        sizes = []
    if len(sizes) != 4 or min(sizes) < 1:
        raise UserError(f"--shape takes N,C,H,W, four whole numbers of at least 1: got {text!r}; try 128,96,32,32")
    return sizes[0], sizes[1], sizes[2], sizes[3]


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `evonorm bench`."""
    from jsonargparse import ActionYesNo

    default = BenchOptions()
    parser.add_argument(
        "--device",
        type=Literal[tuple(DTYPES_BY_DEVICE)],
        default=default.device,
        metavar="{cpu,cuda}",
        help="what computes",
    )

    def several(name: str, choices: Sequence[str], chosen: Sequence[str] | None, help: str) -> None:
        kind: Any = Literal[tuple(choices)]
        start = None if chosen is None else list(chosen)
        parser.add_argument(name, nargs="+", default=start, type=kind, metavar="NAME", help=help)

    parser.add_argument(
        "--layers", nargs="+", default=list(default.layers), metavar="LAYER", help="layers of `evonorm layers`"
    )
    several(
        "--implementations",
        tuple(IMPLEMENTATIONS),
        default.implementations,
        "; ".join(f"{name}: {meaning}" for name, meaning in IMPLEMENTATIONS.items()),
    )
    parser.add_argument(
        "--compiled",
        action=ActionYesNo,
        default=None,
        help="torch.compile ours in plain torch, and the rivals, too; left out: on cuda",
    )
    several("--preset", tuple(PRESETS), (), "; ".join(f"{name}: {meaning}" for name, meaning in PRESETS.items()))
    parser.add_argument("--shape", nargs="+", type=str, default=[], metavar="N,C,H,W", help="shapes of your own")
    several(
        "--figures",
        FIGURES,
        None,
        "forward: training, with what backward will need; forward+backward; inference: not training, without a "
        "gradient; left out: what suits each shape",
    )
    several("--dtypes", DTYPES, None, "bf16, fp32: of x; parameters stay float32; left out: both, on cuda bf16")
    several("--formats", FORMATS, default.formats, "channels_last, contiguous: the order of x in memory")
    parser.add_argument("--groups", type=int, default=default.groups, help="where they divide C, else the next below")
    parser.add_argument(
        "--network",
        action=ActionYesNo,
        default=False,
        help="Mini Inception with each layer beside none: a training step, and the latency of one image",
    )
    parser.add_argument("--batch_size", type=int, default=128, help="of --network's training step")
    parser.add_argument("--repeats", type=int, default=default.repeats, help="measured rounds, after one that warms up")
    parser.add_argument("--threads", type=int | None, default=None, help="left out: torch's own choice")
    parser.add_argument(
        "--keep_freed_memory",
        action=ActionYesNo,
        default=True,
        help="as `evonorm train` does; with --no-keep-freed-memory large tensors cost page faults",
    )
    parser.add_argument(
        "--verbose",
        action=ActionYesNo,
        default=False,
        help="say how long each first call took, compilation included, and how Triton's kernels cut each shape",
    )
    parser.add_argument("--json", type=str | None, default=None, metavar="FILE", help="a line of JSON each, anew")
    parser.add_argument("--plot", type=str | None, default=None, metavar="FILE", help="a picture: .png, .svg or .pdf")


def from_arguments(given: Any) -> BenchOptions:
    """The options that the command line parsed. Raises UserError for a value that cannot be."""
    values = dict(given.as_dict())
    shapes = tuple(parse_shape(text) for text in values.pop("shape"))
    presets = tuple(values.pop("preset"))
    files = {name: None if values[name] is None else Path(values[name]) for name in ("json", "plot")}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return BenchOptions(**(values | lists | files), shapes=shapes, presets=presets)
