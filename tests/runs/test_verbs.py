"""The verbs around a run, on one tiny run made through the command line: list, show, compare, inspect, export, chat, report."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import main
from configs.atomic import sha256_file
from configs.runfolder import RunFolder, read_json, read_metrics
from launch.runs import find_run
from launch.staging import stage_in
from tests.kills.lab import make_chats, make_tokenizer
from train.report import render_report

Aisc = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, chats, a whole model `base` and the runs `first` (full) and `second` (LoRA on base)."""
    folder = tmp_path_factory.mktemp("verbs")
    make_tokenizer(folder / "tokenizer", make_chats(folder / "chats.jsonl", 160))
    common = [
        f"data={folder / 'chats.jsonl'}",
        f"data.store={folder / 'stores'}",
        f"run.dir={folder / 'runs'}",
        "data.sequence_length=64",
        "data.workers=1",
        "training.global_batch_size=4",
        "training.duration=24 steps",
        "training.micro_batch_size=4",
        "evaluation.every=12 steps",
        "evaluation.replies=2",
        "evaluation.max_new_tokens=4",
        "optimizer.lr=3e-3",
    ]
    assert main(["train", "model=tiny_llama", f"model.tokenizer={folder / 'tokenizer'}", "run.name=first", *common]) == 0
    base = find_run("first", folder / "runs").path / "model"
    assert main(["train", f"model={base}", "adapter=lora", "run.name=second", *common]) == 0
    return folder


@pytest.fixture
def aisc(place: Path, capsys: pytest.CaptureFixture[str]) -> Aisc:
    """Runs a verb on that folder's runs; returns the exit code and what was printed."""

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main([*arguments, f"run.dir={place / 'runs'}"] if arguments[0] in ("runs", "eval", "chat", "export") else list(arguments))
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def settings(place: Path) -> list[str]:
    return [
        "model=tiny_llama",
        f"model.tokenizer={place / 'tokenizer'}",
        f"data={place / 'chats.jsonl'}",
        f"data.store={place / 'stores'}",
        "data.sequence_length=64",
    ]


def test_list_names_both_runs_with_state_and_losses(aisc: Aisc) -> None:
    code, text = aisc("runs")
    assert code == 0
    assert re.search(r"first-\w{6}\s+done\s+24/24\s+\d\.\d{3} \(\d\.\d{3}\)", text)
    assert re.search(r"second-\w{6}\s+done", text)


def test_show_by_the_six_characters_of_its_name(aisc: Aisc, place: Path) -> None:
    run = find_run("second", place / "runs")
    code, text = aisc("runs", "show", run.name[-6:])
    assert code == 0
    assert run.name in text and "ended: done" in text


def test_an_unknown_run_gets_the_nearest_name(aisc: Aisc) -> None:
    code, text = aisc("runs", "show", "frist")
    assert code == 2
    assert "frist: no such run in" in text and "there are: second-" in text


def test_replies_before_and_after(aisc: Aisc) -> None:
    code, text = aisc("runs", "show", "first", "--replies")
    assert code == 0
    assert text.count("prompt ") == 2 and "step 0" in text and "step 24" in text and text.count("corpus") == 2


