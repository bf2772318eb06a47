"""`training`, `optimizer`, `lr_scheduler`: how long, how much at a time, how fast."""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema.fields import setting


@dataclass(kw_only=True, slots=True)
class TrainingSection:
    duration: str = setting(
        "auto", identity=True, help="How long: `3 epochs`, `500 steps` or `2e9 tokens`; auto: 3 epochs for sft, else 1."
    )
    global_batch_size: int = setting(
        32, identity=True, help="Packed rows of `sequence_length` tokens in one optimizer step, over all ranks."
    )
    micro_batch_size: int | str = setting(
        "auto", identity=False, help="Rows a rank computes at once; auto: the largest that survives the rehearsal."
    )
    precision: str = setting(
        "auto", identity=True, choices=("auto", "fp32", "bf16", "fp16"), help="Arithmetic; auto: bf16 on a GPU, fp32 on a CPU. fp16 scales the loss."
    )
    seed: int = setting(1, identity=True, help="Seeds data order, dropout and new parameters.")
    min_steps: int = setting(20, identity=False, help="Refuse a run of fewer optimizer steps than this; 0 allows any.")
    max_grad_norm: float = setting(1.0, identity=True, help="Clip the global gradient norm to this; 0: no clipping.")
    gradient_checkpointing: str = setting(
        "none",
        identity=False,
        choices=("none", "selective", "full"),
        help="Recompute activations in the backward pass. full: whole layers, least memory, about a third more time; "
        "selective: all but matrix products and attention.",
    )
    tf32: bool = setting(False, identity=True, help="Let GPUs round fp32 matrix products to TF32 (10 bits of mantissa).")

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        found = []
        if self.global_batch_size < 1:
            found.append(f"training.global_batch_size={self.global_batch_size}: expected 1 or more")
        if isinstance(self.micro_batch_size, int) and self.micro_batch_size < 1:
            found.append(f"training.micro_batch_size={self.micro_batch_size}: expected auto, or 1 or more")
        if self.max_grad_norm < 0:
            found.append(f"training.max_grad_norm={self.max_grad_norm}: expected 0 or more")
        if self.min_steps < 0:
            found.append(f"training.min_steps={self.min_steps}: expected 0 or more")
        return found


@dataclass(kw_only=True, slots=True)
class OptimizerSection:
    name: str = setting("adamw", identity=True, choices=("adamw", "sgd"), help="adamw (arXiv 1711.05101) or plain sgd.")
    lr: float | str = setting("auto", identity=True, help="Peak learning rate; auto: 1e-5 full, 1e-4 with lora; dpo, kto, simpo 5e-7 and 5e-6, orpo 5e-6 and 5e-5.")
    weight_decay: float = setting(0.01, identity=True, help="Decoupled decay of matrices; never of norms and biases.")
    beta1: float = setting(0.9, identity=True, help="AdamW's decay of the first moment.")
    beta2: float = setting(0.95, identity=True, help="AdamW's decay of the second moment.")
    eps: float = setting(1e-8, identity=True, help="AdamW's epsilon.")

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        found = []
        if not isinstance(self.lr, str) and self.lr <= 0:
            found.append(f"optimizer.lr={self.lr}: expected auto, or more than 0")
        if self.weight_decay < 0:
            found.append(f"optimizer.weight_decay={self.weight_decay}: expected 0 or more")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                found.append(f"optimizer.{name}={getattr(self, name)}: expected 0 <= {name} < 1")
        if self.eps <= 0:
            found.append(f"optimizer.eps={self.eps}: expected more than 0")
        return found


@dataclass(kw_only=True, slots=True)
class LrSchedulerSection:
    name: str = setting(
        "cosine",
        identity=True,
        choices=("constant", "linear", "cosine", "wsd"),
        help="Shape after warm-up; wsd: warm-up, stable, decay (arXiv 2404.06395).",
    )
    warmup: str = setting("3%", identity=True, help="Length of the linear warm-up: `3%` of the run, `100 steps`, or `0`.")
    decay: str = setting("10%", identity=True, help="Length of wsd's final decay: a share of the run or steps.")
    min_lr_ratio: float = setting(0.0, identity=True, help="Last learning rate as a share of the peak, 0 to 1.")

    def problems(self) -> list[str]:
        """Returns what is wrong with these values, one sentence each."""
        if 0 <= self.min_lr_ratio <= 1:
            return []
        return [f"lr_scheduler.min_lr_ratio={self.min_lr_ratio}: expected 0 to 1"]
