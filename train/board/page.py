"""The HTML of the board page: one template, A4 when printed, no script, nothing from outside."""

from __future__ import annotations

# Chinese fonts of Linux, macOS, Windows and Android: none is fetched.
_FONTS = (
    '"Noto Sans", "Segoe UI", "Helvetica Neue", Arial, "Noto Sans CJK HK", "Noto Sans HK", "Noto Sans CJK TC", "PingFang HK", '
    '"Microsoft JhengHei", "Droid Sans Fallback", sans-serif'
)

PAGE = (
    """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ dossier.name }}: page for the board</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
@page { size: A4; margin: 17mm 16mm; }
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 15px/1.5 """
    + _FONTS
    + """; max-width: 54rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; color: #1a1a1a; background: #fff; }
header { border-bottom: 3px solid #1f3a5f; padding-bottom: .6rem; margin-bottom: 1rem; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 .2rem; color: #1f3a5f; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; color: #1f3a5f; border-bottom: 1px solid #b8c4d4; padding-bottom: .15rem; break-after: avoid; }
h2 .zh, h1 .zh { font-weight: normal; font-size: .9em; margin-left: .5em; color: #40546e; white-space: nowrap; }
p { margin: .45rem 0; } .sub { color: #4a4a4a; margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .25rem 0 1rem; font-variant-numeric: tabular-nums; }
.caption { color: #4a4a4a; font-size: .9em; margin: .9rem 0 0; break-after: avoid; }
th, td { text-align: left; vertical-align: top; padding: .25rem .7rem .25rem 0; border-top: 1px solid #d9d9d9; }
td:first-child { min-width: 7rem; } .number { white-space: nowrap; }
thead th { border-top: 0; border-bottom: 2px solid #8a99ad; font-size: .9em; }
.facts tr:first-child th, .facts tr:first-child td { border-top: 0; }
.facts th { font-weight: normal; color: #4a4a4a; width: 34%; } .facts td { overflow-wrap: anywhere; }
figure { margin: .8rem 0; break-inside: avoid; } figure svg { max-width: 100%; height: auto; }
figcaption { color: #4a4a4a; font-size: .9em; overflow-wrap: anywhere; }
.open { border-left: 4px solid #a35200; background: #fff6ec; padding: .3rem .7rem; margin: .5rem 0; }
.open b { color: #7a3d00; }
.fig { border-bottom: 1px dotted #8a99ad; } p, li, h2, td:first-child, .facts th { overflow-wrap: anywhere; } sup { line-height: 0; } sup a { color: #35577f; text-decoration: none; font-size: .8em; }
tr { break-inside: avoid; } thead { display: table-header-group; } li { margin: .25rem 0; }
.sign { break-inside: avoid; } .sign td { height: 2.6rem; border: 1px solid #8a99ad; padding: .25rem .4rem; } .sign th { border: 1px solid #8a99ad; padding: .25rem .4rem; }
.origins { font-size: .82em; color: #333; columns: 2; column-gap: 2rem; overflow-wrap: anywhere; padding-left: 1.8rem; }
.origins li { break-inside: avoid; margin: 0 0 .25rem; } :target { background: #fff2b3; }
@media (max-width: 40rem) { .origins { columns: 1; } .facts th, .facts td { display: block; width: auto; } .facts td { border-top: 0; padding-top: 0; } }
@media print { body { font-size: 10.5pt; max-width: none; padding: 0; } .wide { overflow: visible; } .fig { border: 0; } table { font-size: 9.5pt; } .open { border: 1px solid #a35200; border-left-width: 4px; } }
</style></head><body>
{%- macro words(parts) -%}
{%- for part in parts -%}
{%- if part is string -%}{{ part }}{%- elif part.origin -%}<span class="fig" title="{{ part.origin }}">{{ part.text }}</span><sup><a href="#o{{ note(part.origin) }}">{{ note(part.origin) }}</a></sup>{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endmacro -%}
{%- macro cell(part) -%}
{%- if part is string -%}{{ part }}{%- elif part.origin -%}<span class="fig{{ ' number' if part.text[:1].isdigit() and part.text | length < 16 else '' }}" title="{{ part.origin }}">{{ part.text }}</span>{%- else -%}{{ part.text }}{%- endif -%}
{%- endmacro %}
<header>
<h1>{{ dossier.name }}<span class="zh" lang="zh-Hant-HK">模型審批文件</span></h1>
<p class="sub">For the board that decides on this model's use. Made from the files of the run alone{% if written %}, finished {{ written | replace('T', ' ') | replace('Z', ' UTC') }}{% endif %}.
{%- if not dossier.result %} <strong>The run has not finished: this page is a draft.</strong>{% endif %}</p>
<p class="sub">Every figure has a small number: the list at the end says which file and key it is from.</p>
</header>
<main>
{% for part in sections %}
<section aria-labelledby="s{{ loop.index }}">
<h2 id="s{{ loop.index }}">{{ loop.index }}. {{ part.title }}<span class="zh" lang="zh-Hant-HK">{{ part.title_zh }}</span></h2>
{% for sentence in part.sentences %}<p>{{ words(sentence) }}</p>
{% endfor %}
{%- if part.facts %}<table class="facts">
{% for label, value in part.facts %}<tr><th scope="row">{{ label }}</th><td>{{ words(value) }}</td></tr>
{% endfor %}</table>{% endif %}
{% for table in part.tables %}<p class="caption">{{ table.caption }}</p>
<div class="wide" tabindex="0" role="region" aria-label="{{ table.caption }}"><table>
<thead><tr>{% for head in table.header %}<th scope="col">{{ words([head]) }}</th>{% endfor %}</tr></thead><tbody>
{% for row in table.rows %}<tr>{% for part in row %}<td>{{ cell(part) }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}
{%- for chart in part.charts %}<figure><div role="img" aria-label="{{ chart.words }}">{{ chart.svg | safe }}</div><figcaption>{{ chart.words }}</figcaption></figure>
{% endfor %}
{%- if part.points %}<ul>
{% for point in part.points %}<li>{{ words(point) }}</li>
{% endfor %}</ul>{% endif %}
{%- for sentence in part.missing %}<p class="open"><b>Not known:</b> {{ sentence }}</p>
{% endfor %}
</section>
{% endfor %}
<section class="sign" aria-labelledby="sign">
<h2 id="sign">{{ sections | length + 1 }}. Decision and signatures<span class="zh" lang="zh-Hant-HK">審批決定及簽署</span></h2>
<p>☐ approved<br>☐ approved for the uses and under the conditions below<br>☐ not approved</p>
<p>Conditions:</p>
<table><thead><tr><th scope="col">name</th><th scope="col">office</th><th scope="col">date</th><th scope="col">signature</th></tr></thead><tbody>
{% for _ in range(4) %}<tr><td></td><td></td><td></td><td></td></tr>
{% endfor %}</tbody></table>
<p class="sub">What is signed: the run {{ dossier.name }}{% if manifest_hash %} whose manifest.json has SHA-256 <span class="fig">{{ manifest_hash }}</span>{% else %}; it has no manifest yet, so nothing definite can be signed{% endif %}.</p>
</section>
</main>
<footer>
<h2 id="origins">Where each figure comes from<span class="zh" lang="zh-Hant-HK">數字出處</span></h2>
<p class="sub">Files of the run folder, with the key inside. A * stands for the name in the row.</p>
<ol class="origins">
{% for origin in origins %}<li id="o{{ loop.index }}">{{ origin }}</li>
{% endfor %}</ol>
</footer>
</body></html>
"""
)
