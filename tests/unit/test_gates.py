"""Gates between training and measuring: repeats of held-out rows, evaluation items in training rows, the split's proof."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencc import OpenCC

from configs.errors import DataError
from configs.schema import DataSection
from data_pipelines.build import Prepared, prepare
from data_pipelines.decontaminate import read_items
from data_pipelines.duplicates import AllMarks, across, marks_of, within
from data_pipelines.gates import make_gates
from data_pipelines.index import Store
from data_pipelines.split import group_name, hash_key, hold_out, proof
from tests.kills.lab import make_tokenizer

Row = dict[str, Any]
WORDS = ["liver", "lung", "stage", "margin", "node", "biopsy", "dose", "cycle", "marker", "mass", "duct", "vessel", "tissue", "cell", "protein", "gene", "scan", "contrast", "fluid", "fever", "weight", "pain", "nausea", "cough", "blood", "sugar", "kidney", "bone", "marrow", "graft", "donor", "trial", "cohort", "arm", "risk", "median", "survival"]
FULL = {ord(c): ord(c) + 0xFEE0 for c in map(chr, range(0x21, 0x7F))}
TO_SIMPLIFIED, TO_TRADITIONAL = OpenCC("t2s"), OpenCC("s2t")
QUESTION_ZH = "關於肝癌患者接受標靶藥物治療期間的飲食安排，下列哪一項建議最為恰當？"
QUESTION_EN = "Which of the listed drugs should be stopped before an elective operation on the liver of an adult?"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    make_tokenizer(folder, [" ".join(WORDS), QUESTION_ZH])
    return str(folder)


def texts(count: int, seed: int) -> list[str]:
    """Returns texts of 25 words, no two of them alike."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=25)) for _ in range(count)]


def chat(text: str, **more: Any) -> Row:
    system = {"role": "system", "content": "You answer questions of patients about their treatment, briefly and politely. " * 3}
    half = len(text) // 2
    return {"messages": [system, {"role": "user", "content": text[:half]}, {"role": "assistant", "content": text[half:]}], **more}


