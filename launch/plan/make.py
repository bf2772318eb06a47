"""`make_plan`: from a resolved configuration and a site to every figure, before anything is queued."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.durations import parse_seconds
from configs.engine_choice import Candidate
from configs.errors import LaunchError
from configs.facts import Facts, Shape
from configs.memory import PARTS, Model, model_of
from configs.schema import AdapterSection, RunConfig
from configs.site import Partition, Site
from launch.plan.calibrate import Measured, measured_of, measured_rate
from launch.plan.cards import Card, default_mfu, find_card
from launch.plan.cases import memory_band
from launch.plan.choice import Fit, Nodes, columns, fit, refusal
from launch.plan.cost import Cost, cost_of
from launch.plan.disk import disk_of, shortage
from launch.plan.figures import FORMULA, GB, Figure, spell_hours, unknown
from launch.plan.flops import Flops, flops_of, has_experts, looks_of
from launch.plan.reference import memory_of, phase_bytes
from launch.plan.speed import Rate, Speed, speed_of
from launch.plan.work import Size, Work, work_of

ROWS = ("parameters", "gradients", "optimizer", "activations", "logits, buffers", "peak")
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Column:
    """One engine on so many GPUs: what a rank holds, how fast it goes, what the whole run costs."""

    fit: Fit
    flops: Flops
    memory: dict[str, Figure]
    speed: Speed
    cost: Cost

    @property
    def title(self) -> str:
        return self.fit.title

    def figures(self) -> dict[str, Figure]:
        """Returns every figure of the column by the name that the table gives it."""
        return {
            **self.memory,
            "tokens/s": self.speed.tokens_per_s,
            "step": self.speed.step_s,
            "communication": self.speed.communication_s,
            "reference pass": self.speed.reference_h,
            "wall": self.speed.wall_h,
            "GPU-hours": self.cost.gpu_hours,
            "list": self.cost.list_price,
            "net": self.cost.net_price,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will need.

    Attributes:
        config: resolved; what `chosen` runs.
        gpu: the card's name as the site says it; card: what is known of it.
        nodes: asked for.
        model: parameters and values, as they are trained.
        work: tokens and steps; a sentence when the size of the data is missing.
        rate: operations per second that were assumed or measured.
        columns: to compare; the one at `chosen` is what the configuration runs.
        cheapest: index of the cheapest full fine-tuning (of an adapter's run: of all); None: no cost is known.
        disk: checkpoint, checkpoints, export, store, free, in GB.
        notes: sentences on what is missing.
    """

    config: RunConfig
    gpu: str
    card: Card | None
    nodes: Nodes
    model: Model
    work: Work | str
    rate: Rate
    columns: tuple[Column, ...]
    chosen: int
    cheapest: int | None
    disk: dict[str, Figure]
    notes: tuple[str, ...]
    measured: Measured | None = None

    @property
    def column(self) -> Column:
        """What the configuration runs."""
        return self.columns[self.chosen]

    @property
    def gpu_hours(self) -> float | None:
        return self.column.cost.gpu_hours.value

    @property
    def wall_h(self) -> float | None:
        return self.column.speed.wall_h.value

    def fits_text(self) -> str:
        """Returns `43 +-4 of 80 GB`."""
        peak = self.column.memory["peak"]
        band = f" +-{peak.band:.0f}" if peak.band else ""
        of = f" of {self.nodes.gpu_bytes / GB:.0f} GB" if self.nodes.gpu_bytes else " GB"
        return f"{peak.value or 0.0:.0f}{band}{of}"

    def cost_text(self) -> str:
        """Returns `71 GPU-hours, HK$ 1,775 list, 533 net`, as far as it is known."""
        cost = self.column.cost
        if cost.gpu_hours.value is None:
            return f"not known: {cost.gpu_hours.missing}"
        text = f"{cost.gpu_hours.value:,.3g} GPU-hours ({spell_hours(self.wall_h)} x {self.column.fit.ranks})"
        if cost.list_price.value is not None:
            text += f", {cost.list_price.unit} {cost.list_price.value:,.0f} list"
        if cost.net_price.value is not None:
            text += f", {cost.net_price.value:,.0f} net"
        return text

    def plan_json(self) -> dict[str, Any]:
        """Returns what plan.json of a run folder holds."""
        return {
            "schema": SCHEMA_VERSION,
            "project": self.config.run.project,
            "gpu": self.gpu,
            "gpus": self.column.fit.ranks,
            "nodes": self.nodes.count,
            "engine": self.column.title,
            "micro_batch_size": self.column.fit.micro_batch_size,
            "gpu_hours": self.gpu_hours,
            "wall_h": self.wall_h,
            "steps": None if isinstance(self.work, str) else self.work.num_steps,
            "tokens": None if isinstance(self.work, str) else self.work.seen,
            "currency": self.column.cost.list_price.unit,
            "list_price": self.column.cost.list_price.value,
            "net_price": self.column.cost.net_price.value,
            "figures": {name: figure.to_json() for name, figure in self.column.figures().items()},
            "disk": {name: figure.to_json() for name, figure in self.disk.items()},
            "rate": self.rate.figure.to_json(),
            "notes": list(self.notes),
        }


