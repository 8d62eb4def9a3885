"""Batch statistics over two processes against one process with the whole batch."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from evonorm import NormActivation
from evonorm.layers.table import TABLE

BATCHED = [row.name for row in TABLE if row.running]
CHANNELS = 12
KINDS = {
    "kernel": (torch.float32, "auto"),
    "conditional": (torch.float32, "auto"),  # weight and bias of each sample, by the kernels too
    "reference": (torch.float64, "auto"),
    "triton": (torch.float32, "triton"),  # in its interpreter, where there is no GPU
}
if importlib.util.find_spec("triton") is None or torch.cuda.is_available():
    del KINDS["triton"]
pytestmark = pytest.mark.own_device  # processes of their own, by gloo
CUT = 3  # the first process has three samples, the second five


def whole() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, dy = torch.randn(2, 8, CHANNELS, 6, 5, generator=generator)
    return x * 2 + torch.arange(8).view(-1, 1, 1, 1), dy  # the halves differ


def layer_of(name: str, kind: str) -> NormActivation:
    dtype, backend = KINDS[kind]
    features = 1 if kind == "conditional" else None
    layer = NormActivation(CHANNELS, name, sync=True, dtype=dtype, backend=backend, conditional=features)
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(torch.linspace(0.5, 1.5 + i, CHANNELS).view(parameter.shape))
    return layer


def results(name: str, kind: str, part: slice) -> dict[str, torch.Tensor]:
    x, dy = (t[part].to(KINDS[kind][0]) for t in whole())
    x.requires_grad_()
    layer = layer_of(name, kind)
    y = layer(x) if layer.conditional is None else layer(x, torch.linspace(-1, 1, 8).view(8, 1)[part])
    y.backward(dy)
    gradients = {f"d{n}": p.grad for n, p in layer.named_parameters()}
    return {"y": y.detach(), "dx": x.grad, **gradients, **dict(layer.named_buffers())}


def replica(rank: int, folder: str, port: int) -> None:
    store = torch.distributed.TCPStore("127.0.0.1", port, is_master=False)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    part = slice(0, CUT) if rank == 0 else slice(CUT, None)
    found = {(name, kind): results(name, kind, part) for name in BATCHED for kind in KINDS}
    torch.save(found, f"{folder}/{rank}.pt")
    # Both are done before either leaves, and Python's own end is left out: a process was seen to abort in it, when one
    # of gloo's threads met an interpreter that was going. The results are on the disk.
    store.set(f"done {rank}", "")
    store.wait([f"done {1 - rank}"])
    os._exit(0)


@pytest.fixture(scope="module")
def replicas() -> list[dict]:
    # The store lives in this process, which outlives both.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(replica, (folder, store.port), nprocs=2)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_are_one_big_batch(replicas, name, kind) -> None:
    # Triton's against the one whole batch of the CPU's kernels.
    expected = results(name, "kernel" if kind == "triton" else kind, slice(None))
    first, second = (found[name, kind] for found in replicas)
    close = {"rtol": 1e-9, "atol": 1e-9} if kind == "reference" else {"rtol": 1e-4, "atol": 1e-4}
    for key, value in expected.items():
        if key in ("y", "dx"):
            torch.testing.assert_close(torch.cat([first[key], second[key]]), value, **close)
        elif key.startswith("running"):
            for found in (first, second):
                torch.testing.assert_close(found[key], value, **close)
                torch.testing.assert_close(first[key], second[key], rtol=0, atol=0)
        else:  # gradients of parameters are each process's own share
            torch.testing.assert_close(first[key] + second[key], value, **close)
