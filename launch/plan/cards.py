"""GPUs that plans know: bytes, dense bf16 rate, and the utilisation that was published for them.

Rates are of the tensor cores with fp32 sums and without sparsity; NVIDIA's data sheets give them doubled. Each has the
page where it was read. A card that is not here has no speed until a run is measured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from launch.plan.figures import FORMULA, PUBLISHED, Figure

_H100 = "https://archive-lib.hpctech.co.jp/gpuproduct/nvidia-h100.html (NVIDIA's table: {} TFLOPS bf16 with sparsity, half without)"
_H20 = "https://willitrunai.com/es/gpus/h20-96gb (148 TFLOPS, 96 GB)"
_A100 = "https://hmc-tech.com/gpu/nvidia-a100-vs-nvidia-a40 ({} TFLOPS bf16 tensor)"
_L40 = "https://www.mullet.se/product.html?product_id=355414 (NVIDIA's table: {} TFLOPS bf16)"
_4090 = "https://waredb.com/processor/nvidia-geforce-rtx-4090 (165.15 TFLOPS bf16 tensor)"


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU: memory in GB (10^9 bytes), dense bf16 FLOP/s, and the page that says so."""

    name: str
    memory_gb: float
    flops: float
    source: str


CARDS = (
    Card("H200", 141, 989e12, "the chip of H100 SXM: https://glennklockwood.com/garden/processors/h100"),
    Card("H100 PCIe", 80, 756e12, _H100.format("1,513")),
    Card("H100", 80, 989e12, _H100.format("1,979")),
    Card("H800", 80, 989e12, f"as H100 SXM, only links and fp64 are slower; {_H100.format('1,979')}"),
    Card("H20", 96, 148e12, _H20),
    Card("A100", 80, 312e12, _A100.format("311.87")),
    Card("A800", 80, 312e12, f"as A100, only links are slower; {_A100.format('311.87')}"),
    Card("L40S", 48, 362e12, _L40.format("362.05")),
    Card("L40", 48, 181e12, _L40.format("181.05")),
    Card("A40", 48, 149.7e12, _A100.format("149.67")),
    Card("RTX 4090", 24, 165e12, _4090),
)

_TORCHTITAN = "https://github.com/pytorch/torchtitan/blob/main/benchmarks/llama3_h100_202412_torchtitan.md"
_GIST = "https://gist.github.com/chenyaofo/d4cd6a20ab4b95cb3a49491747e2139a"
_TORCHTITAN_A100 = "https://github.com/pytorch/torchtitan/blob/main/docs/performance.md (of 2024)"
_AUTOMODEL = "https://docs.nvidia.com/nemo/automodel/latest/about/key-features.html"


def find_card(name: str | None) -> Card | None:
    """Returns the card whose name is part of `name` (`NVIDIA H800`, `A100-SXM4-40GB`); None: not known."""
    text = re.sub(r"[-_]", " ", name or "")
    found = next((c for c in CARDS if re.search(rf"\b{c.name.removeprefix('RTX ')}\b", text, re.IGNORECASE)), None)
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
        return Figure(
            0.40,
            "of peak",
            PUBLISHED,
            "5.33 rows of 4,096 a second: Llama 7B on 8 A800 with transformers and DeepSpeed ZeRO-2 (FSDP2 with "
            "torch.compile reached 56.8 % on 64 A100)",
            f"{_GIST}; {_TORCHTITAN_A100}",
        )
    if card.name in ("H100", "H800", "H200", "H100 PCIe"):
        return Figure(0.33, "of peak", PUBLISHED, "33 % for Llama 3.1 8B on 8 H100, FSDP2 without torch.compile", _TORCHTITAN)
    return Figure(0.33, "of peak", FORMULA, "33 %, as on H100: nothing found for this card", _TORCHTITAN)
