"""Oncology questions and answers from public registries: ICD-10-CM neoplasms and oncoref's cancer-type tables.

ICD-10-CM, April 2026 (CMS/NCHS, public domain), chapter 2 (C00-D49), inside the package simple-icd-10-cm; cancer-type
registry, key genes and checkpoint-inhibitor responses with their citations, inside the package oncoref (Apache-2.0).
A demonstration of a vertical model: no patient is in it, and nothing it says is medical advice.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.atomic import sha256_file, write_file, write_json
from data_pipelines.corpora.packages import fetch

NEOPLASM = re.compile(r"(C\d\w|D[0-4]\d)(\.|$)")

Row = dict[str, Any]


def pair(question: str, answer: str, group: str) -> Row:
    """Returns one chat of a question and its answer; rows of one group stay on one side of the split."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "group": group}


def icd_rows(path: Path) -> Iterator[Row]:
    """Yields questions on every neoplasm code of the tabular list: meaning, inclusions, exclusions."""
    for entry in ET.parse(path).getroot().iter("diag"):
        code, meaning = entry.findtext("name", ""), entry.findtext("desc", "")
        if not NEOPLASM.match(code):
            continue
        group = code.split(".")[0]
        yield pair(f"What does ICD-10-CM code {code} mean?", f"{code}: {meaning}.", group)
        for tag, question in (
            ("inclusionTerm", f"Which terms are included under ICD-10-CM {code} ({meaning})?"),
            ("excludes1", f"What is listed as Excludes1 for ICD-10-CM {code} ({meaning})?"),
            ("excludes2", f"What is listed as Excludes2 for ICD-10-CM {code} ({meaning})?"),
        ):
            notes = [note.text.strip() for note in entry.findall(f"{tag}/note") if note.text]
            if notes:
                yield pair(question, "; ".join(notes) + ".", group)


def registry_rows(folder: Path) -> Iterator[Row]:
    """Yields questions on genes and drug responses of cancer types, each answer with its citation."""
    names = {row["code"]: row["name"] for row in read_table(folder / "cancer-type-registry.csv")}
    for row in read_table(folder / "cancer-key-genes.csv"):
        cancer = names.get(row["cancer_code"])
        if cancer and row["rationale"]:
            drug = f" for {row['agent']}" if row["agent"] else ""
            question = f"In {cancer}, why does {row['symbol']} matter as a {row['role']}{drug}?"
            yield pair(question, f"{row['rationale']} [{row['source']}]", row["cancer_code"])
    for row in read_table(folder / "cancer-ici-response.csv"):
        cancer = names.get(row["cancer_code"])
        if cancer and row["orr_pct"] and row["trial_name"]:
            question = f"What objective response rate did {row['drug']} reach in {cancer} ({row['setting']})?"
            answer = f"{row['orr_pct']} % in {row['trial_name']} ({row['trial_nct'] or 'no NCT'}). {row['notes']} [{row['pmid_doi']}]"
            yield pair(question, answer, row["cancer_code"])


def read_table(path: Path) -> Iterator[dict[str, str]]:
    """Yields the records of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def build(target: Path, cache: Path) -> Counter[str]:
    """Writes `target`/train.jsonl and about.json; returns the rows by source. A question asked twice is kept once."""
    icd = next((fetch("simple-icd-10-cm", cache) / "simple_icd_10_cm" / "data").glob("*.xml"))
    tables = fetch("oncoref", cache) / "oncoref" / "data"
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    lines = []
    for source, rows in (("ICD-10-CM", icd_rows(icd)), ("oncoref", registry_rows(tables))):
        for row in rows:
            question = row["messages"][0]["content"]
            if question in seen:
                counts["asked twice, left out"] += 1
                continue
            seen.add(question)
            counts[source] += 1
            lines.append(json.dumps(row, ensure_ascii=False))
    target.mkdir(parents=True, exist_ok=True)
    write_file(target / "train.jsonl", "\n".join(lines) + "\n")
    sources = "ICD-10-CM April 2026 from simple-icd-10-cm 1.5.0 (public domain); oncoref 1.20.0 (Apache-2.0)"
    write_json(target / "about.json", {"corpus": sources, "counts": counts, "sha256": sha256_file(target / "train.jsonl")})
    return counts


def main() -> None:
    """Builds the corpus from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path(".cache/demo/oncology"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/packages"))
    arguments = parser.parse_args()
    if (arguments.to / "about.json").is_file():
        return
    counts = build(arguments.to, arguments.cache)
    print("oncology: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))


if __name__ == "__main__":
    main()
