"""Which engines, GPUs and micro-batches fit: the columns of a plan.

A micro-batch is the largest power of two that fits (or what the configuration says): more rows at once are never slower
here, and what a rank computes beyond its share of the global batch is empty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from configs.engine_choice import HEADROOM, HOST_HEADROOM, Candidate, asked_for, not_refused, setup_of
from configs.facts import Facts
from configs.memory import Memory, Model, Setup, estimate
from configs.schema import RunConfig

GB = 10**9


@dataclass(frozen=True, slots=True)
class Nodes:
    """What a plan may use: nodes, GPUs of each, bytes of one GPU and of one node's memory (None: not known)."""

    count: int
    gpus: int
    gpu_bytes: int | None
    host_bytes: int | None = None

    @property
    def ranks(self) -> int:
        return self.count * self.gpus

    @property
    def room(self) -> int | None:
        """Bytes of a GPU that a run may plan with."""
        return None if self.gpu_bytes is None else int(self.gpu_bytes * (1 - HEADROOM))


@dataclass(frozen=True, slots=True)
class Fit:
    """An engine on so many GPUs with the micro-batch that fits and what a rank then holds."""

    adapter: str
    candidate: Candidate
    nodes: Nodes
    micro_batch_size: int
    memory: Memory
    model: Model
    setup: Setup
    global_rows: int

    @property
    def ranks(self) -> int:
        return self.nodes.ranks

    @property
    def name(self) -> str:
        """The engine, or the adapter, as `lora` is what a column is about then."""
        return self.candidate.name if self.adapter == "none" else self.adapter

    @property
    def on_host(self) -> bool:
        """Something lives in host memory."""
        return self.candidate.offload_optimizer or self.candidate.offload_parameters

    @property
    def title(self) -> str:
        """`zero3 x16`, `lora x1`; `+host` where something lives in host memory."""
        return f"{self.name}{'+host' if self.on_host else ''} x{self.ranks}"

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a step on each rank."""
        return -(-self.global_rows // (self.ranks * self.micro_batch_size))


def with_candidate(setup: Setup, candidate: Candidate, micro_batch_size: int) -> Setup:
    """Returns `setup` under another engine and micro-batch."""
    return dataclasses.replace(
        setup,
        engine=candidate.name,
        offload_optimizer=candidate.offload_optimizer,
        offload_parameters=candidate.offload_parameters,
        micro_batch_size=micro_batch_size,
    )


def fits(memory: Memory, nodes: Nodes) -> bool:
    """True when a rank's memory fits a GPU, and what a node's ranks keep on the host fits the node."""
    host = nodes.host_bytes
    gpu_ok = nodes.room is None or memory.total.accelerator <= nodes.room
    return gpu_ok and (host is None or memory.total.host * nodes.gpus <= host * (1 - HOST_HEADROOM))


def fit(config: RunConfig, model: Model, candidate: Candidate, nodes: Nodes) -> Fit | None:
    """Returns the engine with the largest micro-batch that fits; None when not even one row does."""
    rows = config.training.global_batch_size
    setup = setup_of(config, nodes.ranks)
    given = config.training.micro_batch_size

    def at(micro: int) -> Memory:
        return estimate(model, with_candidate(setup, candidate, micro))

    micro = given if isinstance(given, int) else 1
    memory = at(micro)
    if not fits(memory, nodes):
        return None
    share = -(-rows // nodes.ranks)
    while not isinstance(given, int) and micro < share:
        larger = at(min(2 * micro, share))
        if not fits(larger, nodes):
            break
        micro, memory = min(2 * micro, share), larger
    adapter = "lora" if model.is_adapted else "none"
    return Fit(adapter, candidate, nodes, micro, memory, model, with_candidate(setup, candidate, micro), rows)


def allowed(config: RunConfig, ranks: int) -> list[Candidate]:
    """Returns the engines that the configuration leaves, cheapest first; one that it names stands alone."""
    if config.engine.name != "auto":
        return [Candidate.of(config.engine)]
    facts = Facts(num_gpus=0 if config.engine.backend == "gloo" else 1, world_size=ranks)
    return not_refused(config, facts, asked_for(config, ranks))


def smaller(nodes: Nodes) -> list[Nodes]:
    """Returns fewer GPUs, most first: halves of the nodes, then halves of one node."""
    found, count, gpus = [], nodes.count, nodes.gpus
    while count > 1 or gpus > 1:
        count, gpus = (count // 2, gpus) if count > 1 else (1, gpus // 2)
        found.append(dataclasses.replace(nodes, count=count, gpus=gpus))
    return found


def larger(nodes: Nodes, most: int = 1024) -> list[Nodes]:
    """Returns more GPUs of the same nodes, doubled each time."""
    found, count = [], nodes.count
    while 2 * count * nodes.gpus <= most:
        count *= 2
        found.append(dataclasses.replace(nodes, count=count))
    return found


def first_fit(config: RunConfig, model: Model, nodes: Nodes, *, host: bool = True) -> Fit | None:
    """Returns the cheapest engine that fits these nodes, as `engine: auto` would take it; without `host`, on GPUs alone."""
    left = [c for c in allowed(config, nodes.ranks) if host or not (c.offload_optimizer or c.offload_parameters)]
    tried = (fit(config, model, candidate, nodes) for candidate in left)
    return next((found for found in tried if found is not None), None)


def columns(
    config: RunConfig, model: Model, adapted: Model | None, nodes: Nodes, hours: Callable[[Fit], float | None], most: int = 5
) -> list[Fit]:
    """Returns what to compare: engines on the GPUs asked for, the best on fewer GPUs, and lora on the fewest that hold it.

    Args:
        config: resolved; its engine's name may be auto.
        model: as it is trained.
        adapted: the same with a default adapter, None when `model` has one.
        nodes: asked for.
        hours: GPU-hours of a column; those without any are compared by order.
        most: columns that fit 80 characters.
    """
    lora = _fewest(config, adapted, nodes) if adapted is not None else None
    room = most - (lora is not None)
    here = [found for candidate in allowed(config, nodes.ranks) if (found := fit(config, model, candidate, nodes))]
    here = [found for found in here if not found.on_host] or here
    here = list({found.title: found for found in reversed(here)}.values())[::-1]
    fewer = _while_it_fits(config, model, smaller(nodes))
    kept = here[: max(1, room - min(2, len(fewer)))]
    kept += _cheapest(fewer, room - len(kept), hours)
    return [*kept, *([lora] if lora else [])]


def _cheapest(found: Sequence[Fit], room: int, hours: Callable[[Fit], float | None]) -> list[Fit]:
    ordered = sorted(found, key=lambda each: (hours(each) or 0.0, each.ranks))[: max(0, room)]
    return sorted(ordered, key=lambda each: -each.ranks)


def _fewest(config: RunConfig, model: Model, nodes: Nodes) -> Fit | None:
    """Returns the fewest GPUs that hold a model, with the engine for them; host memory only where GPUs alone do not."""
    for host in (False, True):
        if found := _while_it_fits(_engine_free(config), model, [nodes, *smaller(nodes)], host=host):
            return found[-1]
    return None


def _while_it_fits(config: RunConfig, model: Model, places: Sequence[Nodes], *, host: bool = True) -> list[Fit]:
    """Returns the cheapest engine on each of `places`, most GPUs first, up to the first that holds it no more."""
    found = []
    for nodes in places:
        best = first_fit(config, model, nodes, host=host)
        if best is None:
            break
        found.append(best)
    return found


def _engine_free(config: RunConfig) -> RunConfig:
    free = dataclasses.replace(config.engine, name="auto", offload_optimizer=False, offload_parameters=False, shard_size=None, deepspeed=None)
    return dataclasses.replace(config, engine=free)


def refusal(config: RunConfig, model: Model, adapted: Model | None, nodes: Nodes) -> str:
    """Returns why nothing fits and what would, in one sentence."""
    tried = [(candidate, _smallest(config, model, candidate, nodes)) for candidate in allowed(config, nodes.ranks)]
    candidate, memory = min(tried, key=lambda pair: pair[1].total.accelerator)
    have = f"{(nodes.room or 0) / GB:.1f} GB of a {(nodes.gpu_bytes or 0) / GB:.0f} GB GPU can be used"
    on_host = memory.total.accelerator <= (nodes.room or 0)
    if on_host:
        host = f"{memory.total.host * nodes.gpus / GB:,.0f} GB of host memory on each node"
        need = f"the smallest, {candidate.title}, needs {host}, which has {(nodes.host_bytes or 0) / GB:,.0f} GB"
    else:
        need = f"the smallest, {candidate.title}, needs {memory.total.accelerator / GB:.1f} GB a GPU, {have}"
    helps = _what_would(config, model, adapted, nodes)
    would = f"; this would: {', or '.join(helps)}" if helps else "; nothing up to 1,024 such GPUs would, nor an adapter"
    return f"on {nodes.ranks} {'GPU' if nodes.ranks == 1 else 'GPUs'} this does not fit: {need}{would}"


def _smallest(config: RunConfig, model: Model, candidate: Candidate, nodes: Nodes) -> Memory:
    given = config.training.micro_batch_size
    micro = given if isinstance(given, int) else 1
    return estimate(model, with_candidate(setup_of(config, nodes.ranks), candidate, micro))


def _what_would(config: RunConfig, model: Model, adapted: Model | None, nodes: Nodes) -> list[str]:
    """Returns changes that fit, each alone, by trying them."""
    helps = []
    free = _engine_free(config)
    if config.engine.name != "auto" and (found := first_fit(free, model, nodes)):
        helps.append("engine.name=auto" if found.candidate.offload_optimizer else f"engine.name={found.candidate.name}")
    plain = dataclasses.replace(free, adapter=dataclasses.replace(free.adapter, dora=False))
    if free.adapter.dora and first_fit(plain, model, nodes):
        helps.append("adapter.dora=false")
    one_row = dataclasses.replace(free, training=dataclasses.replace(free.training, micro_batch_size=1))
    if free.training.micro_batch_size not in ("auto", 1) and first_fit(one_row, model, nodes):
        helps.append("training.micro_batch_size=1")
    full = dataclasses.replace(free, training=dataclasses.replace(free.training, gradient_checkpointing="full"))
    if config.training.gradient_checkpointing != "full" and first_fit(full, model, nodes):
        helps.append("training.gradient_checkpointing=full")
    if more := next((found for more in larger(nodes) if (found := first_fit(free, model, more))), None):
        helps.append(f"cluster.nodes={more.nodes.count} ({more.candidate.title})")
    elif more := next((found for more in larger(nodes) if (found := first_fit(full, model, more))), None):
        helps.append(f"cluster.nodes={more.nodes.count} training.gradient_checkpointing=full")
    if adapted is not None and first_fit(free, adapted, nodes):
        helps.append("adapter=lora")
    elif adapted is not None and first_fit(full, adapted, nodes):
        helps.append("adapter=lora training.gradient_checkpointing=full")
    return helps