def make_plan(
    config: RunConfig,
    site: Site,
    shape: Shape,
    facts: Facts,
    count: Size | None = None,
    *,
    partition: Partition | None = None,
    calibrate: Path | None = None,
    compares: bool = False,
) -> Plan:
    """Returns the plan of a resolved configuration.

    Args:
        config: resolved for `facts`; an engine that was `auto` is the one that the run takes.
        site: prices and network.
        shape: nodes and ranks.
        facts: of the nodes.
        count: size of the training data; None: taken from training.duration in steps or tokens.
        partition: instead of the site's.
        calibrate: folder of a run of the same shape whose speed replaces the assumed one.
        compares: also other engines, fewer GPUs and lora; without it there is one column.

    Raises:
        LaunchError: it does not fit; says what would.
        UserError: `calibrate` is a run of another shape.
    """
    partition = partition or site.partition(config.cluster.partition)
    model = _model(config, facts)
    nodes = Nodes(shape.nodes, shape.ranks_per_node, facts.gpu_bytes if facts.num_gpus else None, facts.host_bytes if facts.num_gpus else None)
    adapted = _adapted(facts) if compares and not (model.is_adapted or model.is_reward) else None
    gpu = (partition.gpu if partition else None) or ("GPU" if facts.num_gpus else "CPU")
    card = find_card(gpu) if facts.num_gpus else None
    work = work_of(config, count)
    maker = _Maker(config, site, partition, shape, work if isinstance(work, Work) else None, _rate(config, model, card, gpu, work, calibrate))
    candidate = Candidate.of(config.engine)
    taken = fit(config, model, candidate, nodes) if config.engine.name != "auto" else None
    fits = columns(config, model, adapted, nodes, maker.hours) if compares else []
    fits = [found for found in fits if taken is None or found.title != taken.title]
    if taken is None and (config.engine.name != "auto" or not [found for found in fits if found.ranks == nodes.ranks and found.adapter == _name(model)]):
        raise LaunchError(refusal(config, model, adapted or _adapted_for(model, facts), nodes))
    made = tuple(maker.column(found) for found in ([taken] if taken else []) + fits)
    return _assembled(maker, made, gpu, card, nodes, model, work)


def _assembled(
    maker: _Maker, made: tuple[Column, ...], gpu: str, card: Card | None, nodes: Nodes, model: Model, work: Work | str
) -> Plan:
    config = maker.config
    disk = disk_of(config, model, maker.work)
    full = [number for number, column in enumerate(made) if column.fit.adapter == _name(model) and column.cost.gpu_hours.value is not None]
    cheapest = min(full, key=lambda number: (made[number].cost.gpu_hours.value or 0.0, number), default=None)
    return Plan(
        config=config,
        gpu=gpu,
        card=card,
        nodes=nodes,
        model=model,
        work=work,
        rate=maker.rate[0],
        columns=made,
        chosen=0,
        cheapest=cheapest,
        disk=disk,
        notes=_notes(maker, made[0], disk, work),
        measured=maker.rate[1],
    )


