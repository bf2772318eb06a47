"""The model card: what the model is, made from what, and how well it did. Every figure comes from the manifest."""

from __future__ import annotations

from typing import Any

import jinja2

from configs.schema import RunConfig
from data_pipelines.build import Prepared

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [aisc-finetune]
---
# {{ run }}

{% if base %}Fine-tuned from `{{ base }}`{% else %}Trained from random weights{% endif %} by aisc-finetune
({{ objective }}{% if lora %}, LoRA rank {{ lora.rank }}{% endif %}), {{ result.steps }} steps, seed {{ result.seed }}.

| | |
|---|---|
{% if result.eval_loss is not none -%}
| held-out loss before | {{ '%.4f' % result.eval_loss_before if result.eval_loss_before is not none else '-' }} |
| held-out loss of these weights | {{ '%.4f' % result.eval_loss }} (step {{ result.best_step }}) |
{% endif -%}
| tokens seen | {{ '{:,}'.format(result.tokens) }} ({{ '{:,}'.format(result.supervised) }} learned) |
| sample ledger | `{{ result.ledger }}` |
| data store | `{{ manifest.store.fingerprint }}` |
| code commit | `{{ manifest.commit or 'installed package' }}` |

## Data

| source | rows read | documents per epoch | tokens | share |
|---|---|---|---|---|
{% for name, source in account.sources.items() -%}
| {{ name }} | {{ source.rows }} | {{ source.documents }} | {{ source.tokens }} | {{ '%.1f' % (100 * source.share) }} % |
{% endfor %}
Held out: {{ account.held_out }} documents{% if account.group_by %}, split by `{{ account.group_by }}`{% endif %}.

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{{ folder }}")
tokenizer = AutoTokenizer.from_pretrained("{{ folder }}")
```

SHA-256 of every file that went in is in `manifest.json` of the run.
"""


def model_card(
    run: str, config: RunConfig, prepared: Prepared, manifest: dict[str, Any], result: dict[str, Any]
) -> str:
    """Returns README.md of the exported folder."""
    template = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined).from_string(_CARD)
    return template.render(
        run=run,
        base=config.model.path,
        objective=config.objective.name,
        lora=config.adapter if config.adapter.name == "lora" else None,
        result=result,
        manifest=manifest,
        account=prepared.account,
        folder=f"runs/{run}/model",
    )
