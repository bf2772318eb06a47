"""data.presidio: what Presidio adds under our kinds, that the rules win, that nothing goes to the network, and its refusals."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import spacy

from configs.errors import DataError
from configs.schema import DataSection
from data_pipelines.privacy.detect import find
from data_pipelines.privacy.presidio import PATTERNS, identity, make_engine
from data_pipelines.privacy.screen import identity as screen_identity
from data_pipelines.privacy.screen import make_screen
from tests.privacy.test_screening import prepared, rows, tokenizer

__all__ = ["tokenizer"]
# A British number: no rule of ours knows its form.
ABROAD = "Son lives abroad, +44 20 7946 0958, email son@example.co.uk"


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A spaCy model of the user's: a folder whose pipeline calls one name a person."""
    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Zebedee Quux"}])
    pipeline.to_disk(tmp_path / "model")
    return str(tmp_path / "model")


def kinds(text: str, *engines: Any) -> list[tuple[str, str]]:
    return [(match.kind, text[match.start : match.end]) for match in find(text, engines)]


def test_its_patterns_add_and_the_rules_win() -> None:
    engine = make_engine(PATTERNS)
    assert ("phone_hk", "+44 20 7946 0958") in kinds(ABROAD, engine)
    assert not any(kind == "phone_hk" for kind, _ in kinds(ABROAD))
    for text in ("病人陳大文，身份證 A123456(3)，電話 9123 4567", "Refund to account 012-345-678901, card 4111 1111 1111 1111"):
        assert kinds(text, engine) == kinds(text)


def test_a_model_of_the_user_finds_persons(model: str) -> None:
    text = "we met zebra, then Zebedee Quux went"
    assert kinds(text) == []
    assert kinds(text, make_engine(model)) == [("name_en", "Zebedee Quux")]


def test_an_installed_model_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str) -> None:
    """As `spacy package` writes it: meta.json in the package, the pipeline in a folder of it."""
    package = tmp_path / "site" / "en_toy_md"
    shutil.copytree(model, package / "en_toy_md-1.0.0")
    shutil.copy(Path(model) / "meta.json", package)
    (package / "__init__.py").touch()
    (tmp_path / "site" / "en_toy_md-1.0.0.dist-info").mkdir()
    (tmp_path / "site" / "en_toy_md-1.0.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: en_toy_md\nVersion: 1.0.0\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert kinds("then Zebedee Quux went", make_engine("en_toy_md")) == [("name_en", "Zebedee Quux")]
    with pytest.raises(DataError, match="neither an installed spaCy model"):
        identity("spacy")


def test_nothing_goes_to_the_network(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **_: tried.append(given) or [])
    monkeypatch.setattr(socket.socket, "connect", lambda *given: tried.append(given))
    for name in (PATTERNS, model):
        make_engine.cache_clear()
        assert ("email", "son@example.co.uk") in [(m.kind, ABROAD[m.start : m.end]) for m in make_engine(name)(ABROAD)]
    assert tried == []


def test_a_store_is_of_its_engine_versions_and_model(tmp_path: Path, tokenizer: str, model: str) -> None:
    given = rows(4)
    given[1]["messages"][0]["content"] = ABROAD
    plain = prepared(tmp_path, tokenizer, given=given, privacy="report")
    beside = prepared(tmp_path, tokenizer, given=given, privacy="report", presidio=PATTERNS)
    assert plain.fingerprint != beside.fingerprint
    assert beside.account.sources["train"].identifiers["phone_hk"] == plain.account.sources["train"].identifiers["phone_hk"] + 1
    first = identity(model)
    assert first["presidio-analyzer"] == importlib.metadata.version("presidio-analyzer")
    path = Path(model) / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "other"}))
    assert identity(model)["model"] != first["model"] != identity(PATTERNS)["model"]
    assert "presidio" not in screen_identity(DataSection(privacy="report"))["privacy"]


def test_refusals_are_clear_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="neither an installed spaCy model nor a folder of one"):
        make_screen(DataSection(privacy="report", presidio="zh_no_such_model"))
    assert "nothing is looked for while data.privacy=off" in "".join(DataSection(train="x", presidio=PATTERNS).problems())

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("data_pipelines.privacy.presidio.version", missing)
    started = time.perf_counter()
    with pytest.raises(DataError, match=r"pip install 'aisc-finetune\[presidio\]'"):
        make_screen(DataSection(privacy="report", presidio=PATTERNS))
    assert time.perf_counter() - started < 2
