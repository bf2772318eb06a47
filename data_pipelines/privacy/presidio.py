"""Presidio (Microsoft, MIT) beside the rules: its patterns, and the persons that a spaCy model of the user's recognises.

Optional and slow to import, so imported when it is used. Two of its parts would go to the network and are replaced here: the
loading of a spaCy model (it would download a missing one) and the check of e-mail domains (tldextract would fetch a list).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from configs.errors import DataError
from configs.schema.data import PRESIDIO_MISSING
from data_pipelines.privacy.kinds import Certainty, Match

# data.presidio: this word, or a spaCy model.
PATTERNS = "patterns"
_KINDS = {"EMAIL_ADDRESS": "email", "CREDIT_CARD": "card", "IBAN_CODE": "bank_account", "UK_NHS": "medical_record"}
_ENTITIES = [*_KINDS, "PHONE_NUMBER", "PERSON"]
_REGIONS = ("HK", "CN")
_LANGUAGE = "en"
_LEAST_SCORE = 0.4
# What makes a folder a spaCy pipeline.
_PIPELINE = "config.cfg"


def check(model: str) -> None:
    """Raises when data.presidio cannot be used here.

    Raises:
        DataError: Presidio is not installed, or `model` is no spaCy model that is.
    """
    try:
        version("presidio-analyzer")
    except PackageNotFoundError:
        raise DataError(f"data.presidio={model}: {PRESIDIO_MISSING}") from None
    if model != PATTERNS and _folder(model) is None:
        raise DataError(
            f"data.presidio={model}: neither an installed spaCy model nor a folder of one (with {_PIPELINE}); install or copy it first, "
            f"nothing is downloaded, or give data.presidio={PATTERNS}"
        )


def identity(model: str) -> dict[str, str]:
    """Returns what decides what Presidio finds: versions, and which model.

    Raises:
        DataError: as `check`.
    """
    check(model)
    described = {name: version(name) for name in ("presidio-analyzer", "phonenumbers", "spacy")}
    folder = _folder(model)
    return described | {"model": model if folder is None else _hash_of(folder)}


def _folder(model: str) -> Path | None:
    """Returns where the model's pipeline lies: in the folder that is given, or in one of the package of that name."""
    if given := _pipeline_in(Path(model).expanduser()):
        return given
    try:
        version(model)
    except (PackageNotFoundError, ValueError):
        return None
    from importlib.util import find_spec

    spec = find_spec(model.replace("-", "_"))
    return _pipeline_in(Path(spec.origin).parent) if spec and spec.origin else None


def _pipeline_in(folder: Path) -> Path | None:
    """Returns `folder`, or the one in it that holds the pipeline, as `spacy package` puts it."""
    return next((path.parent for path in (folder / _PIPELINE, *sorted(folder.glob(f"*/{_PIPELINE}"))) if path.is_file()), None)


def _hash_of(folder: Path) -> str:
    """Returns a hash of the model's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def make_engine(model: str) -> Callable[[str], list[Match]]:
    """Returns a function that finds what Presidio finds, under our kinds; one a process.

    Args:
        model: `patterns`, or the name or folder of a spaCy model.

    Raises:
        DataError: as `check`, or the model cannot be loaded.
    """
    check(model)
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry

    registry = RecognizerRegistry(recognizers=_recognizers(persons=model != PATTERNS), supported_languages=[_LANGUAGE])
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=_nlp_engine(model), supported_languages=[_LANGUAGE])
    entities = [name for name in _ENTITIES if name != "PERSON" or model != PATTERNS]

    def find(text: str) -> list[Match]:
        results = analyzer.analyze(text=text, language=_LANGUAGE, entities=entities, score_threshold=_LEAST_SCORE)
        found = [Match(_kind(one.entity_type, text[one.start : one.end]), one.start, one.end, Certainty.SHAPE) for one in results]
        return sorted(found, key=lambda match: (match.start, -match.end))

    return find


def _kind(entity: str, value: str) -> str:
    if entity == "PERSON":
        return "name_zh" if re.search(r"[\u4e00-\u9fff]", value) else "name_en"
    if entity == "PHONE_NUMBER":
        digits = re.sub(r"\D", "", value)
        return "phone_mainland" if digits.startswith(("86", "0086", "1", "0")) else "phone_hk"
    return _KINDS[entity]


def _recognizers(*, persons: bool) -> list[Any]:
    """Returns those of Presidio's recognisers whose entities are kinds of ours."""
    from presidio_analyzer import predefined_recognizers as theirs
    from tldextract import TLDExtract

    # The list of domains that is in the package; nothing is fetched or written.
    domains = TLDExtract(suffix_list_urls=(), cache_dir=None)

    class Emails(theirs.EmailRecognizer):  # type: ignore[misc]
        def validate_result(self, pattern_text: str) -> bool:
            return bool(domains(pattern_text).fqdn)

    found = [Emails(), theirs.CreditCardRecognizer(), theirs.IbanRecognizer(), theirs.NhsRecognizer()]
    found.append(theirs.PhoneRecognizer(supported_regions=_REGIONS))
    return [*found, theirs.SpacyRecognizer()] if persons else found


def _nlp_engine(model: str) -> Any:
    """Returns Presidio's wrapper of spaCy around a pipeline that is loaded here: without a download, on the CPU."""
    import spacy
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    try:
        pipeline = spacy.blank(_LANGUAGE) if model == PATTERNS else spacy.load(str(_folder(model)))
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"data.presidio={model}: spaCy cannot load it ({type(error).__name__}); is it of another spaCy version?") from error
    pipeline.max_length = 10**9
    engine = SpacyNlpEngine(models=[{"lang_code": _LANGUAGE, "model_name": PATTERNS}])
    engine.nlp = {_LANGUAGE: pipeline}
    return engine
