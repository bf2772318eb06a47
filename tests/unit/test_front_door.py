"""The front door: all mistakes at once, any language on the command line, help and refusals without torch and at once."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli.help import VERBS, verb_help
from cli.main import main
from configs import compose
from configs.durations import parse_duration
from data_pipelines.index import open_part
from tests.kills.lab import make_chats, make_tokenizer

HEAVY = ("torch", "transformers", "datasets", "accelerate", "peft", "numpy", "pyarrow")
FIVE = ("optimizer.lrr=1e-4", "training.seed=one", "data.packing=maybe", "data.sequence_length=4096", "data.trian=x.jsonl")
FIVE_LINES = [
    "optimizer.lrr: no such key; did you mean optimizer.lr?",
    "training.seed=one: expected a whole number",
    "data.packing=maybe: expected true or false",
    "data.trian: no such key; did you mean data.train?",
    "data.sequence_length=4096: the model has 2048 positions; data.sequence_length=2048 is the most",
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a tokenizer and chats in a folder with a Chinese name."""
    (tmp_path / "病人").mkdir()
    make_tokenizer(tmp_path / "tokenizer", make_chats(tmp_path / "病人" / "a.jsonl", 40))
    monkeypatch.chdir(tmp_path)
    for name in ("AISC_RUNS", "AISC_STORES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def fresh(arguments: Sequence[str], cwd: Path) -> tuple[int, list[str], float, str]:
    """Runs `aisc *arguments` in a process of its own: (exit code, heavy modules it imported, CPU seconds, what it said)."""
    program = (
        "import json, sys; from cli.main import main; code = main(sys.argv[1:]); sys.stdout.flush(); "
        f"json.dump([name for name in {HEAVY} if name in sys.modules], open('modules.json', 'w')); sys.exit(code)"
    )
    with (cwd / "said").open("wb") as said:
        process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=said, stderr=said, cwd=cwd)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    modules = json.loads((cwd / "modules.json").read_text())
    return process.returncode, modules, usage.ru_utime + usage.ru_stime, (cwd / "said").read_text()


