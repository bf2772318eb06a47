"""The texts of `aisc --help` and `aisc VERB --help`. Nothing heavy is imported: login nodes are slow and shared."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

WIDTH = 80
GROUPS = (
    ("Start", ("init", "doctor")),
    ("Before", ("inspect", "plan", "prove", "prepare")),
    ("Run", ("train", "launch")),
    ("After", ("runs", "eval", "chat", "export", "verify")),
    ("Shell", ("completion",)),
)


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb's line in the overview, its ways of use, its options."""

    line: str
    usage: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)
    takes_keys: bool = False


VERBS = {
    "init": Verb(
        "write a run's YAML from your model folder and your data file",
        (
            "aisc init --model FOLDER --data FILE [--to RUN.yaml]",
            "aisc init --from llamafactory.yaml|axolotl.yaml [--to RUN.yaml]",
        ),
        {
            "--model FOLDER": "a Hugging Face model folder",
            "--data FILE": "chats, ShareGPT, Alpaca or text; its format is looked up",
            "--from FILE": "a LLaMA-Factory or axolotl YAML; what cannot be carried over is listed",
            "--to FILE": "where the YAML goes; run.yaml without it",
        },
    ),
    "doctor": Verb(
        "is this machine, this node, this cluster ready?",
        (
            "aisc doctor [cluster.KEY=VALUE ...]              this machine, and Slurm where it is",
            "aisc doctor --nodes N cluster.partition=NAME     what N compute nodes have that this machine has not",
            "aisc doctor --save FILE, then elsewhere --compare FILE",
        ),
        {
            "--nodes N": "runs on N nodes through srun and lists the differences",
            "--wait SECONDS": "longest wait for those nodes (120)",
            "--save FILE": "what this machine is, as JSON",
            "--compare FILE": "this machine against a saved one",
        },
    ),
    "inspect": Verb(
        "see what the model will see: tokens, loss mask, packing",
        ("aisc inspect RUN.yaml [key=value ...]",),
        {
            "--rows N": "how many packed rows are shown (2)",
            "--html FILE": "the same as a page, with the histogram of lengths; private, as it shows your text",
            "--bad-rows FILE.csv": "every row that cannot be used, without its text",
        },
        takes_keys=True,
    ),
    "plan": Verb(
        "memory, time, disk, GPU-hours and HK$ before you queue",
        (
            "aisc plan RUN.yaml [cluster.nodes=2] [key=value ...]",
            "aisc plan model=qwen3_8b --gpu H800 --tokens 2e9      no site file, no data yet",
        ),
        {
            "--explain FIGURE": "its formula with the numbers put in: peak, activations, wall, net ...",
            "--calibrate RUN": "speed and memory as this run of the same shape measured them",
            "--gpu NAME": "a card instead of the site file's: H800, H20, A100, L40S ...",
            "--tokens N": "tokens of an epoch instead of counting the data: 2e9, 2.1B",
            "--sheet FILE": "the page for a subsidy application, FILE.md or FILE.html (to print)",
        },
        takes_keys=True,
    ),
    "prove": Verb(
        "the numbers: same loss on any split, rank count and engine",
        (
            "aisc prove RUN.yaml [key=value ...]           your model, your data, your engine",
            "aisc prove CHAIN.yaml                         `stages:`, one after another",
        ),
        {
            "--reduced": "a few small layers of your model's kind, random weights: a minute on a CPU",
            "--steps N": "optimizer steps of each case (3)",
            "--ranks N": "up to N ranks (2); 1: one process only",
            "--json FILE": "every curve and verdict",
        },
        takes_keys=True,
    ),
    "prepare": Verb("tokenise and pack once, on CPU", ("aisc prepare RUN.yaml [key=value ...]",), takes_keys=True),
    "train": Verb(
        "here, on every GPU of this machine",
        (
            "aisc train model=FOLDER data=FILE [adapter=lora] [key=value ...]",
            "aisc train RUN.yaml [key=value ...]          the YAML, with changes",
            "aisc train experiment=demo                   a packaged experiment",
            "aisc train RUN.yaml -m key=value,value ...   every combination, one after another",
            "aisc train CHAIN.yaml                        `stages:`, each from the former's model, to a release",
        ),
        {
            "--dry-run": "everything but training",
            "--smoke": "8 rows, 30 steps: does the loss fall to nearly zero?",
            "--new": "a new run where one of this configuration exists already",
        },
        takes_keys=True,
    ),
    "launch": Verb(
        "through Slurm: checked, saved, requeued, resumed",
        (
            "aisc launch RUN.yaml [key=value ...]         what aisc train takes, through the queue",
            "aisc launch RUN.yaml cluster.nodes=4         on four nodes",
            "aisc launch RUN.yaml -m key=value,value ...  every combination, as one job array",
            "aisc launch CHAIN.yaml                       `stages:` as jobs, each after the one before",
        ),
        {
            "--dry-run": "print the plan and the script; write nothing, submit nothing",
            "--follow": "stay and show how it goes",
            "--new": "a new run where one of this configuration exists already",
        },
        takes_keys=True,
    ),
    "runs": Verb(
        "list, show, follow, stop, resume, retry, compare, goodput",
        (
            "aisc runs [list]                              every run, with what Slurm does with it now",
            "aisc runs show RUN|JOBID [--replies]          what happened, what to do, what came out",
            "aisc runs show RUN --board | --paper          a page for those who sign, figures and tables for a paper",
            "aisc runs follow RUN                          what it prints, until it ends; Ctrl-C leaves it running",
            "aisc runs stop RUN                            saves first; is not requeued",
            "aisc runs resume RUN                          into the queue again, from its newest checkpoint",
            "aisc runs retry RUN|SWEEP                     the same after a failure; of a sweep the failed points",
            "aisc runs compare RUN RUN ... [--svg FILE]    their settings and losses side by side",
            "aisc runs goodput [RUN ...] [--svg FILE]      where the GPU-hours went and what they cost, beside sacct",
            "aisc runs goodput [--project P] [--month 2026-11]      of all runs, by project and month",
        ),
        {"run.dir=FOLDER": "folder of runs; $AISC_RUNS or ./runs without it"},
    ),
    "eval": Verb(
        "score a run, a checkpoint or a model folder",
        (
            "aisc eval RUN                          its model on what it held out, and evaluation.packs",
            "aisc eval RUN@STEP                     a checkpoint of it",
            "aisc eval FOLDER --on RUN              any model folder on what RUN held out",
            "aisc eval RUN medical medqa=FILE       packs (medical, hk, safety) and tasks with their data",
            "aisc eval RUN --against OTHER          both on the same items, with the difference and its p",
            "aisc eval RUN --forgetting FILE        against its base on general text; exit 1 when it forgot",
        ),
        {
            "--on RUN": "whose held-out data; the run's own without it",
            "--against RUN|FOLDER|base": "a second model, compared item by item",
            "--forgetting FILE[,FILE]": "general text, held out; evaluation.forgetting without it",
            "--base FOLDER": "what the gate compares with; the model that the run began from without it",
            "--limit N": "only the first N items of each task",
            "--samples": "keep prompts and replies, in private files",
            "--output FOLDER": "where the figures go; RUN/eval without it",
            "--device cpu|cuda": "where to compute; a GPU when there is one",
            "--rows N": "packed rows, or requests, at once (4)",
        },
    ),
    "chat": Verb(
        "talk to it",
        ("aisc chat RUN|FOLDER [--prompt TEXT]",),
        {
            "--prompt TEXT": "one answer, then the end; without it a conversation",
            "--system TEXT": "instead of the system prompt that the model was trained with",
            "--max-new-tokens N": "longest answer (256)",
            "--temperature T": "0, the default, takes the likeliest token every time",
        },
    ),
    "export": Verb(
        "merge, convert, release; refused unless outputs agree",
        (
            "aisc export RUN [--merge] [--dtype bfloat16|float32] [--to FOLDER]",
            "aisc export RUN --release [--merge]           model, cards, board page, paper kit in RUN/release",
        ),
        {
            "--merge": "base and adapter as one model",
            "--dtype TYPE": "type of the weights written; that of the base model without it",
            "--to FOLDER": "where it goes; RUN/export without it",
            "--release": "all that can be given away, with its evidence; nothing unless every check passes",
            "--licence SOURCE=TEXT": "what its owner allows, where the YAML has no data.licence",
        },
    ),
    "verify": Verb(
        "the files: nothing changed since this run",
        ("aisc verify RUN              every hash of its manifest again, and of the runs it began from",),
        {"--all": "every change, not the first ten"},
    ),
    "completion": Verb("tab completion for your shell", ('eval "$(aisc completion bash)"', 'eval "$(aisc completion zsh)"')),
}


