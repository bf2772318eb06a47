"""What the gates between training and measuring find and cost.    python -m benchmarks.gates [--documents N] [--no-record]

Documents of about 90 characters joined from CTCPC's Cantonese sentences; a twentieth is held out. A tenth of the training
rows repeat a held-out row exactly or in another script, width or spacing, a tenth after edits (characters replaced, left out
or added); the truth of an edited row is the Jaccard similarity of its 4-character shingles, computed in full.

Evaluation items: the 282 MMLU questions inside lm-evaluation-harness and as many Cantonese sentences, planted in another
script, width, spacing and case, and looked for in real text that holds none of them, where every find is a false alarm.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import re
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from opencc import OpenCC

from benchmarks.evidence import ROOT, record
from benchmarks.privacy import write_page
from benchmarks.screen import show, verdict
from data_pipelines.corpora.packages import fetch
from data_pipelines.decontaminate import read_items
from data_pipelines.duplicates import SHINGLE, AllMarks, across, marks_of, within
from data_pipelines.folding import letters_of

SEED = 3
SIMILARITY = 0.8
COVERS = ["benchmarks/gates.py", "data_pipelines/decontaminate.py", "data_pipelines/duplicates.py", "data_pipelines/folding.py"]
_FULL = {ord(c): ord(c) + 0xFEE0 for c in map(chr, range(0x21, 0x7F))}


def documents(count: int, draw: random.Random) -> list[str]:
    """Returns `count` documents of about 90 characters, no sentence in two of them unless they run out."""
    path = fetch("pycantonese", ROOT / ".cache" / "packages") / "pycantonese" / "data" / "ctcpc" / "sents.json"
    sentences = sorted({s for s in json.loads(path.read_text(encoding="utf-8")) if len(s) >= 4})
    draw.shuffle(sentences)
    made, place = [], 0
    while len(made) < count:
        text = ""
        while len(text) < 90:
            if place and place % len(sentences) == 0:
                draw.shuffle(sentences)
            text += sentences[place % len(sentences)]
            place += 1
        made.append(text)
    return made


def edited(text: str, draw: random.Random, share: float) -> str:
    """Returns the text with a share of its characters replaced, left out or doubled by another one."""
    characters = list(text)
    for place in draw.sample(range(len(characters)), max(1, round(share * len(characters)))):
        new = chr(draw.randrange(0x4E00, 0x9F00))
        characters[place] = draw.choice([new, "", characters[place] + new])
    return "".join(characters)


def respelled(text: str, draw: random.Random) -> str:
    """Returns the text as it stands, in the other script, in full width, or with blanks."""
    kind = draw.randrange(4)
    if kind == 1:
        return OpenCC("t2s").convert(text)
    if kind == 2:
        return text.translate(_FULL).replace("，", ",")
    return " ".join(text) if kind == 3 else text


def jaccard(left: str, right: str) -> float:
    """Returns the similarity of the shingles of two folded texts, computed in full."""
    a, b = ({t[i : i + SHINGLE] for i in range(len(t) - SHINGLE + 1)} for t in (letters_of(left), letters_of(right)))
    return len(a & b) / max(1, len(a | b))


def measure_items(clean: list[str]) -> list[dict[str, Any]]:
    """Returns recall over planted items by spelling, and false alarms over `clean` and ICD-10-CM's descriptions."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations
    prompts = Path(spec.submodule_search_locations[0]) / "tasks" / "mmlu" / "flan_cot_fewshot" / "_cot_prompts.json"
    whole = "\n".join(json.loads(prompts.read_text(encoding="utf-8")).values())
    english = [text.strip() for text in re.findall(r"Q: (.+?)\n\(A\)", whole, re.DOTALL)]
    chinese, rest = [text[:60] for text in clean[: len(english)]], clean[len(english) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.jsonl"
        path.write_text("".join(json.dumps({"question": text}, ensure_ascii=False) + "\n" for text in english + chinese))
        items = read_items([str(path)])
    spellings: dict[str, Callable[[str], str]] = {
        "as it stands": lambda text: f"之前 before {text} after 之後",
        "simplified": OpenCC("t2s").convert,
        "full width": lambda text: text.translate(_FULL),
        "capitals": str.upper,
        "blanks and line ends": lambda text: text.replace(" ", "\n  ") if text.isascii() else re.sub(r"([\u4e00-\u9fff])", r"\1 ", text),
    }
    rows = []
    for language, texts in (("English", english), ("Chinese", chinese)):
        long = [text for text, found in zip(texts, items.found_in(texts), strict=True) if found is not None]
        for name, form in spellings.items():
            recall = sum(found is not None for found in items.found_in([form(text) for text in long])) / len(long)
            rows.append({"name": f"{language}, {name}", "items": len(texts), "long enough": len(long), "recall": round(recall, 4)})
    icd = next(fetch("simple-icd-10-cm", ROOT / ".cache" / "packages").rglob("*.xml")).read_text(encoding="utf-8")
    descriptions = sorted(set(re.findall(r"<(?:desc|note)>([^<]{20,})</", icd)))
    for name, texts in (("CTCPC, documents without the items", rest), ("ICD-10-CM descriptions", descriptions)):
        started = time.process_time()
        alarms = sum(found is not None for found in items.found_in(texts))
        rows.append({"name": name, "texts": len(texts), "false alarms": alarms, "cpu_s": round(time.process_time() - started, 2)})
    return rows


def measure(count: int) -> dict[str, Any]:
    """Returns recall and false finds of `across` and the seconds of each part."""
    draw = random.Random(SEED)
    texts = documents(count, draw)
    num_held = count // 20
    held, train = texts[:num_held], texts[num_held:]
    truth = np.zeros(len(train))
    for number, place in enumerate(draw.sample(range(len(train)), count // 5)):
        original = held[draw.randrange(num_held)]
        train[place] = respelled(original, draw) if number % 2 else edited(original, draw, draw.uniform(0.005, 0.12))
        truth[place] = 2.0 if number % 2 else jaccard(original, train[place])
    started = time.process_time()
    parts = [marks_of(range(i, i + 500), (held + train)[i : i + 500]) for i in range(0, count, 500)]
    marked = time.process_time() - started
    lines, exact, signatures = (np.concatenate([getattr(p, n) for p in parts]) for n in ("lines", "exact", "signatures"))
    marks = AllMarks(np.zeros(count, np.int64), lines, exact, signatures)
    started = time.process_time()
    repeats = across(marks, np.arange(num_held, count), np.arange(num_held), SIMILARITY)
    compared = time.process_time() - started
    found = repeats.any
    # The corpus repeats itself, too: what was found and not planted is judged by its true similarity.
    for row in np.flatnonzero(found & (truth == 0)):
        truth[row] = -jaccard(train[row], held[repeats.partner[row]])
    started = time.process_time()
    inside = int(within(marks, np.arange(num_held, count), SIMILARITY).any.sum())
    counted = time.process_time() - started
    exact_rows, near = truth == 2.0, (truth >= 0.8) & (truth < 2.0)
    clear, far = (truth >= 0.9) & near, np.abs(truth) < 0.7
    return {
        "documents": count,
        "mean_characters": round(sum(map(len, texts)) / count, 1),
        "exact_and_respelled": {"planted": int(exact_rows.sum()), "recall": round(float(found[exact_rows].mean()), 4)},
        "similarity_0.9_and_more": {"planted": int(clear.sum()), "recall": round(float(found[clear].mean()), 4)},
        "similarity_0.8_and_more": {"planted": int(near.sum()), "recall": round(float(found[near].mean()), 4)},
        "precision": round(float((np.abs(truth[found]) >= 0.8).mean()), 4),
        "precision_counting_0.7_as_right": round(float((np.abs(truth[found]) >= 0.7).mean()), 4),
        "below_0.7": {"rows": int(far.sum()), "found": int(found[far].sum())},
        "repeats_inside_training": inside,
        "cpu_s": {"marking": round(marked, 2), "held_out_against_training": round(compared, 2), "inside_training": round(counted, 2)},
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def table(result: dict[str, Any]) -> str:
    """Returns the measured part of docs/data-gates.md."""
    lines = ["| near duplicates | |", "|---|---|"]
    for row in result["measured"]:
        found = row["found"].strip("{}").replace("'", "")
        lines.append(f"| {row['name'].replace('_', ' ')} | {found} |")
    lines += ["", "| evaluation items | items | long enough | recall |", "|---|--:|--:|--:|"]
    items = result["evaluation_items"]
    lines += [f"| {one['name']} | {one['items']} | {one['long enough']} | {one['recall']} |" for one in items if "recall" in one]
    lines += ["", "| clean text | texts | false alarms | CPU s |", "|---|--:|--:|--:|"]
    lines += [f"| {one['name']} | {one['texts']:,} | {one['false alarms']} | {one['cpu_s']} |" for one in items if "texts" in one]
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    result = measure(options.documents)
    recall = result["similarity_0.9_and_more"]["recall"]
    text = f"exact {result['exact_and_respelled']['recall']:.3f}, similarity 0.9 and more {recall:.3f}, precision {result['precision']:.3f}"
    good = result["exact_and_respelled"]["recall"] >= 0.99 and recall >= 0.95 and result["precision_counting_0.7_as_right"] >= 0.99
    # So few that no sentence stands in two of them.
    items = measure_items(documents(min(options.documents, 10_000), random.Random(SEED + 1)))
    result = {"measured": [{"name": key, "found": str(value)} for key, value in result.items()], "evaluation_items": items, "result": verdict(good, text)}
    show("Gates", result)
    if not options.no_record:
        write_page(ROOT / "docs" / "data-gates.md", table(result))
        record("gates", covers=COVERS, result=result["result"], counts=result, seed=SEED)


if __name__ == "__main__":
    main()
