"""What `aisc plan` prints: columns beside each other, where time and price come from, disk, what is missing; 80 columns."""

from __future__ import annotations

import textwrap

from configs.site import Site
from launch.plan.figures import FORMULA, GB, GIVEN, MEASURED, PUBLISHED, Figure, spell, spell_hours, weakest
from launch.plan.make import ROWS, Column, Plan
from launch.plan.work import Work, spell_tokens

LABEL, WIDTH, SCREEN = 15, 12, 80
MARKS = {GIVEN: "g", MEASURED: "m", PUBLISHED: "p", FORMULA: "f"}
# Figures of a column by the name that --explain takes, and those of the whole plan.
OF_COLUMNS = (*ROWS, "reference", "tokens/s", "step", "communication", "reference pass", "wall", "GPU-hours", "list", "net")
OF_PLAN = ("MFU", "FLOPs", "tokens", "steps", "checkpoint", "checkpoints", "export", "store", "free")


def explainable() -> tuple[str, ...]:
    """Returns the names that --explain knows."""
    return (*OF_COLUMNS, "logits", "buffers", *OF_PLAN)


def table(plan: Plan, site: Site, command: str, name: str) -> str:
    """Returns the whole screen; `name` is the model's."""
    lines = [*_title(plan, command, name), "", *_memory(plan), *_speed(plan), *_money(plan, site), _marker(plan), "", *_sources(plan, site)]
    lines += [wrapped for note in plan.notes for wrapped in _wrapped("note", note)]
    lines += _legend(plan)
    return "\n".join(line.rstrip() for line in lines if line is not None)


def _title(plan: Plan, command: str, name: str) -> list[str]:
    config = plan.config
    what = "full" if config.adapter.name == "none" else f"lora r{config.adapter.rank}"
    total = sum(parameter.numel for parameter in plan.model.parameters)
    tokens = spell_tokens(plan.work) if isinstance(plan.work, Work) else "tokens not known"
    right = f"{name} {spell(total)}, {what}, {config.objective.name}, {tokens}, seq {config.data.sequence_length:,}"
    if len(command) + len(right) + 3 <= SCREEN:
        return [f"{command}{' ' * (SCREEN - len(command) - len(right))}{right}"]
    return [command, right]


def _row(label: str, cells: list[str], tail: str = "") -> str:
    return f"{label:<{LABEL}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells) + (f" {tail}" if tail else "")


def _mark(figures: list[Figure]) -> str:
    """Returns the letter of the least certain of a row's figures."""
    known = [figure.basis for figure in figures if figure.value is not None]
    return MARKS[weakest(*known)] if known else "-"


def _memory(plan: Plan) -> list[str]:
    size = f"{plan.nodes.gpu_bytes / GB:.0f} GB " if plan.nodes.gpu_bytes else ""
    lines = [f"per GPU ({size}{plan.gpu})", *_headings(plan)]
    lines.append(_row("  micro-batch", [f"{column.fit.micro_batch_size:,}" for column in plan.columns]))
    for name in ROWS:
        figures = [column.memory[name] for column in plan.columns]
        cells = [_peak(figure) if name == "peak" else f"{figure.value or 0.0:.1f}" for figure in figures]
        lines.append(_row(f"  {name}"[:LABEL] if name != "logits, buffers" else "  logits, buff.", cells, f"GB {_mark(figures)}"))
    if any(column.fit.memory.total.host > GB for column in plan.columns):
        hosts = [f"{column.fit.memory.total.host * column.fit.nodes.gpus / GB:,.0f}" for column in plan.columns]
        lines.append(_row("  host, a node", hosts, "GB f"))
    return lines


def _headings(plan: Plan) -> list[str]:
    fits = [column.fit for column in plan.columns]
    if not any(found.on_host for found in fits):
        return [_row("", [found.title for found in fits])]
    second = [f"{'+host ' if found.on_host else ''}x{found.ranks}" for found in fits]
    return [_row("", [found.name for found in fits]), _row("", second)]


def _peak(figure: Figure) -> str:
    band = f" +-{figure.band:.0f}" if figure.band is not None else ""
    return f"{figure.value or 0.0:.0f}{band}"


def _speed(plan: Plan) -> list[str]:
    tokens = [column.speed.tokens_per_s for column in plan.columns]
    walls = [column.speed.wall_h for column in plan.columns]
    hours = [column.cost.gpu_hours for column in plan.columns]
    own = plan.column.speed.wall_h
    band = f" +-{100 * own.band / own.value:.0f} %" if own.band and own.value else ""
    return [
        _row("  tokens/s", [spell(figure.value) for figure in tokens], f"   {_mark(tokens)}"),
        _row("  wall", [spell_hours(figure.value) for figure in walls], f"   {_mark(walls)}{band}"),
        _row("  GPU-hours", [_amount(figure) for figure in hours], f"   {_mark(hours)}"),
    ]


