"""Bytes per rank by part, from a model's shapes and an engine: pure functions, no torch.

What an engine really holds was read in its code (DeepSpeed 0.19, torch 2.13) and is compared in a test with the unique
storages of running ranks. Two users: `engine.name: auto` (configs/engine_choice.py) and plans. Not counted: torch's
allocator (fragments, cached blocks), the CUDA context, NCCL's and gloo's own buffers; `engine_choice` keeps room for them.

Symbols in the comments: P trained numbers, N ranks that share them. ZeRO: arXiv 1910.02054.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.activations import FP32, Arithmetic, cast_weights, logit_bytes, reward_bytes, saved_per_token
from configs.model_shapes import Parameter, complete_values, numel, parameters_of, with_lora

ENGINES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
PARTS = ("parameters", "gradients", "optimizer", "activations", "logits", "buffers")
_HALF = 2
# train/scores.py: most bytes of fp32 logits at a time.
LOGIT_CHUNK_BYTES = 256 * 2**20
# Adam's two moments; plain SGD has no state.
_MOMENTS = {"adamw": 2, "sgd": 0}


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes of one part on the accelerator and on the host. On a machine without one, "accelerator" is main memory."""

    accelerator: int = 0
    host: int = 0

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.accelerator + other.accelerator, self.host + other.host)


@dataclass(frozen=True, slots=True)
class Memory:
    """What one rank holds at the peak of a step; the parts add up to the peak.

    Attributes:
        parameters: weights that the model computes with.
        gradients: the most of them at once: between micro-batches, or when the optimizer begins.
        optimizer: moments, and fp32 master weights where the engine keeps them apart.
        activations: kept for the backward pass.
        logits: of one chunk of the output head.
        buffers: gathered weights, cast weights, buckets, gradients on their way; on the host, a save's snapshot.
    """

    parameters: Bytes = Bytes()
    gradients: Bytes = Bytes()
    optimizer: Bytes = Bytes()
    activations: Bytes = Bytes()
    logits: Bytes = Bytes()
    buffers: Bytes = Bytes()

    @property
    def total(self) -> Bytes:
        return sum((getattr(self, part) for part in PARTS), Bytes())


@dataclass(frozen=True, slots=True)
class Model:
    """A model as memory sees it: its parameters in order, the values of its config.json.

    Attributes:
        parameters: frozen ones too.
        values: complete.
        is_adapted: most are frozen.
        is_reward: its head gives one number where another model's gives one for each word.
    """

    parameters: tuple[Parameter, ...]
    values: Mapping[str, Any]
    is_adapted: bool = False
    is_reward: bool = False

    @property
    def is_tied(self) -> bool:
        """The embedding is the output head, too."""
        return bool(self.values["tie_word_embeddings"]) and not self.is_reward


