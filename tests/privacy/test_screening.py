"""data.privacy in a preparation: what is stored, counted and dropped, that no value and no secret lies in the folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from configs.errors import DataError
from configs.schema import DataSection
from data_pipelines.build import Prepared, prepare
from data_pipelines.index import Store
from data_pipelines.split import hash_key
from tests.kills.lab import make_tokenizer

SECRET = "f3a9c1d27b6e4805" * 4
VALUES = ("A123456(3)", "9123 4567", "chan@ha.org.hk", "陳大文")
# One patient in spellings that must not stand on two sides.
SPELLINGS = ["A123456(3)", "a123456(3)", " A123456(3) ", "Ａ１２３４５６（３）", "A 123456 (3)", "А123456(3)", "A123456\u200b(3)"]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    make_tokenizer(folder, [f"question {i} answer {i * 7} 病人陳大文" for i in range(100)])
    return str(folder)


def rows(count: int = 40) -> list[Row]:
    """Every fourth row holds four identifiers."""
    note = f"病人{VALUES[3]}（{VALUES[0]}），電話 {VALUES[1]}，電郵 {VALUES[2]}。"
    return [
        {
            "messages": [
                {"role": "user", "content": note if i % 4 == 0 else f"question {i}"},
                {"role": "assistant", "content": f"answer {i}"},
            ],
            "patient": SPELLINGS[i // 4 % len(SPELLINGS)] if i % 4 == 0 else i,
        }
        for i in range(count)
    ]


def prepared(folder: Path, tokenizer: str, *, given: list[Row] | None = None, **section: Any) -> Prepared:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in given or rows()), encoding="utf-8")
    options: dict[str, Any] = {"validation": "none", "sequence_length": 256, "workers": 1, "store": str(folder / "stores"), "duplicates": "off"}
    return prepare(DataSection(train=str(path), **options | section), "sft", tokenizer, seed=1)


def texts(store: Store, tokenizer: str) -> str:
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    return "\n".join(loaded.decode(store.document(i)[0]) for i in range(store.num_documents))


def bytes_of(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AISC_PRIVACY_KEY", SECRET)
    return SECRET


def test_report_counts_and_changes_nothing(tmp_path: Path, tokenizer: str) -> None:
    plain = prepared(tmp_path, tokenizer)
    found = prepared(tmp_path, tokenizer, privacy="report")
    assert texts(found.train, tokenizer) == texts(plain.train, tokenizer)
    assert found.fingerprint != plain.fingerprint
    assert found.account.sources["train"].identifiers == {"hkid": 10, "phone_hk": 10, "email": 10, "name_zh": 10}
    assert "privacy report: 40 identifiers in 10 documents left as they are" in found.account.summary()
    assert "  hkid 10, phone_hk 10, email 10, name_zh 10" in found.account.summary()
    report = found.folder / "privacy.json"
    assert report.stat().st_mode & 0o777 == 0o600
    assert not (plain.folder / "privacy.json").exists()
    for value in VALUES:
        assert value not in report.read_text(encoding="utf-8") + "".join(found.account.summary())


def test_mask_stores_surrogates_and_neither_values_nor_the_secret(tmp_path: Path, tokenizer: str, secret: str) -> None:
    found = prepared(tmp_path, tokenizer, privacy="mask", group_by="patient")
    text = texts(found.train, tokenizer)
    assert not any(value in text for value in VALUES)
    assert text.count("@example.invalid") == 10 and "question 1" in text
    stored = bytes_of(found.folder)
    assert secret.encode() not in stored and secret not in found.fingerprint
    for spelling in SPELLINGS:
        # The plain hash of a card number is found by trying all of them.
        assert hash_key(spelling) not in found.train.document_group.tolist()
    assert found.account.dropped == 0


def test_another_secret_is_another_store_and_the_same_one_the_same(
    tmp_path: Path, tokenizer: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(tmp_path, tokenizer, privacy="mask")
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(secret + "\n")
    monkeypatch.delenv("AISC_PRIVACY_KEY")
    assert prepared(tmp_path, tokenizer, privacy="mask", privacy_key=str(key)).fingerprint == first.fingerprint
    monkeypatch.setenv("AISC_PRIVACY_KEY", SECRET[::-1])
    second = prepared(tmp_path, tokenizer, privacy="mask")
    assert second.fingerprint != first.fingerprint
    assert texts(second.train, tokenizer) != texts(first.train, tokenizer)


def test_mask_without_a_secret_writes_nothing(tmp_path: Path, tokenizer: str) -> None:
    assert "AISC_PRIVACY_KEY" not in os.environ
    with pytest.raises(DataError, match="data.privacy=mask: no secret"):
        prepared(tmp_path, tokenizer, privacy="mask")
    assert not (tmp_path / "stores").exists()


def test_drop_leaves_documents_out_and_counts_them(tmp_path: Path, tokenizer: str) -> None:
    found = prepared(tmp_path, tokenizer, privacy="drop")
    assert (found.account.rows, found.account.documents, found.account.dropped) == (40, 30, 10)
    assert found.account.sources["train"].lost["dropped, identifiers in it"][0] == 10
    assert found.account.supervised_lost > 0
    assert not any(value in texts(found.train, tokenizer) for value in VALUES)


@pytest.mark.parametrize("privacy", ["off", "mask"])
@pytest.mark.parametrize("seed", range(3))
def test_spellings_of_one_patient_stay_on_one_side(
    tmp_path: Path, tokenizer: str, secret: str, privacy: str, seed: int
) -> None:
    names = [f"{letter}{number:06}" for letter in "AB" for number in range(6)]
    wide = {ord(c): ord(c) + 0xFEE0 for c in "AB0123456789"}
    forms: list[Callable[[str], str]] = [str, str.lower, lambda n: f"  {n}\t", lambda n: n.translate(wide), " ".join, lambda n: n + "\u200b"]
    given = [
        {"messages": rows(2)[1]["messages"][:1] + [{"role": "assistant", "content": f"answer {i} {j}"}], "patient": form(name)}
        for i, name in enumerate(names)
        for j, form in enumerate(forms)
    ]
    found = prepared(tmp_path, tokenizer, given=given, validation=f"{20 + 10 * seed}%", group_by="patient", privacy=privacy)
    assert found.validation is not None
    sides = [{(s.origin(i)[1] - 1) // len(forms) for i in range(s.num_documents)} for s in (found.train, found.validation)]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == set(range(len(names)))
    assert found.account.groups + found.account.held_out_groups == len(names)


def test_numbers_and_their_texts_are_one_group_and_leading_zeros_count() -> None:
    assert hash_key(7) == hash_key("7") == hash_key(" ７ ")
    assert hash_key("07") != hash_key("7")


def test_a_blank_group_is_missing(tmp_path: Path, tokenizer: str) -> None:
    given = rows(8)
    given[3]["patient"] = " \u3000\u200b"
    with pytest.raises(DataError, match="every row needs it: data.group_by"):
        prepared(tmp_path, tokenizer, given=given, group_by="patient", validation="20%")
