"""`aisc plan` as a person meets it: what is printed, what is refused, how light it is; and properties of every plan."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import plan_table
from cli.main import main
from cli.plan import ask
from configs import compose
from configs.engine_choice import Candidate
from configs.errors import UserError
from launch.plan import make_plan
from launch.plan.calibrate import measured_of
from launch.plan.choice import Nodes, fit
from launch.plan.figures import GB
from launch.plan.flops import flops_of
from launch.plan.speed import traffic_of
from launch.plan.table import explain, explainable
from tests.unit.test_plan_formulas import ONE_NODE, PRESETS, config, model
from tests.unit.test_site import example

QWEN = ("model=qwen3_8b", "training.gradient_checkpointing=full", "objective=cpt", "data.sequence_length=8192")
ON_CARD = ("--gpu", "H800", "--tokens", "2.1B")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Returns what `aisc plan` prints; it must succeed."""
    assert main(["plan", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Returns the sentence of a refusal."""
    assert main(["plan", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") <= 2
    return captured.err


@pytest.fixture
def site() -> Iterator[str]:
    # Its path is shown, and pytest's own folders are long: lines would not fit 80 columns.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "site.yaml"
        path.write_text(example().replace("/lustre/runs", folder))
        yield f"cluster.site={path}"


def test_the_table(capsys: pytest.CaptureFixture[str], site: str) -> None:
    out = run(capsys, *QWEN, "--tokens", "2.1B", "cluster.nodes=2", site)
    lines = out.splitlines()
    long = [line for line in lines if len(line) > 80 and "https://" not in line and not line.startswith("aisc plan")]
    assert long == []
    heads = next(line for line in lines if "x16" in line).split()
    assert heads[:2] == ["zero2", "x16"] and heads[-2:] == ["lora", "x1"]
    for label in ("parameters", "gradients", "optimizer", "activations", "logits, buff.", "peak", "tokens/s", "wall", "GPU-hours", "HK$ list", "HK$ net 70 %"):
        assert any(line.strip().startswith(label) for line in lines), label
    assert "^ cheapest full fine-tuning that fits" in out and "MFU 33 % (published" in out and "+-" in out
    assert "site.yaml, the centre's letter of 2026-10-01" in out.replace("\n" + " " * 15, " ").replace("\n  ", " ")


def test_every_figure_is_explained(capsys: pytest.CaptureFixture[str], site: str) -> None:
    asked = ask([*QWEN, site, "cluster.nodes=2"], tokens="2.1B")
    plan = make_plan(asked.config, asked.site, asked.shape, asked.facts, asked.count, compares=True)
    for name in explainable():
        text = explain(plan, name)
        assert any(f"({basis})" in text for basis in ("measured", "published", "formula only", "given")), name
        assert all(len(line) <= 80 or "https://" in line for line in text.splitlines()), name
    assert run(capsys, *QWEN, *ON_CARD, "--explain", "activations").startswith("activations, zero2 x8: ")
    assert "did you mean activations?" in refused(capsys, *QWEN, *ON_CARD, "--explain", "activation")


def test_the_sheet(capsys: pytest.CaptureFixture[str], tmp_path: Path, site: str) -> None:
    for ending in ("md", "html"):
        page = tmp_path / f"need.{ending}"
        run(capsys, *QWEN, "--tokens", "2.1B", site, "--sheet", str(page))
        text = page.read_text()
        for word in ("Model complexity", "Data size", "Batch, precision, schedule", "Need: memory", "GPU-hours", "8,190,735,360", "bf16", "cosine", "70 %"):
            assert word in text, word
        assert "None" not in text and "{{" not in text
    assert "@page" in text and text.count("<table>") == text.count("</table>") == 7
    assert ".md or .html" in refused(capsys, *QWEN, *ON_CARD, "--sheet", "need.pdf")


def test_no_site_file_no_money_but_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, *QWEN, *ON_CARD)
    assert out.count("money: no site file") == 1


def test_671_billion(capsys: pytest.CaptureFixture[str], site: str) -> None:
    huge = ("model=deepseek_v3", "training.gradient_checkpointing=full", "training.global_batch_size=1024", "--tokens", "1e9", site)
    assert "671 B, full" in run(capsys, *huge, "cluster.nodes=128")
    # 20 bytes x 671 B do not fit the 2 TB of one node either.
    sentence = refused(capsys, *huge)
    assert "GB of host memory on each node" in sentence and "this would: cluster.nodes=" in sentence


def test_what_cannot_fit_is_refused_with_what_would(capsys: pytest.CaptureFixture[str], site: str) -> None:
    sentence = refused(capsys, "model=llama3.3_70b", "--tokens", "1e9", site, "engine.name=zero2")
    assert sentence.startswith("error: on 8 GPUs this does not fit: the smallest, zero2, needs")
    assert "73.6 GB of a 80 GB GPU can be used; this would: " in sentence
    for change in sentence.partition("this would: ")[2].strip().split(", or "):
        words = change.partition(" (")[0].split(" ")
        assert main(["plan", "model=llama3.3_70b", "--tokens", "1e9", site, "engine.name=auto", *words]) == 0, words


def test_an_engine_that_a_rule_refuses_is_no_column(capsys: pytest.CaptureFixture[str], site: str) -> None:
    """DoRA needs whole weights: fsdp2, which would fit, is not offered."""
    arguments = ("model=llama3.3_70b", "adapter=lora", "--tokens", "1e9", site, "training.gradient_checkpointing=full")
    sentence = refused(capsys, *arguments, "adapter.dora=true")
    assert sentence.partition("this would: ")[2].startswith("adapter.dora=false")
    assert main(["plan", *arguments]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("model=qwen3_8b",), "no GPU here and no site file; name a card and a shape: --gpu H800"),
        (("model=qwen3_8b", "--gpu", "TPU"), "--gpu TPU: no such card is known here; there are H200"),
        (("model=qwen3_8b", "--gpu", "H800", "--tokens", "many"), "--tokens many: expected a number such as 2.1e9"),
        (("model=qwen3_8b", "--gpu", "H800", "--calibrate", "nothing"), "nothing: no such run"),
        (("model=qwen3_8b", "--gpu", "H800", "data=gone.jsonl", "model.tokenizer=/nowhere"), "/nowhere"),
        (("model=qwen3_8b", "--gup", "H800"), "did you mean --gpu?"),
        (("model=qwen3_8b", "cluster.name=aisc"), "cluster=aisc: no site file"),
        (("model.arch={model_type: mamba, vocab_size: 5}", "--gpu", "H800", "--tokens", "1e9"), "family mamba are not known"),
    ],
)
def test_bad_input_gets_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("AISC_SITE", raising=False)
    assert words in refused(capsys, *arguments)


def test_it_is_light() -> None:
    """2 s of CPU and no torch, for 8 B on 16 GPUs and for 671 B on 1,024; CPU time, as machines may be busy."""
    script = (
        "import io, contextlib, resource, sys, json\nfrom cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): code = main(['plan', *sys.argv[1:]])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "heavy = [name for name in ('torch', 'transformers', 'numpy', 'pyarrow', 'tokenizers') if name in sys.modules]\n"
        # ru_maxrss would be that of the test process, which the child begins as.
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(json.dumps([code, used.ru_utime + used.ru_stime, int(peak.split()[1]) / 1024, heavy]))\n"
    )
    huge = ("model=deepseek_v3", "training.gradient_checkpointing=full", "training.global_batch_size=1024", "cluster.nodes=128", *ON_CARD)
    for arguments in ((*QWEN, *ON_CARD, "cluster.nodes=2"), huge):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        code, seconds, megabytes, heavy = json.loads(done.stdout)
        print(f"{seconds:.2f} s, {megabytes:.0f} MB")
        assert code == 0 and heavy == [] and seconds < 2.0 and megabytes < 150


def calibrating_run(folder: Path, *changes: str, rates: tuple[float, ...] = (900.0, 1000.0, 1000.0, 1000.0, 1100.0)) -> Path:
    """Writes the files of a run of 2 ranks as an attempt leaves them."""
    attempt = folder / "attempts" / "1"
    attempt.mkdir(parents=True)
    given = config(*changes)
    (attempt / "config.yaml").write_text(compose.freeze(given))
    (attempt / "start.json").write_text(json.dumps({"parent": None, "host": "h", "pid": 1, "pid_started": "1", "time": 0.0}))
    lines = [{"step": step, "tokens_per_s": rate} for step, rate in enumerate((1.0, 1.0, 1.0, *rates), start=1)]
    (attempt / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    started = {"event": "started", "step": 0, "world": 2, "peak_bytes": 55 * GB, "micro_batch_size": 1, "time": 0.0}
    (attempt / "events.jsonl").write_text(json.dumps(started) + "\n")
    return folder


def test_a_run_of_the_same_shape_replaces_the_assumption(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = calibrating_run(tmp_path / "qwen-77ab01", "engine.name=zero2")
    arguments = ("model=qwen3_8b", "training.gradient_checkpointing=full", *ON_CARD)
    out = run(capsys, *arguments, "--calibrate", str(folder))
    assert "measured: run qwen-77ab01: 2 ranks, zero2" in out.replace("\n" + " " * 15, " ")
    explained = run(capsys, *arguments, "--calibrate", str(folder), "--explain", "MFU")
    flops = flops_of(model(PRESETS["qwen3_8b"]), 2048)
    share = 1000.0 * flops.done("full") / 2 / 989e12
    assert f"MFU: {share:,.6g} +-{share * 0.1:.4g} of peak   (measured)" in explained  # 900 to 1,100 around 1,000


def test_a_run_of_another_shape_is_refused(tmp_path: Path) -> None:
    other = calibrating_run(tmp_path / "a", "data.sequence_length=4096")
    with pytest.raises(UserError, match="data.sequence_length: 4096 there, 2048 here"):
        measured_of(other, config(), model(PRESETS["qwen3_8b"]))
    short = calibrating_run(tmp_path / "b", rates=(1.0,))
    with pytest.raises(UserError, match="1 timed steps after the first 3; expected 5 or more"):
        measured_of(short, config(), model(PRESETS["qwen3_8b"]))


def test_the_page_is_what_the_formulas_give() -> None:
    assert plan_table.page_with(plan_table.tables()) == plan_table.PAGE.read_text(encoding="utf-8")


ENGINES = st.sampled_from(["ddp", "zero1", "zero2", "zero3", "fsdp2"])
SIZES = st.sampled_from(["qwen3_0.6b", "llama3.2_1b", "qwen3_8b", "llama3.3_70b", "deepseek_v3"])


def peak(name: str, engine: str, nodes: Nodes, **changes: Any) -> int:
    given = config(*[f"{key}={value}" for key, value in changes.items()], "training.micro_batch_size=1", preset=name)
    found = fit(given, model(PRESETS[name]), Candidate(engine), nodes)
    assert found is not None
    return found.memory.total.accelerator


@settings(max_examples=25, deadline=None)
@given(name=SIZES, engine=ENGINES, power=st.integers(0, 6))
def test_more_gpus_never_hold_more_each(name: str, engine: str, power: int) -> None:
    few, many = (peak(name, engine, Nodes(2**p, 8, None)) for p in (power, power + 1))
    assert many <= few


@settings(max_examples=25, deadline=None)
@given(name=SIZES, engine=ENGINES, length=st.integers(8, 4096))
def test_longer_rows_never_hold_less(name: str, engine: str, length: int) -> None:
    short, long = (peak(name, engine, ONE_NODE_FREE, **{"data.sequence_length": size}) for size in (length, length + 256))
    assert short <= long  # equal where the update itself takes more than activations


ONE_NODE_FREE = Nodes(1, 8, None)


@settings(max_examples=25, deadline=None)
@given(name=SIZES, length=st.integers(8, 8192))
def test_operations_grow_with_rows_and_fall_with_adapters(name: str, length: int) -> None:
    whole, adapted = model(PRESETS[name]), model(PRESETS[name], rank=16, target_modules=["q_proj", "o_proj"])
    flops = flops_of(whole, length)
    assert flops.model < flops_of(whole, length + 1).model
    assert flops.forward < flops_of(adapted, length).model < flops.model < flops.done("full")


@settings(max_examples=25, deadline=None)
@given(engine=ENGINES, rows=st.integers(1, 256))
def test_what_is_chosen_covers_the_batch_and_fits(engine: str, rows: int) -> None:
    given_config = config(f"training.global_batch_size={rows}", preset="llama3.2_1b")
    found = fit(given_config, model(PRESETS["llama3.2_1b"]), Candidate(engine), ONE_NODE)
    assert found is not None
    assert found.micro_batches * found.micro_batch_size * found.ranks >= rows
    assert found.memory.total.accelerator <= (ONE_NODE.room or 0)
    assert traffic_of(found)[0] > 0


def test_a_random_shape_has_the_operations_of_its_weights() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    heads = draw.choice([2, 4, 8])
    values = {
        "model_type": draw.choice(["llama", "qwen2", "qwen3"]),
        "vocab_size": draw.randrange(50, 999),
        "hidden_size": 16 * heads,
        "intermediate_size": draw.randrange(16, 99),
        "num_hidden_layers": draw.randrange(1, 5),
        "num_attention_heads": heads,
        "num_key_value_heads": draw.choice([h for h in (1, 2, 4, 8) if heads % h == 0]),
        "tie_word_embeddings": draw.random() < 0.5,
    }
    whole = model(values)
    matrices = sum(p.numel for p in whole.parameters if len(p.shape) == 2) - (0 if values["tie_word_embeddings"] else values["vocab_size"] * values["hidden_size"])
    flops = flops_of(whole, 100)
    width = whole.values["head_dim"] * heads
    assert flops.model == 6 * matrices + 12 * values["num_hidden_layers"] * width * 100
