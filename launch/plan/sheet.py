"""The compute-justification page that a subsidy application asks for: Markdown or printable HTML, computed values only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.atomic import write_file
from configs.errors import UserError
from configs.model_shapes import numel
from configs.site import Site
from launch.plan.figures import GB, Figure, spell, spell_hours
from launch.plan.make import ROWS, Plan
from launch.plan.work import Work

Rows = list[tuple[str, str, str]]

_MARKDOWN = """# Computing resources needed: {{ title }}

{{ summary }}

{% for heading, rows in sections %}
## {{ heading }}

| | value | basis and source |
|---|---|---|
{% for name, value, basis in rows %}
| {{ name }} | {{ value|cell }} | {{ basis|cell }} |
{% endfor %}

{% endfor %}
## Engines compared

{{ compared_note }}

| {% for head in compared[0] %}{{ head }} | {% endfor %}

|{% for _ in compared[0] %}---|{% endfor %}

{% for row in compared[1:] %}
| {% for cell in row %}{{ cell }} | {% endfor %}

{% endfor %}
{% if notes %}

## Not known

{% for note in notes %}
- {{ note }}
{% endfor %}
{% endif %}
"""

_HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
@page { size: A4; margin: 18mm }
body { font: 10.5pt/1.4 "DejaVu Sans", Arial, sans-serif; color: #111; max-width: 180mm; margin: 0 auto; padding: 8mm }
h1 { font-size: 16pt; margin: 0 0 4mm } h2 { font-size: 12pt; margin: 6mm 0 2mm }
table { border-collapse: collapse; width: 100%; page-break-inside: avoid }
th, td { border: 0.2mm solid #888; padding: 1mm 2mm; text-align: left; vertical-align: top; overflow-wrap: anywhere }
td.n { text-align: right; white-space: nowrap } td.b { color: #444; font-size: 8.5pt; width: 48% }
@media print { body { padding: 0 } }
</style></head><body>
<h1>Computing resources needed: {{ title }}</h1>
<p>{{ summary }}</p>
{% for heading, rows in sections %}
<h2>{{ heading }}</h2>
<table>{% for name, value, basis in rows %}
<tr><th scope="row">{{ name }}</th><td>{{ value }}</td><td class="b">{{ basis }}</td></tr>{% endfor %}
</table>
{% endfor %}
<h2>Engines compared</h2>
<p>{{ compared_note }}</p>
<table><tr>{% for head in compared[0] %}<th>{{ head }}</th>{% endfor %}</tr>{% for row in compared[1:] %}
<tr>{% for cell in row %}<td{% if not loop.first %} class="n"{% endif %}>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</table>
{% if notes %}<h2>Not known</h2><ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
</body></html>
"""


def write_sheet(path: Path, plan: Plan, site: Site, name: str, command: str) -> None:
    """Writes the page to `path`, as its ending says.

    Raises:
        UserError: it cannot be written there.
    """
    text = sheet(plan, site, name, command, html=path.suffix == ".html")
    try:
        write_file(path, text)
    except OSError as error:
        raise UserError(f"--sheet {path}: cannot be written ({error.strerror})") from error


