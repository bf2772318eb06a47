"""Rows of two answers, and of one answer with a label, on their way into a store: formats, masks, packing, bad rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from configs.schema import DataSection, SourceSection
from data_pipelines.build import Prepared, prepare
from data_pipelines.corpora import icd_pairs, script_pairs
from data_pipelines.corpora.packages import fetch
from data_pipelines.estimate import look
from data_pipelines.fingerprint import fingerprint
from data_pipelines.formats import detect
from data_pipelines.index import COLUMNS, ROLE_COLUMNS, Store, count
from data_pipelines.mismatches import next_of
from data_pipelines.problems import BadRowsError
from data_pipelines.roles import Role
from data_pipelines.showing import parts_of
from data_pipelines.sources import InputFile
from data_pipelines.store import Document, StoreWriter
from data_pipelines.tokenize import load_tokenizer
from tests.kills.lab import make_tokenizer
from tests.unit.test_template import ROOT, tokenizer_for

Row = dict[str, Any]
USER, ASSISTANT = "user", "assistant"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    make_tokenizer(folder, [f"question {i} answer {i * 7}" for i in range(100)])
    return str(folder)


def prepared(
    tmp_path: Path, tokenizer: str, rows: list[Row], objective: str = "dpo", seed: int = 1, **section: Any
) -> Prepared:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"sequence_length": 96, "validation": "none", "workers": 1, "store": str(tmp_path / "stores"), **section}
    if "sources" not in options:
        options["train"] = str(path)
    return prepare(DataSection(**options), objective, tokenizer, seed=seed)


def pair(i: int, **more: Any) -> Row:
    return {"prompt": f"question {i}", "chosen": f"answer {i * 7}", "rejected": f"no {i}", **more}


def labelled(i: int, **more: Any) -> Row:
    return {"prompt": f"question {i}", "completion": f"answer {i * 7}", "label": i % 2 == 0, **more}


def turns(*texts: str, first: str = USER) -> list[Row]:
    roles = [first, ASSISTANT if first == USER else USER] * len(texts)
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def shares(*texts: str) -> list[Row]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def texts(store: Store, tokenizer: str) -> list[tuple[Role, str, str]]:
    """Returns (role, whole text, learned text) of each document."""
    assert store.document_role is not None
    read = load_tokenizer(tokenizer)
    found = []
    for number, role in enumerate(store.document_role):
        ids, mask = store.document(number)
        found.append((Role(int(role)), read.decode(ids), read.decode(ids[mask])))
    return found


WRITTEN = "<|im_start|>user\nquestion 3<|im_end|>\n<|im_start|>assistant\n"
SHAPES = {
    "texts": {"prompt": "question 3", "chosen": "yes", "rejected": "no"},
    "prompt as turns": {"prompt": turns("question 3"), "chosen": "yes", "rejected": turns("no", first=ASSISTANT)},
    "answers as turns": {"prompt": "question 3", "chosen": turns("yes", first=ASSISTANT), "rejected": turns("no", first=ASSISTANT)},
    "whole conversations": {"chosen": turns("question 3", "yes"), "rejected": turns("question 3", "no")},
    "whole conversations and their prompt": {
        "prompt": "question 3",
        "chosen": turns("question 3", "yes"),
        "rejected": turns("question 3", "no"),
    },
    "LLaMA-Factory": {
        "conversations": shares("question 3"),
        "chosen": {"from": "gpt", "value": "yes"},
        "rejected": {"from": "gpt", "value": "no"},
    },
    "a table's cells of one turn": {
        "conversations": json.dumps(shares("question 3"), indent=1),
        "chosen": json.dumps({"from": "gpt", "value": "yes"}),
        "rejected": json.dumps(turns("no", first=ASSISTANT), indent=1),
    },
    "a table's cells": {"chosen": json.dumps(turns("question 3", "yes")), "rejected": json.dumps(turns("question 3", "no"))},
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_of_a_pair_is_the_same_pair(name: str, tmp_path: Path, tokenizer: str) -> None:
    assert detect(SHAPES[name], {}, "dpo") == "preference"
    store = prepared(tmp_path, tokenizer, [SHAPES[name]]).train
    assert texts(store, tokenizer) == [
        (Role.CHOSEN, f"{WRITTEN}yes<|im_end|>", "yes<|im_end|>"),
        (Role.REJECTED, f"{WRITTEN}no<|im_end|>", "no<|im_end|>"),
    ]


LABELLED_SHAPES = {
    "texts": {"prompt": "question 3", "completion": "yes", "label": True},
    "turns": {"prompt": turns("question 3"), "completion": turns("yes", first=ASSISTANT), "label": True},
    "messages": {"messages": turns("question 3", "yes"), "label": True},
    "LLaMA-Factory": {"conversations": shares("question 3", "yes"), "kto_tag": True},
}


@pytest.mark.parametrize("name", LABELLED_SHAPES)
def test_every_shape_of_a_labelled_answer(name: str, tmp_path: Path, tokenizer: str) -> None:
    store = prepared(tmp_path, tokenizer, [LABELLED_SHAPES[name], labelled(4)], "kto", packing=False).train
    assert texts(store, tokenizer)[:2] == [
        (Role.DESIRABLE, f"{WRITTEN}yes<|im_end|>", "yes<|im_end|>"),
        (Role.MISMATCHED, f"{WRITTEN}answer 28<|im_end|>", "answer 28<|im_end|>"),
    ]


def test_only_the_answer_is_learned_and_its_prompt_is_not(tmp_path: Path, tokenizer: str) -> None:
    """Earlier answers are prompt; a tool call and what follows it are one answer; a system text stands first."""
    before = [*turns("question 1", "early", "question 2")]
    call = {"role": ASSISTANT, "content": "call"}
    rows = [
        {"chosen": [*before, *turns("a", first=ASSISTANT)], "rejected": [*before, *turns("b", first=ASSISTANT)], "system": "S"},
        {"prompt": "q", "chosen": [call, {"role": "tool", "content": "4"}, *turns("a", first=ASSISTANT)], "rejected": "b"},
    ]
    store = prepared(tmp_path, tokenizer, rows, packing=False, sequence_length=256).train
    found = texts(store, tokenizer)
    assert found[0][1].startswith("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nquestion 1")
    assert [learned for _, _, learned in found] == ["a<|im_end|>", "b<|im_end|>", "call<|im_end|>a<|im_end|>", "b<|im_end|>"]


# Template -> what stands before an answer's own text and is learned with it.
REAL = {"qwen2_5": "", "qwen3": "<think>\n\n</think>\n\n"}


@pytest.mark.parametrize("family", REAL)
@pytest.mark.parametrize("objective", ["dpo", "reward", "kto"])
def test_masks_on_real_templates(family: str, objective: str, tmp_path: Path) -> None:
    """Also where an answer's first line end would join the header's: the prompts stay the same, token for token."""
    source = fetch("trl", ROOT / ".cache" / "packages") / "trl" / "chat_templates" / f"{family}.jinja"
    tokenizer = tokenizer_for(source.read_text(encoding="utf-8"))
    tokenizer.save_pretrained(tmp_path / "t")
    before = [{"role": "system", "content": "Be short."}, *turns("first", "early", "then?")]
    answers = [("我好好", "No, thanks."), ("\n\nnew line", "x"), ("a", "\n<think>\nwhy\n</think>\n\nb")]
    if objective == "kto":
        systems = [{"role": "system", "content": text} for text in ("Be short.", "Be brief.")]
        own_rows = [(systems[side], text) for both in answers for side, text in enumerate(both)]
        rows = [{"prompt": [system, *before[1:]], "completion": text, "label": True} for system, text in own_rows]
    else:
        rows = [{"prompt": before, "chosen": chosen, "rejected": rejected} for chosen, rejected in answers]
    options: dict[str, Any] = {"chat_template": str(source), "sequence_length": 256, "packing": False}
    store = prepared(tmp_path, str(tmp_path / "t"), rows, objective, **options).train
    prompts, learned = [], []
    for number in range(store.num_documents):
        ids, mask = store.document(number)
        start = int(np.argmax(mask))
        assert mask[start:].all() and tokenizer.decode(ids[-1:]) == "<|im_end|>"
        prompts.append(tokenizer.decode(ids[:start]))
        learned.append(tokenizer.decode(ids[start:]))
    if objective == "reward":
        assert learned == ["<|im_end|>"] * 6
        return
    assert len(set(prompts)) == (2 if objective == "kto" else 1) and prompts[0].endswith("<|im_start|>user\nthen?<|im_end|>\n<|im_start|>assistant\n")
    assert "early<|im_end|>" in prompts[0]
    if family == "qwen2_5":
        own = [f"{text}<|im_end|>" for both in answers for text in both]
        expected = own if objective == "dpo" else [text for i in range(6) for text in (own[i], own[(i + 1) % 6])]
        assert learned == expected
    else:
        assert learned[0] == f"{REAL[family]}我好好<|im_end|>"
        assert all(text.startswith("<think>\n") for text in learned)


def test_a_reward_is_one_label_at_the_end(tmp_path: Path, tokenizer: str) -> None:
    store = prepared(tmp_path, tokenizer, [pair(i, margin=i / 2) for i in range(4)], "reward").train
    assert store.document_margin is not None and store.document_margin.dtype == np.float32
    assert sorted(set(store.document_margin.tolist())) == [0.0, 0.5, 1.0, 1.5]
    for number in range(store.num_documents):
        ids, mask = store.document(number)
        assert np.flatnonzero(mask).tolist() == [len(ids) - 1]
        assert load_tokenizer(tokenizer).decode(ids[-1:]) == "<|im_end|>"


def packed(folder: Path, rows: list[tuple[int, int]], length: int) -> Store:
    """Writes pairs of documents whose tokens are all the pair's number."""
    writer = StoreWriter(
        folder, fingerprint="f" * 64, sequence_length=length, sources=["a"], vocab_size=5000, packing=True
    )
    for number, sizes in enumerate(rows):
        writer.add_item(
            [
                Document(np.full(size, number, np.uint32), np.ones(size, np.bool_), 0, number, number + 1, role, number / 4)
                for size, role in zip(sizes, (Role.CHOSEN, Role.REJECTED), strict=True)
            ]
        )
    writer.finish()
    return Store(folder)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=40))
