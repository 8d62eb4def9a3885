"""Hands Triton's kernels to its compiler for a GPU that need not be there, and prints of each what it was made into.

`python -m tests.layers.compiled [ARCH]`, without TRITON_INTERPRET: one line of JSON a kernel. What the interpreter does
not see, types that change in a loop, say, the compiler refuses. Nothing runs, no memory is touched.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from evonorm.layers.kernels.call import APPLY, REDUCE, Call, Gradients
from evonorm.layers.kernels.rows import ROWS as NAMES
from evonorm.layers.kernels.triton import launch
from evonorm.layers.kernels.triton.rows import ROWS

# (row, shape, dtype, channels-last, training): each function of rows.py, each kernel, each kind of statistics.
SMALL, STAGE, STEM, CONTIGUOUS = (64, 32, 4, 4), (256, 1024, 14, 14), (2, 64, 112, 112), (64, 96, 32, 32)
OWN = ("evonorm-s1", "evonorm-b0", "evonorm-b1", "evonorm-b2", "frn-tlu", "gn-silu")
CASES = [
    *[(name, SMALL, torch.bfloat16, True, False) for name in OWN],  # small kernels compile in less time
    ("evonorm-s0", STAGE, torch.bfloat16, True, True),
    ("evonorm-s0", STEM, torch.bfloat16, True, True),
    ("bn-silu", STEM, torch.bfloat16, True, True),
    ("evonorm-b0", CONTIGUOUS, torch.float16, False, True),
    ("evonorm-s0", (4, 25, 9, 11), torch.bfloat16, True, True),  # nothing divides a vector
    # Arguments that are 1 become constants, which know less than tensors do.
    *[(name, (4, 1, 1), torch.float32, False, True) for name in ("gn-relu", "evonorm-b0", "bn-relu")],
    ("gn-silu", (1, 1, 40_000), torch.float32, False, True),
]
# With weight and bias of each sample: one kernel each way, passes that meet in a batch, passes that meet in a sample.
CONDITIONAL = [
    ("evonorm-s1", SMALL, torch.bfloat16, True, False),
    ("bn-relu", STEM, torch.bfloat16, True, True),
    ("evonorm-s2", STEM, torch.bfloat16, True, True),
]


class Absent:
    """As much of a driver as compilation asks for."""

    def __init__(self, arch: int) -> None:
        self.target = GPUTarget("cuda", arch, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def registers(kernel: Any) -> dict[str, int]:
    """Of a thread, by the assembler that comes with Triton; where it is."""
    ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    architecture = re.search(r"\.target (\w+)", kernel.asm["ptx"])
    assert architecture is not None
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(kernel.asm["ptx"])
        file.flush()
        command = [ptxas, "-v", "--gpu-name", architecture[1], file.name, "-o", os.devnull]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    used, spilled = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
    return {"registers": int(used[1]) if used else 0, "spilled_bytes": int(spilled[1]) if spilled else 0}


def main(arch: int, with_registers: bool) -> None:
    driver.set_active(Absent(arch))
    run = JITFunction.run

    def compiled(self: JITFunction, *args: Any, grid: tuple[int, ...], warmup: bool, **options: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        loads = re.findall(r"ld\.global(?:\.\w+)*?(?:\.v(\d))?\.b(\d+)", kernel.asm["ptx"])
        copies = re.findall(r"cp\.async\.c[ag]\.shared\.global.*?\], (0x\w+),", kernel.asm["ptx"])
        said = {"kernel": self.fn.__name__, "programs": grid[0], "warps": options["num_warps"]}
        said |= {name: options[name] for name in ("CH", "P", "HELD") if name in options}
        widths = [int(vector or 1) * int(bits) // 8 for vector, bits in loads] + [int(copy, 16) for copy in copies]
        said["widest_load_bytes"] = max(widths)
        # Into x, y, dy and dx, the only ones in half precision.
        offsets = re.findall(r"tt\.addptr .*!tt\.ptr<b?f16>.*?, (?:tensor<)?(?:\w+x)?i(\d+)", kernel.asm["ttir"])
        said["offset_bits"] = sorted({int(bits) for bits in offsets})
        print(json.dumps(case | said | (registers(kernel) if with_registers else {})), flush=True)
        return kernel

    JITFunction.run = compiled
    for name, shape, dtype, channels_last, training, conditional in (
        *((*each, False) for each in CASES),
        *((*each, True) for each in CONDITIONAL),
    ):
        n, c = shape[:2]
        row, groups = ROWS[name], {25: 5, 1: 1}.get(c, 32)
        case = {"row": name, "shape": shape, "dtype": str(dtype).removeprefix("torch."), "last": channels_last}
        case |= {"conditional": conditional}
        layout = torch.channels_last if channels_last else torch.contiguous_format
        x = torch.empty(shape, dtype=dtype, memory_format=layout)
        weight, bias, *gradients = [torch.empty((n, c) if conditional else c) for _ in range(4)]
        extra = torch.empty(c) if row.extra else None
        stats = torch.empty(1).expand(n, 2, c) if row.sample else None
        batch = torch.empty(2, c) if row.batch else None
        call = Call(x, weight, bias, extra, batch, NAMES.index(name), groups, 1e-5)
        launch.forward(call, row.batch and not training, stats, x)
        count = float(x.numel() // c) if row.batch and training else 0.0
        launch.backward(call, Gradients(x, stats, count, x, *gradients, extra), REDUCE | APPLY)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(int(arguments[0]) if arguments else 90, "--registers" in arguments)
