"""report.html of a run: one private, self-contained page, made from the run folder's files alone. Failed runs have one too."""

from __future__ import annotations

from collections.abc import Callable

import jinja2

from configs import atomic
from configs.runfolder import RunFolder, state_of
from train.report import attempts, curves, data, evaluation, goodput, memory, repeat, summary
from train.report.section import Section

# In the order of the page. A section is a module with `section(run) -> Section | None`.
SECTIONS: tuple[Callable[[RunFolder], Section | None], ...] = (
    summary.section,
    curves.section,
    curves.preferences,
    curves.experts,
    evaluation.section,
    evaluation.samples,
    data.section,
    memory.section,
    attempts.section,
    goodput.section,
    repeat.section,
)
NAME = "report.html"

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ run }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
@page { size: A4; margin: 15mm; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.4rem; margin-bottom: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .15rem .8rem .15rem 0; vertical-align: top; }
tr + tr { border-top: 1px solid #e5e5e5; } td { overflow-wrap: anywhere; } td:first-child { color: #555; } .pairs td:first-child { white-space: nowrap; overflow-wrap: normal; }
.wide { overflow-x: auto; } .wide td { overflow-wrap: normal; } th, td { min-width: 3.5rem; } figure { margin: .7rem 0; }
svg { max-width: 100%; height: auto; } pre { background: #f5f5f5; padding: .7rem; overflow-x: auto; white-space: pre-wrap; }
.state { color: #555; margin-top: 0; } .state.failed { color: #a30000; } p.note { color: #555; }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #e6e6e6; } pre { background: #222; }
tr + tr { border-color: #333; } td:first-child, .state, p.note { color: #aaa; } .state.failed { color: #ff8a80; } svg { background: #fff; } }
</style></head><body>
<h1>{{ run }}</h1>
<p class="state {{ state.state }}">{{ state }}</p>
{% for part in sections %}
<h2>{{ part.title }}</h2>
{% if part.rows %}<div class="{{ 'wide' if part.header else 'pairs' }}"><table>
{% if part.header %}<tr>{% for cell in part.header %}<th>{{ cell }}</th>{% endfor %}</tr>{% endif %}
{% for row in part.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>{% endif %}
{% if part.svg %}<figure role="img" aria-label="{{ part.words or part.title }}">{{ part.svg | safe }}</figure>{% endif %}
{% if part.code %}<pre>{{ part.code }}</pre>{% endif %}
{% if part.note %}<p class="note">{{ part.note }}</p>{% endif %}
{% endfor %}
</body></html>
"""


def render_report(run: RunFolder) -> str:
    """Returns the page as HTML text."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    sections = [part for make in SECTIONS if (part := make(run)) is not None]
    return environment.from_string(_PAGE).render(run=run.name, state=state_of(run.path), sections=sections)


def write_report(run: RunFolder) -> None:
    """Writes the run's report.html (0600), replacing an older one."""
    atomic.write_file(run.path / NAME, render_report(run))
