"""Which engine goes with what, as a page: the rules enumerated, with what has been run.

    python -m configs.compatibility > docs/compatibility.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from configs import compose
from configs.engine_rules import engine_problems, engine_unknowns
from configs.facts import Facts

VERSIONS = {"torch": "2.13.0", "deepspeed": "0.19.8"}
DENSE = {"model_type": "llama"}
EXPERTS = {"model_type": "deepseek_v3", "n_routed_experts": 256}
DEVICES = {"CPU (gloo)": 0, "GPU (nccl)": 8}
RANKS = 4

# Forms of engines, and how to ask for them.
ROWS: dict[str, str] = {
    "ddp": "engine=ddp",
    "zero1": "engine=zero1",
    "zero1, optimizer offload": "engine=zero1 engine.offload_optimizer=true",
    "zero2": "engine=zero2",
    "zero2_offload": "engine=zero2 engine.offload_optimizer=true",
    "zero3": "engine=zero3",
    "zero3, optimizer offload": "engine=zero3 engine.offload_optimizer=true",
    "zero3_offload": "engine=zero3 engine.offload_optimizer=true engine.offload_parameters=true",
    "fsdp2": "engine=fsdp2",
    "fsdp2_offload": "engine=fsdp2 engine.offload_parameters=true",
    "hsdp": "engine=fsdp2 engine.shard_size=2",
    "hsdp, all on the host": "engine=fsdp2 engine.shard_size=2 engine.offload_parameters=true",
}
# What else a run may be, on top of full fine-tuning in fp32 of a dense model on four ranks.
COLUMNS: dict[str, str] = {
    "1 rank": "engine.processes=1",
    "many ranks": "",
    "full": "",
    "lora": "adapter=lora",
    "dora": "adapter=lora adapter.dora=true",
    "fp32": "",
    "bf16": "training.precision=bf16",
    "fp16": "training.precision=fp16",
    "tf32": "training.tf32=true",
    "recompute selective": "training.gradient_checkpointing=selective",
    "recompute full": "training.gradient_checkpointing=full",
    "experts": "",
    "own DeepSpeed": "engine.deepspeed.steps_per_print=100",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """A test that runs rows with columns on a device; each pair of them is one of its cases."""

    test: str
    device: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]


# The matrix holds every pair of: form of an engine, ranks, model, adapter, recomputation, optimizer.
_IN_MATRIX = ("ddp", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload", "fsdp2", "fsdp2_offload", "hsdp")
_PAIRED = ("many ranks", "full", "lora", "fp32", "recompute full", "experts")
EVIDENCE: tuple[Evidence, ...] = (
    Evidence("tests/distributed/test_parity.py", "CPU (gloo)", ("ddp",), ("1 rank", "many ranks", "full", "fp32", "experts")),
    Evidence(
        "tests/distributed/test_balance.py",
        "CPU (gloo)",
        ("ddp", "zero2", "zero3", "fsdp2"),
        ("many ranks", "full", "fp32", "recompute full", "experts"),
    ),
    Evidence("tests/distributed/test_matrix.py", "CPU (gloo)", _IN_MATRIX, _PAIRED),
    Evidence(
        "tests/distributed/test_matrix.py",
        "CPU (gloo)",
        tuple(row for row in _IN_MATRIX if not row.startswith("zero3")),
        ("recompute selective",),
    ),
    # Every legal case, run by `make soak`; figures in docs/engines.md.
    Evidence("tests/distributed/matrix.py", "CPU (gloo)", ("zero1, optimizer offload",), (*_PAIRED, "recompute selective")),
    Evidence("tests/distributed/test_matrix.py", "CPU (gloo)", ("zero2", "zero3", "fsdp2"), ("bf16",)),
    Evidence("tests/distributed/test_matrix.py", "CPU (gloo)", ("zero3",), ("own DeepSpeed",)),
    Evidence("tests/distributed/test_reshard.py", "CPU (gloo)", ("zero3",), ("1 rank",)),
    Evidence("tests/distributed/test_half.py", "CPU (gloo)", ("ddp", "fsdp2", "fsdp2_offload"), ("fp16",)),
    Evidence("tests/runs/test_options.py", "CPU (gloo)", ("ddp",), ("bf16", "fp16", "recompute selective")),
)
_LEGEND = """`run`: a test runs it, named in the last column (`matrix.py`: in the soak only). `legal`: the rules allow it, not run.
`no`: refused before the run starts, with the sentence below. `start`: the rules need a fact that is known only on the machine;
checked at start."""


def page() -> str:
    """Returns docs/compatibility.md."""
    notes: dict[str, int] = {}
    parts = [
        "# What goes with what\n\n"
        "Generated from the rules that refuse a configuration (`configs/engine_rules.py`) by "
        "`python -m configs.compatibility`; a test compares.\n\n"
        f"{_LEGEND}\n\nEach column changes one thing of: full fine-tuning in fp32 of a dense model on {RANKS} ranks.\n"
    ]
    for device, num_gpus in DEVICES.items():
        head = ["engine", *COLUMNS, "evidence"]
        lines = [_line(head), _line(["---"] * len(head))]
        for row in ROWS:
            cells = [_cell(device, num_gpus, row, column, notes) for column in COLUMNS]
            lines.append(_line([row, *cells, ", ".join(_tests(device, row)) or "not run"]))
        parts.append(f"\n## {device}\n\n" + "\n".join(lines) + "\n")
    parts.append("\n## Why not, or not yet\n\n" + "".join(f"{number}. {note}\n" for note, number in notes.items()))
    return "".join(parts)


def verdict(num_gpus: int, row: str, column: str) -> tuple[list[str], list[str]]:
    """Returns what the rules refuse, and what they leave to the start, of a row with a column."""
    model = EXPERTS if column == "experts" else DENSE
    facts = Facts(num_gpus=num_gpus, model=model, versions=VERSIONS)
    arguments = [f"engine.processes={RANKS}", "training.precision=fp32", *ROWS[row].split(), *COLUMNS[column].split()]
    config = compose.resolve(compose.load(arguments).config, facts).config
    return engine_problems(config, facts), engine_unknowns(config, facts)


def covers(evidence: Evidence, device: str, row: str, column: str) -> bool:
    """Returns whether a test runs this cell."""
    return evidence.device == device and row in evidence.rows and column in evidence.columns


def _cell(device: str, num_gpus: int, row: str, column: str, notes: dict[str, int]) -> str:
    problems, unknowns = verdict(num_gpus, row, column)
    if problems or unknowns:
        numbers = [notes.setdefault(sentence, len(notes) + 1) for sentence in problems or unknowns]
        return f"{'no' if problems else 'start'} ({', '.join(map(str, numbers))})"
    return "run" if any(covers(evidence, device, row, column) for evidence in EVIDENCE) else "legal"


def _tests(device: str, row: str) -> list[str]:
    found = dict.fromkeys(
        evidence.test for evidence in EVIDENCE if any(covers(evidence, device, row, column) for column in COLUMNS)
    )
    return [f"`{test.rsplit('/', maxsplit=1)[-1]}`" for test in found]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
