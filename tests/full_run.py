"""The folder of a finished run with everything that pages can show, in the formats of real ones, and names that try to break out.

A stage of preference training on an earlier stage, two sources, findings of every gate, evaluations of both models, a
check of the harness, hours and prices. `write_full_run` needs no torch and takes milliseconds.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from configs import atomic
from configs.compose import freeze
from configs.runfolder import RunFolder
from configs.schema import RunConfig
from configs.schema.data import SourceSection

# In file names, source names and tasks: markup, LaTeX, mathematics, Chinese, a very long word.
NASTY = "50%_<b>a&b<i>_$x$_{y}~^\\#"
CHINESE = "腫瘤科筆記"
LONG = "averylongsourcename" * 4
HASHES = {name: f"{number:02x}" * 32 for number, name in enumerate(("base", "stage", "model", "store", "rows", "other"), start=0xA1)}
NIGHT = 1_795_572_000.0


def account() -> dict[str, Any]:
    """The account of the data."""
    common = {"weight": 1.0, "format": "preference", "bad": {}, "lost": {}, "identifiers": {}, "private": 0, "also_held_out": 0}
    sources = {
        CHINESE: {**common, "path": "/secure/notes.jsonl", "rows": 1204, "documents": 1100, "tokens": 91234, "supervised": 40111, "share": 0.75}
        | {"identifiers": {"hkid": 12, "name_zh": 1040}, "private": 333, "bad": {"unusable": 3}, "lost": {"truncated": [4, 512]}},
        NASTY: {**common, "path": "/secure/g.jsonl", "rows": 402, "documents": 388, "tokens": 20111, "supervised": 9001, "share": 0.15},
        LONG: {**common, "path": "/secure/l.jsonl", "rows": 100, "documents": 90, "tokens": 12001, "supervised": 6001, "share": 0.1},
    }
    return {
        "objective": "dpo", "sources": sources, "group_by": "patient_id", "rows": 1706, "bad_rows": 3, "documents": 1578, "held_out": 82,
        "groups": 640, "held_out_groups": 34, "tokens": 123346, "supervised": 55113, "held_out_tokens": 6001, "held_out_supervised": 2900,
        "packed_rows": 64, "held_out_packed_rows": 4, "fill": 0.941, "sequence_length": 2048, "privacy": "mask", "notes": [],
        "split": {"on_both_sides": 0, "trained_groups": 640, "trained_sha256": HASHES["rows"], "held_out_groups": 34, "held_out_sha256": HASHES["other"]},
        "duplicates": {"done": "drop", "similarity": 0.8, "training_rows": 1620, "held_out_rows": 82, "exact": 5, "near": 7,
                       "inside_training_exact": 2, "inside_training_near": 9, "lines": []},
        "contamination": {"done": "drop", "files": ["medqa.jsonl"], "items": 1273, "too_short": 40, "pieces": 90210, "common_pieces": 12,
                          "rows": 6, "items_met": 4, "lines": {}},
    }  # fmt: skip


def metric(value: float, half: float, n: int, *, higher: bool = True) -> dict[str, Any]:
    """A metric of a task with its interval."""
    return {"value": value, "stderr": half / 1.96, "low": value - half, "high": value + half, "n": n, "higher_is_better": higher}


def _config() -> RunConfig:
    config = RunConfig()
    config.model.path = "/models/earlier-aaaaaa/model"
    config.adapter.name = "lora"
    config.objective.name = "dpo"
    config.objective.beta = 0.1
    config.data.sources = {CHINESE: SourceSection(path="/secure/notes.jsonl"), NASTY: SourceSection(path="/secure/g.jsonl"), LONG: SourceSection(path="/secure/l.jsonl")}
    config.optimizer.lr = 5e-6
    config.engine.name = "zero2"
    return config


def _metrics(steps: int) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(steps + 1):
        if step:
            loss = 0.2 + 0.49 * math.exp(-step / 15)
            lines.append({"step": step, "position": step - 1, "loss": loss, "grad_norm": 1 + 0.3 * math.sin(step), "lr": 5e-6 * (1 - step / steps),
                          "tokens": 2000 * step, "supervised": 900 * step, "time": NIGHT + step})  # fmt: skip
        if step % 10 == 0:
            good = 0.5 + 0.42 * (1 - math.exp(-step / 12))
            lines.append({"step": step, "eval_loss": 0.693 - 0.4 * (good - 0.5), "eval_accuracy": good, "eval_margin": 6 * (good - 0.5),
                          f"eval_loss/{CHINESE}": 0.69 - 0.5 * (good - 0.5), f"eval_loss/{NASTY}": 0.69 + 0.1 * (good - 0.5), "time": NIGHT + step})  # fmt: skip
    return lines


def _evaluations(run: Path) -> None:
    tasks = {
        "base": {"icd": metric(0.61, 0.04, 600), "refusal": metric(0.93, 0.02, 500), NASTY: metric(0.3, 0.05, 300)},
        "model": {"icd": metric(0.74, 0.035, 600), "refusal": metric(0.81, 0.03, 500), NASTY: metric(0.31, 0.05, 300)},
    }
    (run / "eval").mkdir()
    for name, values in tasks.items():
        found: dict[str, Any] = {task: {"pack": "medical", "metrics": {"acc": one}, "samples": None} for task, one in values.items()}
        found["mmlu_fewshot"] = {"pack": "medical", "check": True, "metrics": {"acc": metric(0.987654, 0.01, 15)}, "samples": None}
        more: dict[str, Any] = {}
        if name == "model":
            paired = {"value": 0.13, "low": 0.08, "high": 0.18, "p": 0.0001, "n": 600, "test": "McNemar"}
            more["comparisons"] = {"base": {"icd": {"acc": paired}}}
            more["forgetting"] = {"tripped": False, "difference": 0.012, "low": -0.004, "high": 0.028, "bound": 0.05, "confidence": 0.95,
                                  "loss": 2.512, "loss_base": 2.5, "documents": 120, "tokens": 40211}  # fmt: skip
        weights = {"model.safetensors": HASHES["stage"], **({"adapter_model.safetensors": HASHES["model"]} if name == "model" else {})}
        atomic.write_json(run / "eval" / f"{name}.json", {"model": name, "kind": "run", "weights": weights, "tasks": found, **more, "versions": {"lm-eval": "0.4.13"},
                                                         "command": "aisc eval", "written": f"2026-11-25T0{len(name)}:00:00Z"})  # fmt: skip


def write_full_run(parent: Path, name: str = "onc_dpo-5e7a11", steps: int = 60) -> Path:
    """Writes the run and the stage before it below `parent`; returns the run's folder."""
    earlier, run = parent / "onc_sft-0c77d0", parent / name
    attempts = [RunFolder(folder).claim() for folder in (earlier, run)]
    config = _config()
    config.model.path = str(earlier / "model")
    atomic.write_file(attempts[1].config_path, freeze(config))
    atomic.write_file(attempts[0].config_path, freeze(RunConfig()))
    versions = {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0"}
    first = {"run": earlier.name, "weights": {"/models/Qwen3-8B/model.safetensors": HASHES["base"]}, "outputs": {"model/model.safetensors": HASHES["stage"]},
             "store": {"fingerprint": HASHES["other"], "folder": "/stores/x"}}  # fmt: skip
    atomic.write_json(earlier / "manifest.json", first)
    result = {
        "run": name, "eval_loss_before": 0.693147, "eval_loss": 0.527, "eval_loss_last": 0.53, "eval_loss_by_source": {CHINESE: 0.481, NASTY: 0.731},
        "eval_figures": {"accuracy": [0.5, 0.917], "margin": [0.0, 2.503]},
        "best_step": steps, "steps": steps, "tokens": 2000 * steps, "supervised": 900 * steps, "ledger": HASHES["rows"], "seed": 1, "attempts": 2,
        "duration_s": 5123.4, "used": [{"attempt": 1, "seconds": 3600.0, "world": 4, "device": "NVIDIA H800"}, {"attempt": 2, "seconds": 1523.4, "world": 8, "device": "NVIDIA H800"}],
        "model": str(run / "model"), "model_kind": "adapter",
    }  # fmt: skip
    manifest = {
        "run": name, "identity": HASHES["other"], "data": {f"/secure/{CHINESE}.jsonl": HASHES["rows"], f"/secure/{NASTY}.jsonl": HASHES["other"]},
        "store": {"fingerprint": HASHES["store"], "folder": "/stores/a3"}, "weights": {str(earlier / "model" / "model.safetensors"): HASHES["stage"]},
        "tokenizer": {}, "config": {}, "code": {}, "commit": "4a58192f00d", "versions": versions,
        "hardware": {"machine": "x86_64", "cpus": 16, "memory_bytes": 2**37, "gpus": ["NVIDIA H800"] * 8}, "seed": 1, "account": account(), "result": result,
        "parity": {"bound": 0.0001, "logits": 3.1e-06, "effect_share": 1.0, "texts": 4, "texts_equal": 4},
        "outputs": {"model/adapter_model.safetensors": HASHES["model"]}, "written": "2026-11-25T03:30:00Z",
    }  # fmt: skip
    atomic.write_json(run / "result.json", result)
    atomic.write_json(run / "manifest.json", manifest)
    _write_attempt(run, steps)
    _evaluations(run)
    _write_cost(run)
    atomic.write_file(run / "purpose.md", f"Drafts of replies to letters of referral, for oncologists of one hospital. {CHINESE}\n\nNot for patients, <script>alert(1)</script>.\n")
    return run


def _write_attempt(run: Path, steps: int) -> None:
    (attempt,) = RunFolder(run).attempts()
    attempt.write_start({"identity": HASHES["other"], "store": HASHES["store"], "seed": 1, "total_steps": steps}, None)
    started = {"event": "started", "step": 0, "world": 8, "device": "NVIDIA H800", "micro_batch_size": 4, "reason": "auto", "peak_bytes": 52 * 2**30, "total_bytes": 80 * 2**30}
    atomic.write_file(attempt.events_path, json.dumps({"time": NIGHT, **started}) + "\n")
    atomic.write_file(attempt.metrics_path, "".join(json.dumps(line) + "\n" for line in _metrics(steps)))
    attempt.finish("done", 0, "")


def _write_cost(run: Path) -> None:
    hours = {"start-up": 0.4, "train": 10.2, "evaluate": 0.5, "save": 0.2, "lost": 0.1}
    segment = {"job_id": 481411, "restart": 0, "attempts": [1], "seconds": {phase: value * 450 for phase, value in hours.items()}}
    account_of_hours = {
        "run": run.name, "as_of": NIGHT, "unit": "GPU-hours", "total": 11.4, "hours": hours, "trained": 10.2, "queue_s": 700.0, "cost": 285.0,
        "cost_by_phase": {phase: 25 * value for phase, value in hours.items()}, "segments": [segment], "not_compared": "",
        "prices": {"per_gpu": 25, "per_node": None, "subsidy": 0.7, "currency": "HK$", "source": "site file", "note": ""},
    }  # fmt: skip
    atomic.write_json(run / "goodput.json", account_of_hours)
    atomic.write_json(run / "plan.json", {"gpu_hours": 12.5, "currency": "HK$", "list_price": 312.5, "net_price": 93.75})