@dataclass(frozen=True, slots=True)
class ZeroSizes:
    """DeepSpeed's sizes in elements; the defaults are its own.

    Attributes:
        bucket: `reduce_bucket_size`.
        buckets: 2 with `overlap_comm`, as on accelerators; else 1.
        live: `stage3_max_live_parameters` and `stage3_max_reuse_distance`: gathered weights are kept up to this.
        persistent: `stage3_param_persistence_threshold`: tensors up to this stay whole on every rank.
    """

    bucket: int = 500_000_000
    buckets: int = 2
    live: int = 1_000_000_000
    persistent: int = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a model is trained.

    Attributes:
        engine: one of ENGINES.
        ranks: all ranks of the run.
        precision: fp32, bf16 or fp16.
        optimizer: adamw or sgd.
        micro_batch_size: rows a rank computes at once.
        sequence_length: tokens of a row.
        recompute: none, selective or full (`training.gradient_checkpointing`).
        offload_optimizer: zero1 to zero3: masters, moments and their gradients on the host.
        offload_parameters: zero3: also weights; fsdp2: weights, gradients and moments on the host.
        shard_size: fsdp2: ranks that share one copy; None: all.
        frozen_bytes: of a frozen weight under ddp and fsdp2 (2 on a GPU in half precision, see train/models.py).
        saves_behind: a save copies this rank's part of the state to the host and writes from there.
        zero: sizes of DeepSpeed's buffers.
    """

    engine: str
    ranks: int
    precision: str
    optimizer: str
    micro_batch_size: int
    sequence_length: int
    recompute: str = "none"
    offload_optimizer: bool = False
    offload_parameters: bool = False
    shard_size: int | None = None
    frozen_bytes: int = FP32
    saves_behind: bool = True
    zero: ZeroSizes = ZeroSizes()

    @property
    def sharers(self) -> int:
        """Ranks that share one copy of what is shared."""
        return self.shard_size or self.ranks if self.engine == "fsdp2" else self.ranks

    @property
    def compute_bytes(self) -> int:
        return FP32 if self.precision == "fp32" else _HALF

    @property
    def sum_bytes(self) -> int:
        """Of a gradient that ZeRO adds up over micro-batches: train/engines/deepspeed_config.py asks for fp32 with bf16."""
        return _HALF if self.precision == "fp16" else FP32


def model_of(
    values: Mapping[str, Any], lora: Mapping[str, Any] | None = None, *, is_reward: bool = False
) -> Model | None:
    """Returns the model of a config.json, adapted when `lora` (arguments of `with_lora`) is given; None: family unknown."""
    parameters, complete = parameters_of(values, is_reward=is_reward), complete_values(values)
    if parameters is None or complete is None:
        return None
    if lora is not None:
        parameters = with_lora(parameters, **lora)
    return Model(tuple(parameters), complete, is_adapted=lora is not None, is_reward=is_reward)


def estimate(model: Model, setup: Setup, rank: int | None = None) -> Memory:
    """Returns the bytes that `rank` holds at its peak; with no rank, the most of any rank, part by part."""
    if rank is None:
        # All but ZeRO's gradients fall with the rank: whole tensors at a partition's edges make those differ.
        most = _gradients(model, setup, None)
        return dataclasses.replace(estimate(model, setup, 0), gradients=most)
    activations, logits = _activations(model, setup)
    backward, step = _buffers(model, setup)
    # Activations are gone when the optimizer runs: what it needs for itself counts only beyond them.
    room = activations + logits
    buffers = Bytes(max(backward.accelerator, step.accelerator - room), max(backward.host, step.host))
    return Memory(
        parameters=_parameters(model, setup, rank),
        gradients=_gradients(model, setup, rank),
        optimizer=_optimizer(model, setup, rank),
        activations=Bytes(activations),
        logits=Bytes(logits),
        buffers=buffers + Bytes(host=_snapshot(model, setup)),
    )


def _arithmetic(model: Model, setup: Setup) -> Arithmetic:
    """ddp computes in half precision by autocast over the weights' type; the others cast the whole model."""
    residual = setup.compute_bytes
    if setup.engine == "ddp":
        residual = setup.frozen_bytes if model.is_adapted else FP32
    return Arithmetic(residual, setup.compute_bytes, trains_norms=not model.is_adapted)


def _activations(model: Model, setup: Setup) -> tuple[int, int]:
    """Returns (activations, logits) in bytes; every position is labelled at worst."""
    tokens, arithmetic = setup.micro_batch_size * setup.sequence_length, _arithmetic(model, setup)
    vocabulary, hidden = model.values["vocab_size"], model.values["hidden_size"]
    if model.is_reward:
        head = reward_bytes(tokens, hidden, arithmetic)
    else:
        head = logit_bytes(tokens, vocabulary, hidden, arithmetic, LOGIT_CHUNK_BYTES)
    return tokens * saved_per_token(model.values, arithmetic, setup.recompute), head


def _trained(model: Model) -> list[Parameter]:
    return [p for p in model.parameters if p.is_trained]


def _groups(model: Model) -> list[list[Parameter]]:
    """Returns the optimizer's groups as train/optimizer.py makes them: matrices, then what does not decay."""
    trained = _trained(model)
    groups = [[p for p in trained if len(p.shape) >= 2], [p for p in trained if len(p.shape) < 2]]
    return [group for group in groups if group]


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _flat(group: Sequence[Parameter], ranks: int) -> int:
    """ZeRO-1 and 2 flatten a group and pad it so that each partition begins at 2 elements (4 bytes of bf16, for NCCL)."""
    return _up(numel(group), 2 * ranks)