def write(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def prepared(folder: Path, tokenizer: str, **section: Any) -> Prepared:
    options: dict[str, Any] = {"sequence_length": 1024, "validation": "none", "workers": 1, "store": str(folder / "stores")}
    return prepare(DataSection(**options | section), "sft", tokenizer, seed=1)


def lines_of(store: Store | None) -> set[int]:
    return {store.origin(i)[1] for i in range(store.num_documents)} if store else set()


def overlapping(folder: Path) -> dict[str, str]:
    """Writes 30 training rows: 3 repeats a held-out row exactly, 8 in full width, 17 with one word changed."""
    train, held = texts(30, 1), texts(5, 2)
    train[2], train[7] = held[0], held[1].upper().translate(FULL)
    train[16] = held[2].replace(held[2].split()[12], "otherwise", 1)
    return {"train": write(folder / "t.jsonl", list(map(chat, train))), "validation": write(folder / "v.jsonl", list(map(chat, held)))}


def test_repeats_of_held_out_rows_are_refused_by_line_without_their_text(tmp_path: Path, tokenizer: str) -> None:
    with pytest.raises(DataError) as refused:
        prepared(tmp_path, tokenizer, **overlapping(tmp_path))
    message = str(refused.value)
    assert "3 of 30 training rows repeat held-out rows, 2 exactly and 1 nearly (t.jsonl line 3, 8, 17)" in message
    assert "data.duplicates=drop leaves them out" in message
    assert not any(f" {word} " in message for word in WORDS)
    assert not list((tmp_path / "stores").glob("*/train"))


def test_dropped_they_are_counted_and_reported_they_stay(tmp_path: Path, tokenizer: str) -> None:
    files = overlapping(tmp_path)
    dropped = prepared(tmp_path, tokenizer, duplicates="drop", **files)
    assert lines_of(dropped.train) == set(range(1, 31)) - {3, 8, 17}
    assert {k: dropped.account.duplicates[k] for k in ("done", "exact", "near", "training_rows", "held_out_rows")} == {
        "done": "drop", "exact": 2, "near": 1, "training_rows": 30, "held_out_rows": 5,
    }
    assert dropped.account.duplicates["lines"] == [["t.jsonl", 3, "v.jsonl", 1], ["t.jsonl", 8, "v.jsonl", 2], ["t.jsonl", 17, "v.jsonl", 3]]
    assert "training rows that repeat held-out ones: 3 (2 exactly), left out of training" in dropped.account.summary()
    reported = prepared(tmp_path, tokenizer, duplicates="report", **files)
    # Copies letter by letter of a held-out file were never trained on, whatever is asked.
    assert lines_of(reported.train) == set(range(1, 31)) - {3} and reported.account.duplicates["near"] == 1
    kept = "3 (2 exactly), kept, but for 1 that a held-out file has as they are"
    assert f"training rows that repeat held-out ones: {kept}" in reported.account.summary()
    assert reported.account.notes == ["1 training documents are also in data.validation: left out of training"]
    off = prepared(tmp_path, tokenizer, duplicates="off", **files)
    assert lines_of(off.train) == set(range(1, 31)) - {3} and off.account.duplicates == {}
    assert len({one.fingerprint for one in (dropped, reported, off)}) == 3


def test_a_split_by_share_is_held_to_the_same(tmp_path: Path, tokenizer: str) -> None:
    rows = texts(60, 3)
    rows += [text.replace(" ", "  ") for text in rows[:30]]
    path = write(tmp_path / "t.jsonl", list(map(chat, rows)))
    with pytest.raises(DataError, match=r"repeat held-out rows, \d+ exactly and 0 nearly"):
        prepared(tmp_path, tokenizer, train=path, validation="20%")
    found = prepared(tmp_path, tokenizer, train=path, validation="20%", duplicates="drop")
    pairs = {line: (line - 1) % 60 for line in range(1, 91)}
    assert not {pairs[line] for line in lines_of(found.train)} & {pairs[line] for line in lines_of(found.validation)}
    assert found.account.duplicates["inside_training_exact"] > 0
    clean = prepared(tmp_path, tokenizer, train=write(tmp_path / "c.jsonl", list(map(chat, texts(60, 3)))), validation="20%")
    assert clean.account.duplicates["exact"] == clean.account.duplicates["near"] == 0


def test_rows_on_one_line_and_several_processes_change_nothing(tmp_path: Path, tokenizer: str) -> None:
    files = overlapping(tmp_path)
    first = prepared(tmp_path, tokenizer, duplicates="drop", **files)
    array = tmp_path / "t.json"
    array.write_text(json.dumps([json.loads(line) for line in Path(files["train"]).read_text().splitlines()]))
    second = prepared(tmp_path, tokenizer, duplicates="drop", workers=2, train=str(array), validation=files["validation"])
    assert second.train.num_documents == first.train.num_documents
    assert second.account.duplicates["exact"] == 2 and second.account.duplicates["near"] == 1


@settings(max_examples=12, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=12))
def test_every_text_repeats_itself_and_its_other_spellings(given_texts: list[str]) -> None:
    texts = [text for text in given_texts if text]
    spelled = [TO_SIMPLIFIED.convert(text).upper().lower() if text.isascii() else text for text in texts]
    marks = marks_of(range(2 * len(texts)), texts + spelled)
    whole = AllMarks(np.zeros(2 * len(texts), np.int64), marks.lines, marks.exact, marks.signatures)
    if texts:
        rows = np.arange(len(texts))
        assert across(whole, rows + len(texts), rows, 0.8).any.all()
        assert within(whole, np.arange(2 * len(texts)), 0.8).any[len(texts) :].all()


def test_planted_edits_are_found_and_other_texts_are_not() -> None:
    held, train = texts(300, 5), texts(2000, 6)
    draw = random.Random(7)
    for i in range(300):
        words = held[i].split()
        words[draw.randrange(25)] = "another"
        train[i] = " ".join(words)
    marks = marks_of(range(2300), held + train)
    whole = AllMarks(np.zeros(2300, np.int64), marks.lines, marks.exact, marks.signatures)
    found = across(whole, np.arange(300, 2300), np.arange(300), 0.8)
    assert found.any[:300].mean() >= 0.97 and not found.any[300:].any() and not found.exact.any()
    assert (found.partner[:300][found.any[:300]] == np.flatnonzero(found.any[:300])).all()
    assert across(whole, np.arange(300, 2300), np.arange(300), 0.6).any[:300].all()


