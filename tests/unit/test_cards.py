"""Cards and files of scores: names are shown as they are, numbers are found where they say, old texts do not stay."""

from __future__ import annotations

import json
from pathlib import Path

from configs import atomic
from configs.runfolder import RunFolder
from train.cards import cell, code, look_up
from train.evaluation_file import ModelScore, TaskScore, write_score
from train.intervals import Figure
from train.release import name_base
from train.released import without_places
from train.report import evaluation


def test_a_name_stays_inside_its_code_span_and_its_cell() -> None:
    assert code("notes") == "`notes`" and code("腫瘤 <b> & _x_ $y$ %") == "`腫瘤 <b> & _x_ $y$ %`"
    assert code("a`b``c\nd") == "```a`b``c d```" and code("`x") == "`` `x ``"
    assert cell("CC0|1.0") == "`CC0\\|1.0`"


def test_a_pointer_reaches_into_lists() -> None:
    value = {"eval_figures": {"accuracy": [None, 0.75]}}
    assert look_up(value, "/eval_figures/accuracy/1") == 0.75
    assert [look_up(value, f"/eval_figures/accuracy/{word}") for word in ("0", "2", "-", "x")] == [None] * 4


def test_places_of_this_machine_are_not_released(tmp_path: Path) -> None:
    manifest = {
        "working_folder": "/home/chan/ward7",
        "data": {"/home/chan/a/x.jsonl": "1", "/home/chan/b/x.jsonl": "2"},
        "weights": {"/models/Qwen3-8B/model.safetensors": "3"},
        "store": {"fingerprint": "f", "folder": "/home/chan/stores/f"},
        "account": {"sources": {"notes": {"path": "ward7/x.jsonl", "bad": {"no such role": 1}}, "open": {"path": "hub:a/b"}}},
        "result": {"model": "runs/sft-0c77d0/release/model", "eval_loss_by_source": {"notes/2": 0.5}},
        "command": "aisc eval '/home/chan/my runs/a' medqa=/home/chan/q.jsonl --samples",
        "seed": 1,
    }
    assert without_places(manifest) == {
        "data": {"x.jsonl": "1", "x.jsonl (2)": "2"},
        "weights": {"model.safetensors": "3"},
        "store": {"fingerprint": "f", "folder": "f"},
        "account": {"sources": {"notes": {"path": "x.jsonl", "bad": {"no such role": 1}}, "open": {"path": "hub:a/b"}}},
        "result": {"model": "sft-0c77d0", "eval_loss_by_source": {"notes/2": 0.5}},
        "command": "aisc eval a medqa=q.jsonl --samples",
        "seed": 1,
    }
    adapter = tmp_path / "adapter_config.json"
    adapter.write_text('{"r": 8, "base_model_name_or_path": "/models/Qwen3-8B"}')
    name_base(tmp_path)
    assert json.loads(adapter.read_text()) == {"r": 8, "base_model_name_or_path": "Qwen3-8B"}


def test_samples_of_an_earlier_evaluation_do_not_stay(tmp_path: Path) -> None:
    def score(samples: list[dict[str, str]]) -> ModelScore:
        task = TaskScore("refusal", "safety", {"refused": Figure(1.0, 0.0, 0.2, 1.0, 1)}, {"refused": [("1", 1.0)]}, samples=samples)
        return ModelScore("model", "run", "run", {"a": "b"}, [task])

    write_score(tmp_path / "eval", score([{"id": "1", "prompt": "p"}]), "aisc eval")
    kept = tmp_path / "eval" / "samples" / "model" / "refusal.jsonl"
    assert kept.stat().st_mode & 0o777 == 0o600
    path = write_score(tmp_path / "eval", score([]), "aisc eval")
    assert not kept.exists() and json.loads(path.read_text())["tasks"]["refusal"]["samples"] is None


def test_a_report_shows_sources_of_any_name_and_one_item_without_an_interval(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shown = {"value": 0.5, "stderr": None, "low": 0.1, "high": 0.9, "n": 4, "higher_is_better": True}
    metrics = {"accuracy/筆記 $x^$": shown, "loss": {**shown, "low": None, "high": None, "n": 1}}
    one = {"value": 1.0, "low": None, "high": None, "p": 1.0, "n": 1, "test": "McNemar, exact"}
    values = {"model": "run", "tasks": {"held_out": {"metrics": metrics}}, "comparisons": {"base": {"held_out": {"loss": one}}}}
    (run.path / "eval").mkdir(parents=True)
    atomic.write_json(run.path / "eval" / "model.json", values)
    section = evaluation.section(run)
    assert section is not None and "+1.0000 (no interval, p 1" in section.note
    assert section.svg.startswith("<svg")
    assert ("model", "held_out", "loss", "0.5000", "-", "1") in section.rows
