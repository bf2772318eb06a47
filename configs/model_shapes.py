"""Every parameter's name and shape from the values of a config.json, without torch: what memory plans are made of.

Families whose layers are written down here: llama, qwen2, qwen3, deepseek_v3. Order and names are those of
`model.named_parameters()` of transformers 5, where the routed experts of a layer are two fused tensors; a test compares
each preset with the real model. For any other family `parameters_of` returns None, and what needs sizes is "checked at
start".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]

LINEAR, HEAD, OTHER = "linear", "head", "other"

# What transformers takes for a value that config.json does not give.
_COMMON = {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "qwen2": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "deepseek_v3": {
        "vocab_size": 129280,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "n_shared_experts": 1,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "first_k_dense_replace": 3,
    },
}
_DEFAULTS["qwen3"] = {**_DEFAULTS["qwen2"], "head_dim": 128}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a model.

    Attributes:
        name: as in `named_parameters()`.
        shape: its dimensions.
        kind: `linear` (the weight of an nn.Linear), `head` (of the output head) or `other`.
        is_trained: has a gradient.
    """

    name: str
    shape: tuple[int, ...]
    kind: str = OTHER
    is_trained: bool = True

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def parameters_of(values: Values, *, is_reward: bool = False) -> list[Parameter] | None:
    """Returns the parameters of a causal language model, in the model's order; None when its family is not known.

    A head tied to the embedding is one parameter, named as the embedding.

    Args:
        values: of config.json.
        is_reward: of the classifier with one label instead (train/reward_scores.py): a head of one row, none of words.
    """
    complete = complete_values(values)
    return None if complete is None else list(_parameters(complete, is_reward=is_reward))