def leaky(folder: Path) -> tuple[str, str, list[int]]:
    """Returns evaluation file, training file, and the lines of the rows that hold a question in some spelling."""
    items = [{"question": QUESTION_ZH, "choices": ["甲", "乙"]}, {"question": QUESTION_EN, "answer": "A"}, {"question": "too short"}]
    spellings = [
        TO_SIMPLIFIED.convert(QUESTION_ZH), QUESTION_ZH.translate(FULL), " ".join(QUESTION_ZH), f"考題：「{QUESTION_ZH}」答案是甲。",
        QUESTION_EN.upper(), QUESTION_EN.translate(FULL), QUESTION_EN.replace(" ", "\n\t "), QUESTION_EN.replace(" ", ", "), "Q: " + QUESTION_EN + " A", QUESTION_EN.replace("elective", "elec\u00adt\u200bive"),
    ]  # fmt: skip
    rows = list(map(chat, texts(40, 9)))
    lines = list(range(4, 4 + len(spellings)))
    for line, text in zip(lines, spellings, strict=True):
        rows[line - 1]["messages"][1]["content"] = text
    rows += [chat("Which of the listed drugs should be stopped"), chat("關於肝癌患者的飲食安排")]
    return write(folder / "e.jsonl", items), write(folder / "t.jsonl", rows), lines


def test_evaluation_items_leave_the_training_rows_in_any_spelling(tmp_path: Path, tokenizer: str) -> None:
    evaluation, train, lines = leaky(tmp_path)
    found = prepared(tmp_path, tokenizer, train=train, decontaminate=[evaluation])
    assert lines_of(found.train) == set(range(1, 43)) - set(lines)
    said = found.account.contamination
    assert (said["rows"], said["items"], said["too_short"], said["items_met"]) == (len(lines), 3, 1, 2)
    assert said["lines"] == {"t.jsonl": lines} and said["files"] == ["e.jsonl"]
    assert found.account.sources["train"].lost["dropped, holds an evaluation item"][0] == len(lines)
    assert f"training rows that hold evaluation items: {len(lines)} (2 of 2 items), left out of training; 1 items too short or too common to look for" in found.account.summary()
    kept = prepared(tmp_path, tokenizer, train=train, decontaminate=[evaluation], contaminated="report")
    assert len(lines_of(kept.train)) == 42 and kept.account.contamination["rows"] == len(lines)
    with pytest.raises(DataError, match=r"10 training rows hold an evaluation item \(t.jsonl line 4, 5, 6, 7, 8, ...\)"):
        prepared(tmp_path, tokenizer, train=train, decontaminate=[evaluation], contaminated="refuse")


def test_other_evaluation_items_are_another_store(tmp_path: Path, tokenizer: str) -> None:
    evaluation, train, _ = leaky(tmp_path)
    first = prepared(tmp_path, tokenizer, train=train, decontaminate=[evaluation])
    write(Path(evaluation), [{"question": QUESTION_EN}])
    assert prepared(tmp_path, tokenizer, train=train, decontaminate=[evaluation]).fingerprint != first.fingerprint


def test_files_of_one_name_keep_their_lines_apart(tmp_path: Path, tokenizer: str) -> None:
    evaluation, _, lines = leaky(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "rows" / name).mkdir(parents=True)
        (tmp_path / "rows" / name / "t.jsonl").write_bytes((tmp_path / "t.jsonl").read_bytes())
    found = prepared(tmp_path, tokenizer, train=str(tmp_path / "rows"), decontaminate=[evaluation])
    assert found.account.contamination["lines"] == {str(tmp_path / "rows" / name / "t.jsonl"): lines for name in ("a", "b")}


def test_a_gate_with_nothing_to_look_for_is_an_error(tmp_path: Path) -> None:
    evaluation = write(tmp_path / "e.jsonl", [{"question": QUESTION_EN, "answer": str(i)} for i in range(12)])
    with pytest.raises(DataError, match="every piece of its 12 items stands in more than 10 of them"):
        make_gates(DataSection(decontaminate=[evaluation]), held_out_from=1)


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_rows_of_preference_objectives_leave_whole(tmp_path: Path, tokenizer: str, objective: str) -> None:
    def row(text: str, number: int) -> Row:
        half, asked = len(text) // 2, {"prompt": [{"role": "user", "content": text}]}
        if objective == "kto":
            return asked | {"completion": [{"role": "assistant", "content": text[:half]}], "label": number % 2 == 0}
        return asked | {"chosen": [{"role": "assistant", "content": text[:half]}], "rejected": [{"role": "assistant", "content": text[half:]}]}

    train, held = texts(20, 21), texts(4, 22)
    train[4], train[9] = held[1].replace(" ", "  "), QUESTION_EN
    files = {
        "train": write(tmp_path / "t.jsonl", [row(text, i) for i, text in enumerate(train)]),
        "validation": write(tmp_path / "v.jsonl", [row(text, i) for i, text in enumerate(held)]),
        "decontaminate": [write(tmp_path / "e.jsonl", [{"question": QUESTION_EN}])],
    }
    options: dict[str, Any] = {"sequence_length": 1024, "workers": 1, "store": str(tmp_path / "stores"), "duplicates": "drop"}
    found = prepare(DataSection(**options | files), objective, tokenizer, seed=1)
    assert lines_of(found.train) == set(range(1, 21)) - {5, 10} and found.train.num_documents == 36
    assert found.account.duplicates["exact"] + found.account.duplicates["near"] == found.account.contamination["rows"] == 1
    assert found.account.split["on_both_sides"] == 0


