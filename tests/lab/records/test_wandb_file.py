"""The reader of .wandb files, held to W&B's own protobuf classes and to files cut and damaged anywhere."""

from __future__ import annotations

import importlib.util
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from evonorm.lab.records.wandb_file import BrokenFile, Row, Tail, fields

HEAD = b":W&B\xe1\xbe\x00"
NEEDS_WANDB = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None and not os.environ.get("CI"), reason="wandb is not installed"
)


def written(path: Path, *records: bytes) -> Path:
    """A file as W&B frames it: 32 KiB blocks, records in pieces."""
    content = bytearray(HEAD)
    for record in records:
        first = True
        while True:
            left = 32768 - len(content) % 32768
            if left < 7:
                content += bytes(left)
                continue
            piece, record = record[: left - 7], record[left - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, not record]
            content += struct.pack("<IHB", zlib.crc32(bytes([kind]) + piece), len(piece), kind) + piece
            first = False
            if not record:
                break
    path.write_bytes(content)
    return path


def history(**values: str) -> bytes:
    from wandb.proto import wandb_internal_pb2 as proto

    record = proto.Record()
    for name, value in values.items():
        record.history.item.add(nested_key=name.split("__"), value_json=value)
    bytes_: bytes = record.SerializeToString()
    return bytes_


@NEEDS_WANDB
def test_rows_are_what_was_logged(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wandb", history(loss="0.5", net__depth="3", _step="0"), history(_step="1"))
    assert list(Tail(path).rows()) == [Row({"loss": 0.5, "net.depth": 3}, summary=False)]


def test_records_over_block_borders_whenever_they_are_read(tmp_path: Path) -> None:
    sizes = [
        0,
        1,
        32768 - 7 - 7 - 8 - 8,
        0,
        40_000,
        100_000,
        5,
    ]  # one leaves no room for a head, some need several blocks
    records = [bytes([place]) * size for place, size in enumerate(sizes)]
    whole = written(tmp_path / "whole.wandb", *records).read_bytes()
    assert list(Tail(tmp_path / "whole.wandb").read()) == records
    growing = tmp_path / "growing.wandb"
    growing.touch()
    tail, found = Tail(growing), []
    for end in [*range(0, len(whole), 4099), len(whole)]:
        growing.write_bytes(whole[:end])
        found += list(tail.read())
    assert found == records


@pytest.mark.parametrize("place", [0, 8, 20])
def test_damage_is_told(tmp_path: Path, place: int) -> None:
    path = written(tmp_path / "a.wandb", b"some content", b"more")
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(BrokenFile, match=r"a\.wandb is (not a \.wandb file|damaged at byte 7)"):
        list(Tail(path).read())


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"\x08\x96\x01", [(1, 150)]),
        (b"\x12\x02hi\x1d\x01\x02\x03\x04", [(2, b"hi"), (3, b"\x01\x02\x03\x04")]),
        (b"\x82\x01\x01x", [(16, b"x")]),
        (b"", []),
    ],
)
def test_protobuf_fields(message: bytes, expected: list[Any]) -> None:
    assert list(fields(message)) == expected


@pytest.mark.parametrize("message", [b"\x0b", b"\x80"])
def test_what_is_no_message(message: bytes) -> None:
    with pytest.raises(BrokenFile, match="no protobuf message"):
        list(fields(message))
