"""The demonstration beside its control: the same steps on the same utterances with their words shuffled.

    python -m benchmarks.demo        about 6 minutes on two idle cores; needs what `make demo` builds

Both are measured on the same real held-out conversations, in nats per learned token and in bits per character. What the
control learns is characters and format; what the demonstration learns beyond it is order: how Cantonese is put together.

Predicted: the control gets part of the way (byte-level tokens of Chinese characters are learned from any order), the
demonstration clearly further. Seen: docs/demo.md.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.evidence import record
from cli.configured import load_checked
from cli.main import main as aisc
from configs.runfolder import read_json
from data_pipelines.build import Prepared, prepare
from data_pipelines.corpora import hkcancor
from data_pipelines.tokenize import load_tokenizer
from launch.runs import all_runs

MODEL = Path(".cache/demo/smollm2")
REAL = Path(".cache/demo/hkcancor/train.jsonl")
SHUFFLE_SEED = 1
COVERS = (
    "benchmarks/demo.py",
    "configs/experiment/demo.yaml",
    "data_pipelines/corpora/hkcancor.py",
    "train/convert_gguf.py",
    "train/step.py",
    "train/scores.py",
)


def prepared_demo() -> Prepared:
    """Returns the demonstration's store."""
    config = load_checked(["experiment=demo"]).config
    return prepare(config.data, config.objective.name, str(MODEL), seed=config.training.seed)


def write_control(folder: Path, prepared: Prepared) -> tuple[Path, Path]:
    """Writes (shuffled training rows, real held-out rows), split as the demonstration is."""
    assert prepared.validation is not None
    rows = [json.loads(line) for line in REAL.read_text(encoding="utf-8").splitlines()]
    lines = {int(line) for line in prepared.validation.document_row}
    held_out = {rows[line - 1]["conversation"] for line in lines}
    hkcancor.build(folder / "shuffled", MODEL, Path(".cache/packages"), shuffled_seed=SHUFFLE_SEED)
    shuffled = [json.loads(line) for line in (folder / "shuffled" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    train, validation = folder / "train.jsonl", folder / "held-out.jsonl"
    write_rows(train, [row for row in shuffled if row["conversation"] not in held_out])
    write_rows(validation, [rows[line - 1] for line in sorted(lines)])
    return train, validation


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows as JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def bits_per_character(loss: float, prepared: Prepared) -> float:
    """Returns loss * learned tokens / (ln 2 * learned characters) of the held-out part; end-of-turn tokens count as tokens."""
    assert prepared.validation is not None
    tokenizer = load_tokenizer(str(MODEL))
    tokens = characters = 0
    for document in range(prepared.validation.num_documents):
        ids, mask = prepared.validation.document(document)
        learned = ids[mask].tolist()
        tokens += len(learned)
        characters += len(tokenizer.decode(learned, skip_special_tokens=True))
    return loss * tokens / (math.log(2) * characters)


def train(folder: Path, *changes: str) -> dict[str, Any]:
    """Runs the demonstration with changes; returns its result and the seconds it took."""
    start = time.monotonic()
    code = aisc(["train", "experiment=demo", "evaluation.replies=0", f"run.dir={folder}", *changes])
    assert code == 0, code
    (run,) = all_runs(folder)
    result = read_json(run.result_path)
    assert result is not None
    return {**result, "seconds": round(time.monotonic() - start, 1)}


def main() -> None:
    """Measures both and records the evidence."""
    prepared = prepared_demo()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = train(folder / "demo")
        shuffled, held_out = write_control(folder, prepared)
        control = train(folder / "control", f"data.train={shuffled}", f"data.validation={held_out}", f"data.store={folder}/stores")
    losses = {"before": demo["eval_loss_before"], "words shuffled": control["eval_loss"], "as spoken": demo["eval_loss"]}
    assert abs(control["eval_loss_before"] / demo["eval_loss_before"] - 1) < 1e-4, "not the same held-out conversations"
    counts = {
        name: {"loss": loss, "bits_per_character": round(bits_per_character(loss, prepared), 4)} for name, loss in losses.items()
    }
    table = Table("30 steps on", "held-out loss", "bits per character", "against before")
    for name, values in counts.items():
        change = f"{100 * (values['loss'] / demo['eval_loss_before'] - 1):+.1f} %"
        table.add_row(name, f"{values['loss']:.3f}", f"{values['bits_per_character']:.3f}", change)
    Console().print(table)
    share = 1 - demo["eval_loss"] / demo["eval_loss_before"]
    met = "met" if share >= 0.25 and demo["eval_loss"] < control["eval_loss"] else "not met"
    record(
        "demo",
        covers=COVERS,
        result=f"{met}: held-out loss {100 * share:.1f} % lower",
        counts={**counts, "seconds": demo["seconds"]},
        seed=1,
    )


if __name__ == "__main__":
    main()