def test_evaluation_files_of_every_kind_and_phrases_of_the_benchmark(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text(f'id,question\n1,"{QUESTION_ZH}"\n', encoding="utf-8")
    whole = tmp_path / "b.json"
    whole.write_text(json.dumps({"anatomy": {"q": QUESTION_EN}}, indent=2), encoding="utf-8")
    items = read_items([str(table), str(whole)])
    assert items.found_in([QUESTION_EN, TO_SIMPLIFIED.convert(QUESTION_ZH), "nothing", ""]) == [1, 0, None, None]
    phrase = "Answer with the letter of the one choice that fits best and write nothing else behind it please: "
    many = write(tmp_path / "c.jsonl", [{"q": phrase + text} for text in texts(20, 4)])
    assert read_items([many]).found_in([phrase]) == [None]
    assert read_items([many]).common_pieces > 0
    write(tmp_path / "c.jsonl", [{"q": QUESTION_EN}] * 11 + [{"q": QUESTION_ZH}])
    assert (read_items([many]).num_items, read_items([many]).checked) == (12, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"q": 1}\n', "no text of 8 words or 12 Chinese characters in it"),
        ('{"q": "a"}\n[1, 2]\n', "e.jsonl line 2"),
        (None, "no such file or folder"),
    ],
)
def test_evaluation_files_that_cannot_be_used(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "e.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=f"data.decontaminate.*{message}"):
        read_items([str(path)])


IDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cn", "Co"]), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(IDS)
def test_all_spellings_of_an_id_are_one_group(name: str) -> None:
    spellings = [name.upper(), name.lower(), name.casefold(), f"\u3000{name} \t", name.translate(FULL), "\u200b".join(name), " ".join(name)]
    assert {group_name(spelling) for spelling in spellings} == {group_name(name)}
    assert group_name(group_name(name)) == group_name(name)


@settings(max_examples=50, deadline=None)
@given(st.lists(IDS.filter(group_name), min_size=2, max_size=20), st.floats(0.05, 0.9), st.integers(0, 5))
def test_no_id_is_on_both_sides_and_the_proof_says_so(names: list[str], share: float, seed: int) -> None:
    spelled = [form(name) for name in names for form in (str, str.upper, str.lower, lambda n: n.translate(FULL), " ".join)]
    keys = np.array([hash_key(name) for name in spelled])
    if len(np.unique(keys)) < 2:
        return
    held = hold_out(keys, share, seed)
    sides = [{group_name(name) for name, out in zip(spelled, held, strict=True) if out == side} for side in (False, True)]
    said = proof(keys[~held], keys[held])
    assert not sides[0] & sides[1] and said["on_both_sides"] == 0
    assert [said["trained_groups"], said["held_out_groups"]] == [len(side) for side in sides]
    assert said["trained_sha256"] != said["held_out_sha256"]
    assert proof(keys[::-1], keys[held])["on_both_sides"] == len(sides[1])


def test_the_account_proves_the_split(tmp_path: Path, tokenizer: str) -> None:
    rows = [chat(text, patient=f"P{i % 10}") for i, text in enumerate(texts(40, 11))]
    found = prepared(tmp_path, tokenizer, train=write(tmp_path / "t.jsonl", rows), validation="20%", group_by="patient")
    said = found.account.split
    assert (said["trained_groups"], said["held_out_groups"], said["on_both_sides"]) == (8, 2, 0)
    assert found.validation is not None
    assert said == proof(np.asarray(found.train.document_group), np.asarray(found.validation.document_group))


def test_rows_without_the_group_key_are_named(tmp_path: Path, tokenizer: str) -> None:
    rows = [chat(text, patient=i) for i, text in enumerate(texts(9, 12))]
    del rows[3]["patient"]
    rows[6]["patient"] = None
    with pytest.raises(DataError) as refused:
        prepared(tmp_path, tokenizer, train=write(tmp_path / "t.jsonl", rows), validation="20%", group_by="patient")
    lines = str(refused.value).splitlines()
    assert "2 of 9 rows" in lines[0]
    named = [line.split() for line in lines if "patient" in line]
    assert [line[:3] for line in named] == [["line", "4", "patient"], ["line", "7", "patient"]]
    assert all("every row needs it: data.group_by" in line for line in lines if "patient" in line)
