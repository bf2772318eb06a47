"""How well data.privacy finds identifiers.    python -m benchmarks.privacy [--no-record]

Fourteen kinds, PER_KIND labelled examples each, half of them with values and wordings that the rules were not written
from (Faker's generators, sentences written after the rules); clean sentences from real corpora, in which every find counts
as a false alarm although some are names of real people. Writes docs/evidence/privacy.json and the tables of docs/privacy.md.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence import ROOT, record
from benchmarks.screen import show, verdict
from data_pipelines.corpora.packages import fetch
from data_pipelines.privacy.detect import find
from data_pipelines.privacy.kinds import KINDS
from tests.privacy.examples import Example, make_examples
from tests.privacy.score import by, false_alarms, score

SEED, PER_KIND = 7, 200
CLEAN = 10_000
CACHE = ROOT / ".cache" / "packages"
PAGE = ROOT / "docs" / "privacy.md"
COVERS = [
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "data_pipelines" / "privacy").glob("*.py"))),
    *(f"tests/privacy/{name}.py" for name in ("examples", "score", "values", "wordings")),
    "benchmarks/privacy.py",
]
# Recall and precision on foreign examples that CI asks for: what was measured less a margin.
FLOORS: dict[str, tuple[float, float]] = {
    "hkid": (0.99, 0.99),
    "mainland_id": (0.98, 0.98),
    "phone_hk": (0.98, 0.88),
    "phone_mainland": (0.98, 0.96),
    "email": (0.98, 0.98),
    "card": (0.98, 0.98),
    "bank_account": (0.77, 0.97),
    "medical_record": (0.62, 0.97),
    "hospital_number": (0.40, 0.97),
    "birth_date": (0.83, 0.97),
    "address_zh": (0.96, 0.96),
    "address_en": (0.79, 0.96),
    "name_zh": (0.50, 0.96),
    "name_en": (0.45, 0.82),
}


def chinese_sentences(count: int) -> list[str]:
    """Returns sentences of CTCPC (CC0), Cantonese, the same ones every time."""
    path = fetch("pycantonese", CACHE) / "pycantonese" / "data" / "ctcpc" / "sents.json"
    return random.Random(1).sample(json.loads(path.read_text(encoding="utf-8")), count)


def english_sentences(count: int) -> list[str]:
    """Returns descriptions of ICD-10-CM (public domain): capitals, numbers, commas, no people."""
    folder = fetch("simple-icd-10-cm", CACHE)
    path = next(folder.rglob("*.xml"))
    texts = re.findall(r"<(?:desc|note)>([^<]{20,})</", path.read_text(encoding="utf-8"))
    return random.Random(1).sample(sorted(set(texts)), count)


def measure(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Returns a row per kind: foreign and own examples apart."""
    parts = by(examples, lambda example: "foreign" if example.is_foreign else "own")
    rows = []
    for kind in KINDS:
        foreign, own = parts["foreign"][kind].to_json(), parts["own"][kind].to_json()
        rows.append(
            {
                "name": kind,
                "labels": foreign["labels"] + own["labels"],
                "foreign recall": foreign["recall"],
                "foreign precision": foreign["precision"],
                "foreign covered": foreign["covered_by_any_kind"],
                "own recall": own["recall"],
                "own precision": own["precision"],
            }
        )
    return rows


def recall_by(examples: Sequence[Example], part: str) -> dict[str, dict[str, float]]:
    """Returns recall of numbers and names for each variant or language."""
    names = ("name_zh", "name_en")
    found = {}
    for key, scores in by(examples, lambda example: getattr(example, part)).items():
        groups = {"all but names": [k for k in KINDS if k not in names], "names": list(names)}
        found[key] = {
            label: round(sum(scores[k].found for k in kinds) / max(1, sum(scores[k].labels for k in kinds)), 4)
            for label, kinds in groups.items()
        }
    return found


def alarms() -> dict[str, Any]:
    """Returns finds per 1,000 clean sentences."""
    found = {}
    for name, sentences in (("CTCPC (Cantonese)", chinese_sentences(CLEAN)), ("ICD-10-CM (English)", english_sentences(CLEAN))):
        number, kinds = false_alarms(sentences)
        found[name] = {"sentences": number, "per_1000": round(1000 * kinds.total() / number, 2), "kinds": dict(kinds)}
    return found


def rate(examples: Sequence[Example]) -> float:
    """Returns characters read in a CPU second."""
    started = time.process_time()
    for example in examples:
        find(example.text)
    return sum(len(example.text) for example in examples) / (time.process_time() - started)


def tables(result: dict[str, Any]) -> str:
    """Returns the measured part of docs/privacy.md."""
    lines = ["| kind | labels | recall | precision | hidden under any kind | recall, own | precision, own |", "|---|--:|--:|--:|--:|--:|--:|"]
    for row in result["measured"]:
        values = [row[key] for key in ("foreign recall", "foreign precision", "foreign covered", "own recall", "own precision")]
        lines.append(f"| {row['name']} | {row['labels']} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    for title, part in (("variant", "variants"), ("language", "languages")):
        lines += ["", f"| {title} (foreign) | recall, all but names | recall, names |", "|---|--:|--:|"]
        lines += [f"| {key} | {v['all but names']:.3f} | {v['names']:.3f} |" for key, v in result[part].items()]
    lines += ["", "| clean sentences | number | finds per 1,000 | by kind |", "|---|--:|--:|---|"]
    for name, found in result["alarms"].items():
        kinds = ", ".join(f"{kind} {count}" for kind, count in found["kinds"].items()) or "none"
        lines.append(f"| {name} | {found['sentences']:,} | {found['per_1000']} | {kinds} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    examples = make_examples(SEED, PER_KIND)
    foreign = [example for example in examples if example.is_foreign]
    hkid = score(examples)["hkid"]
    result = {
        "measured": measure(examples),
        "variants": recall_by(foreign, "variant"),
        "languages": recall_by(foreign, "language"),
        "alarms": alarms(),
        "characters_per_cpu_s": round(rate(examples)),
        "result": verdict(
            hkid.recall >= 0.99 and hkid.precision >= 0.99, f"hkid recall {hkid.recall:.3f}, precision {hkid.precision:.3f}"
        ),
    }
    show("Identifiers found", result)
    if not options.no_record:
        record("privacy", covers=COVERS, result=result["result"], counts=result, seed=SEED)
        write_page(PAGE, tables(result))


def write_page(page: Path, measured: str) -> None:
    """Replaces what stands between the two marks of the page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split("<!-- measured -->\n", 1)
    _, after = rest.split("<!-- end -->", 1)
    page.write_text(f"{before}<!-- measured -->\n{measured}\n<!-- end -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
