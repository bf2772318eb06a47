"""`aisc plan`: memory, time, disk, GPU-hours and money before anything is queued. Starts nothing, writes only what --sheet names."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.counting import count_data
from cli.screens import console, split_values
from configs import compose
from configs.errors import ConfigError, UserError
from configs.facts import Facts, Shape, count_gpus, facts_of, facts_on_cluster, shape_of
from configs.rules import check
from configs.runfolder import runs_dir
from configs.schema import RunConfig
from configs.site import Partition, Site, read_site, site_path
from configs.values import nearest
from launch.plan import Plan, Size, make_plan
from launch.plan.cards import CARDS, find_card
from launch.plan.table import explain, explainable, table

VALUES = ("--explain", "--sheet", "--calibrate", "--gpu", "--tokens")
# What a plan can do without: weights, data and tokenizer may lie elsewhere, or be still to come.
NOT_NEEDED = ("model.path: a preset's shape", "data.train: missing", "model.tokenizer: missing", "training.min_steps")


@dataclass(frozen=True, slots=True)
class Asked:
    """What to plan: configuration, resolved for the nodes it asks for, and what is known of them."""

    config: RunConfig
    stem: str
    site: Site
    shape: Shape
    facts: Facts
    partition: Partition | None
    count: Size | None


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    given, rest = split_values(arguments, values=VALUES)
    if "--explain" in given and given["--explain"] not in explainable():
        wanted = given["--explain"]
        close = nearest(wanted, explainable())
        raise UserError(f"--explain {wanted}: no such figure; " + (f"did you mean {close}?" if close else f"there are {', '.join(explainable())}"))
    if "--sheet" in given and Path(given["--sheet"]).suffix not in (".md", ".html"):
        raise UserError(f"--sheet {given['--sheet']}: expected a name that ends in .md or .html")
    asked = ask(rest, gpu=given.get("--gpu"), tokens=given.get("--tokens"))
    plan = make_plan(
        asked.config,
        asked.site,
        asked.shape,
        asked.facts,
        asked.count,
        partition=asked.partition,
        calibrate=_run_of(given["--calibrate"], asked.config) if "--calibrate" in given else None,
        compares=True,
    )
    command = shlex.join(["aisc", "plan", *rest])
    if "--sheet" in given:
        from launch.plan.sheet import write_sheet

        write_sheet(Path(given["--sheet"]), plan, asked.site, model_name(rest, asked.config), command)
        print(f"written  {given['--sheet']}")
        return 0
    screen = console()
    text = explain(plan, given["--explain"]) if "--explain" in given else table(plan, asked.site, command, model_name(rest, asked.config))
    screen.print(text, markup=False, soft_wrap=True)
    return 0


def model_name(arguments: Sequence[str], config: RunConfig) -> str:
    """Returns the last part of the model's folder, or the preset's name, or its family."""
    if config.model.path:
        return config.model.path.rstrip("/").rpartition("/")[2]
    named = next((word.partition("=")[2] for word in arguments if word.startswith("model=")), "")
    return named or str(config.model.arch.get("model_type", "model"))


def ask(arguments: Sequence[str], *, gpu: str | None = None, tokens: str | None = None) -> Asked:
    """Returns what `[RUN.yaml] [key=value ...]` asks to plan.

    Args:
        arguments: as given.
        gpu: a card's name instead of the site file's.
        tokens: of one epoch, instead of counting the data.

    Raises:
        ConfigError: every problem found, but for what a plan does not need.
    """
    attempted = compose.attempt(arguments)
    config = attempted.config
    site, shape, facts, partition = _place(config, gpu)
    resolved = _resolve(config, facts)
    found = [line for line in check(resolved, facts) if not line.startswith(NOT_NEEDED)]
    attempted.add(found)
    if attempted.problems:
        raise ConfigError(attempted.problems)
    count = _given_count(tokens, config) if tokens is not None else None
    if count is None and resolved.data.named_sources():
        count = count_data(resolved)
    return Asked(resolved, attempted.stem, site, shape, facts, partition, count)


def _resolve(config: RunConfig, facts: Facts) -> RunConfig:
    """Returns every `auto` replaced but the engine's, which the plan compares; it says itself when nothing fits."""
    resolved = compose.resolve(config, facts).config
    if config.engine.name == "auto" and resolved.engine.deepspeed is None:
        free = dataclasses.replace(config.engine, name="auto", processes=resolved.engine.processes, backend=resolved.engine.backend)
        resolved.engine = free
    return resolved


def _place(config: RunConfig, gpu: str | None) -> tuple[Site, Shape, Facts, Partition | None]:
    """Returns site, shape and facts of where it will run: the named card, the site's nodes, or this machine."""
    cluster = config.cluster
    site = read_site(cluster) if cluster.name != "local" else Site()
    if gpu is not None:
        card = find_card(gpu)
        if card is None:
            raise UserError(f"--gpu {gpu}: no such card is known here; there are {', '.join(card.name for card in CARDS)}")
        count = cluster.gpus_per_node if isinstance(cluster.gpus_per_node, int) else 8
        known = site.partition(cluster.partition) or Partition()
        partition = dataclasses.replace(known, gpu=card.name, gpu_memory_gb=card.memory_gb, gpus_per_node=count)
        name = cluster.partition or site.default_partition or ""
        with_card = dataclasses.replace(site, partitions={**site.partitions, name: partition}, default_partition=name or None)
        shape = Shape(cluster.nodes, count, count, 1)
        facts = facts_on_cluster(config, with_card, shape)
        return site, shape, dataclasses.replace(facts, gpu_bytes=int(card.memory_gb * 1e9)), partition
    if cluster.name in ("slurm", "aisc") or (cluster.name == "auto" and site_path(cluster.site) is not None):
        shape = shape_of(cluster, site)
        return site, shape, facts_on_cluster(config, site, shape), site.partition(cluster.partition)
    gpus = count_gpus()
    if not gpus:
        raise UserError(
            "aisc plan: no GPU here and no site file; name a card and a shape: "
            "--gpu H800 cluster.gpus_per_node=8 cluster.nodes=1, or a site file: cluster.site=FILE"
        )
    return site, Shape(1, gpus, gpus, 1), facts_of(config), None


def _given_count(text: str, config: RunConfig) -> Size:
    """Returns a count of `--tokens 2.1e9` (or 2.1B) of the rows themselves: full rows, all learned."""
    found = re.fullmatch(r"([0-9][0-9_.,]*(?:e[0-9]+)?)\s*([kmbt]?)", text.strip().lower())
    if found is None:
        raise UserError(f"--tokens {text}: expected a number such as 2.1e9 or 2.1B")
    number = float(found[1].replace(",", "").replace("_", "")) * 1000 ** " kmbt".index(found[2] or " ")
    tokens, said = max(1, int(number)), f"--tokens {text}"
    if config.objective.name == "kto":
        tokens, said = 2 * tokens, f"{said}, twice: each prompt also with another row's completion (kto)"
    return Size(tokens, tokens, max(1, -(-tokens // config.data.sequence_length)), said)


def _run_of(text: str, config: RunConfig) -> Path:
    from launch.runs import find_run

    return find_run(text, runs_dir(config.run.dir)).path


__all__ = ["Plan", "ask", "main"]