def sheet(plan: Plan, site: Site, name: str, command: str, *, html: bool) -> str:
    """Returns the page."""
    from jinja2 import Environment

    environment = Environment(autoescape=html, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    return environment.from_string(_HTML if html else _MARKDOWN).render(**_values(plan, site, name, command))


def _values(plan: Plan, site: Site, name: str, command: str) -> dict[str, Any]:
    column = plan.column
    head = [f"{column.title}{' (chosen)' if number == plan.chosen else ''}" for number, column in enumerate(plan.columns)]
    return {
        "title": f"{name}, {'full fine-tuning' if plan.config.adapter.name == 'none' else 'low-rank adapters'}",
        "summary": (
            f"{column.fit.ranks} x {plan.gpu} for {spell_hours(plan.wall_h)}: {plan.cost_text()}. Every value is computed by "
            f"`{command}`; measured, published or formula only says where it comes from."
        ),
        "sections": [
            ("Model complexity", _model(plan, name)),
            ("Data size", _data(plan)),
            ("Batch, precision, schedule", _training(plan)),
            ("Need: memory", [(part, *_shown(column.memory[part])) for part in ROWS]),
            ("Need: time and cost", _need(plan, site)),
            ("Need: storage", [(part, *_shown(plan.disk[part])) for part in ("checkpoint", "checkpoints", "export", "store")]),
        ],
        "compared_note": "Per GPU and for the whole run; GB are 10^9 bytes.",
        "compared": [["", *head], *_compared(plan)],
        "notes": plan.notes,
    }


def _shown(figure: Figure) -> tuple[str, str]:
    """Returns (value with unit and band, basis with formula and source)."""
    if figure.value is None:
        return "-", figure.missing
    band = f" ± {figure.band:,.3g}" if figure.band is not None else ""
    where = f"; {figure.source}" if figure.source else ""
    return f"{_number(figure.value)}{band} {figure.unit}", f"{figure.basis}: {figure.formula}{where}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _model(plan: Plan, name: str) -> Rows:
    trained, everything = numel(plan.model.parameters, trained=True), numel(plan.model.parameters)
    values, flops = plan.model.values, plan.column.flops
    rows = [
        ("model", name, f"family {values['model_type']}, {values['num_hidden_layers']} layers of width {values['hidden_size']:,}"),
        ("parameters", f"{everything:,}", "sum over the shapes of its config.json"),
        ("trained", f"{trained:,} ({100 * trained / everything:.3g} %)", _adapter(plan)),
        ("weights that a token meets", spell(flops.weights), "matrix products; of routed experts those chosen"),
        ("operations of a token", f"{spell(flops.model)} FLOP", flops.formula),
    ]
    if isinstance(plan.work, Work):
        total = flops.model * (plan.work.seen or 0.0)
        rows.append(("operations of the run", f"{total:.3g} FLOP", f"{flops.model:.4g} FLOP x {plan.work.seen or 0.0:,.0f} tokens"))
    return rows


def _adapter(plan: Plan) -> str:
    adapter = plan.config.adapter
    return "every weight" if adapter.name == "none" else f"low-rank adapters, rank {adapter.rank}, on {', '.join(adapter.target_modules)}"


def _data(plan: Plan) -> Rows:
    if isinstance(plan.work, str):
        return [("tokens", "-", plan.work)]
    work = plan.work
    rows = [("tokens seen", *_shown(work.tokens)), ("steps", *_shown(work.steps))]
    if work.epoch_tokens is not None:
        rows.insert(0, ("tokens of one epoch", spell(work.epoch_tokens), f"{work.tokens.basis}: {work.tokens.source}"))
    return [*rows, ("share learned", f"{100 * work.labelled:.3g} %", "tokens that the loss counts")]


def _training(plan: Plan) -> Rows:
    config, fit = plan.config, plan.column.fit
    tokens = config.training.global_batch_size * config.data.sequence_length
    return [
        ("objective", config.objective.name, ""),
        ("batch", f"{config.training.global_batch_size} rows of {config.data.sequence_length:,} tokens", f"{tokens:,} tokens a step"),
        ("micro-batch", f"{fit.micro_batch_size} rows", f"{fit.micro_batches} on each of {fit.ranks} ranks a step"),
        ("precision", config.training.precision, "weights of the optimizer and its moments in fp32"),
        ("optimizer", config.optimizer.name, f"peak learning rate {config.optimizer.lr}"),
        ("schedule", config.lr_scheduler.name, f"{config.training.duration}, warm-up {config.lr_scheduler.warmup}"),
        ("recomputation", config.training.gradient_checkpointing, ""),
        ("engine", plan.column.title, "who holds which part: docs/engines.md"),
    ]


def _need(plan: Plan, site: Site) -> Rows:
    column = plan.column
    rows = [
        ("GPUs", f"{column.fit.ranks} x {plan.gpu}", f"{plan.nodes.count} nodes" if plan.nodes.count > 1 else "1 node"),
        ("utilisation", *_shown(plan.rate.figure)),
        ("speed", *_shown(column.speed.tokens_per_s)),
        *([("before step 1", *_shown(column.speed.reference_h))] if column.speed.reference_h.value else []),
        ("wall time", *_shown(column.speed.wall_h)),
        ("GPU-hours", *_shown(column.cost.gpu_hours)),
        ("list price", *_shown(column.cost.list_price)),
        ("net price", *_shown(column.cost.net_price)),
    ]
    subsidy = site.subsidy(plan.config.run.project)
    return [*rows, *([("subsidy", f"{100 * subsidy:.3g} %", str(site.path))] if subsidy is not None else [])]


def _compared(plan: Plan) -> list[list[str]]:
    rows = [[f"peak, GB of {plan.nodes.gpu_bytes / GB:.0f}" if plan.nodes.gpu_bytes else "peak, GB"]]
    rows[0] += [_number(column.memory["peak"].value or 0.0) for column in plan.columns]
    rows.append(["wall time", *(spell_hours(column.speed.wall_h.value) for column in plan.columns)])
    for title, name in (("GPU-hours", "GPU-hours"), ("list price", "list"), ("net price", "net")):
        figures = [column.figures()[name] for column in plan.columns]
        rows.append([title, *("-" if figure.value is None else _number(figure.value) for figure in figures)])
    return rows
