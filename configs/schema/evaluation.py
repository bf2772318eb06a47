"""`evaluation`: what is measured while a run goes on, and what `aisc eval` measures of the finished model."""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema.fields import setting


@dataclass(kw_only=True, slots=True)
class EvaluationSection:
    every: str = setting("10%", identity=False, help="How often to evaluate: `10%` of the run, `100 steps`, or `end`.")
    before: bool = setting(True, identity=False, help="Evaluate before step 1 too.")
    patience: int = setting(
        0, identity=True, help="Stop after this many evaluations without a better eval_loss; 0: never."
    )
    replies: int = setting(4, identity=False, help="Held-out prompts answered at each evaluation, into a 0600 file.")
    max_new_tokens: int = setting(64, identity=False, help="Longest of those answers, in tokens.")
    packs: list[str] = setting(
        factory=list, identity=False, help="Tasks that `aisc eval RUN` runs: packs (medical, hk, safety) or single tasks."
    )
    tasks: dict[str, str] = setting(
        factory=dict, identity=False, help="Data files of tasks for `aisc eval`, e.g. {hkmmlu: /data/hkmmlu.jsonl}."
    )
    limit: int | None = setting(None, identity=False, help="Only the first N items of each of those tasks; null: all.")
    forgetting: list[str] = setting(
        factory=list, identity=False, help="Files of general text, held out: `aisc eval` compares the model's loss there with its base's."
    )
    forgetting_bound: float = setting(
        0.1, identity=False, help="The gate trips when that loss is surely worse by more than this, in nats per token."
    )
    forgetting_confidence: float = setting(0.95, identity=False, help="How sure that must be, between 0.5 and 1.")
    base: str | None = setting(
        None, identity=False, help="Model folder that the gate compares with; null: the one that the run began from."
    )

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        found = []
        for name in ("patience", "replies", "max_new_tokens", "forgetting_bound"):
            if getattr(self, name) < 0:
                found.append(f"evaluation.{name}={getattr(self, name)}: expected 0 or more")
        if not 0.5 <= self.forgetting_confidence < 1:
            found.append(f"evaluation.forgetting_confidence={self.forgetting_confidence}: expected 0.5 or more, and less than 1")
        if self.limit is not None and self.limit < 1:
            found.append(f"evaluation.limit={self.limit}: expected 1 or more, or null")
        return found
