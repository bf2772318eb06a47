"""Masking: idempotent, consistent under one secret, different under another, spans valid, surrogates nobody's."""

from __future__ import annotations

import pickle
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipelines.privacy.detect import find
from data_pipelines.privacy.identity_cards import hkid_check, mainland_check
from data_pipelines.privacy.kinds import KINDS
from data_pipelines.privacy.masking import mask
from data_pipelines.privacy.money import luhn
from data_pipelines.privacy.normalise import fold, fold_character
from data_pipelines.privacy.secret import read_secret
from data_pipelines.privacy.surrogates import Surrogates, derive_key
from tests.privacy.examples import make_examples

FIRST = Surrogates(derive_key(b"first secret of thirty-two bytes"))
SECOND = Surrogates(derive_key(b"second secret of thirty-two byte"))
EXAMPLES = make_examples(seed=5, per_kind=20)
PIECES = st.sampled_from(
    ["A123456(3)", "9123 4567", "陳大文", "先生", "電話", "MRN:", "12345678", "1234 5678", "Chan Tai Man", "@", "a.b", "hk", "彌敦道", "88號", "３樓"]
    + ["DOB", "1/2/1956", "出生", "4111 1111 1111 1111", "-", " ", "，", "\n", "（", "ＡＢ", "Ζ", "\u200b", "某", "Anon ", "Z", "000-", "10", "0"]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map("".join), st.lists(PIECES, max_size=10).map(" ".join))


@settings(max_examples=100, deadline=None)
@given(TEXTS)
@hypothesis.example("電話8000 20000002 20000002 20000000")  # seven passes
def test_spans_are_valid_and_masking_twice_is_masking_once(text: str) -> None:
    last = 0
    for match in find(text):
        assert last <= match.start < match.end <= len(text)
        assert match.kind in KINDS
        last = match.end
    masked, _ = mask(text, FIRST)
    assert mask(masked, FIRST) == (masked, {})


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_folding_keeps_where_every_character_came_from(text: str) -> None:
    folded = fold(text)
    for place in range(len(folded.text)):
        start, end = folded.span(place, place + 1)
        assert end == start + 1 and start < len(text)
        assert folded.text[place] in fold_character(text[start]) or folded.text[place].isdigit()


def test_examples_are_masked_once_and_hold_nothing_of_the_value() -> None:
    for example in EXAMPLES:
        masked, counts = mask(example.text, FIRST)
        again, more = mask(masked, FIRST)
        assert again == masked and not more, example
        if counts.get(example.kind) and example.kind not in ("birth_date", "name_en", "address_en", "address_zh"):
            assert example.text[example.start : example.end] not in masked, example


def test_one_secret_gives_one_surrogate_to_every_spelling_and_another_secret_another() -> None:
    spellings = {
        "hkid": ["A123456(3)", "a123456 (3)", "Ａ１２３４５６（３）", "A1234563", "А123456(3)"],
        "phone_hk": ["9123 4567", "+852 91234567", "９１２３－４５６７"],
        "phone_mainland": ["138 0013 8000", "+86 13800138000"],
        "email": ["Chan@HA.org.hk", "chan@ha.org.hk", "ｃｈａｎ＠ha.org.hk"],
        "card": ["4111 1111 1111 1111", "4111-1111-1111-1111"],
        "name_en": ["CHAN, Tai Man", "Chan Tai-man"],
        "name_zh": ["陳大文", "陳 大 文"],
    }
    for kind, values in spellings.items():
        assert len({FIRST.of(kind, value) for value in values}) == 1, kind
        assert FIRST.of(kind, values[0]) != SECOND.of(kind, values[0])
        assert FIRST.of(kind, values[0]) == Surrogates(derive_key(b"first secret of thirty-two bytes")).of(kind, values[0])
    assert FIRST.identity() != SECOND.identity() and FIRST.group("p1") != SECOND.group("p1")


def test_surrogates_can_be_nobodys() -> None:
    for number in range(300):
        hkid = FIRST.of("hkid", f"A{number:06}")
        assert hkid[0] == "Z" and hkid_check(hkid[:8]) != hkid[9]
        person = FIRST.of("mainland_id", f"11010519491231{number:04}")
        assert person.startswith("99") and mainland_check(person[:17]) != person[17] and person[6:14] == "19490101"
        assert FIRST.of("card", f"41111111111{number:05}").startswith("0")
        assert FIRST.of("phone_hk", f"9123{number:04}").startswith("1")
        assert FIRST.of("email", f"a{number}@b.hk").endswith("@example.invalid")
    assert luhn("4111111111111111")


def test_known_check_digits() -> None:
    assert [hkid_check(body) for body in ("A123456", "AB987654")] == ["3", "3"]
    assert mainland_check("11010519491231002") == "X"


def test_birth_dates_keep_their_year_only() -> None:
    text = "DOB: 12 Mar 1956, 出生日期：一九五六年三月十二日，民國45年3月12日出生"
    assert mask(text, FIRST)[0] == "DOB: 1956-01-01, 出生日期：1956-01-01，1956-01-01出生"


def test_surrogates_travel_to_reading_processes() -> None:
    assert pickle.loads(pickle.dumps(FIRST)).of("hkid", "A123456(3)") == FIRST.of("hkid", "A123456(3)")


def test_the_secret_must_be_private_and_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AISC_PRIVACY_KEY", raising=False)
    with pytest.raises(DataError, match="no secret; make one with"):
        read_secret(None)
    key = tmp_path / "privacy.key"
    with pytest.raises(DataError, match="cannot be read"):
        read_secret(str(key))
    key.write_text("0123456789abcdef" * 4 + "\n")
    key.chmod(0o644)
    with pytest.raises(DataError, match=r"others can read it \(mode 0644\); chmod 600"):
        read_secret(str(key))
    key.chmod(0o600)
    assert read_secret(str(key)) == b"0123456789abcdef" * 4
    monkeypatch.setenv("AISC_PRIVACY_KEY", "password")
    with pytest.raises(DataError, match="8 bytes, expected 32 random ones"):
        read_secret(None)
