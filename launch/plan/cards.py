"""GPUs that plans know: bytes, dense bf16 rate, and the utilisation that was published for them.

Rates are NVIDIA's own, of the tensor cores without sparsity, which data sheets give doubled. H800 and A800 compute as
H100 and A100; their links between GPUs are slower (400 GB/s instead of 900 and 600).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from launch.plan.figures import FORMULA, PUBLISHED, Figure

_SHEETS = "https://www.nvidia.com/en-us/data-center/"


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU: memory in GB (10^9 bytes), dense bf16 FLOP/s, and the page that says so."""

    name: str
    memory_gb: float
    flops: float
    source: str


CARDS = (
    Card("H200", 141, 989e12, f"{_SHEETS}h200/: 1,979 TFLOPS bf16 with sparsity, half without"),
    Card("H100 NVL", 94, 835e12, f"{_SHEETS}h100/: 1,671 TFLOPS bf16 with sparsity, half without"),
    Card("H100 PCIe", 80, 756e12, f"{_SHEETS}h100/ (PCIe, first edition): 1,513 TFLOPS bf16 with sparsity, half without"),
    Card("H100", 80, 989e12, f"{_SHEETS}h100/ (SXM): 1,979 TFLOPS bf16 with sparsity, half without"),
    Card("H800", 80, 989e12, "as H100 SXM; only links and fp64 are slower"),
    Card("H20", 96, 148e12, "148 TFLOPS dense bf16, as reported of NVIDIA's data sheet for H20"),
    Card("A100", 80, 312e12, f"{_SHEETS}a100/: 312 TFLOPS bf16"),
    Card("A800", 80, 312e12, "as A100; only links are slower"),
    Card("L40S", 48, 362e12, f"{_SHEETS}l40s/: 362.05 TFLOPS bf16"),
    Card("L40", 48, 181e12, f"{_SHEETS}l40/: 181.05 TFLOPS bf16"),
    Card("L20", 48, 119.5e12, "119.5 TFLOPS dense bf16, as reported of NVIDIA's data sheet for L20"),
    Card("L4", 24, 121e12, f"{_SHEETS}l4/: 242 TFLOPS bf16 with sparsity, half without"),
    Card("A40", 48, 149.7e12, f"{_SHEETS}a40/: 149.7 TFLOPS bf16"),
    Card("A10", 24, 125e12, f"{_SHEETS}products/a10-gpu/: 125 TFLOPS bf16"),
    Card("RTX 4090", 24, 165e12, "NVIDIA Ada GPU architecture white paper, appendix A: 165.2 TFLOPS bf16, fp32 sums"),
    Card("RTX 3090", 24, 71e12, "NVIDIA Ampere GA102 white paper, table 2: 71 TFLOPS bf16, fp32 sums"),
    Card("A6000", 48, 154.8e12, "NVIDIA Ampere GA102 white paper: 154.8 TFLOPS bf16"),
)

_TORCHTITAN = "https://github.com/pytorch/torchtitan/blob/main/benchmarks/llama3_h100_202412_torchtitan.md"
_TORCHTITAN_A100 = "https://github.com/pytorch/torchtitan/blob/main/docs/performance.md (of 2024)"
_AUTOMODEL = "https://docs.nvidia.com/nemo/automodel/latest/about/key-features.html"


def find_card(name: str | None) -> Card | None:
    """Returns the card whose name is part of `name` (`NVIDIA H800`, `A100-SXM4-40GB`); None: not known."""
    text = re.sub(r"[-_]", " ", name or "")
    found = next((card for card in CARDS if re.search(rf"\b{card.name}\b", text, re.IGNORECASE)), None)
    if found is not None and (said := re.search(r"(\d+) ?GB", text, re.IGNORECASE)):
        return Card(found.name, float(said[1]), found.flops, found.source)
    return found


def default_mfu(card: Card, *, has_experts: bool) -> Figure:
    """Returns the assumed share of the peak rate, for eager kernels as this project runs them."""
    if has_experts:
        return Figure(
            0.25,
            "of peak",
            PUBLISHED,
            "250 TFLOPS of 989: DeepSeek-V3 671B on 256 H100, with expert parallelism and fused kernels; here experts "
            "are not spread, so expect less until a run is measured",
            _AUTOMODEL,
        )
    if card.name in ("A100", "A800"):
        return Figure(0.50, "of peak", PUBLISHED, "50.5 % for Llama 3 70B, 56.3 % for 8B on 64 A100, FSDP2", _TORCHTITAN_A100)
    if card.name in ("H100", "H800", "H200", "H100 NVL", "H100 PCIe"):
        return Figure(0.33, "of peak", PUBLISHED, "33 % for Llama 3.1 8B on 8 H100, FSDP2 without torch.compile", _TORCHTITAN)
    return Figure(0.33, "of peak", FORMULA, "33 %, as on H100: nothing found for this card", _TORCHTITAN)
