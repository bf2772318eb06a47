"""The weight files of a model folder, looked at without reading them: are they there, are they whole?"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

INDEX_NAME = "model.safetensors.index.json"
_LENGTH_BYTES = 8
_LONGEST_HEADER_BYTES = 100 << 20


def weights_problem(folder: Path) -> str | None:
    """Returns why the weights in `folder` cannot be read, as the end of a sentence; None when they can."""
    files = {path.name: path for path in sorted(folder.glob("*.safetensors"))}
    if not files:
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        if pickles:
            return (
                f"weights only in pickle files ({pickles[0]}), which can run code when read; "
                "convert them to safetensors first"
            )
        return "no weights (*.safetensors) there"
    if (folder / INDEX_NAME).is_file():
        try:
            named = sorted(set(json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"{INDEX_NAME} cannot be read; copy it again"
        missing = [name for name in named if name not in files]
        if missing:
            return f"{missing[0]} is missing, named by {INDEX_NAME}"
        files = {name: files[name] for name in named}
    return next((problem for path in files.values() if (problem := _file_problem(path))), None)


def _file_problem(path: Path) -> str | None:
    """Compares the size that a safetensors file says of itself with the one it has: a broken download is the usual fault."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_LENGTH_BYTES)
            length = struct.unpack("<Q", start)[0] if len(start) == _LENGTH_BYTES else 0
            if not 0 < length <= min(_LONGEST_HEADER_BYTES, size):
                return f"{path.name} is no safetensors file; copy it again"
            header: dict[str, Any] = json.loads(file.read(length))
        data = max((tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0)
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f"{path.name} is no safetensors file; copy it again"
    wanted = _LENGTH_BYTES + length + data
    return None if size == wanted else f"{path.name} has {size:,} bytes, its header says {wanted:,}; copy it again"
