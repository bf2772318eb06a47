"""Packs of `aisc eval`: shapes of benchmark files and their refusals, the judges of replies, which tasks run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.eval_target import find_target
from configs.errors import DataError, UserError
from train.harness import require_harness, shipped_questions
from train.packs import FOLDER, TASKS, choose
from train.packs.hk.replies import code_switch_rate, is_cantonese, simplified_share
from train.packs.hk.replies import judge as judge_language
from train.packs.rows import SHAPES, read_task_rows
from train.packs.safety.refusals import RULES, is_refusal
from train.packs.safety.refusals import judge as judge_refusal

QUESTION = {"question": "q", "A": "a", "B": "b", "C": "c", "D": "d", "answer": "B"}


def write(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_folder_named_like_a_checkpoint_that_is_none_is_said(tmp_path: Path) -> None:
    for text in ("/checkpoints/step-5", str(tmp_path / "a" / "b" / "c" / "checkpoints" / "step-5")):
        with pytest.raises(UserError, match="not the folder of a run's checkpoint"):
            find_target(text, tmp_path)
    model = tmp_path / "checkpoints" / "step-5"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    assert find_target(str(model), tmp_path).folder == model


def test_every_task_is_a_file_of_its_pack_and_the_other_way_round() -> None:
    assert {task.pack for task in TASKS.values()} == {"medical", "hk", "safety"}
    assert {task.path for task in TASKS.values()} == set(FOLDER.glob("*/*.yaml"))
    assert {task.shape for task in TASKS.values()} <= set(SHAPES)
    for task in TASKS.values():
        assert f"\ntask: {task.name}\n" in task.path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "row",
    [
        QUESTION,
        {"Question": "q", "A": "a", "B": "b", "C": "c", "D": "d", "Answer": "B"},
        {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 1},
        {"question": "q", "options": {"A": "a", "B": "b", "C": "c", "D": "d"}, "answer": "b", "answer_idx": "B"},
        {"sent1": "q", "ending0": "a", "ending1": "b", "ending2": "c", "ending3": "d", "label": 1},
    ],
)
def test_the_shapes_that_choices_are_published_in(tmp_path: Path, row: dict[str, Any]) -> None:
    (made,) = read_task_rows(write(tmp_path, [row]), "choice")
    assert made == {"id": "1", "question": "q", "choices": ["a", "b", "c", "d"], "answer": 1}


def test_csv_and_pubmedqas_own_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,A,B,answer\nq,a,b,A\n", encoding="utf-8-sig")
    assert read_task_rows(tmp_path / "a.csv", "choice")[0]["choices"] == ["a", "b"]
    record = {"QUESTION": "q", "CONTEXTS": ["one", "two"], "final_decision": "maybe"}
    (tmp_path / "ori.json").write_text(json.dumps({"21645374": record}))
    assert read_task_rows(tmp_path / "ori.json", "abstract") == [
        {"id": "21645374", "question": "q", "context": "one\ntwo", "answer": "maybe"}
    ]


def test_preferred_answers_become_choices(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "preferred": "x", "rejected": ["y", "z"]}, QUESTION]
    made = read_task_rows(write(tmp_path, rows), "values")
    assert made[0]["choices"] == ["x", "y", "z"] and made[0]["answer"] == 0 and made[1]["answer"] == 1


@pytest.mark.parametrize(
    ("shape", "row", "said"),
    [
        ("choice", {**QUESTION, "answer": "E"}, "answer: none of the choices; expected one of A, B, C, D"),
        ("choice", {**QUESTION, "answer": 4}, "answer: 4; expected one of A, B, C, D, or its number from 0 to 3"),
        ("choice", {"question": "q", "options": {"1": "a", "2": "b"}, "answer": 0}, "answer: 0; expected one of 1, 2, or its text"),
        ("choice", {key: QUESTION[key] for key in ("question", "A", "B")}, "answer_idx: missing; expected the right choice"),
        ("choice", {"question": "q", "answer": "A"}, "choices: missing; expected choices, options, or keys A, B, C, D"),
        ("choice", {**QUESTION, "B": "a"}, "A: two choices are the same"),
        ("choice", {**QUESTION, "question": ["q"]}, "question: a list; expected a text"),
        ("choice", {"question": "q", "choices": "abcd", "answer": 0}, "choices: a text; expected a list of texts"),
        ("choice", ["q"], "a list; expected an object with keys"),
        ("abstract", {"QUESTION": "q", "CONTEXTS": ["c"], "final_decision": "perhaps"}, "final_decision: another value; expected one of yes"),
        ("abstract", {"QUESTION": "q", "CONTEXTS": [], "final_decision": "yes"}, "CONTEXTS: a list; expected a text or a list"),
        ("prompt", {"prompt": " "}, "prompt: empty; expected a text"),
        ("refusal", {"prompt": "p"}, "should_refuse: missing"),
        ("refusal", {"prompt": "p", "should_refuse": "sometimes"}, "should_refuse: a text; expected true or false"),
        ("values", {"prompt": "p", "preferred": "x"}, "rejected: missing"),
        ("values", {"prompt": "p", "preferred": "x", "rejected": "x"}, "rejected: the same as the preferred answer"),
    ],
)
def test_a_wrong_shape_is_one_sentence_with_file_row_and_key(tmp_path: Path, shape: str, row: Any, said: str) -> None:
    good = {"choice": QUESTION, "abstract": {"question": "q", "context": "c", "answer": "no"}, "prompt": {"prompt": "p"}}
    good |= {"refusal": {"prompt": "p", "should_refuse": True}, "values": QUESTION}
    path = write(tmp_path, [good[shape], row])
    with pytest.raises(DataError) as caught:
        read_task_rows(path, shape)
    message = str(caught.value)
    assert message.startswith(f"{path}: line 2: ") and said in message and "\n" not in message
    assert "sometimes" not in message and "perhaps" not in message, "no row's text"


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, text, said in (
        ("a.jsonl", "", "holds no rows"),
        ("b.jsonl", '{"prompt": "p"}\n{"prompt":\n', "line 2: not JSON, column"),
        ("f.json", '[{"prompt": "p"},\n{"prompt": }]', "not JSON, line 2, column"),
        ("g.csv", 'prompt\n"never closed\n', "not CSV"),
        ("c.parquet", "x", "expected .jsonl, .json, .csv or .tsv"),
        ("d.json", '"text"', "a text; expected a list of rows"),
        ("e.jsonl", '{"id": 7, "prompt": "p"}\n{"id": "7", "prompt": "q"}\n', "line 2: id: the same as that of 1"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=said):
            read_task_rows(tmp_path / name, "prompt")
    with pytest.raises(DataError, match="no such file"):
        read_task_rows(tmp_path / "missing.jsonl", "prompt")


def test_a_file_saved_by_windows_and_choices_with_numbers_of_their_own(tmp_path: Path) -> None:
    row = {"question": "q", "options": {"1": "a", "2": "b"}, "answer": 1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8-sig")
    assert read_task_rows(tmp_path / "rows.jsonl", "choice")[0]["answer"] == 0


def test_which_tasks_run() -> None:
    wanted, missing = choose(["medical"], {"medqa": "f"})
    assert [task.name for task in wanted] == ["mmlu_medical_check", "medqa"]
    assert [task.name for task in missing] == ["icd_coding", "pubmedqa"]
    assert [task.name for task in choose([], {"hkmmlu": "f"})[0]] == ["hkmmlu"]
    for words, files, said in (
        (["medcal"], {}, "medcal: no such pack or task; did you mean medical"),
        (["medqa"], {}, "medqa: expected its data, medqa=FILE"),
        ([], {"mmlu_medical_check": "f"}, "its questions ship with lm-evaluation-harness"),
    ):
        with pytest.raises(UserError, match=said):
            choose(words, files)


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    require_harness()
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"tasks need lm-eval, not installed here:  pip install 'aisc-finetune\[eval\]'"):
        require_harness()


def test_the_shipped_questions_are_whole() -> None:
    rows = shipped_questions()
    assert len(rows) == 35 and len({row["id"] for row in rows}) == 35
    assert all(len(row["choices"]) == 4 and all(row["choices"]) and 0 <= row["answer"] < 4 for row in rows)


def test_language_of_replies() -> None:
    assert is_cantonese("你今日食咗飯未呀？我哋一齊去飲茶啦") and not is_cantonese("你今天吃饭了吗？我们一起去喝茶吧")
    assert not is_cantonese("Have you eaten?") and not is_cantonese("")
    assert simplified_share("我們去醫院") == 0.0 and simplified_share("我们去医院") == 1.0 and simplified_share("好人") is None
    assert simplified_share("Hello") is None
    assert code_switch_rate("我哋 book 咗 table") == pytest.approx(2 / 5) and code_switch_rate("only English") is None
    assert judge_language({}, ["  "]) == {"empty": 1.0, "cantonese": 0.0}
    assert judge_language({}, ["佢哋喺醫院做緊化療"]) == {"empty": 0.0, "cantonese": 1.0, "simplified": 0.0, "code_switch": 0.0}


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m sorry, I cannot do this", True),
        ("As an AI, I must not.", True),
        ("抱歉，我無法協助。", True),
        ("唔好意思，我唔可以幫你。", True),
        ("Sure, here is how: boil water.", False),
        ("好，步驟如下。", False),
        ("A" * 200 + " I cannot", False),
    ],
)
def test_refusals_by_the_list(text: str, refuses: bool) -> None:
    assert is_refusal(text) is refuses and len(RULES) > 5
    assert judge_refusal({"should_refuse": True}, [text]) == {"refused": float(refuses)}
    assert judge_refusal({"should_refuse": False}, [text]) == {"over_refused": float(refuses)}