def _part(parameter: Parameter, ranks: int) -> int:
    """ZeRO-3 splits each tensor by itself, padded to the ranks."""
    return -(-parameter.numel // ranks)


def _shard(parameter: Parameter, ranks: int, rank: int | None = None) -> int:
    """FSDP2 splits dimension 0 as torch.chunk does; weights and gradients are padded to the first rank's rows (no rank).

    Moments are not padded: the last ranks may have fewer rows, or none.
    """
    rows = -(-parameter.shape[0] // ranks)
    held = rows if rank is None else max(0, min(rows, parameter.shape[0] - rank * rows))
    return held * (parameter.numel // parameter.shape[0])


def _parameters(model: Model, setup: Setup, rank: int) -> Bytes:
    frozen = numel(model.parameters, trained=False)
    if setup.engine == "ddp":
        return Bytes(numel(model.parameters, trained=True) * FP32 + frozen * setup.frozen_bytes)
    if setup.engine == "fsdp2":
        held = sum(
            _shard(p, setup.sharers) * (FP32 if p.is_trained else setup.frozen_bytes) for p in model.parameters
        )
        return _placed(held, on_host=setup.offload_parameters)
    width = setup.compute_bytes
    if setup.engine == "zero3":
        parts = sum(_part(p, setup.ranks) for p in model.parameters) * width
        # Small tensors are gathered once and stay, beside their parts.
        whole = sum(p.numel for p in model.parameters if p.numel <= setup.zero.persistent) * width
        return _placed(parts, on_host=setup.offload_parameters) + Bytes(whole)
    return Bytes((sum(_flat(group, setup.ranks) for group in _groups(model)) + frozen) * width)


def _gradients(model: Model, setup: Setup, rank: int | None) -> Bytes:
    """The most gradients that live at once, bucket and tensors on their way apart."""
    trained, width = _trained(model), setup.compute_bytes
    sums = setup.sum_bytes
    if setup.engine == "ddp":
        return Bytes(numel(trained) * FP32)
    if setup.engine == "fsdp2":
        # Reduced into each rank's part in fp32 after every micro-batch.
        return _placed(sum(_shard(p, setup.sharers) for p in trained) * FP32, on_host=setup.offload_parameters)
    if setup.engine == "zero3":
        parts = sum(_part(p, setup.ranks) for p in trained)
        # One flat buffer for the whole run; with offload also the fp32 gradient of the optimizer on the host.
        return Bytes(host=parts * (sums + FP32)) if setup.offload_optimizer else Bytes(parts * sums)
    partition = sum(_flat(group, setup.ranks) for group in _groups(model)) // setup.ranks
    on_host = partition * FP32 if setup.offload_optimizer else 0
    if setup.engine == "zero1":
        # Whole until the last micro-batch, when they are reduced. DeepSpeed's own optimizer for bf16 with fp32 sums
        # (BF16_Optimizer) keeps the fp32 sums and the bf16 gradients.
        each = width + sums if sums != width else width
        return Bytes(numel(trained) * each, on_host)
    if sums != width:
        return Bytes(partition * FP32, on_host)
    # A tensor at a partition's edge is kept whole by both neighbours.
    return Bytes(host=on_host) if setup.offload_optimizer else Bytes(_touched(model, setup.ranks, rank) * width)


def _touched(model: Model, ranks: int, rank: int | None) -> int:
    """Returns the numbers of all tensors that the partition of `rank` (None: the largest) touches, groups together."""
    held = [0] * ranks
    for group in _groups(model):
        size, start = _flat(group, ranks) // ranks, 0
        for parameter in group:
            for owner in range(start // size, (start + parameter.numel - 1) // size + 1):
                held[owner] += parameter.numel
            start += parameter.numel
    return max(held) if rank is None else held[rank]


def _optimizer(model: Model, setup: Setup, rank: int) -> Bytes:
    """Adam keeps two fp32 numbers per weight; ZeRO a third, the fp32 master, even where weights are fp32 already."""
    moments = _MOMENTS[setup.optimizer]
    trained, groups = _trained(model), _groups(model)
    if setup.engine == "ddp":
        return Bytes(numel(trained) * moments * FP32 + _counters(trained, moments))
    if setup.engine == "fsdp2":
        held = sum(_shard(p, setup.sharers, rank % setup.sharers) for p in trained) * moments * FP32
        return _placed(held + _counters(trained, moments), on_host=setup.offload_parameters)
    if setup.engine == "zero3":
        held = sum(_part(p, setup.ranks) for p in trained)
    else:
        held = sum(_flat(group, setup.ranks) for group in groups) // setup.ranks
    return _placed(held * (1 + moments) * FP32 + _counters(groups, moments), on_host=setup.offload_optimizer)


def _counters(stepped: Sequence[object], moments: int) -> int:
    """Adam counts steps in one fp32 scalar per tensor that it updates."""
    return FP32 * len(stepped) if moments else 0


def _placed(amount: int, *, on_host: bool) -> Bytes:
    return Bytes(host=amount) if on_host else Bytes(amount)


def _snapshot(model: Model, setup: Setup) -> int:
    """A save behind the training copies what this rank writes: fp32 weights and moments, shared out over all ranks."""
    if not setup.saves_behind:
        return 0
    state = numel(model.parameters, trained=True) * (1 + _MOMENTS[setup.optimizer]) * FP32
    return -(-state // setup.ranks)


def _buffers(model: Model, setup: Setup) -> tuple[Bytes, Bytes]:
    """Returns what lives only during forward and backward, and only during the optimizer's step."""
    backward, step = _BUFFERS[setup.engine](model, setup)
    # One gradient is computed before it is put where it belongs; a head used in several chunks has a second one.
    largest = max((p.numel for p in _trained(model)), default=0)
    return backward + Bytes(2 * largest * setup.compute_bytes), step


def _ddp_buffers(model: Model, setup: Setup) -> tuple[Bytes, Bytes]:
    cast = cast_weights(model.values, is_reward=model.is_reward) if _arithmetic(model, setup).is_autocast else 0
    return Bytes(cast), Bytes()


def _bucket(model: Model, setup: Setup) -> int:
    """Gradients are copied into a bucket of fixed size, and once more when they are reduced in another type or layout."""
    in_use = min(setup.zero.bucket, numel(model.parameters, trained=True)) * setup.sum_bytes
    if setup.engine == "zero3":
        return setup.zero.bucket * setup.sum_bytes + in_use  # of the type that is sent; reduce-scatter lays it out anew
    if setup.sum_bytes == setup.compute_bytes:
        return setup.zero.buckets * setup.zero.bucket * setup.compute_bytes
    if setup.engine == "zero1" and not setup.offload_optimizer:
        return in_use  # BF16_Optimizer has no bucket: it flattens some of its fp32 sums at a time.
    return setup.zero.buckets * setup.zero.bucket * setup.compute_bytes + in_use


def _zero12_buffers(model: Model, setup: Setup) -> tuple[Bytes, Bytes]:
    """A bucket of gradients while they are reduced; then one group's gradient flattened in fp32."""
    width, bucket = setup.compute_bytes, _bucket(model, setup)
    if not setup.offload_optimizer:
        largest = max((_flat(group, setup.ranks) for group in _groups(model)), default=0)
        return Bytes(bucket), Bytes(largest // setup.ranks * FP32)
    # On both sides room for the largest tensor; on the host the new weights, and gradients of earlier micro-batches.
    partition = sum(_flat(group, setup.ranks) for group in _groups(model)) // setup.ranks
    largest = max((p.numel for p in _trained(model)), default=0) * width
    earlier = _touched(model, setup.ranks, None) * width
    return Bytes(bucket + largest, largest + partition * width + earlier), Bytes()


def _zero3_buffers(model: Model, setup: Setup) -> tuple[Bytes, Bytes]:
    """A bucket for the whole run, and gathered weights up to `live`: a smaller model stays gathered in a micro-batch."""
    width, bucket = setup.compute_bytes, _bucket(model, setup)
    gathered = min(setup.zero.live, sum(p.numel for p in model.parameters if p.numel > setup.zero.persistent))
    gathered = max(gathered, max(_layer_sizes(model), default=0))
    largest = max((sum(_part(p, setup.ranks) for p in group) for group in _groups(model)), default=0)
    step = 0 if setup.offload_optimizer else largest * FP32
    return Bytes(bucket + gathered * width), Bytes(bucket + step)


def _fsdp2_buffers(model: Model, setup: Setup) -> tuple[Bytes, Bytes]:
    """Gathered: embeddings, norm and head throughout, with their gradients, and two layers (one is prefetched).

    One layer's gradients wait, and lie in fp32 in the input of reduce-scatter.
    """
    layers, width = _layer_sizes(model), setup.compute_bytes
    trained = _layer_sizes(dataclasses.replace(model, parameters=tuple(_trained(model))))
    rest = numel(model.parameters) - sum(layers)
    rest_trained = numel(model.parameters, trained=True) - sum(trained)
    layer, layer_trained = max(layers, default=0), max(trained, default=0)
    backward = (rest + rest_trained + 2 * layer + layer_trained) * width + layer_trained * FP32
    last = (rest + rest_trained) * width + rest_trained * FP32
    return Bytes(backward), Bytes(last)


def _layer_sizes(model: Model) -> list[int]:
    """Returns the numbers in each decoder layer."""
    sizes: dict[str, int] = {}
    for parameter in model.parameters:
        if ".layers." in parameter.name:
            layer = parameter.name.split(".layers.")[1].split(".")[0]
            sizes[layer] = sizes.get(layer, 0) + parameter.numel
    return list(sizes.values())


_BUFFERS: dict[str, Callable[[Model, Setup], tuple[Bytes, Bytes]]] = {
    "ddp": _ddp_buffers,
    "zero1": _zero12_buffers,
    "zero2": _zero12_buffers,
    "zero3": _zero3_buffers,
    "fsdp2": _fsdp2_buffers,
}