def _amount(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    return f"{figure.value:,.0f}" if figure.value >= 9.95 else f"{figure.value:.2g}"


def _money(plan: Plan, site: Site) -> list[str]:
    lists = [column.cost.list_price for column in plan.columns]
    nets = [column.cost.net_price for column in plan.columns]
    currency = site.price.currency
    subsidy = site.subsidy(plan.config.run.project)
    share = f" {100 * subsidy:.0f} %" if subsidy is not None else ""
    lines = [_row(f"  {currency} list", [_amount(figure) for figure in lists], f"   {_mark(lists)}")]
    return [*lines, _row(f"  {currency} net{share}"[:LABEL], [_amount(figure) for figure in nets], f"   {_mark(nets)}")]


def _marker(plan: Plan) -> str:
    if plan.cheapest is None:
        return ""
    kind = "full fine-tuning" if plan.config.adapter.name == "none" else "one"
    text = f"^ cheapest {kind} that fits"
    place = LABEL + WIDTH * (plan.cheapest + 1) - 1
    return " " * place + text if place + len(text) <= SCREEN else " " * (place - len(text) + 1) + f"cheapest {kind} that fits ^"


def _sources(plan: Plan, site: Site) -> list[str]:
    rate = plan.rate.figure
    lines = _passes(plan)
    if rate.value is not None:
        what = f"MFU {100 * rate.value:.0f} %" if rate.unit == "of peak" else f"{spell(rate.value)} {rate.unit} a rank"
        lines += _wrapped("time from", f"{what} ({rate.basis}: {rate.formula if rate.basis != MEASURED else rate.source})")
        if rate.basis != MEASURED:
            lines += _wrapped("", rate.source)
    if plan.column.cost.list_price.value is not None:
        lines += _wrapped("price from", plan.column.cost.list_price.source)
    return [*lines, *_disk(plan)]


def _passes(plan: Plan) -> list[str]:
    """Returns a line for each forward pass that an objective of preferences adds."""
    column, lines = plan.column, []
    if hours := column.speed.reference_h.value:
        lines += _wrapped("reference", f"{spell_hours(hours)} of wall before step 1, once: a forward pass over all documents (f)")
    if model := column.memory["reference"].value:
        lines += _wrapped("" if lines else "reference", f"a second model of {model:.1f}\u00a0GB whole on each GPU, let go before step 1 (f)")
    if column.flops.looks:
        lines += _wrapped("kto", "each step has one more forward pass, over its whole batch, for the baseline (f)")
    return lines


def _disk(plan: Plan) -> list[str]:
    disk = plan.disk
    one, all_of_them = disk["checkpoint"].value or 0.0, disk["checkpoints"].value or 0.0
    count = round(all_of_them / one) if one else 0
    text = f"checkpoints {count} x {_gb(disk['checkpoint'])}, export {_gb(disk['export'])}, store {_gb(disk['store'])}"
    free = disk["free"]
    if free.value is not None:
        enough = all_of_them + (disk["export"].value or 0.0) <= free.value
        text += f"; free {_gb(free)}  {'ok' if enough else 'NOT ENOUGH'}"
    return _wrapped("disk", text)


def _gb(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    return f"{figure.value / 1000:.1f}\u00a0TB" if figure.value >= 1000 else f"{figure.value:.3g}\u00a0GB"


def _wrapped(label: str, text: str) -> list[str]:
    wrapped = textwrap.wrap(text, SCREEN - LABEL, break_long_words=False, break_on_hyphens=False) or [""]
    lines = [f"{'  ' + label if number == 0 and label else '':<{LABEL}}{line}" for number, line in enumerate(wrapped)]
    return [line.replace("\u00a0", " ") if len(line) <= SCREEN else f"  {line.strip()}" for line in lines]


def _legend(plan: Plan) -> list[str]:
    return [
        "m measured  p published  f formula only   +- only where something was compared",
        "formula of a figure: aisc plan ... --explain activations   subsidy page: --sheet",
    ]


def explain(plan: Plan, name: str) -> str:
    """Returns the formula of a figure with its numbers, basis and source: of every column, or of the plan."""
    if name in OF_PLAN:
        return "\n".join(_explained(name, _of_plan(plan)[name]))
    lines = []
    for column in plan.columns:
        lines += [*_explained(f"{name}, {column.title}", _of_column(column, name)), ""]
    return "\n".join(lines).rstrip()


def _of_column(column: Column, name: str) -> Figure:
    if name in ("logits", "buffers"):
        from launch.plan.explain import memory_formula

        return Figure(getattr(column.fit.memory, name).accelerator / GB, "GB", FORMULA, memory_formula(column.fit, name))
    return column.figures()[name]


def _of_plan(plan: Plan) -> dict[str, Figure]:
    flops = plan.column.flops
    found = {
        "MFU": plan.rate.figure,
        "FLOPs": Figure(flops.model, "FLOP a token", FORMULA, flops.formula, "arXiv 2204.02311, appendix B"),
        **plan.disk,
    }
    if isinstance(plan.work, Work):
        return {**found, "tokens": plan.work.tokens, "steps": plan.work.steps}
    missing = Figure(None, "", FORMULA, "", missing=plan.work)
    return {**found, "tokens": missing, "steps": missing}


def _explained(title: str, figure: Figure) -> list[str]:
    if figure.value is None:
        return [f"{title}: not known", *_indented(figure.missing), *_indented(figure.formula)]
    band = f" +-{figure.band:.4g}" if figure.band is not None else ""
    lines = [f"{title}: {figure.value:,.6g}{band} {figure.unit}   ({figure.basis})", *_indented(figure.formula)]
    return lines + (_indented(f"source: {figure.source}") if figure.source else [])


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, SCREEN, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) if text else []
