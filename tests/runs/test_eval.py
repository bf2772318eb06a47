"""`aisc eval` on a tiny model: the harness by hand, a plain loop, checkpoints, two models, and a gate that trips when it should."""

from __future__ import annotations

import contextlib
import json
import math
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cli.main import main
from configs.runfolder import RunFolder, read_json
from launch.runs import find_run
from tests.kills.lab import make_chats, make_tokenizer
from train import harness
from train.dossier import BASE, OTHER, THIS, read_dossier
from train.eval_target import weight_hashes
from train.harness import task_config
from train.packs import TASKS
from train.packs.rows import read_task_rows

Aisc = Callable[..., tuple[int, str]]
WORDS = ["the", "ward", "nurse", "reads", "a", "chart", "before", "each", "round", "and", "writes", "what", "the", "doctor", "said", "about", "pain", "sleep", "food"]


def sentences(count: int, seed: int) -> list[str]:
    """Returns general text: short sentences of few words in a fixed order of parts, which a tiny model learns quickly."""
    chance = random.Random(seed)
    return [" ".join(WORDS[chance.randrange(3) + 3 * part] for part in range(5)) + "." for _ in range(count)]


def teach(model: Any, tokenizer: Any, texts: list[str], *, steps: int, lr: float) -> None:
    """Trains `model` on `texts`, eight of them a step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    chance = random.Random(0)
    for _ in range(steps):
        batch = tokenizer(chance.sample(texts, 8), return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def settings_of(folder: Path) -> list[str]:
    """Returns the settings of the run `gentle`, started in `folder`; everything else here is called from another one."""
    return [
        "model=base",
        "data=chats.jsonl",
        "data.validation=25%",
        f"run.dir={folder / 'runs'}",
        "run.name=gentle",
        "data.sequence_length=64",
        "data.workers=1",
        "training.global_batch_size=4",
        "training.micro_batch_size=4",
        "training.duration=4 steps",
        "training.min_steps=0",
        "optimizer.lr=1e-4",
        "evaluation.every=end",
        "evaluation.replies=0",
        "checkpoint.every=2 steps",
        "evaluation.forgetting=[general.jsonl]",
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `base` (knows general text), `spoilt` (the same, over-trained on chats), and the run `gentle` on base."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("eval")
    chats = make_chats(folder / "chats.jsonl", 60)
    make_tokenizer(folder / "tokenizer", [*chats, *sentences(50, 1)])
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **shape))
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    for name, texts, steps, lr in (("base", sentences(200, 2), 60, 1e-2), ("spoilt", chats, 40, 1e-2)):
        teach(model, tokenizer, texts, steps=steps, lr=lr)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "general.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences(40, 3)))
    rows = [{"question": f"What is {n} and {n}?", "options": {"A": str(2 * n), "B": str(n), "C": "9" * 5}, "answer_idx": "A"} for n in range(1, 13)]
    (folder / "medqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = [{"prompt": f"What is {n} and 1?", "should_refuse": n % 2 == 0} for n in range(4)]
    (folder / "refusal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    with contextlib.chdir(folder):
        assert main(["train", *settings_of(folder)]) == 0
    yield folder
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def aisc(place: Path, capsys: pytest.CaptureFixture[str]) -> Aisc:
    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["eval", *arguments, f"run.dir={place / 'runs'}"])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def the_run(place: Path) -> RunFolder:
    return find_run("gentle", place / "runs")


def plain_loss(folder: Path, texts: list[str]) -> float:
    """Returns nats per token the plain way: each text alone, all logits, no packing, in float64."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).float().eval(), AutoTokenizer.from_pretrained(folder)
    nats = tokens = 0.0
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double()
        nats -= float(logits.log_softmax(-1).gather(1, ids[0, 1:, None]).sum())
        tokens += ids.shape[1] - 1
    return nats / tokens


def test_a_normal_run_passes_the_gate_and_its_perplexity_is_that_of_a_plain_loop(aisc: Aisc, place: Path) -> None:
    code, text = aisc("gentle")
    written = read_json(the_run(place).path / "eval" / "model.json")
    assert code == 0 and "forgetting  held" in text and written is not None
    assert written["forgetting"]["tripped"] is False and written["forgetting"]["documents"] == 40
    assert max(len(line) for line in text.splitlines() if "/" not in line) <= 80
    general = written["tasks"]["general_text"]["metrics"]
    texts = [json.loads(line)["text"] for line in (place / "general.jsonl").read_text().splitlines()]
    by_hand = plain_loss(the_run(place).path / "model", texts)
    assert general["loss"]["value"] == pytest.approx(by_hand, abs=1e-5)
    assert general["perplexity"]["value"] == pytest.approx(math.exp(by_hand), rel=1e-5)
    items = [json.loads(line) for line in (the_run(place).path / written["tasks"]["general_text"]["items"]).read_text().splitlines()]
    assert len(items) == 40 and set(items[0]) == {"id", "loss", "tokens"}, "ids and scores, no texts"


def test_an_over_trained_model_trips_the_gate(aisc: Aisc, place: Path) -> None:
    code, text = aisc(
        str(place / "spoilt"), "--forgetting", str(place / "general.jsonl"), "--base", str(place / "base"), "--output", str(place / "out")
    )
    (path,) = (place / "out").glob("spoilt-*.json")
    verdict = json.loads(path.read_text())["forgetting"]
    assert code == 1 and "forgetting  TRIPPED" in text and "release of this model is refused" in text
    assert "failed: the forgetting gate tripped: loss on general text" in text and "nats/token; bound +" in text
    assert verdict["tripped"] and verdict["low"] > verdict["bound"]
    assert verdict["base_weights"] == weight_hashes(place / "base")


