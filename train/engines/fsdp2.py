"""Weights, gradients and optimizer state shared out by torch's `fully_shard` (FSDP2), layer by layer.

`fully_shard` is called here and not through Accelerate, whose FSDP path does not exist on a CPU: tests run the code that
users run. With `engine.shard_size` below the world size, groups of that many ranks hold a copy each (HSDP).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from configs.schema import EngineSection, TrainingSection
from train.distributed import Context, Dims
from train.engines import MakeOptimizer, StepResult
from train.engines.local import (
    clipped_step,
    fill_part,
    load_torch_state,
    local_part,
    quiet_update,
    torch_state,
    trained,
)
from train.loss_scale import LossScale
from train.scores import Scores, base_model
from train.shards import LocalShard, TensorReader

_COMPUTE = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Fsdp2Engine:
    """Fully sharded data parallelism over a mesh of all ranks, or of replicas of `shard_size` ranks."""

    autocasts = False
    loads_shards = reads_weights = True
    is_sharded = True

    def __init__(self, section: EngineSection, training: TrainingSection, context: Context) -> None:
        self.dims = Dims(context.rank, context.world_size, context.world_size)
        self._device = context.device
        self._offloads = section.offload_parameters
        # fully_shard moves each group to its device as it shards it: the whole model never has to fit there.
        self.weights_device = torch.device("cpu")
        self._mesh = _make_mesh(context, section.shard_size)
        self._max_grad_norm = training.max_grad_norm
        self._precision = training.precision
        self._scale = LossScale.of(training.precision)

    def construction(self) -> contextlib.AbstractContextManager[object]:
        """Returns a context in which parameters take no memory; buffers are real."""
        from accelerate import init_empty_weights

        context: contextlib.AbstractContextManager[object] = init_empty_weights(include_buffers=False)
        return context

    def prepare(self, scores: Scores, make_optimizer: MakeOptimizer) -> nn.Module:
        """Shards every decoder layer, then what is left (embeddings, norm, head) as one group."""
        options: dict[str, Any] = {
            "mesh": self._mesh,
            "mp_policy": _mixed_precision(self._precision),
            "offload_policy": self._offload_policy(),
        }
        for layer in base_model(scores.model).get_decoder().layers:
            fully_shard(layer, **options)
        fully_shard(scores, **options)
        _allocate(scores, torch.device("cpu") if self._offloads else self._device, self._device)
        self._scores, self._model = scores, scores.model
        self._named = dict(trained(scores.model))
        self._parameters = list(self._named.values())
        if not all(isinstance(parameter, DTensor) for parameter in self._parameters):
            raise RuntimeError("fully_shard left a trained parameter whole")
        self.optimizer = make_optimizer(scores.model.named_parameters())
        return scores

    def _offload_policy(self) -> OffloadPolicy:
        if not self._offloads:
            return OffloadPolicy()
        return CPUOffloadPolicy(pin_memory=self._device.type == "cuda")

    def load_weights(self, reader: TensorReader) -> None:
        """Fills this rank's part of every weight, and buffers that a checkpoint holds."""
        for name, parameter in self._model.named_parameters():
            fill_part(parameter, reader, name)

    def micro_batch(self, last: bool) -> contextlib.AbstractContextManager[object]:
        """Gradients are reduced in every micro-batch: held back, each rank would keep all of them, unsharded."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor, last: bool) -> None:
        """Adds the gradients of `loss`."""
        (loss * self._scale.value if self._scale.is_dynamic else loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> StepResult:
        """Clips by the norm over all shards, and updates."""
        return clipped_step(self._named, self.optimizer, self._max_grad_norm, self._scale)

    def discard(self) -> None:
        """Clears gradients without an update, and frees what the forward pass had gathered."""
        self.optimizer.zero_grad(set_to_none=True)
        self._scores.reshard()  # type: ignore[operator]

    def warm_up(self) -> None:
        """Makes one update that changes nothing."""
        quiet_update(self.optimizer)

    def state(self) -> dict[str, list[LocalShard]]:
        """Returns this rank's part of the trained weights and their optimizer state."""
        return torch_state(self._named, self.optimizer)

    def load_state(self, reader: TensorReader) -> None:
        """Overwrites this rank's part of weights and optimizer state in place."""
        # Embeddings and head stay gathered after a forward pass without a backward one (an evaluation, the reference check):
        # the next forward pass would run on what they were.
        self._scores.reshard()  # type: ignore[operator]
        load_torch_state(self._named, self.optimizer, reader)

    def gather(self, name: str) -> Tensor:
        """Returns the whole weight."""
        parameter = self._model.get_parameter(name).detach()
        return (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).cpu()

    def replicas(self) -> dict[str, Tensor]:
        """Returns this rank's parts of the weights when there are several copies of the model; one copy has no replica."""
        if self._mesh.ndim == 1:
            return {}
        parts = {name: local_part(parameter.detach()) for name, parameter in self._named.items()}
        return {f"{name}[{start}:{start + part.numel()}]": part for name, (part, start) in parts.items()}

    @contextlib.contextmanager
    def direct_calls(self) -> Iterator[None]:
        """Gathers embeddings, norm and head, which the prepared module's own call would gather."""
        self._scores.unshard()  # type: ignore[operator]
        try:
            yield
        finally:
            self._scores.reshard()  # type: ignore[operator]


def _make_mesh(context: Context, shard_size: int | None) -> DeviceMesh:
    kind, world = context.device.type, context.world_size
    if shard_size is None or shard_size == world:
        return init_device_mesh(kind, (world,), mesh_dim_names=("shard",))
    return init_device_mesh(kind, (world // shard_size, shard_size), mesh_dim_names=("replicate", "shard"))


def _mixed_precision(precision: str) -> MixedPrecisionPolicy:
    if precision == "fp32":
        return MixedPrecisionPolicy()
    # Sums over ranks in fp32: bf16 keeps 8 bits, and a sum over many ranks loses some of them.
    return MixedPrecisionPolicy(param_dtype=_COMPUTE[precision], reduce_dtype=torch.float32)


def _allocate(module: nn.Module, parameters_on: torch.device, buffers_on: torch.device) -> None:
    """Gives parameters that were built empty their memory, and moves buffers to where they are used."""
    module._apply(  # type: ignore[no-untyped-call]
        lambda t: torch.empty_like(t, device=parameters_on) if t.is_meta else t
    )
    for inner in module.modules():
        for name, buffer in inner._buffers.items():
            if buffer is not None:
                inner._buffers[name] = buffer.to(buffers_on)