def complete_values(values: Values) -> dict[str, Any] | None:
    """Returns `values` with what transformers fills in; None: family unknown, weights quantised, or a size is no number."""
    family = values.get("model_type")
    if family not in _DEFAULTS or values.get("quantization_config"):
        return None
    given = {key: value for key, value in values.items() if value is not None or key == "q_lora_rank"}
    complete = {**_COMMON, **_DEFAULTS[family], **given}
    complete.setdefault("num_key_value_heads", complete["num_attention_heads"])
    if family != "deepseek_v3":
        hidden, heads = complete["hidden_size"], complete["num_attention_heads"]
        complete.setdefault("head_dim", hidden // heads if _is_size(hidden) and _is_size(heads) else 0)
    sizes = [complete[key] for key in (*_DEFAULTS[family], "num_key_value_heads") if key not in _MAY_BE_ZERO]
    return complete if all(_is_size(size) for size in (*sizes, complete.get("head_dim", 1))) else None


# Null: no low rank for queries; 0: experts in every layer.
_MAY_BE_ZERO = ("q_lora_rank", "first_k_dense_replace")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def numel(parameters: Sequence[Parameter], *, trained: bool | None = None) -> int:
    """Returns how many numbers they hold; of the trained or the frozen ones only when asked."""
    return sum(p.numel for p in parameters if trained is None or p.is_trained is trained)


def with_lora(
    parameters: Sequence[Parameter],
    *,
    rank: int,
    target_modules: Sequence[str],
    modules_to_save: Sequence[str] = (),
    dora: bool = False,
) -> list[Parameter]:
    """Returns the parameters of the adapted model: `parameters` frozen, each followed by what peft adds to its module.

    Where experts are fused, peft 0.21 reads names as those of the unfused model of old: `gate_proj`, `up_proj`,
    `down_proj` and the router `gate` (all of them in `all-linear`) mean the routed experts and their router, and dense
    or shared layers of these names get nothing.

    Args:
        parameters: of the bare model.
        rank: of the two matrices, `[rank, in]` and `[out, rank]`.
        target_modules: last parts of the names of linear layers; `all-linear` is every one but the output head.
        modules_to_save: endings of the names of modules that get a copy trained in full.
        dora: also a trained magnitude `[out]` per adapted layer.
    """
    targets = set(target_modules)
    if targets == {"all-linear"}:
        targets = {_last(_module(p)) for p in parameters if p.kind == LINEAR}
        targets |= set(_UNFUSED) if _has_fused_experts(parameters) else set()
    fused = {_UNFUSED[name] for name in targets & set(_UNFUSED)} if _has_fused_experts(parameters) else set()
    targets -= set(_UNFUSED) if fused else set()
    adapted: list[Parameter] = []
    for parameter in parameters:
        module, leaf = _module(parameter), _last(parameter.name)
        name = f"base_model.model.{module}"
        # peft matches endings without a dot: `norm` takes input_layernorm too.
        if module.endswith(tuple(modules_to_save)):
            adapted.append(_frozen(f"{name}.original_module.{leaf}", parameter))
            adapted.append(Parameter(f"{name}.modules_to_save.default.{leaf}", parameter.shape, parameter.kind))
        elif parameter.kind in (LINEAR, HEAD) and _last(module) in targets:
            adapted.append(_frozen(f"{name}.base_layer.{leaf}", parameter))
            adapted += _pair(name, rank, parameter.shape)
            if dora:
                adapted.append(Parameter(f"{name}.lora_magnitude_vector.default.weight", parameter.shape[:1]))
        elif _last(module) in ("experts", "gate"):
            adapted += _on_tensor(parameter, rank, fused)
        else:
            # The bias of an adapted layer moves with it.
            inner = ".base_layer" if leaf == "bias" and _last(module) in targets else ""
            adapted.append(_frozen(f"{name}{inner}.{leaf}", parameter))
    return adapted


# Old name of a layer -> the tensor it became, which peft adapts instead.
_UNFUSED = {
    "gate": "gate.weight",
    "gate_proj": "experts.gate_up_proj",
    "up_proj": "experts.gate_up_proj",
    "down_proj": "experts.down_proj",
}


def _has_fused_experts(parameters: Sequence[Parameter]) -> bool:
    return any(_last(_module(p)) == "experts" for p in parameters)


def _module(parameter: Parameter) -> str:
    return parameter.name.rpartition(".")[0]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _frozen(name: str, parameter: Parameter) -> Parameter:
    return Parameter(name, parameter.shape, parameter.kind, is_trained=False)


def _pair(name: str, rank: int, shape: tuple[int, ...]) -> list[Parameter]:
    """Returns lora_A `[rank, in]` and lora_B `[out, rank]`; experts `[E, out, in]` have E of each, side by side."""
    *experts, out, into = shape
    width = rank * math.prod(experts)
    return [
        Parameter(f"{name}.lora_A.default.weight", (width, into)),
        Parameter(f"{name}.lora_B.default.weight", (out, width)),
    ]


def _on_tensor(parameter: Parameter, rank: int, fused: set[str]) -> list[Parameter]:
    """Returns a tensor of the experts or the router, frozen, with its pair when it is in `fused`.

    peft wraps the module once per adapted tensor, so the first tensor's pair lies one wrapper deeper; two layers fused
    into one tensor get twice the rank.
    """
    module, leaf = _module(parameter), _last(parameter.name)
    name = f"base_model.model.{module}"
    wanted = [tensor for tensor in dict.fromkeys(_UNFUSED.values()) if tensor in fused and tensor.startswith(_last(module))]
    depth = len(wanted)
    found = [_frozen(f"{name}{'.base_layer' * depth}.{leaf}", parameter)]
    for place, tensor in enumerate(wanted):
        if tensor == f"{_last(module)}.{leaf}":
            width = rank * sum(new == tensor for new in _UNFUSED.values())
            found += _pair(f"{name}{'.base_layer' * (depth - 1 - place)}", width, parameter.shape)
    return found


def _parameters(values: Values, *, is_reward: bool) -> Iterator[Parameter]:
    """Yields embedding, layers, last norm and head."""
    hidden, vocabulary = values["hidden_size"], values["vocab_size"]
    attention, mlp = _LAYERS[values["model_type"]]
    yield Parameter("model.embed_tokens.weight", (vocabulary, hidden))
    for layer in range(values["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        yield from attention(values, f"{prefix}.self_attn")
        yield from mlp(values, f"{prefix}.mlp", layer)
        yield _norm(f"{prefix}.input_layernorm", hidden)
        yield _norm(f"{prefix}.post_attention_layernorm", hidden)
    yield _norm("model.norm", hidden)
    if is_reward:
        yield Parameter("score.weight", (1, hidden), HEAD)
    elif not values["tie_word_embeddings"]:
        yield Parameter("lm_head.weight", (vocabulary, hidden), HEAD)


def _linear(name: str, out: int, into: int, bias: bool = False) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", (out, into), LINEAR)
    if bias:
        yield Parameter(f"{name}.bias", (out,))


def _norm(name: str, size: int) -> Parameter:
    return Parameter(f"{name}.weight", (size,))


def _grouped_attention(values: Values, name: str) -> Iterator[Parameter]:
    """Yields the four projections of grouped-query attention; qwen3 normalises queries and keys per head."""
    hidden, size, family = values["hidden_size"], values["head_dim"], values["model_type"]
    queries, keys = values["num_attention_heads"] * size, values["num_key_value_heads"] * size
    # qwen2's configuration has no key for it: biases on queries, keys and values, none on the output.
    bias = family == "qwen2" or bool(values["attention_bias"])
    yield from _linear(f"{name}.q_proj", queries, hidden, bias)
    yield from _linear(f"{name}.k_proj", keys, hidden, bias)
    yield from _linear(f"{name}.v_proj", keys, hidden, bias)
    yield from _linear(f"{name}.o_proj", hidden, queries, bias and family != "qwen2")
    if family == "qwen3":
        yield _norm(f"{name}.q_norm", size)
        yield _norm(f"{name}.k_norm", size)


def _latent_attention(values: Values, name: str) -> Iterator[Parameter]:
    """Yields multi-head latent attention (arXiv 2405.04434): low-rank queries, keys and values."""
    hidden, heads, bias = values["hidden_size"], values["num_attention_heads"], bool(values["attention_bias"])
    query_rank, latent, rope = values["q_lora_rank"], values["kv_lora_rank"], values["qk_rope_head_dim"]
    queries = heads * (values["qk_nope_head_dim"] + rope)
    if query_rank is None:
        yield from _linear(f"{name}.q_proj", queries, hidden)
    else:
        yield from _linear(f"{name}.q_a_proj", query_rank, hidden, bias)
        yield _norm(f"{name}.q_a_layernorm", query_rank)
        yield from _linear(f"{name}.q_b_proj", queries, query_rank)
    yield from _linear(f"{name}.kv_a_proj_with_mqa", latent + rope, hidden, bias)
    yield _norm(f"{name}.kv_a_layernorm", latent)
    yield from _linear(f"{name}.kv_b_proj", heads * (values["qk_nope_head_dim"] + values["v_head_dim"]), latent)
    yield from _linear(f"{name}.o_proj", hidden, heads * values["v_head_dim"], bias)


def _gated(values: Values, name: str, size: int) -> Iterator[Parameter]:
    hidden, bias = values["hidden_size"], values["model_type"] == "llama" and bool(values["mlp_bias"])
    yield from _linear(f"{name}.gate_proj", size, hidden, bias)
    yield from _linear(f"{name}.up_proj", size, hidden, bias)
    yield from _linear(f"{name}.down_proj", hidden, size, bias)


def _dense(values: Values, name: str, layer: int) -> Iterator[Parameter]:
    yield from _gated(values, name, values["intermediate_size"])


def _experts(values: Values, name: str, layer: int) -> Iterator[Parameter]:
    """Yields a dense block in the first layers, then routed experts (two fused tensors), router and shared experts."""
    if layer < values["first_k_dense_replace"]:
        yield from _dense(values, name, layer)
        return
    experts, hidden, size = values["n_routed_experts"], values["hidden_size"], values["moe_intermediate_size"]
    yield Parameter(f"{name}.experts.gate_up_proj", (experts, 2 * size, hidden))
    yield Parameter(f"{name}.experts.down_proj", (experts, hidden, size))
    yield Parameter(f"{name}.gate.weight", (experts, hidden))
    yield from _gated(values, f"{name}.shared_experts", size * values["n_shared_experts"])


_Attention = Callable[[Values, str], Iterator[Parameter]]
_Mlp = Callable[[Values, str, int], Iterator[Parameter]]
_LAYERS: dict[str, tuple[_Attention, _Mlp]] = {
    "llama": (_grouped_attention, _dense),
    "qwen2": (_grouped_attention, _dense),
    "qwen3": (_grouped_attention, _dense),
    "deepseek_v3": (_latent_attention, _experts),
}
