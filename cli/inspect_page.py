"""The page of `aisc inspect --html`: one self-contained file, no scripts, nothing from the network."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2

from data_pipelines.build import Prepared
from data_pipelines.showing import Part, length_histogram

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What the model sees</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body { font: 15px/1.6 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
.document { border-left: 3px solid #ccc; padding-left: .8rem; margin: .6rem 0; white-space: pre-wrap; }
.origin { color: #555; font-size: .85rem; white-space: normal; }
.token { border-radius: 2px; color: #777; } .token:nth-child(odd) { background: #f4f4f4; }
.learned { color: #0a5c1c; background: #d9f2dc; } .learned:nth-child(odd) { background: #c4eac9; }
.padding { color: #999; font-style: italic; } td { padding: 0 .8rem 0 0; } .bar { background: #6a9fd8; height: .8rem; }
</style></head><body>
<h1>What the model sees</h1>
{% for line in account.summary() %}<div>{{ line }}</div>
{% endfor %}
<h2>Tokens per document</h2>
<table>{% for low, high, count in bins %}<tr><td>{{ '{:,}'.format(low) }} - {{ '{:,}'.format(high - 1) }}</td>
<td><div class="bar" style="width: {{ (360 * count / most) | round(1) }}px"></div></td><td>{{ '{:,}'.format(count) }}</td></tr>
{% endfor %}</table>
<h2>Rows as training gets them</h2>
<p><span class="token learned">learned</span> <span class="token">read, not learned</span>
Hover over a piece for its token ids; the label of a learned token is its own id, of every other -100.</p>
{% for number, parts in rows %}<h2>row {{ '{:,}'.format(number) }}</h2>
{% for part in parts %}{% if part.is_padding %}<p class="padding">{{ '{:,}'.format(part.num_tokens) }} tokens of padding</p>
{% else %}<div class="origin">{{ part.origin }}: {{ '{:,}'.format(part.num_tokens) }} tokens,
{{ '{:,}'.format(part.num_learned) }} learned</div>
<div class="document">{% for piece in part.pieces -%}
<span class="token{{ ' learned' if piece.is_learned }}" title="{{ piece.ids | join(' ') }}">{{ piece.text }}</span>
{%- endfor %}</div>
{% endif %}{% endfor %}{% endfor %}
</body></html>
"""


def render(prepared: Prepared, rows: Sequence[tuple[int, list[Part]]]) -> str:
    """Returns the page as HTML text."""
    histogram = length_histogram(prepared.train)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_PAGE).render(
        account=prepared.account,
        bins=list(zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False)),
        most=max(histogram.counts, default=1) or 1,
        rows=rows,
    )
