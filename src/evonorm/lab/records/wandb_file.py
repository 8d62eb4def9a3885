"""Reads a run's .wandb file, which W&B writes offline and online, also while it still grows; needs no wandb.

The file: b":W&B", two bytes 0xBEE1 and a version, little-endian, then blocks of 32 KiB (the first one counted from the
start of the file) of pieces: CRC-32 of type and content (4 bytes), length (2), type (1: whole, 2: first, 3: middle,
4: last), content. A block's last bytes are zeros where no piece's head fits. Pieces make up records, each a protobuf
`Record` of wandb_internal.proto. The wandb package 0.31 writes this format and has no Python reader of it.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
_BLOCK = 1 << 15
_PIECE = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
# Field numbers of wandb_internal.proto: of Record, of HistoryRecord and SummaryRecord, of their items.
_HISTORY, _SUMMARY = 2, 3
_ITEM = 1
_KEY, _NESTED_KEY, _VALUE_JSON = 1, 2, 16


class BrokenFile(ValueError):
    """The file is not one of W&B's, or damaged."""


@dataclass(frozen=True)
class Row:
    """What one call of wandb.log, or one change of the summary, wrote. values: names nested by dots; W&B's own, which
    begin with _, and pictures, histograms and the like are left out. summary: whether it is the summary that changed.
    """

    values: dict[str, Any]
    summary: bool


class Tail:
    """Reads on where it stopped, however often it is asked, while another process writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._begun = b""

    def read(self) -> Iterator[bytes]:
        """The records completed since it was last asked. Raises BrokenFile, or OSError where it cannot be read."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content, start = file.read(), self._offset
        if self._offset < len(_HEADER):
            if len(content) < len(_HEADER):
                return
            if content[: len(_HEADER)] != _HEADER:
                raise BrokenFile(f"{self._path} is not a .wandb file")
            self._offset = len(_HEADER)
        while True:
            left = _BLOCK - self._offset % _BLOCK
            if left < _PIECE.size:
                self._offset += left
                continue
            head = content[self._offset - start : self._offset - start + _PIECE.size]
            if len(head) < _PIECE.size:
                return
            check, length, kind = _PIECE.unpack(head)
            first = self._offset - start + _PIECE.size
            piece = content[first : first + length]
            if len(piece) < length:
                return
            if zlib.crc32(bytes([kind]) + piece) != check:
                raise BrokenFile(f"{self._path} is damaged at byte {self._offset}")
            self._offset += _PIECE.size + length
            if kind in (_WHOLE, _FIRST):
                self._begun = b""
            self._begun += piece
            if kind in (_WHOLE, _LAST):
                whole, self._begun = self._begun, b""
                yield whole

    def rows(self) -> Iterator[Row]:
        """What was logged since it was last asked, in order."""
        for record in self.read():
            for number, content in fields(record):
                if number in (_HISTORY, _SUMMARY) and isinstance(content, bytes):
                    values = _plain(dict(_items(content)))
                    if values:
                        yield Row(values, summary=number == _SUMMARY)


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """A protobuf message's fields in order: number, and an integer or the bytes of what it holds."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield number, value
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield number, message[place : place + size]
            place += size
        elif wire == 2:
            length, place = _varint(message, place)
            yield number, message[place : place + length]
            place += length
        else:
            raise BrokenFile(f"no protobuf message: wire type {wire}")


def _items(content: bytes) -> Iterator[tuple[str, Any]]:
    for number, item in fields(content):
        if number != _ITEM or not isinstance(item, bytes):
            continue
        found: dict[int, list[bytes]] = {}
        for part, value in fields(item):
            if isinstance(value, bytes):
                found.setdefault(part, []).append(value)
        names = found.get(_NESTED_KEY) or found.get(_KEY, [])
        name = ".".join(one.decode() for one in names)
        if name and _VALUE_JSON in found:
            yield name, json.loads(found[_VALUE_JSON][-1])


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    rich = tuple(name.removesuffix("_type") for name in values if name.endswith("._type"))
    return {name: value for name, value in values.items() if not name.startswith(("_", *rich))}


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message):
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise BrokenFile("no protobuf message: a number has no end")
