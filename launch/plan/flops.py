"""Floating-point operations of one token, forward and backward, from a model's shapes.

PaLM (arXiv 2204.02311, appendix B): 6 N + 12 L H Q T, where N counts the weights of matrix products, L layers, H heads of
size Q, T tokens that attend to each other; nothing is taken off for the causal mask, as in what others publish. Per
weight: 2 forward, 2 for the gradient of its input, 2 for its own, which a frozen weight has not. Of routed experts only
the chosen ones count. The head counts where a token is labelled, as only those go through it here.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.memory import Model
from configs.model_shapes import HEAD, Parameter

RECOMPUTES = {"none": 0.0, "selective": 0.0, "full": 1.0}


@dataclass(frozen=True, slots=True)
class Flops:
    """Per token.

    Attributes:
        forward: of one forward pass.
        model: of a step: forward and backward, and the forward passes of `looks`.
        weights: those of matrix products that a token meets.
        looks: forward passes over the whole batch before the one that learns.
    """

    forward: float
    model: float
    weights: float
    formula: str
    looks: int = 0

    def done(self, recompute: str) -> float:
        """Returns what the hardware does for a token: recomputing whole layers adds a forward pass.

        `selective` computes again what is no matrix product, which is not counted.
        """
        return self.model + RECOMPUTES[recompute] * self.forward


def looks_of(objective: str) -> int:
    """Returns the forward passes over a batch before the one that learns: kto's, for its baseline (train/objectives/kto.py)."""
    return 1 if objective == "kto" else 0


def flops_of(model: Model, sequence_length: int, labelled: float = 1.0, looks: int = 0) -> Flops:
    """Returns the operations of one token.

    Args:
        model: its shapes and values.
        sequence_length: T; documents of a packed row that attend only to themselves take less.
        labelled: share of the tokens that go through the head.
        looks: see `looks_of`.
    """
    forward = trained = weights = 0.0
    for parameter in model.parameters:
        size = _met(model, parameter) * (labelled if _is_head(parameter) else 1.0)
        forward += 2 * size
        trained += size if parameter.is_trained else 0.0
        weights += size
    if model.is_tied:
        # The embedding serves as the head; it is trained when it is no adapter's frozen base.
        size = model.values["vocab_size"] * model.values["hidden_size"] * labelled
        forward += 2 * size
        trained += size if model.parameters[0].is_trained else 0.0
        weights += size
    attention = attention_forward(model, sequence_length)
    whole = 2 * forward + 2 * trained + 3 * attention + looks * (forward + attention)
    formula = (
        f"4 N + 2 N_trained + 3 x attention = 4 x {weights:.4g} + 2 x {trained:.4g} + 3 x {attention:.4g} "
        "(arXiv 2204.02311, appendix B; frozen weights have no gradient)"
    )
    if looks:
        formula += f" + {looks} x forward = {forward + attention:.4g}: kto's baseline, from the whole batch before it is learned"
    return Flops(forward + attention, whole, weights, formula, looks)


def attention_forward(model: Model, sequence_length: int) -> float:
    """Returns the operations of queries x keys and probabilities x values of one token over T others."""
    values = model.values
    heads, layers = values["num_attention_heads"], values["num_hidden_layers"]
    if values["model_type"] == "deepseek_v3":
        width = values["qk_nope_head_dim"] + values["qk_rope_head_dim"] + values["v_head_dim"]
    else:
        width = 2 * values["head_dim"]
    return float(2 * sequence_length * layers * heads * width)


def has_experts(model: Model) -> bool:
    """True when only some of the weights meet each token."""
    return any(".experts." in parameter.name for parameter in model.parameters)


def _met(model: Model, parameter: Parameter) -> float:
    """Returns how many of a parameter's numbers one token is multiplied with."""
    if len(parameter.shape) < 2 or "embed_tokens" in parameter.name:
        return 0.0
    if ".experts." in parameter.name:
        return parameter.numel * float(model.values["num_experts_per_tok"]) / float(model.values["n_routed_experts"])
    return float(parameter.numel)


def _is_head(parameter: Parameter) -> bool:
    return parameter.kind == HEAD or parameter.name.split(".")[0] == "lm_head"