def test_packing_keeps_pairs_whole_and_together(rows: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    store = packed(tmp_path_factory.mktemp("packed") / "s", rows, 40)
    assert store.document_role is not None and store.document_margin is not None
    assert store.document_role.tolist() == [Role.CHOSEN, Role.REJECTED] * len(rows)
    assert (store.row_offsets % 2 == 0).all()
    assert (store.row_tokens <= 40).all()
    numbers = [int(store.document(i)[0][0]) for i in range(store.num_documents)]
    assert numbers[::2] == numbers[1::2]
    assert sorted(numbers[::2]) == list(range(len(rows)))
    assert np.diff(store.document_offsets).tolist() == [size for number in numbers[::2] for size in rows[number]]
    assert store.document_margin.tolist() == [number / 4 for number in numbers]
    store.verify()


@given(prompts=st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_the_next_with_another_prompt_is_the_first_that_a_search_finds(prompts: list[int]) -> None:
    num = len(prompts)
    found = next_of(np.array(prompts)).tolist()
    if len(set(prompts)) == 1:
        assert not found
    for i, place in enumerate(found):
        behind = [(i + step) % num for step in range(1, num)]
        assert place == next(other for other in behind if prompts[other] != prompts[i])


@settings(max_examples=12, deadline=None)
@given(num_rows=st.integers(6, 12), weight=st.sampled_from([0.5, 1.0, 2.0]), share=st.sampled_from(["none", "40%"]))
def test_a_mismatched_completion_is_that_of_the_next_row_with_another_prompt(
    num_rows: int, weight: float, share: str, tokenizer: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of the same source and the same side of the split; two answers to each prompt stand one behind the other."""
    folder = tmp_path_factory.mktemp("kto")
    names = []
    for name in ("one", "two"):
        first = 50 if name == "two" else 0
        rows = [labelled(first + i, prompt=f"question {(first + i) // 2}") for i in range(num_rows)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        names.append(name)
    sources = {name: SourceSection(path=str(folder / f"{name}.jsonl"), weight=weight) for name in names}
    try:
        done = prepared(folder, tokenizer, [], "kto", sources=sources, validation=share, duplicates="off")
    except DataError as error:
        assert "one prompt only" in str(error) and (weight < 1 or share != "none")
        return
    for store in filter(None, (done.train, done.validation)):
        found = texts(store, tokenizer)
        assert [role is Role.MISMATCHED for role, _, _ in found] == [False, True] * (len(found) // 2)
        own: dict[int, dict[int, str]] = {}
        for number, (role, _, learned) in enumerate(found):
            if role is not Role.MISMATCHED:
                own.setdefault(int(store.document_source[number]), {})[int(store.document_row[number])] = learned
        for number in range(0, len(found), 2):
            completions, line = own[int(store.document_source[number])], int(store.document_row[number])
            lines = sorted(completions)
            place = lines.index(line)
            others = [other for other in lines[place + 1 :] + lines[:place] if (other - 1) // 2 != (line - 1) // 2]
            assert found[number + 1][2] == completions[others[0]]
            assert found[number + 1][1] == found[number][1].replace(found[number][2], found[number + 1][2])
            assert store.document_row[number] == store.document_row[number + 1]


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([labelled(0), labelled(1, prompt="question 0")], {}, "source train: one prompt only in the 2 answers to learn from,"),
        ([labelled(0), labelled(1)], {"validation": "held.jsonl"}, "source validation: one prompt only in the 1 answers held out,"),
    ],
)
def test_one_prompt_only_makes_no_baseline(
    rows: list[Row], options: Row, said: str, tmp_path: Path, tokenizer: str
) -> None:
    (tmp_path / "held.jsonl").write_text(json.dumps(labelled(2)))
    options = {name: str(tmp_path / value) for name, value in options.items()}
    with pytest.raises(DataError) as raised:
        prepared(tmp_path, tokenizer, rows, "kto", **options)
    assert said in str(raised.value)
    assert not [path for path in (tmp_path / "stores").glob("*") if not path.name.startswith(".")]


def bad_rows(tmp_path: Path, tokenizer: str, rows: list[Row], objective: str = "dpo", **section: Any) -> list[str]:
    with pytest.raises(BadRowsError) as raised:
        prepared(tmp_path, tokenizer, rows, objective, **section)
    assert not list((tmp_path / "stores").glob("*"))
    assert [row.line for row in raised.value.bad.rows] == list(range(2, len(rows) + 1))
    return [f"{row.key}: {row.problem}; {row.remedy}" for row in raised.value.bad.rows]


def test_bad_pairs_are_reported_together(tmp_path: Path, tokenizer: str) -> None:
    cases: list[tuple[Row, str]] = [
        (pair(1, rejected="answer 7"), "rejected: the same answer as chosen; nothing can be preferred; leave this row out"),
        ({"prompt": "q", "chosen": "a"}, "rejected: missing; this row has: chosen, prompt"),
        (pair(1, chosen="  "), "chosen: empty; fill it or leave this turn out"),
        (pair(1, chosen=None), "chosen: null, not an answer; expected a text, or turns"),
        ({"chosen": "a", "rejected": "b"}, "prompt: missing; give it, map it (data.sources.NAME.columns), or make both answers whole conversations"),
        (
            {"chosen": turns("q", "a"), "rejected": turns("other", "b")},
            "rejected: the prompts of the pair differ; both answers need one and the same prompt",
        ),
        (
            {"prompt": "asked", "chosen": turns("q", "a"), "rejected": turns("q", "b")},
            "prompt: the prompts of the pair differ; both answers need one and the same prompt",
        ),
        (
            {"chosen": turns("q", "a", "more"), "rejected": turns("q", "b")},
            "chosen: ends with a user turn; an answer ends with an assistant turn",
        ),
        (
            pair(1, prompt=turns("q", "a")),
            "prompt: the prompt ends with an assistant turn; end it with the user's",
        ),
        (pair(1, margin="large"), "margin: text, not a number; expected a finite number"),
        (pair(1, margin=True), "margin: true/false, not a number; expected a finite number"),
        (pair(1, margin="inf"), "margin: not a finite number; expected a finite number"),
        (pair(1, margin=10**400), "margin: not a finite number; expected a finite number"),
        (pair(1, margin=1e39), "margin: not a finite number; expected a finite number"),
        (pair(1, chosen=str(turns("a", first=ASSISTANT))), "chosen: turns as Python writes them; write them as JSON: json.dumps"),
        (
            {name: [{"role": "system", "content": "S"}, *turns(name, first=ASSISTANT)] for name in ("chosen", "rejected")},
            "chosen: no prompt; an answer needs what it answers",
        ),
        (pair(1, conversations=shares("other")), "conversations: beside prompt; one row says it twice; keep one of the two columns"),
        (pair(1, label=True), "label: beside chosen and rejected; a row is a pair, or one answer with a label"),
    ]
    assert bad_rows(tmp_path, tokenizer, [pair(0), *(row for row, _ in cases)]) == [said for _, said in cases]


@pytest.mark.parametrize(("objective", "row"), [("dpo", {"instruction": "q", "chosen": "a", "rejected": "b"}), ("kto", labelled(1, label="good"))])
def test_a_file_of_bad_rows_alone_is_told_by_row(objective: str, row: Row, tmp_path: Path, tokenizer: str) -> None:
    with pytest.raises(BadRowsError, match="3 of 3 rows") as raised:
        prepared(tmp_path, tokenizer, [row] * 3, objective)
    assert [bad.line for bad in raised.value.bad.rows] == [1, 2, 3]


def test_answers_that_are_json_are_learned_as_they_stand(tmp_path: Path, tokenizer: str) -> None:
    store = prepared(tmp_path, tokenizer, [pair(3, chosen='[{"stage": "IV"}]', rejected="{'stage': 1}")]).train
    assert [learned for _, _, learned in texts(store, tokenizer)] == ['[{"stage": "IV"}]<|im_end|>', "{'stage': 1}<|im_end|>"]
    store = prepared(tmp_path, tokenizer, [pair(3, chosen='{"from": "day 1", "to": "day 9"}', rejected='[{"role": "surgeon"}]')]).train
    assert [learned for _, _, learned in texts(store, tokenizer)] == ['{"from": "day 1", "to": "day 9"}<|im_end|>', '[{"role": "surgeon"}]<|im_end|>']


def test_bad_labelled_answers_are_reported_together(tmp_path: Path, tokenizer: str) -> None:
    cases: list[tuple[Row, str]] = [
        (labelled(1, label="good"), "label: text, not true or false; expected true or false"),
        (labelled(1, label=1), "label: a number, not true or false; expected true or false"),
        (labelled(1, label=None), "label: missing; expected true or false"),
        (labelled(1, completion=""), "completion: empty; fill it or leave this turn out"),
        ({"prompt": "q", "label": True}, "completion: missing; this row has: label, prompt"),
        ({"messages": turns("q", "a", "b"), "label": True}, "messages: ends with a user turn; an answer ends with an assistant turn"),
        (labelled(1, chosen="a"), "chosen: beside a label; a row is a pair, or one answer with a label"),
        (labelled(1, messages=turns("q", "a")), "messages: beside prompt; one row says it twice; keep one of the two columns"),
        (
            {"messages": turns("q", "a"), "conversations": shares("q", "b"), "label": True},
            "conversations: beside messages; one row says it twice; keep one of the two columns",
        ),
        (
            {"messages": turns("q", "a"), "completion": "b", "label": True},
            "completion: beside messages; one row says it twice; keep one of the two columns",
        ),
        (labelled(1, kto_tag=False), "kto_tag: beside label; one row says it twice; keep one of the two columns"),
        ({"messages": turns("a", first=ASSISTANT), "label": True}, "messages: no prompt; an answer needs what it answers"),
    ]
    assert bad_rows(tmp_path, tokenizer, [labelled(0), *(row for row, _ in cases)], "kto") == [said for _, said in cases]


CHAT = {"messages": turns("q", "a")}
WRONG = {
    "sft on pairs": ("sft", pair(1), "holds preference pairs (chosen and rejected), and objective=sft learns from chats or "
    "texts; objective=dpo, orpo, simpo or reward learns from this file"),
    "cpt on ShareGPT pairs": ("cpt", SHAPES["LLaMA-Factory"], "holds preference pairs (chosen and rejected), and objective=cpt "
    "learns from chats or texts; objective=dpo, orpo, simpo or reward learns from this file"),
    "sft on labelled answers": ("sft", labelled(1), "holds answers with a label (kto), and objective=sft learns from chats or "
    "texts; objective=kto learns from this file"),
    "dpo on chats": ("dpo", CHAT, "holds rows of the format chat, and objective=dpo learns from pairs: prompt, chosen, "
    "rejected; objective=sft learns from this file"),
    "dpo on labelled answers": ("dpo", labelled(1), "holds answers with a label (kto), and objective=dpo learns from pairs: "
    "prompt, chosen, rejected; objective=kto learns from this file"),
    "kto on pairs": ("kto", pair(1), "holds preference pairs (chosen and rejected), and objective=kto learns from labelled "
    "answers: prompt, completion, label; objective=dpo, orpo, simpo or reward learns from this file"),
    "reward on texts": ("reward", {"text": "t"}, "holds rows of the format text, and objective=reward learns from pairs: "
    "prompt, chosen, rejected; objective=sft learns from this file"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_rows_of_another_objective_are_one_error(name: str, tmp_path: Path, tokenizer: str) -> None:
    objective, row, said = WRONG[name]
    with pytest.raises(DataError) as raised:
        prepared(tmp_path, tokenizer, [row] * 3, objective)
    assert str(raised.value) == f"{tmp_path / 'rows.jsonl'}: {said}"


@pytest.mark.parametrize(
    ("row", "columns", "formats"),
    [
        ({**CHAT, "conversations": shares("other", "b")}, "messages, conversations", "chat or sharegpt"),
        ({"instruction": "i", "output": "o", "conversations": shares("other", "b")}, "conversations, instruction, output", "sharegpt or alpaca"),
    ],
)
def test_a_conversation_that_stands_twice_is_not_chosen(row: Row, columns: str, formats: str, tmp_path: Path, tokenizer: str) -> None:
    """Unless the format is stated; an empty column, or the conversation written out, is no second one."""
    with pytest.raises(BadRowsError, match=f"a conversation twice in a row: {columns}.*format={formats}"):
        prepared(tmp_path, tokenizer, [row], "sft")
    stated = {"a": SourceSection(path=str(tmp_path / "rows.jsonl"), format="sharegpt")}
    assert prepared(tmp_path, tokenizer, [row], "sft", sources=stated).train.num_documents == 1
    for more in ({"conversations": None}, {"conversations": []}, {"text": "q a"}):
        assert prepared(tmp_path, tokenizer, [{**CHAT, **more}], "sft").train.num_documents == 1


def test_columns_of_no_meaning_change_no_format() -> None:
    """What was read as a chat, an instruction or a text still is: only conversations without an answer are not."""
    extra = {"label": True, "chosen": "a", "rejected": "b", "kto_tag": True}
    for row, name in ((CHAT, "chat"), ({"instruction": "i", "output": "o"}, "alpaca"), ({"text": "t"}, "text")):
        assert detect({**row, "label": True}, {}, "sft") == detect(row, {}, "sft") == name
    assert detect({**CHAT, **extra}, {}, "sft") == "chat"
    assert detect({**CHAT, "label": True}, {}, "kto") == "kto"
    assert detect({**CHAT, "chosen": "a", "rejected": "b"}, {}, "dpo") == "preference"
    assert detect({"conversations": []}, {}, "sft") == "sharegpt"
    assert detect({"a": "q", "b": "x", "c": "y"}, {"prompt": "a", "chosen": "b", "rejected": "c"}, "dpo") == "preference"


def test_weights_and_the_split_take_pairs_whole(tmp_path: Path, tokenizer: str) -> None:
    for name, first in (("one", 0), ("two", 40)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(pair(first + i, patient=i % 8)) + "\n" for i in range(40)))
    weights = {"one": 2.0, "two": 0.5}
    sources = {name: SourceSection(path=str(tmp_path / f"{name}.jsonl"), weight=weight) for name, weight in weights.items()}
    done = prepared(tmp_path, tokenizer, [], sources=sources, validation="25%", group_by="patient")
    assert done.validation is not None
    account = done.account
    assert account.summary()[0].startswith(f"80 pairs -> {account.documents} train / 20 held out, by patient (6 / 2 groups)")
    assert account.sources["one"].documents == 60
    assert account.documents * 2 == done.train.num_documents
    assert account.tokens == done.train.tokens
    for store in (done.train, done.validation):
        assert store.document_role is not None
        assert store.document_role.tolist() == [Role.CHOSEN, Role.REJECTED] * (store.num_documents // 2)
        assert (store.document_row[::2] == store.document_row[1::2]).all()
        assert (store.row_offsets % 2 == 0).all()
    assert not set(done.train.document_group.tolist()) & set(done.validation.document_group.tolist())


def test_a_pair_is_held_out_in_either_order(tmp_path: Path, tokenizer: str) -> None:
    """A held-out pair is left out of training, also with its answers swapped."""
    swapped = {"prompt": "question 1", "chosen": "no 1", "rejected": "answer 7"}
    (tmp_path / "held.jsonl").write_text(json.dumps(pair(1)))
    done = prepared(tmp_path, tokenizer, [pair(1), swapped, pair(2)], validation=str(tmp_path / "held.jsonl"), duplicates="off")
    assert done.account.notes == ["2 training pairs are also in data.validation: left out of training"]
    assert done.account.documents == 1


LONG = {"prompt": "q", "chosen": "yes " * 30, "rejected": "no " * 40}


def test_a_long_pair_is_refused_dropped_or_cut_alike(tmp_path: Path, tokenizer: str) -> None:
    said = bad_rows(tmp_path, tokenizer, [pair(0), LONG])
    assert said[0].endswith("tokens, 96 fit; data.overlength=truncate or drop; or data.sequence_length")
    dropped = prepared(tmp_path, tokenizer, [pair(0), LONG], overlength="drop")
    assert (dropped.train.num_documents, dropped.account.dropped) == (2, 1)
    cut = prepared(tmp_path, tokenizer, [LONG], overlength="truncate")
    assert cut.account.truncated == 1
    sizes = np.diff(cut.train.document_offsets)
    assert sizes[0] == sizes[1] and 94 <= sizes.sum() <= 96
    lost = cut.account.sources["train"].lost["truncated"][1]
    whole = prepared(tmp_path, tokenizer, [LONG], sequence_length=512)
    assert lost == whole.train.supervised - cut.train.supervised
    with pytest.raises(DataError, match="objective=dpo compares whole answers; use truncate or drop"):
        prepared(tmp_path, tokenizer, [LONG], overlength="split")


def test_a_cut_that_makes_both_answers_equal_leaves_nothing(tmp_path: Path, tokenizer: str) -> None:
    alike = {"prompt": "q", "chosen": "yes " * 40 + "a", "rejected": "yes " * 40 + "b"}
    done = prepared(tmp_path, tokenizer, [pair(0), alike], overlength="truncate")
    assert done.account.sources["train"].lost == {"truncated, nothing left to learn": [1, done.account.supervised_lost]}
    assert done.account.documents == 1


def test_a_long_completion_of_another_row_is_cut_and_counted(tmp_path: Path, tokenizer: str) -> None:
    rows = [labelled(0), labelled(1, completion="yes " * 18)]
    done = prepared(tmp_path, tokenizer, rows, "kto")
    assert done.account.mismatched_cut == 2
    assert "2 completions of other rows cut to fit (only kto's baseline reads them)" in done.account.summary()
    assert (done.train.row_tokens <= 96).all()
    assert done.train.num_documents == 4


def test_identifiers_of_a_prompt_count_once(tmp_path: Path, tokenizer: str) -> None:
    rows = [pair(0, prompt="call 9123 4567 now", chosen="call 9000 1234", rejected="9000 1234"), pair(1, rejected="call 9876 5432"), pair(2)]
    reported = prepared(tmp_path, tokenizer, rows, privacy="report")
    source = reported.account.sources["train"]
    assert (sum(source.identifiers.values()), source.private) == (4, 2)
    dropped = prepared(tmp_path, tokenizer, rows, privacy="drop")
    assert (dropped.account.documents, dropped.account.dropped) == (1, 2)


def test_what_inspect_shows(tmp_path: Path, tokenizer: str) -> None:
    from data_pipelines.collate import collate

    store = prepared(tmp_path, tokenizer, [pair(0)]).train
    chosen, rejected, *_ = parts_of(collate(store, np.array([0]), 0), store, load_tokenizer(tokenizer))[0]
    assert (chosen.origin, rejected.origin) == ("train, row 1, chosen", "train, row 1, rejected")
    assert "".join(piece.text for piece in rejected.pieces if piece.is_learned) == "no 0<|im_end|>"


@pytest.mark.parametrize(("objective", "row"), [("dpo", pair), ("kto", labelled)])
def test_the_estimate_is_of_what_will_be_written(objective: str, row: Any, tmp_path: Path, tokenizer: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(200)))
    data = DataSection(train=str(path), sequence_length=96, validation="none", workers=1, store=str(tmp_path / "stores"))
    assert look(data, tokenizer).objective == objective
    estimated = count(data, objective, tokenizer, seed=1)
    store = prepare(data, objective, tokenizer, seed=1).train
    exact = count(data, objective, tokenizer, seed=1)
    assert (estimated.exact, exact.exact, exact.tokens) == (False, True, store.tokens)
    assert estimated.tokens == pytest.approx(exact.tokens, rel=0.05)
    assert estimated.supervised == pytest.approx(exact.supervised, rel=0.05)
    with pytest.raises(DataError, match="and objective=sft learns from chats or texts"):
        count(data, "sft", tokenizer, seed=1)


# Computed before documents had roles, with no gate and no group.
GOLDEN = {
    "sft": "624c75f0cd1605970305c0992d2dff9e3bb3410898d9f87494a4dcbd2bac111e",
    "cpt": "fd214f338085f3bbff93d49161a73d3aef122e57613d10621007265d15a9f864",
}


@pytest.mark.parametrize("objective", GOLDEN)
def test_stores_without_roles_are_what_they_were(objective: str, tmp_path: Path, tokenizer: str) -> None:
    hashes = {Path("a.jsonl"): "ab" * 32, Path("tokenizer.json"): "cd" * 32}
    data = DataSection(train="a.jsonl", sequence_length=128, validation="none")
    files, parts = [InputFile("train", "a.jsonl", "jsonl")], [Path("tokenizer.json")]
    found = fingerprint(data, objective, files=files, hashes=hashes, tokenizer=parts, template=None, seed=1)
    assert found == GOLDEN[objective]
    store = prepared(tmp_path, tokenizer, [{"messages": turns("q", "a"), "label": True}], objective).train
    assert store.document_role is None and store.document_margin is None
    assert set(store.meta["files"]) == {f"{name}.npy" for name in COLUMNS}
    assert not any((store.folder / f"{name}.npy").exists() for name in ROLE_COLUMNS)


def test_script_pairs_differ_in_script_alone(tmp_path: Path) -> None:
    """Repeated, mixed, short and unchanged sentences are left out; no request gives the script away."""
    scripts = script_pairs.Scripts.load()
    counts = script_pairs.Counts()
    given = ["醫生話你冇事，唔使驚。", "醫生話你冇事唔使驚", "我哋去食飯好唔好呀", "這個体育館好大呀，係咪", "短。", "abc 醫生話你冇事呀"]
    found = list(script_pairs.pairs(given, scripts, counts))
    assert found == [("醫生話你冇事，唔使驚。", "医生话你冇事，唔使惊。")]
    assert (counts.sentences, counts.repeated, counts.simplified_characters, counts.too_alike) == (6, 1, 1, 1)
    assert not list(script_pairs.pairs(given[:1], scripts, counts, lambda text: len(set(text) & set("醫驚"))))
    assert counts.other_number_of_tokens == 1
    for request in script_pairs.REQUESTS:
        assert scripts.to_simplified.convert(request) == request == scripts.to_traditional.convert(request)
    rows = [{"prompt": "p", "chosen": f"問題{i}", "rejected": f"问题{i}"} for i in range(50)]
    labels = [row["label"] for row in script_pairs.labelled(rows)]
    assert sum(labels) == 50 and labels != sorted(labels)


def test_icd_pairs_have_mirror_images_and_solved_ones_go_with_theirs(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(80)]
    fair = [
        row
        for i in range(20)
        for two in icd_pairs.mirrored([icd_pairs.Entry(f"C{i % 10}0.{j}", f"{words[4 * i + j]} growth") for j in (0, 1)])
        for row in two
    ]
    assert all(
        (one["chosen"], one["rejected"]) == (other["rejected"], other["chosen"])
        for one, other in zip(fair[::2], fair[1::2], strict=True)
    )
    solved = [
        {"prompt": "q", "chosen": f"sure {word}", "rejected": f"maybe {word}", "category": f"C{i % 10}0"}
        for i, word in enumerate(words[:40])
    ]
    kept, report = icd_pairs.without_solved([*fair, *solved])
    assert kept == fair
    assert report["solved"]["bag of words"] == 40
    assert report["accuracy after"] == {"bag of words": 0.5, "length": 0.5}
