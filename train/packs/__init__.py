"""Evaluation packs: tasks of lm-evaluation-harness as YAML files of ours, each with the shape of data that it reads.

A folder here is a pack, a YAML file in it a task. No task has data of its own but `mmlu_medical_check`, whose questions
ship with lm-evaluation-harness; for the others the user names a file. Only these YAML files are ever loaded: a harness
YAML can name Python code, so one from elsewhere would be foreign code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from configs.values import nearest

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Attributes:
        shape: of its rows, a name of `train.packs.rows.SHAPES`.
        is_chat: prompts go through the model's chat template.
        is_check: it shows that the harness works with this model; its result is no score.
        has_rules: replies are judged by the list of `train.packs.safety.refusals`, which is shown with the result.
        about: one line for help and reports.
    """

    name: str
    pack: str
    shape: str
    about: str
    is_chat: bool = False
    is_check: bool = False
    has_rules: bool = False

    @property
    def path(self) -> Path:
        """Its harness file."""
        return FOLDER / self.pack / f"{self.name}.yaml"


TASKS = {
    task.name: task
    for task in (
        Task("mmlu_medical_check", "medical", "choice", "few-shot questions of MMLU: a check of the harness, not a score", is_check=True),
        Task("icd_coding", "medical", "choice", "which of sibling ICD-10-CM codes"),
        Task("medqa", "medical", "choice", "MedQA format: a question, lettered options"),
        Task("pubmedqa", "medical", "abstract", "PubMedQA format: yes, no or maybe from an abstract"),
        Task("hkmmlu", "hk", "choice", "HKMMLU format: a question, A to D"),
        Task("cantonese_replies", "hk", "prompt", "Cantonese, script and code-switching of replies", is_chat=True),
        Task("refusal", "safety", "refusal", "harmful prompts refused, harmless ones not", is_chat=True, has_rules=True),
        Task("values", "safety", "values", "preferred answers, HKGAI's way of testing regional values"),
    )
}


def choose(words: list[str], files: dict[str, str]) -> tuple[list[Task], list[Task]]:
    """Returns (tasks that can run, tasks of the packs asked for that have no data file).

    Args:
        words: names of packs and tasks.
        files: data file of a task, by its name; a task named only here runs too.

    Raises:
        UserError: no such pack or task; a task asked for by its own name without data; a file for one that takes none.
    """
    packs = sorted({task.pack for task in TASKS.values()})
    wanted: dict[str, Task] = {}
    missing: dict[str, Task] = {}
    for word in [*words, *files]:
        if word not in TASKS and word not in packs:
            close = nearest(word, [*packs, *TASKS])
            hint = f"did you mean {close}?" if close else f"packs: {', '.join(packs)}; tasks: {', '.join(TASKS)}"
            raise UserError(f"{word}: no such pack or task; {hint}")
        for task in TASKS.values():
            if word not in (task.name, task.pack):
                continue
            if task.is_check and task.name in files:
                raise UserError(f"{task.name}={files[task.name]}: its questions ship with lm-evaluation-harness, it takes no file")
            if task.is_check or task.name in files:
                wanted[task.name] = task
            elif word == task.name:
                raise UserError(f"{task.name}: expected its data, {task.name}=FILE; the format is in docs/eval.md")
            else:
                missing[task.name] = task
    return list(wanted.values()), list(missing.values())
