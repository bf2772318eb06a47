"""What a user's own DeepSpeed settings may not say: keys that nobody reads, and what our other sections say otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from configs.deepspeed_keys import AUTO, OFFLOADS, Theirs, is_stage, offload_device, read, zero_block
from configs.deepspeed_source import Keys, KnownKeys, known_keys
from configs.facts import Facts, ranks_of
from configs.schema import RunConfig
from configs.values import nearest, show

# DeepSpeed's names of what `optimizer.name` and `lr_scheduler.name` say.
OPTIMIZERS = {"adamw": "adamw", "sgd": "sgd"}
SCHEDULERS = {"WarmupLR": "constant", "WarmupDecayLR": "linear", "WarmupCosineLR": "cosine"}
# Settings that would change what a step, a checkpoint or a gradient norm is: (path, values that do no harm, why).
RESERVED: tuple[tuple[tuple[str, ...], tuple[Any, ...], str], ...] = (
    (("gradient_allreduce_op",), ("mean",), "gradients are averaged over ranks; a sum would scale the loss by their number"),
    (("managed_gradient_accumulation",), (), "the window of micro-batches is kept here"),
    (("zero_force_ds_cpu_optimizer",), (False,), "the optimizer is torch's own, also in host memory"),
    (("zero_allow_untested_optimizer",), (True,), "the optimizer is torch's own, and optimizer.name=sgd would not start"),
    (("zero_optimization", "offload_optimizer", "ratio"), (1,), "a part goes to the host only with DeepSpeed's own optimizer"),
    (("zero_optimization", "offload_optimizer", "super_offload"), (False,), "it steps with DeepSpeed's own optimizer"),
    (("torch_autocast", "enabled"), (False,), "training.precision says it"),
    (("hybrid_engine", "enabled"), (False,), "it is for generation inside training, which is not done here"),
    (("compile", "deepcompile"), (False,), "compiled graphs are not run here"),
    (("data_efficiency", "enabled"), (False,), "rows are chosen and packed by the data section"),
    (("autotuning", "enabled"), (False,), "training.micro_batch_size=auto finds the micro-batch"),
    (("checkpoint", "load_universal"), (False,), "checkpoints have a format of their own, read by every engine"),
    (("checkpoint", "use_node_local_storage"), (False,), "checkpoints go into the run folder"),
    (("dataloader_drop_last",), (False,), "every row has its place in the order, none is dropped"),
    (("sequence_parallel_size",), (1,), "sequences are not split over ranks"),
    (("data_parallel_size",), (), "every rank is data-parallel"),
    (("tensor_parallel", "autotp_size"), (0, 1), "layers are not split over ranks"),
    (("expert_parallel",), (), "experts are not split over ranks"),
    (("pipeline",), (), "layers are not split over ranks"),
    *(
        reserved
        for block in ("bf16", "bfloat16")
        for reserved in (
            ((block, "bf16_master_weights_and_grads"), (False,), "master weights are float32"),
            ((block, "bf16_optimizer_states"), (False,), "optimizer state is float32"),
            ((block, "check_grad_overflow"), (True,), "an update from gradients that are not finite would ruin the weights"),
        )
    ),
    (("fp16", "fp16_master_weights_and_grads"), (False,), "master weights are float32"),
    (("fp16", "loss_scale"), (0,), "at a fixed scale a batch that overflows would be taken again for ever; 0 is a scale that adapts"),
    *(
        (("activation_checkpointing", key), (False, None), "training.gradient_checkpointing says what is recomputed")
        for key in ("partition_activations", "contiguous_memory_optimization", "cpu_checkpointing", "number_checkpoints")
    ),
    *(
        ((block, "enabled"), (False,), "nothing goes to the network; tracker.wandb=true writes a W&B run offline")
        for block in ("wandb", "comet")
    ),
    (("zero_optimization", "compute_grad_norm"), (True,), "every step needs its gradient norm"),
    (("zero_optimization", "zenflow"), (None,), "it updates with late gradients, so a step would not be one update"),
    (("zero_optimization", "elastic_checkpoint"), (False,), "checkpoints have a format of their own"),
    (("zero_optimization", "cpu_offload"), (False,), "DeepSpeed calls it deprecated; offload_optimizer: {device: cpu} says it"),
    (("zero_optimization", "cpu_offload_param"), (False,), "DeepSpeed calls it deprecated; offload_param: {device: cpu} says it"),
    (("zero_optimization", "zero_quantized_weights"), (False,), "quantised weights are other numbers"),
    (("zero_optimization", "zero_quantized_nontrainable_weights"), (False,), "quantised weights are other numbers"),
    (("zero_optimization", "zero_quantized_gradients"), (False,), "quantised gradients are other numbers"),
)
# Blocks that are only read where their own rule says so; `enabled: auto` follows training.precision.
PRECISIONS = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16"}


def deepspeed_problems(config: RunConfig, facts: Facts) -> list[str]:
    """Returns what is wrong with `engine.deepspeed`, one sentence each."""
    theirs = read(config.engine)
    if theirs is None:
        return []
    if theirs.problem:
        return [theirs.problem]
    if config.engine.name in ("ddp", "fsdp2"):
        where = theirs.where() if theirs.file is None else f"engine.deepspeed={theirs.file}"
        return [
            f"{where}: engine.name={config.engine.name} does not run DeepSpeed; expected engine.name=zero1, zero2 or zero3, "
            "or zero_optimization.stage in it with engine.name=auto"
        ]
    known = known_keys()
    return [
        *(_unknown(theirs, known, theirs.settings, known.keys) if known else ()),
        *_batch_sizes(config, facts, theirs),
        *_optimizer(config, theirs),
        *_scheduler(config, theirs),
        *_precision(config, theirs),
        *_zero(config, facts, theirs),
        *_reserved(theirs),
    ]


def deepspeed_unknowns(config: RunConfig) -> list[str]:
    """Returns what can only be checked at the start of the run."""
    if config.engine.deepspeed is None or known_keys() is not None:
        return []
    return ["engine.deepspeed: its keys are checked at start; DeepSpeed is not installed here, or its source is not as known"]


def _unknown(theirs: Theirs, known: KnownKeys, block: dict[str, Any], keys: Keys, path: tuple[str, ...] = ()) -> Iterator[str]:
    for key, value in block.items():
        here = (*path, key)
        if key in known.removed:
            yield f"{theirs.where(*here)}: DeepSpeed {known.version} no longer has it; remove it"
        elif key not in keys:
            yield f"{theirs.where(*here)}: no such key of DeepSpeed {known.version}{_hint(key, known, keys)}"
        elif keys[key] and isinstance(value, dict):
            yield from _unknown(theirs, known, value, keys[key], here)
        elif keys[key] and value is not None and value != AUTO:
            yield f"{theirs.where(*here)}={show(value)}: expected a mapping with {', '.join(list(keys[key])[:3])}, ..."


def _hint(key: str, known: KnownKeys, keys: Keys) -> str:
    """Returns the nearest key of the same block, or the block that has this very key."""
    home = next((name for name, inner in known.keys.items() if inner and key in inner and inner is not keys), None)
    if home and key not in ("enabled", "type", "params", "device"):
        return f"; it belongs in {home}"
    if close := nearest(key, keys):
        return f"; did you mean {close}?"
    return f"; expected one of {', '.join(keys)}" if len(keys) <= 10 else ""


def _batch_sizes(config: RunConfig, facts: Facts, theirs: Theirs) -> Iterator[str]:
    training = config.training
    micro, ranks = training.micro_batch_size, ranks_of(config, facts)
    ours: dict[str, tuple[str, Any]] = {
        "train_batch_size": ("training.global_batch_size", training.global_batch_size),
        "train_micro_batch_size_per_gpu": ("training.micro_batch_size", micro),
        "gradient_clipping": ("training.max_grad_norm", training.max_grad_norm),
    }
    for key, (name, value) in ours.items():
        given = theirs.settings.get(key, AUTO)
        if given not in (AUTO, value):
            wish = f"or {name}={show(given)}" if _is_number(given) else f"or {name}=VALUE"
            yield f"{theirs.where(key)}={show(given)}: {name}={show(value)} is what counts; remove it or write auto, {wish}"
    given = theirs.settings.get("gradient_accumulation_steps", AUTO)
    if given == AUTO:
        return
    follows = "it follows from training.global_batch_size, training.micro_batch_size and the number of ranks"
    if not isinstance(micro, int) or ranks is None:
        yield f"{theirs.where('gradient_accumulation_steps')}={show(given)}: {follows}; remove it or write auto"
    elif given != (steps := -(-training.global_batch_size // (ranks * micro))):
        yield (
            f"{theirs.where('gradient_accumulation_steps')}={show(given)}: {follows}, here "
            f"{training.global_batch_size} / ({ranks} x {micro}) = {steps}; remove it or write auto"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _optimizer(config: RunConfig, theirs: Theirs) -> Iterator[str]:
    block, optimizer = theirs.settings.get("optimizer"), config.optimizer
    if not isinstance(block, dict):
        return
    kind = block.get("type", AUTO)
    if kind != AUTO and OPTIMIZERS.get(str(kind).lower()) != optimizer.name:
        yield (
            f"{theirs.where('optimizer', 'type')}={show(kind)}: optimizer.name={optimizer.name} is what steps; remove the "
            "block optimizer, or write the optimizer section to say the same"
        )
        return
    params = block.get("params")
    ours: dict[str, Any] = {"lr": optimizer.lr, "weight_decay": optimizer.weight_decay}
    if optimizer.name == "adamw":
        ours |= {"eps": optimizer.eps, "betas": [optimizer.beta1, optimizer.beta2], "adam_w_mode": True, "torch_adam": True}
    for key, given in (params if isinstance(params, dict) else {}).items():
        where = f"{theirs.where('optimizer', 'params', key)}={show(given)}"
        if key not in ours and given != AUTO:
            yield f"{where}: our {optimizer.name} has no such parameter; remove it"
        elif given not in (AUTO, ours.get(key)):
            name = {"betas": "optimizer.beta1 and beta2"}.get(key, f"optimizer.{key}")
            yield f"{where}: {name}={show(ours[key])} is what counts; remove it or write auto"


def _scheduler(config: RunConfig, theirs: Theirs) -> Iterator[str]:
    block = theirs.settings.get("scheduler")
    if not isinstance(block, dict):
        return
    kind, name = block.get("type", AUTO), config.lr_scheduler.name
    if kind != AUTO and SCHEDULERS.get(str(kind)) != name:
        same = SCHEDULERS.get(str(kind))
        wish = f"or lr_scheduler={same}" if same else "and choose one: lr_scheduler=constant, linear, cosine or wsd"
        yield (
            f"{theirs.where('scheduler', 'type')}={show(kind)}: lr_scheduler.name={name} is what runs; remove the block "
            f"scheduler, {wish}"
        )
        return
    params = block.get("params")
    for key, given in (params if isinstance(params, dict) else {}).items():
        if given != AUTO:
            yield (
                f"{theirs.where('scheduler', 'params', key)}={show(given)}: the lr_scheduler section is what counts; "
                "remove it or write auto"
            )


def _precision(config: RunConfig, theirs: Theirs) -> Iterator[str]:
    precision = config.training.precision
    for block, name in PRECISIONS.items():
        inner = theirs.settings.get(block)
        enabled = inner.get("enabled", AUTO) if isinstance(inner, dict) else AUTO
        if enabled != AUTO and bool(enabled) != (precision == name):
            wish = f"training.precision={name}" if enabled else "choose another training.precision"
            yield (
                f"{theirs.where(block, 'enabled')}={show(enabled)}: training.precision={precision} is what counts; "
                f"remove it or write auto, or {wish}"
            )


def _zero(config: RunConfig, facts: Facts, theirs: Theirs) -> Iterator[str]:
    block, engine = zero_block(theirs.settings), config.engine
    stage = block.get("stage", AUTO)
    where = f"{theirs.where('zero_optimization', 'stage')}={show(stage)}"
    if stage != AUTO and not is_stage(stage):
        yield f"{where}: expected the whole number 1, 2 or 3; engine=ddp is stage 0"
    elif stage != AUTO and engine.name != f"zero{stage}":
        yield f"{where}: engine.name={engine.name}; remove it, or engine.name=zero{stage}"
    for key, path in OFFLOADS.items():
        device, wanted = offload_device(theirs.settings, key), getattr(engine, path.removeprefix("engine."))
        where = theirs.where("zero_optimization", key, "device")
        if device is not None and device not in ("none", "cpu"):
            yield f"{where}={show(device)}: offload goes to host memory only; expected cpu or none"
        elif device == "none" and wanted:
            yield f"{where}=none: {path}=true says the opposite; remove one of them"
        inner = block.get(key)
        if isinstance(inner, dict) and inner.get("pin_memory") is True and not facts.num_gpus:
            yield (
                f"{theirs.where('zero_optimization', key, 'pin_memory')}=true: memory is pinned for an accelerator, this "
                "machine shows no GPU; remove it or write auto"
            )


def _reserved(theirs: Theirs) -> Iterator[str]:
    for path, harmless, why in RESERVED:
        value: Any = theirs.settings
        for key in path:
            value = value.get(key, AUTO) if isinstance(value, dict) else AUTO
        if value != AUTO and not any(value is harmless_value or value == harmless_value for harmless_value in harmless):
            yield f"{theirs.where(*path)}={show(value)}: {why}; remove it"
