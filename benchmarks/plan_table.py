"""Writes the tables of docs/plan.md: what plans say beside memory that others measured on GPUs, with the error of each.

    python -m benchmarks.plan_table            rewrites the part between the marks
    python -m benchmarks.plan_table --check    exits 1 when the page is not what the formulas give today
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.evidence import ROOT
from launch.plan.cards import CARDS
from launch.plan.cases import CASES, GIB, Case, memory_band
from launch.plan.figures import GB

PAGE = ROOT / "docs" / "plan.md"
BEGIN, END = "<!-- tables: written by benchmarks/plan_table.py -->", "<!-- end of tables -->"
PARTS = ("parameters", "gradients", "optimizer", "activations", "logits", "buffers")


def row(number: int, case: Case) -> list[str]:
    """Returns one line of the table of cases."""
    memory, setup = case.planned(), case.setup
    engine = setup.engine + ("+host" if case.on_host else "")
    parts = " + ".join(f"{getattr(memory, part).accelerator / GIB:.1f}" for part in PARTS)
    return [
        str(number),
        case.name,
        engine,
        "full" if case.adapter == "none" else "lora",
        setup.recompute,
        f"{case.gib:.1f}",
        f"{memory.total.accelerator / GIB:.1f}",
        f"{100 * case.error():+.0f} %",
        f"{100 * case.error(same_loss=True):+.0f} %" if case.keeps_logits else "",
        parts,
        f"[page]({case.source}); {case.differs}",
    ]


def tables() -> str:
    """Returns the generated part of the page."""
    heads = [
        "", "model, GPUs, rows x tokens", "engine", "adapter", "recompute", "published GiB", "planned GiB", "error",
        "with their logits", "parameters + gradients + optimizer + activations + logits + buffers", "source; what differs there",
    ]
    cases = [row(number, case) for number, case in enumerate(CASES, start=1)]
    kinds = dict.fromkeys((case.setup.engine, case.adapter, case.on_host) for case in CASES)
    bands = []
    for engine, adapter, on_host in kinds:
        band, where = memory_band(engine, adapter, on_host=on_host)
        name = f"{engine}{'+host' if on_host else ''}, {'full' if adapter == 'none' else 'lora'}"
        bands.append([name, f"+-{100 * (band or 0.0):.0f} %", where.removeprefix("docs/plan.md: ")])
    cards = [[card.name, f"{card.memory_gb:g}", f"{card.flops / 1e12:g}", card.source] for card in CARDS]
    return "\n\n".join(
        [
            markdown(heads, cases),
            "What a plan's peak gets as its band, by engine:",
            markdown(["engine, adapter", "band", "from"], bands),
            f"### Cards\n\nMemory in GB ({GB:,} bytes), dense bf16 TFLOPS:",
            markdown(["card", "GB", "TFLOPS", "read at"], cards),
        ]
    )


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """Returns a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def page_with(tables_text: str) -> str:
    """Returns the page with its generated part replaced."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables_text}\n\n{END}{after}"


def main() -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    text = page_with(tables())
    if given.check:
        is_same = text == PAGE.read_text(encoding="utf-8")
        print("docs/plan.md is up to date" if is_same else "docs/plan.md: stale; python -m benchmarks.plan_table")
        return 0 if is_same else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
