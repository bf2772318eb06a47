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
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    return write_bytes(path, [struct.pack("<Q", len(text)), text, *(_bytes_of(b.data) for b in blocks.values())])


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
