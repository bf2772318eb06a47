"""The works that a run's methods come from, as BibTeX. A work is listed only when the run used what it describes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """One work; `authors` as BibTeX writes them; `where` is further fields, such as a journal."""

    authors: str
    title: str
    year: int
    arxiv: str = ""
    where: tuple[tuple[str, str], ...] = ()


WORKS = {
    "adamw": Work("Loshchilov, Ilya and Hutter, Frank", "Decoupled Weight Decay Regularization", 2019, "1711.05101"),
    "cosine": Work(
        "Loshchilov, Ilya and Hutter, Frank",
        "{SGDR}: Stochastic Gradient Descent with Warm Restarts",
        2017,
        "1608.03983",
    ),
    "wsd": Work(
        "Hu, Shengding and Tu, Yuge and Han, Xu and others",
        "{MiniCPM}: Unveiling the Potential of Small Language Models with Scalable Training Strategies",
        2024,
        "2404.06395",
    ),
    "lora": Work(
        "Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and Wang, Shean and Wang, Lu and Chen, Weizhu",
        "{LoRA}: Low-Rank Adaptation of Large Language Models",
        2022,
        "2106.09685",
    ),
    "dora": Work("Liu, Shih-Yang and others", "{DoRA}: Weight-Decomposed Low-Rank Adaptation", 2024, "2402.09353"),
    "rslora": Work(
        "Kalajdzievski, Damjan", "A Rank Stabilization Scaling Factor for Fine-Tuning with {LoRA}", 2023, "2312.03732"
    ),
    "dpo": Work(
        "Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Ermon, Stefano and Manning, Christopher D. and Finn, Chelsea",
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        2023,
        "2305.18290",
    ),
    "ipo": Work(
        "Gheshlaghi Azar, Mohammad and others",
        "A General Theoretical Paradigm to Understand Learning from Human Preferences",
        2023,
        "2310.12036",
    ),
    "hinge": Work(
        "Zhao, Yao and others", "{SLiC-HF}: Sequence Likelihood Calibration with Human Feedback", 2023, "2305.10425"
    ),
    "robust": Work(
        "Ray Chowdhury, Sayak and Kini, Anush and Natarajan, Nagarajan",
        "Provably Robust {DPO}: Aligning Language Models with Noisy Feedback",
        2024,
        "2403.00409",
    ),
    "length_normalised": Work(
        "Lambert, Nathan and others",
        "Tulu 3: Pushing Frontiers in Open Language Model Post-Training",
        2024,
        "2411.15124",
    ),
    "nll": Work("Pang, Richard Yuanzhe and others", "Iterative Reasoning Preference Optimization", 2024, "2404.19733"),
    "kto": Work(
        "Ethayarajh, Kawin and Xu, Winnie and Muennighoff, Niklas and Jurafsky, Dan and Kiela, Douwe",
        "{KTO}: Model Alignment as Prospect Theoretic Optimization",
        2024,
        "2402.01306",
    ),
    "orpo": Work(
        "Hong, Jiwoo and Lee, Noah and Thorne, James",
        "{ORPO}: Monolithic Preference Optimization without Reference Model",
        2024,
        "2403.07691",
    ),
    "simpo": Work(
        "Meng, Yu and Xia, Mengzhou and Chen, Danqi",
        "{SimPO}: Simple Preference Optimization with a Reference-Free Reward",
        2024,
        "2405.14734",
    ),
    "reward": Work(
        "Touvron, Hugo and others", "Llama 2: Open Foundation and Fine-Tuned Chat Models", 2023, "2307.09288"
    ),
    "zero": Work(
        "Rajbhandari, Samyam and Rasley, Jeff and Ruwase, Olatunji and He, Yuxiong",
        "{ZeRO}: Memory Optimizations Toward Training Trillion Parameter Models",
        2020,
        "1910.02054",
    ),
    "fsdp": Work(
        "Zhao, Yanli and others",
        "{PyTorch} {FSDP}: Experiences on Scaling Fully Sharded Data Parallel",
        2023,
        "2304.11277",
    ),
    "balance": Work("{DeepSeek-AI}", "{DeepSeek-V3} Technical Report", 2024, "2412.19437"),
    "harness": Work(
        "Gao, Leo and others",
        "The Language Model Evaluation Harness",
        2024,
        where=(("publisher", "Zenodo"), ("doi", "10.5281/zenodo.12608602")),
    ),
}


def bibtex(keys: Iterable[str]) -> str:
    """Returns the entries of these works, in the order of the names."""
    return "\n".join(_entry(key, WORKS[key]) for key in sorted(set(keys)))


def _entry(key: str, work: Work) -> str:
    fields = [("author", work.authors), ("title", work.title), ("year", str(work.year))]
    if work.arxiv:
        fields += [("eprint", work.arxiv), ("archivePrefix", "arXiv"), ("url", f"https://arxiv.org/abs/{work.arxiv}")]
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in (*fields, *work.where))
    return f"@misc{{{key},\n{lines}\n}}\n"
