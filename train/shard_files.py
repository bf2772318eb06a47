"""Safetensors files, streamed: hashed while written, flushed to disk, read block by block. Torch-free.

The library's own writer takes all tensors as one buffer and neither hashes nor fsyncs; the format is a length, a JSON
header and the bytes, so it is written here and the tests read it back with the library.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from configs.errors import CheckpointError

_WRITE_BYTES = 16 << 20
# Safetensors dtype -> NumPy type of the same width; BF16 has none and travels as raw 16-bit words.
NUMPY_DTYPES: Mapping[str, str] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
    "BOOL": "<u1",
}

# The order in which the library lays out tensors: widest first.
_LIBRARY_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")


@dataclass(frozen=True, slots=True)
class Block:
    """One contiguous block of a global tensor, as bytes in memory.

    Attributes:
        data: the block's elements, C-contiguous, of the NumPy type that NUMPY_DTYPES gives for `dtype`.
        dtype: safetensors name of the element type.
        global_shape: shape of the whole tensor.
        offsets: index of the block's first element in each dimension of the whole.
    """

    data: npt.NDArray[np.generic]
    dtype: str
    global_shape: tuple[int, ...]
    offsets: tuple[int, ...]

    @classmethod
    def whole(cls, data: npt.NDArray[np.generic], dtype: str) -> Block:
        """Returns the block that is the whole tensor."""
        return cls(data, dtype, tuple(data.shape), (0,) * data.ndim)


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written: its size in bytes and SHA-256 in hex."""

    size: int
    sha256: str


def write_bytes(path: Path, parts: Iterable[memoryview | bytes]) -> Written:
    """Writes `parts` to the new private file `path`, flushed to disk, and returns size and hash of what was written."""
    digest = hashlib.sha256()
    size = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for part in parts:
            view = memoryview(part)
            for start in range(0, len(view), _WRITE_BYTES):
                chunk = view[start : start + _WRITE_BYTES]
                digest.update(chunk)
                size += len(chunk)
                while len(chunk):
                    chunk = chunk[os.write(descriptor, chunk) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Written(size, digest.hexdigest())


def write_safetensors(path: Path, blocks: Mapping[str, Block]) -> Written:
    """Writes `blocks` by name as a safetensors file; peak extra memory is one block's."""
    header: dict[str, object] = {}
    position = 0
    for name, block in blocks.items():
        if np.dtype(NUMPY_DTYPES[block.dtype]) != block.data.dtype:
            raise TypeError(f"{name}: {block.data.dtype} does not hold {block.dtype}")
        end = position + block.data.nbytes
        header[name] = {"dtype": block.dtype, "shape": list(block.data.shape), "data_offsets": [position, end]}
        position = end
    return write_bytes(path, [_header_bytes(header), *(_bytes_of(b.data) for b in blocks.values())])


class TensorsToCome:
    """A safetensors file whose header is written first; its tensors are then put in place one at a time, in any order.

    Byte for byte what the safetensors library writes for the same tensors: ordered by type, then by name.

    Args:
        path: of the new private file.
        tensors: safetensors type and shape by name.
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        self.path = path
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        self._places: dict[str, tuple[int, int]] = {}
        position = 0
        for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: (_LIBRARY_ORDER.index(item[1][0]), item[0])):
            end = position + prod(shape) * np.dtype(NUMPY_DTYPES[dtype]).itemsize
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
            self._places[name] = (position, end)
            position = end
        text = _header_bytes(header)
        self._data_start = len(text)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._write_at(0, memoryview(text))
        os.ftruncate(self._descriptor, len(text) + position)

    def put(self, name: str, data: npt.NDArray[np.generic]) -> None:
        """Writes tensor `name`."""
        start, end = self._places.pop(name)
        if data.nbytes != end - start:
            raise ValueError(f"{name}: {data.nbytes:,} bytes given, {end - start:,} expected")
        self._write_at(self._data_start + start, _bytes_of(data))

    def close(self) -> None:
        """Flushes the file to disk; all its tensors must be there."""
        if self._places:
            raise ValueError(f"{self.path.name}: {len(self._places)} tensors were not written, first {min(self._places)}")
        os.fsync(self._descriptor)
        os.close(self._descriptor)

    def _write_at(self, position: int, data: memoryview) -> None:
        while len(data):
            written = os.pwrite(self._descriptor, data[:_WRITE_BYTES], position)
            position, data = position + written, data[written:]


def _header_bytes(header: Mapping[str, object]) -> bytes:
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    return struct.pack("<Q", len(text)) + text


def _bytes_of(data: npt.NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data


class SafetensorsFile:
    """A safetensors file opened for reading, memory-mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        self._entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        self._data_start = 8 + length
        self._map = np.memmap(path, dtype=np.uint8, mode="r")

    def names(self) -> list[str]:
        """Returns the names of the tensors."""
        return list(self._entries)

    def read(self, name: str) -> npt.NDArray[np.generic]:
        """Returns a read-only view of tensor `name`; BF16 as 16-bit words."""
        entry = self._entries[name]
        start, end = (self._data_start + offset for offset in entry["data_offsets"])
        array = self._map[start:end].view(NUMPY_DTYPES[entry["dtype"]])
        return np.asarray(array.reshape(tuple(entry["shape"])))


def assemble(
    name: str,
    out: npt.NDArray[np.generic],
    offsets: tuple[int, ...],
    parts: Iterable[tuple[tuple[int, ...], npt.NDArray[np.generic]]],
) -> None:
    """Copies into `out`, the part of a tensor that begins at `offsets`, what the blocks hold of it (their offsets, data).

    Raises:
        CheckpointError: the blocks do not cover every element exactly once.
    """
    shape = out.shape
    filled = 0
    for start, block in parts:
        low = [max(a, b) for a, b in zip(start, offsets, strict=True)]
        high = [
            min(a + n, b + m) for a, n, b, m in zip(start, block.shape, offsets, shape, strict=True)
        ]
        if any(h <= lo for lo, h in zip(low, high, strict=True)):
            continue
        source = tuple(slice(lo - s, h - s) for lo, h, s in zip(low, high, start, strict=True))
        target = tuple(slice(lo - o, h - o) for lo, h, o in zip(low, high, offsets, strict=True))
        out[target] = block[source]
        filled += prod(h - lo for lo, h in zip(low, high, strict=True))
    if filled != prod(shape):
        raise CheckpointError(f"{name}: {filled} of {prod(shape)} elements are in the files")
