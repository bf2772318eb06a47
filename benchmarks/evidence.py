"""Evidence: what a soak or benchmark script measured, and whether the files it speaks of are still the same.

`python -m benchmarks.evidence check` prints one line per file of docs/evidence and exits 1 when one no longer holds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "evidence"


def content_hash(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def machine() -> dict[str, Any]:
    """Returns what the figures were measured on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "python": platform.python_version(),
    }


def record(
    name: str,
    *,
    covers: Sequence[str],
    result: Any,
    counts: dict[str, Any],
    seed: int | None = None,
    command: str | None = None,
    folder: Path = FOLDER,
) -> Path:
    """Writes `docs/evidence/NAME.json` and returns its path.

    Args:
        name: of the evidence.
        covers: files, relative to the repository, whose change makes the evidence stale.
        result: `met` or `not met` with the decisive figure, or the measured rows.
        counts: what was measured.
        seed: of the run, when it has one.
        command: that was run; null: this process's own.
    """
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    value = {
        "name": name,
        "result": result,
        "command": command or " ".join(["python", *sys.orig_argv[1:]]),
        "commit": commit.stdout.strip() or None,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "seed": seed,
        "counts": counts,
        "covers": {path: content_hash(ROOT / path) for path in sorted(covers)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.json"
    target.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


def changed_files(path: Path, root: Path = ROOT) -> list[str]:
    """Returns the files covered by the evidence at `path` that are gone or have another content."""
    covers = json.loads(path.read_text(encoding="utf-8"))["covers"]
    return [name for name, digest in covers.items() if not (root / name).is_file() or content_hash(root / name) != digest]


def check(folder: Path = FOLDER, root: Path = ROOT) -> list[str]:
    """Returns one line per evidence file that no longer holds."""
    stale = []
    for path in sorted(folder.glob("*.json")):
        changed = changed_files(path, root)
        if changed:
            stale.append(f"{path.stem}: stale, changed since: {', '.join(changed)}")
    return stale


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["check"])
    parser.parse_args()
    stale = check()
    for line in stale:
        print(line)
    print(f"{len(list(FOLDER.glob('*.json')))} evidence files, {len(stale)} stale")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
