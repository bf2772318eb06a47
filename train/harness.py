"""lm-evaluation-harness as the engine of tasks: our task files, the user's rows, one model in memory. No network.

What comes out is what `lm_eval.simple_evaluate` gives for the same model and task: figures are taken from its results.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from train.packs import Task
from train.packs.rows import Row, read_task_rows

# The questions of MMLU's development part that the harness ships, with answers at the end of a worked solution.
PROMPTS = "tasks/mmlu/flan_cot_fewshot/_cot_prompts.json"
SUBJECTS = (
    "anatomy",
    "clinical_knowledge",
    "college_medicine",
    "professional_medicine",
    "medical_genetics",
    "virology",
    "nutrition",
)
_QUESTION = re.compile(r"^Q: (?P<question>.+?)\n\(A\) (?P<rest>.+?)\nA: .*?[Tt]he answer is \((?P<answer>[A-D])\)", re.S | re.M)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task came to.

    Attributes:
        figures: of each metric (value, standard error or None) as the harness reports them.
        items: of each metric [(id, value)] in the order of the data.
        samples: [{id, prompt, replies, target}], texts and all; for a private file only.
    """

    task: Task
    figures: dict[str, tuple[float, float | None]]
    items: dict[str, list[tuple[str, float]]]
    samples: list[dict[str, Any]]


def require_harness() -> None:
    """Raises UserError with what to install when lm-evaluation-harness or a judge of language is not there."""
    import importlib.util

    names = {"lm_eval": "lm-eval", "cantofilter": "canto-filter", "py3langid": "py3langid"}
    if missing := [package for module, package in names.items() if importlib.util.find_spec(module) is None]:
        raise UserError(f"tasks need {', '.join(missing)}, not installed here:  pip install 'aisc-finetune[eval]'")


def task_rows(task: Task, path: str | None, limit: int | None) -> list[Row]:
    """Returns the rows of `task`, from file `path` or, of the check, from the harness's own package."""
    rows = shipped_questions() if task.is_check else read_task_rows(Path(str(path)).expanduser(), task.shape)
    return rows[:limit]


def shipped_questions() -> list[Row]:
    """Returns the medical few-shot questions that ship inside lm-evaluation-harness, by subject."""
    import importlib.util

    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.origin is not None
    texts = json.loads((Path(spec.origin).parent / PROMPTS).read_text(encoding="utf-8"))
    rows = []
    for subject in SUBJECTS:
        for number, found in enumerate(_QUESTION.finditer(texts[subject]), start=1):
            choices = re.split(r" \([B-D]\) ", found["rest"].strip())
            if len(choices) == 4:
                answer = "ABCD".index(found["answer"])
                rows.append({"id": f"{subject}-{number}", "question": found["question"], "choices": choices, "answer": answer})
    return rows


def run_tasks(
    tasks: list[tuple[Task, list[Row]]],
    model: Any,
    tokenizer: Any,
    *,
    batch_size: int,
    system_prompt: str | None,
    template_args: dict[str, Any],
) -> list[Outcome]:
    """Returns what each task came to.

    Args:
        tasks: with their rows.
        model: a transformers model, or a peft model around one, in evaluation mode.
        tokenizer: its own.
        batch_size: requests at once.
        system_prompt, template_args: as the model was trained; for tasks that chat.
    """
    outcomes: dict[str, Outcome] = {}
    with _offline(), tempfile.TemporaryDirectory(prefix="aisc-eval-") as folder:
        from lm_eval.models.huggingface import HFLM

        engine = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, chat_template_args=dict(template_args))
        # The chat template is a setting of one call, so tasks with and without it are two calls.
        for is_chat in (False, True):
            chosen = [(task, rows) for task, rows in tasks if (task.is_chat and bool(tokenizer.chat_template)) is is_chat]
            if chosen:
                result = evaluate(chosen, engine, Path(folder), system_prompt if is_chat else None, is_chat=is_chat)
                outcomes |= {task.name: outcome(task, result) for task, _ in chosen}
    return [outcomes[task.name] for task, _ in tasks]


def evaluate(
    tasks: list[tuple[Task, list[Row]]], engine: Any, folder: Path, system_prompt: str | None, *, is_chat: bool
) -> dict[str, Any]:
    """Returns the harness's own result for `tasks` on `engine`; rows pass through private files in `folder`."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    configs = [task_config(task, rows, folder) for task, rows in tasks]
    result: dict[str, Any] = lm_eval.simple_evaluate(
        model=engine,
        tasks=configs,
        task_manager=TaskManager(include_defaults=False),
        apply_chat_template=is_chat,
        system_instruction=system_prompt,
        log_samples=True,
        bootstrap_iters=1,  # its standard error of a mean is a formula; intervals are ours
    )
    return result


def task_config(task: Task, rows: list[Row], folder: Path) -> dict[str, Any]:
    """Returns the harness configuration of `task` for `rows`, which are written to a private file below `folder`."""
    from lm_eval.tasks._yaml_loader import load_yaml

    path = folder / f"{task.name}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    path.chmod(0o600)
    config: dict[str, Any] = dict(load_yaml(task.path, resolve_func=True, recursive=True))
    # Without its own cache folder a copy of the rows would stay in the user's.
    config["dataset_kwargs"] = {"data_files": {"test": str(path)}, "cache_dir": str(folder / "cache")}
    return config


def outcome(task: Task, result: dict[str, Any]) -> Outcome:
    """Returns the harness's result of one task as figures, items and samples."""
    figures: dict[str, tuple[float, float | None]] = {}
    for key, value in result["results"][task.name].items():
        name, _, kind = key.partition(",")
        if kind and not name.endswith("_stderr") and isinstance(value, (int, float)):
            error = result["results"][task.name].get(f"{name}_stderr,{kind}")
            figures[name] = (float(value), float(error) if isinstance(error, (int, float)) else None)
    lines = sorted(result["samples"][task.name], key=lambda line: int(line["doc_id"]))
    items: dict[str, list[tuple[str, float]]] = {name: [] for name in figures}
    samples = []
    for line in lines:
        name = str(line["doc"]["id"])
        for metric in figures:
            if metric in line:
                items[metric].append((name, float(line[metric])))
        samples.append({"id": name, "prompt": line["arguments"], "replies": line["filtered_resps"], "target": line["target"]})
    return Outcome(task, figures, {name: values for name, values in items.items() if values}, samples)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keeps every library from the network, and the harness's bars and notices off the screen, while the body runs."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_EVALUATE_OFFLINE"):
        os.environ[name] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("LMEVAL_LOG_LEVEL", "ERROR")
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        import datasets

        datasets.disable_progress_bars()
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        yield