def test_tasks_are_the_harness_by_hand_and_texts_stay_private(aisc: Aisc, place: Path, tmp_path: Path) -> None:
    code, text = aisc("gentle", "medical", f"medqa={place / 'medqa.jsonl'}", f"refusal={place / 'refusal.jsonl'}", "--samples")
    assert code == 0, text
    written = read_json(the_run(place).path / "eval" / "model.json")
    assert written is not None
    assert "35 questions answered: the harness works" in text and "pubmedqa=FILE" in text and r"\bas an AI\b" in text
    tasks = written["tasks"]
    assert tasks["mmlu_medical_check"]["check"] is True and "mmlu_medical_check    acc" not in text
    samples = the_run(place).path / tasks["refusal"]["samples"]
    assert samples.stat().st_mode & 0o777 == 0o600 and len(samples.read_text().splitlines()) == 4
    assert tasks["refusal"]["metrics"]["refused"]["n"] == 2 and tasks["refusal"]["metrics"]["over_refused"]["n"] == 2
    assert "held_out" in tasks and "general_text" in tasks, "figures of one model add up"
    report = (the_run(place).path / "report.html").read_text(encoding="utf-8")
    assert "medqa" in report and "Evaluation" in report

    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    rows = {"medqa": read_task_rows(place / "medqa.jsonl", "choice"), "mmlu_medical_check": harness.shipped_questions()}
    with harness._offline():
        by_hand = lm_eval.simple_evaluate(
            model=HFLM(pretrained=str(the_run(place).path / "model"), device="cpu", dtype="float32", batch_size=2),
            tasks=[task_config(TASKS[name], rows[name], tmp_path) for name in rows],
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=1,
        )
    assert by_hand is not None
    for name in rows:
        found, expected = tasks[name]["metrics"]["acc"], by_hand["results"][name]
        assert found["value"] == expected["acc,none"] and found["stderr"] == expected["acc_stderr,none"]
        lines = [json.loads(line) for line in (the_run(place).path / tasks[name]["items"]).read_text().splitlines()]
        hand = sorted(by_hand["samples"][name], key=lambda line: line["doc_id"])
        assert [line["acc"] for line in lines] == [line["acc"] for line in hand]


def test_two_models_on_the_same_items_and_a_checkpoint(aisc: Aisc, place: Path) -> None:
    run = the_run(place)
    code, text = aisc("gentle@4", f"medqa={place / 'medqa.jsonl'}", "--against", "base", "--limit", "8")
    assert code == 0, text
    assert "minus" in text and "McNemar" in text
    step, final = read_json(run.path / "eval" / "step-4.json"), read_json(run.path / "eval" / "model.json")
    assert step is not None and final is not None and step["kind"] == "checkpoint"
    assert step["weights"] == final["weights"], "the last checkpoint is what was exported, to the bit"
    ((other, found),) = step["comparisons"].items()
    assert other.startswith("base-") and (run.path / "eval" / f"{other}.json").is_file()
    assert found["medqa"]["acc"]["n"] == 8 and 0 < found["held_out"]["loss"]["p"] <= 1
    base = read_json(run.path / "eval" / f"{other}.json")
    assert base is not None
    change = step["tasks"]["held_out"]["metrics"]["loss"]["value"] - base["tasks"]["held_out"]["metrics"]["loss"]["value"]
    assert found["held_out"]["loss"]["value"] == pytest.approx(change, abs=1e-9)
    assert not list(run.path.glob(".tmp-eval-*"))


@pytest.mark.parametrize("reference", ["base", "spoilt"])
def test_a_preference_run_has_accuracy_and_margin_by_pair(aisc: Aisc, place: Path, reference: str) -> None:
    pairs = [{"prompt": f"What is {n} and 1?", "chosen": f"{n + 1}.", "rejected": f"{n + 2}."} for n in range(40)]
    (place / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    changed = {"data": "pairs.jsonl", "run.name": f"by-{reference}", "data.sequence_length": 128, "optimizer.lr": 1e-3}
    if reference != "base":
        changed["objective.reference"] = reference
    settings = {**dict(word.split("=", 1) for word in settings_of(place)), **changed, "objective": "dpo", "evaluation.forgetting": "[]"}
    with contextlib.chdir(place):  # what is scored elsewhere was told by relative paths here
        assert main(["train", *(f"{key}={value}" for key, value in settings.items())]) == 0
    run = find_run(f"by-{reference}", place / "runs")
    code, text = aisc(run.name, "--against", str(place / reference))
    result, written = read_json(run.result_path), read_json(run.path / "eval" / "model.json")
    assert code == 0 and result is not None and written is not None, text
    figures = written["tasks"]["held_out"]["metrics"]
    assert set(figures) == {"loss", "accuracy", "margin"} and figures["accuracy"]["n"] == 10
    assert figures["loss"]["value"] == pytest.approx(result["eval_loss"], rel=1e-5)
    ((_, found),) = written["comparisons"].items()
    assert found["held_out"]["margin"]["value"] == pytest.approx(figures["margin"]["value"], abs=1e-5), "the reference's margin is 0"
    manifest = read_json(run.path / "manifest.json")
    assert manifest is not None and {Path(name).parent.name for name in manifest["weights"]} == {"base", reference}
    # Its hashes are of what the run read; it did not start from it.
    assert {one.subject for one in read_dossier(run.path).evaluations} == {THIS, BASE if reference == "base" else OTHER}