def _notes(maker: _Maker, column: Column, disk: dict[str, Figure], work: Work | str) -> tuple[str, ...]:
    """Returns each sentence that asks for something, once."""
    cost = column.cost
    found = [work] if isinstance(work, str) else []
    if not isinstance(work, str):
        found += [column.speed.tokens_per_s.missing]
    found += [cost.list_price.missing if cost.gpu_hours.value is not None else "", cost.net_price.missing if cost.list_price.value is not None else ""]
    found += [column.speed.communication_s.missing, shortage(disk) or "", column.memory["reference"].missing, _crowded(column)]
    limit = parse_seconds(maker.config.cluster.time) / 3600
    if (wall := column.speed.wall_h.value) is not None and wall > limit and maker.config.cluster.name in ("slurm", "aisc"):
        starts = -(-wall // limit)
        found.append(f"cluster.time={maker.config.cluster.time}: {spell_hours(wall)} take {starts:.0f} starts, each saved and requeued")
    return tuple(dict.fromkeys(sentence for sentence in found if sentence))


def _crowded(column: Column) -> str:
    """Returns the sentence when the reference model does not fit a GPU beside the run's own."""
    needs, room = phase_bytes(column.fit, column.memory["reference"]), column.fit.nodes.room
    if room is None or needs <= room:
        return ""
    return (
        f"objective.reference: its pass needs {needs / GB:.1f} GB of a GPU, {room / GB:.1f} GB can be used; "
        "objective.reference=start needs no second model"
    )


@dataclass(frozen=True, slots=True)
class _Maker:
    """What all columns share."""

    config: RunConfig
    site: Site
    partition: Partition | None
    shape: Shape
    work: Work | None
    rate: tuple[Rate, Measured | None]

    def hours(self, found: Fit) -> float | None:
        """Returns the GPU-hours of a column."""
        return self.column(found).cost.gpu_hours.value

    def column(self, found: Fit) -> Column:
        """Returns every figure of a column."""
        labelled, looks = self.work.labelled if self.work else 1.0, looks_of(self.config.objective.name)
        flops = flops_of(found.model, found.setup.sequence_length, labelled, looks)
        speed = speed_of(found, flops, self.work, self.rate[0], self.site.network)
        gpus_per_rank = self.shape.gpus_per_node / self.shape.ranks_per_node if self.shape.ranks_per_node else 1.0
        gpus = round(found.ranks * gpus_per_rank)
        cost = cost_of(speed.wall_h, gpus, self.site, self.partition, self.config.run.project)
        return Column(found, flops, memory_figures(found, self.rate[1], memory_of(self.config, found)), speed, cost)


def memory_figures(found: Fit, measured: Measured | None, reference: Figure) -> dict[str, Figure]:
    """Returns GB a rank by part and the peak, with a band where the formula was compared with GPUs.

    Args:
        found: the column. measured: a run of the same shape.
        reference: of a second model, which is there before step 1 alone.
    """
    from launch.plan.explain import memory_formula

    made = {
        part: Figure(getattr(found.memory, part).accelerator / GB, "GB", FORMULA, memory_formula(found, part)) for part in PARTS
    }
    total, phase = found.memory.total.accelerator / GB, phase_bytes(found, reference) / GB
    error, source = memory_band(found.setup.engine, found.adapter, on_host=found.on_host)
    if measured is not None and measured.memory_error is not None:
        error, source = abs(measured.memory_error), f"run {measured.run}: measured over predicted {1 + measured.memory_error:.2f}"
    both = made.pop("logits"), made.pop("buffers")
    made["logits, buffers"] = Figure(
        (both[0].value or 0.0) + (both[1].value or 0.0), "GB", FORMULA, f"logits: {both[0].formula}; buffers: {both[1].formula}"
    )
    formula = "sum of the parts; kernels, NCCL and the allocator's gaps have the 8 % that stay free"
    if phase > total:
        formula = f"the reference's pass before step 1: parameters + optimizer + a chunk of logits + the reference; a step: {total:.4g} GB"
    peak = max(total, phase)
    made["peak"] = Figure(peak, "GB", FORMULA, formula, source, None if error is None else peak * error)
    made["reference"] = reference
    return made


def _rate(
    config: RunConfig, model: Model, card: Card | None, gpu: str, work: Work | str, calibrate: Path | None
) -> tuple[Rate, Measured | None]:
    if calibrate is not None:
        measured = measured_of(calibrate, config, model)
        labelled = work.labelled if isinstance(work, Work) else 1.0
        flops = flops_of(model, config.data.sequence_length, labelled, looks_of(config.objective.name))
        return measured_rate(measured, flops, config.training.gradient_checkpointing, card), measured
    if card is None:
        sentence = f"speed: no peak rate is known for {gpu}; a run of this shape gives it: aisc plan ... --calibrate RUN"
        return Rate(None, unknown("of peak", sentence), sentence), None
    mfu = default_mfu(card, has_experts=has_experts(model))
    peak = card.flops if config.training.precision != "fp32" else card.flops / 16
    return Rate(peak * (mfu.value or 0.0), mfu), None


def _model(config: RunConfig, facts: Facts) -> Model:
    lora = _lora(config.adapter) if config.adapter.name == "lora" else None
    model = model_of(facts.model, lora, is_reward=config.objective.name == "reward")
    if model is None:
        family = facts.model.get("model_type", "unknown")
        raise LaunchError(
            f"model: the shapes of family {family} are not known here; expected llama, qwen2, qwen3 or deepseek_v3, not quantised"
        )
    return model


def _adapted(facts: Facts) -> Model | None:
    return model_of(facts.model, _lora(AdapterSection(name="lora")))


def _adapted_for(model: Model, facts: Facts) -> Model | None:
    return None if model.is_adapted or model.is_reward else _adapted(facts)


def _lora(adapter: AdapterSection) -> dict[str, Any]:
    return {key: getattr(adapter, key) for key in ("rank", "target_modules", "modules_to_save", "dora")}


def _name(model: Model) -> str:
    return "lora" if model.is_adapted else "none"