def overview() -> str:
    """Returns the text of `aisc --help`."""
    title = "aisc: fine-tune language models on a shared Slurm centre."
    lines = [f"{title:<77} {_version()}", ""]
    for group, names in GROUPS:
        for number, name in enumerate(names):
            lines.append(f"{group if number == 0 else '':<9} {name:<12} {VERBS[name].line}")
    lines += [
        "",
        "  aisc train model=/models/Qwen3-8B data=chats.jsonl adapter=lora",
        "  aisc train run.yaml optimizer.lr=5e-5          aisc launch run.yaml cluster.nodes=4",
        "",
        "aisc VERB --help            the 20 keys people change, with units and defaults",
        "aisc VERB --help optimizer  every key of one section        --help all   every key",
    ]
    return "\n".join(lines) + "\n"


def verb_help(name: str, topics: list[str]) -> str:
    """Returns the text of `aisc VERB --help [SECTION|KEY|all ...]`."""
    verb = VERBS[name]
    lines = [f"aisc {name}: {verb.line}", ""]
    for usage in verb.usage:
        command, *said = re.split(r"(?<=\s\s)(?=\S)", usage, maxsplit=1)
        lines += _beside(command, "".join(said))
    if verb.options:
        lines.append("")
        for option, text in verb.options.items():
            lines += _beside(f"{option:<22} ", text)
    text = "\n".join(lines) + "\n"
    if not verb.takes_keys:
        return text
    from configs.help import experiments, keys_help

    if topics:
        return keys_help(topics)
    tail = [
        *_beside("experiments: ", ", ".join(experiments())),
        f"  more: aisc {name} --help SECTION, aisc {name} --help all",
        *_beside("exit codes: ", "0 done, 1 failed, 2 your input, 75 saved and wants to continue, 130 interrupted at once"),
    ]
    end = "\n".join(tail)
    return f"{text}\nkey = default\n{keys_help(())}\n{end}\n"


def _beside(left: str, right: str) -> list[str]:
    """Returns lines of at most 80 columns: `right` beside `left`, its further lines below its first."""
    room = max(WIDTH - 2 - len(left), 20)
    first, *others = textwrap.wrap(right, room) or [""]
    return [f"  {left}{first}".rstrip(), *(f"  {' ' * len(left)}{line}" for line in others)]


def _version() -> str:
    try:
        return version("aisc-finetune")
    except PackageNotFoundError:
        return "not installed"