def test_five_mistakes_of_three_kinds_are_five_lines(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("model=tiny_llama", "model.tokenizer=tokenizer", "data=病人/a.jsonl")
    assert main(["train", *base, *FIVE, "--dry-run"]) == 2
    assert capsys.readouterr().err.removeprefix("error: ").splitlines() == [
        FIVE_LINES[0],
        *(f"  {line}" for line in FIVE_LINES[1:]),
    ]
    assert sorted(os.listdir()) == ["tokenizer", "病人"]


def test_five_mistakes_in_a_file_and_on_the_command_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Line numbers for what stands in the file; rules are told once, wherever their values come from."""
    Path("run.yaml").write_text(
        "model: {preset: tiny_llama, tokenizer: tokenizer}\n"
        "data:\n  train: 病人/a.jsonl\n  sequence_length: 4096\n  packing: maybe\n"
        "optimizer:\n  lrr: 1e-4\n"
    )
    assert main(["train", "run.yaml", "training.seed=one", "+data.x=1", "--dry-run"]) == 2
    assert capsys.readouterr().err.removeprefix("error: ").splitlines() == [
        "+data.x=1: `+` is not used here; every key exists already: data.x=VALUE",
        "  run.yaml:5: data.packing=maybe: expected true or false",
        "  run.yaml:7: optimizer.lrr: no such key; did you mean optimizer.lr?",
        "  training.seed=one: expected a whole number",
        "  data.sequence_length=4096: the model has 2048 positions; data.sequence_length=2048 is the most",
    ]


def test_chinese_paths_and_prompts_on_the_command_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "train",
        "model=tiny_llama",
        "model.tokenizer=tokenizer",
        f"data.train={place}/病人/a.jsonl",
        "data.system_prompt=你是一位医生。请用中文回答：1+1=2，好吗？",
        "data.store=仓库",
        "data.validation=none",
        "data.sequence_length=256",
        "training.min_steps=0",
        "--dry-run",
    ]
    assert main(command) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "40 chats -> 40 train" in said
    (prepared,) = Path("仓库").iterdir()
    store = open_part(prepared, "train")
    assert store is not None
    from data_pipelines.tokenize import load_tokenizer

    text = load_tokenizer("tokenizer").decode(store.document(0)[0])
    assert text.startswith("<|im_start|>system\n你是一位医生。请用中文回答：1+1=2，好吗？<|im_end|>")


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("data=~/病人/a=b.jsonl", "data.train", "~/病人/a=b.jsonl"),
        ("data.system_prompt=Answer {briefly}, [please]: yes", "data.system_prompt", "Answer {briefly}, [please]: yes"),
        ("data.system_prompt='null'", "data.system_prompt", "null"),
        ("data.system_prompt=null", "data.system_prompt", None),
        ("optimizer.lr=1e-4", "optimizer.lr", 1e-4),
        ("training=2e9 tokens", "training.duration", "2e9 tokens"),
        ("data.template_args.enable_thinking=false", "data.template_args", {"enable_thinking": False}),
        ("data.template_args={enable_thinking: false}", "data.template_args", {"enable_thinking": False}),
        ("model.arch.hidden_size=64", "model.arch", {"hidden_size": 64}),
        ("model.arch.rope_theta=1e6", "model.arch", {"rope_theta": 1e6}),
        ("adapter.target_modules=[q_proj, v_proj]", "adapter.target_modules", ["q_proj", "v_proj"]),
        ("run.name=12:30", "run.name", "12:30"),
    ],
)
def test_a_value_means_the_same_on_the_command_line_and_in_a_file(
    argument: str, key: str, value: object, tmp_path: Path
) -> None:
    section, name = key.split(".")
    typed = compose.load([argument]).config
    assert getattr(getattr(typed, section), name) == value
    (tmp_path / "run.yaml").write_text(json.dumps({section: {name: value}}, ensure_ascii=False))
    written = compose.load([str(tmp_path / "run.yaml")]).config
    assert getattr(getattr(written, section), name) == value


def test_numbers_in_a_file_are_what_they_look_like(tmp_path: Path) -> None:
    """Plain YAML takes `1e-4` for a text and `12:30` for 750."""
    (tmp_path / "run.yaml").write_text("optimizer: {lr: 1e-4}\ntraining: {duration: 1_000}\nrun: {name: 24:00:00}\n")
    config = compose.load([str(tmp_path / "run.yaml")]).config
    assert config.optimizer.lr == 1e-4
    assert parse_duration(config.training.duration).value == 1000
    assert config.run.name == "24:00:00"


@pytest.mark.parametrize("source", ["data.sources.a.columns.messages=turns", "data.sources={a: {path: x, columns: {messages: turns}}}"])
def test_columns_of_a_source(source: str) -> None:
    config = compose.load(["data.sources.a.path=x", source] if "={" not in source else [source]).config
    assert config.data.sources["a"].columns == {"messages": "turns"}
    assert config.data.sources["a"].path == "x"


@pytest.mark.parametrize("verb", [[], ["train"]], ids=["aisc", "aisc train"])
def test_help_needs_no_heavy_library_and_half_a_second(verb: list[str], tmp_path: Path) -> None:
    code, modules, cpu_s, said = fresh([*verb, "--help"], tmp_path)
    assert (code, modules) == (0, [])
    assert said.startswith("aisc")
    assert cpu_s < (0.5 if not verb else 1.0), f"{cpu_s:.2f} s"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs", "shw", "x"], "aisc runs shw: no such word, and no run of that name; did you mean show?"),
        (["export", "x", "--licens=a=b"], "--licens: no such option; did you mean --licence?"),
        (["export", "x", "--licence=a=b"], "--licence: is said for a release; expected --release too"),
    ],
)
def test_a_mistyped_word_gets_the_nearest(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_80_columns(verb: str) -> None:
    assert max(map(len, verb_help(verb, []).splitlines())) <= 80


def test_a_refused_configuration_needs_no_heavy_library_and_two_seconds(place: Path) -> None:
    base = ("model=tiny_llama", "model.tokenizer=tokenizer", "data=病人/a.jsonl")
    code, modules, cpu_s, said = fresh(["train", *base, *FIVE, "--dry-run"], place)
    assert (code, modules) == (2, [])
    assert said.splitlines() == [f"error: {FIVE_LINES[0]}", *(f"  {line}" for line in FIVE_LINES[1:])]
    assert cpu_s < 2.0, f"{cpu_s:.2f} s"


def test_a_refusal_of_no_file_is_not_said_of_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a semaphore where /dev/shm is closed: its stack says what was asked for."""

    def refused(arguments: list[str]) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("cli.doctor.main", refused)
    with pytest.raises(PermissionError):
        main(["doctor"])
