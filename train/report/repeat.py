"""How to repeat the run: its complete configuration, the hashes of what went in, the versions of what computed."""

from __future__ import annotations

from configs.runfolder import RunFolder, read_json
from train.report.section import Section


def section(run: RunFolder) -> Section | None:
    """Returns the frozen configuration with hashes and versions; None when no attempt froze one."""
    frozen = [attempt for attempt in run.attempts() if attempt.config_path.exists()]
    if not frozen:
        return None
    attempt = frozen[-1]
    start = attempt.read_start() or {}
    rows: list[tuple[str, ...]] = [(name, str(start[name])) for name in ("identity", "store", "weights", "tokenizer", "seed") if name in start]
    manifest = read_json(run.path / "manifest.json")
    if manifest is not None:
        rows.append(("code", str(manifest["commit"] or "installed package")))
        rows.append(("versions", ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())))
    return Section(
        "Repeat",
        tuple(rows),
        code=attempt.config_path.read_text(encoding="utf-8"),
        note=f"aisc train {attempt.config_path} runs the same; --new gives it a folder of its own.",
    )
