"""`adapter`: full fine-tuning (`none`) or low-rank adapters (`lora`, arXiv 2106.09685)."""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema.fields import setting


@dataclass(kw_only=True, slots=True)
class AdapterSection:
    name: str = setting(
        "none", identity=True, choices=("none", "lora"), help="none: train every weight; lora: train low-rank adapters."
    )
    rank: int = setting(16, identity=True, help="Rank of the adapter matrices, 1 or more.")
    alpha: float = setting(32.0, identity=True, help="Scaling numerator: updates are scaled by alpha / rank.")
    dropout: float = setting(0.0, identity=True, help="Dropout before the adapter, 0 to below 1.")
    target_modules: list[str] = setting(
        factory=lambda: ["all-linear"],
        identity=True,
        help="Names of the linear layers that get an adapter; [all-linear]: all but the output head.",
    )
    modules_to_save: list[str] = setting(
        factory=list, identity=True, help="Names of modules trained in full beside the adapter (e.g. embed_tokens)."
    )
    dora: bool = setting(False, identity=True, help="Weight-decomposed adapters (DoRA, arXiv 2402.09353).")
    rslora: bool = setting(False, identity=True, help="Scale by alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732).")

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        found = []
        if self.rank < 1:
            found.append(f"adapter.rank={self.rank}: expected 1 or more")
        if not 0 <= self.dropout < 1:
            found.append(f"adapter.dropout={self.dropout}: expected 0 <= dropout < 1")
        if self.alpha <= 0:
            found.append(f"adapter.alpha={self.alpha}: expected more than 0")
        return found