def test_compare_lists_what_differs_and_draws(aisc: Aisc, tmp_path: Path) -> None:
    code, text = aisc("runs", "compare", "first", "second", "--svg", str(tmp_path / "two.svg"))
    assert code == 0
    assert "adapter.name" in text and "model.path" in text and "optimizer.lr" not in text
    svg = (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg") and svg.count("<path") > 10


def test_goodput_of_a_run_of_this_machine_is_whole_and_in_its_report(aisc: Aisc, place: Path, tmp_path: Path) -> None:
    code, text = aisc("runs", "goodput", "second", "--svg", str(tmp_path / "hours.svg"))
    assert code == 0 and "node-hours in 1 start" in text and "it ran outside Slurm" in text
    run = find_run("second", place / "runs")
    account = json.loads((run.path / "goodput.json").read_text())
    (start,) = account["segments"]
    assert sum(start["seconds"].values()) == pytest.approx(start["elapsed_s"], abs=0.05)
    assert start["seconds"].keys() >= {"start-up", "prepare", "compile", "train", "evaluate", "save", "tail"}
    assert "<h2>Goodput</h2>" in (run.path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "hours.svg").read_text(encoding="utf-8").startswith("<svg")


def test_report_of_a_finished_run(place: Path) -> None:
    run = find_run("first", place / "runs")
    text = (run.path / "report.html").read_text(encoding="utf-8")
    for title in ("Result", "Curves", "Data", "Machine and memory", "Attempts", "Repeat"):
        assert f"<h2>{title}</h2>" in text
    assert "<svg" in text and "://" not in text.split("<svg")[0], "nothing from the network"
    assert (run.path / "report.html").stat().st_mode & 0o777 == 0o600
    chats = (place / "chats.jsonl").read_text().splitlines()
    assert json.loads(chats[0])["messages"][1]["content"] not in text, "no row's text"


def test_report_of_a_run_that_failed_before_its_first_step(tmp_path: Path) -> None:
    attempt = RunFolder(tmp_path / "broken").claim()
    attempt.write_start({"seed": 1}, None)
    attempt.finish("failed", 1, "step 1: loss nan <is> not finite")
    text = render_report(RunFolder(tmp_path / "broken"))
    assert "loss nan &lt;is&gt; not finite" in text and "<svg" not in text


def test_inspect_shows_rows_and_their_account(aisc: Aisc, place: Path) -> None:
    code, text = aisc("inspect", *settings(place), "--rows", "1")
    assert code == 0
    assert "160 chats -> 1" in text and "tokens per document" in text
    assert re.search(r"── train, row \d+: \d+ tokens, \d+ learned", text)
    assert "What is" in text


def test_inspect_page_marks_learned_tokens(aisc: Aisc, place: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, text = aisc("inspect", *settings(place), "--html", str(page))
    assert code == 0 and "private (0600)" in text
    html = page.read_text(encoding="utf-8")
    learned = "".join(re.findall(r'class="token learned" title="[\d ]+">([^<]*)<', html))
    assert " make " in learned and "What is" not in learned and "&lt;|im_end|&gt;" in learned
    assert page.stat().st_mode & 0o777 == 0o600


def test_bad_rows_as_a_table_without_their_text(aisc: Aisc, place: Path, tmp_path: Path) -> None:
    rows = [*(place / "chats.jsonl").read_text().splitlines()[:3], '{"messages": [{"role": "usr", "content": "secret"}]}']
    (tmp_path / "some.jsonl").write_text("\n".join(rows) + "\n")
    command = [setting for setting in settings(place) if not setting.startswith("data=")]
    code, text = aisc("inspect", *command, f"data={tmp_path / 'some.jsonl'}", "--bad-rows", str(tmp_path / "bad.csv"))
    assert code == 2 and "1 of 4 rows cannot be used" in text
    with (tmp_path / "bad.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["number"] == "4" and row["key"] == "messages[0].role"
    assert "secret" not in (tmp_path / "bad.csv").read_text()


def test_prepare_says_what_was_read(aisc: Aisc, place: Path) -> None:
    code, text = aisc("prepare", *settings(place))
    assert code == 0 and "160 chats -> 1" in text and "store" in text


def test_export_in_another_dtype(aisc: Aisc, place: Path, tmp_path: Path) -> None:
    code, text = aisc("export", "first", "--dtype", "bfloat16", "--to", str(tmp_path / "half"))
    assert code == 0 and "outputs agree" in text
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert model.dtype == torch.bfloat16


def test_export_merges_an_adapter(aisc: Aisc, place: Path, tmp_path: Path) -> None:
    code, text = aisc("export", "second", "--merge", "--to", str(tmp_path / "merged"))
    assert code == 0 and "merged" in text
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    adapted = AutoPeftModelForCausalLM.from_pretrained(find_run("second", place / "runs").path / "model")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-4)


def test_export_refuses_what_makes_no_sense(aisc: Aisc, tmp_path: Path) -> None:
    assert aisc("export", "first", "--merge", "--to", str(tmp_path / "a"))[1].endswith("--merge: is a whole model already\n")
    assert "an adapter keeps its dtype" in aisc("export", "second", "--dtype", "bfloat16", "--to", str(tmp_path / "b"))[1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("run", "kind"), [("first", "full"), ("second", "adapter")])
def test_eval_of_a_run_gives_the_loss_that_its_training_ended_with(aisc: Aisc, place: Path, run: str, kind: str) -> None:
    code, text = aisc("eval", run)
    folder = find_run(run, place / "runs")
    expected = read_json(folder.result_path)
    assert code == 0 and expected is not None and f"{expected['eval_loss']:.4f}" in text
    written = read_json(folder.path / "eval" / "model.json")
    assert written is not None and written["kind"] == "run" and written["weights"]
    figures = written["tasks"]["held_out"]["metrics"]
    assert figures["loss"]["value"] == pytest.approx(expected["eval_loss"], rel=1e-5)
    assert figures["loss"]["low"] < figures["loss"]["value"] < figures["loss"]["high"]
    assert figures["perplexity"]["value"] == pytest.approx(math.exp(expected["eval_loss"]), rel=1e-5)


def test_eval_of_any_folder_on_what_a_run_held_out(aisc: Aisc, place: Path) -> None:
    run = find_run("second", place / "runs")
    base = find_run("first", place / "runs").path / "model"
    code, text = aisc("eval", str(base), "--on", "second")
    before = [line["eval_loss"] for line in read_metrics(run.path) if line.get("eval_loss") and line["step"] == 0]
    assert code == 0 and f"{before[0]:.4f}" in text, "the adapter's base is where its run began"
    aisc("eval", str(base), "--on", "second")
    (path,) = [path for path in (run.path / "eval").glob("*.json") if path.name.startswith(f"{base.parent.name}-")]
    written = read_json(path)
    assert written is not None and written["kind"] == "run" and written["model"] == base.parent.name


def test_eval_says_what_it_needs(aisc: Aisc, place: Path, tmp_path: Path) -> None:
    base = find_run("first", place / "runs").path / "model"
    shutil.copytree(base, tmp_path / "alone")
    assert "--on RUN takes what that run held out" in aisc("eval", str(tmp_path / "alone"))[1]
    make_tokenizer(tmp_path / "other", ["quite another text"])
    shutil.copy(tmp_path / "other" / "tokenizer.json", tmp_path / "alone" / "tokenizer.json")
    code, text = aisc("eval", str(tmp_path / "alone"), "--on", "first")
    assert code == 2 and "has another vocabulary than first-" in text


@pytest.mark.parametrize("run", ["first", "second"])
def test_chat_answers_once(aisc: Aisc, run: str) -> None:
    code, text = aisc("chat", run, "--prompt", "What is 3 and 4?", "--max-new-tokens", "24")
    assert code == 0 and "Traceback" not in text
    assert text.strip(), "a trained model says something"


def test_a_finished_run_is_not_trained_again(aisc: Aisc, place: Path) -> None:
    run = find_run("first", place / "runs")
    before = sorted(path.name for path in (run.path / "attempts").iterdir())
    code, text = aisc("train", str(run.path / "attempts" / "1" / "config.yaml"), "run.name=first")
    assert code == 0 and "already finished: eval_loss" in text and "training.seed=2" in text
    assert sorted(path.name for path in (run.path / "attempts").iterdir()) == before


def test_an_earlier_run_stands_for_its_model(aisc: Aisc, place: Path) -> None:
    run = find_run("first", place / "runs")
    code, text = aisc("inspect", f"model={run.path}", *settings(place)[2:], "--rows", "1")
    assert code == 0 and "160 chats" in text
    adapter = find_run("second", place / "runs")
    code, text = aisc("inspect", f"model={adapter.path}", *settings(place)[2:])
    assert code == 2 and f"model.path={adapter.path / 'model'}: holds an adapter; merge it with its base first" in text


def test_a_run_reads_the_copy_on_its_node_and_names_the_original(
    aisc: Aisc, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(find_run("first", place / "runs").path / "model", base)
    digest = sha256_file(base / "model.safetensors")
    stage_in(tmp_path / "local" / "aisc-1", {"model": base})
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4096] + b"\xff" * 4096)  # its header is looked at where it lies; these are no numbers
    monkeypatch.setenv("AISC_STAGED", str(tmp_path / "local" / "aisc-1"))
    command = [*settings(place)[2:], "adapter=lora", "training.duration=2 steps", "training.min_steps=0", "evaluation.replies=0"]
    code, text = aisc("train", f"model={base}", *command, "training.global_batch_size=4", f"run.dir={tmp_path / 'runs'}")
    assert code == 0, text
    (run,) = (RunFolder(path) for path in (tmp_path / "runs").iterdir())
    start = run.attempts()[0].read_start()
    assert start is not None and start["weight_files"][str(base / "model.safetensors")] == digest
    adapter = json.loads((run.path / "model" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(base)


def test_smoke_learns_eight_rows_by_heart(aisc: Aisc, place: Path, tmp_path: Path) -> None:
    code, text = aisc("train", *settings(place), f"run.dir={tmp_path}", "training.global_batch_size=4", "--smoke")
    assert code == 0, text
    assert re.search(r"smoke test passed: loss \d\.\d+ -> \d\.\d+ in 30 steps on 8 documents", text)


def test_doctor_finds_this_machine_ready(aisc: Aisc) -> None:
    code, text = aisc("doctor")
    assert code == 0 and text.count("  ok ") >= 8 and "are ours alone" in text


def test_completion_knows_choices(aisc: Aisc) -> None:
    code, text = aisc("completion", "bash")
    assert code == 0
    assert 'adapter.name) COMPREPLY=($(compgen -W "none lora"' in text and "data.sequence_length=" in text
