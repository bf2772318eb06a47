"""Every rank holds everything; gradients are averaged. A process alone runs the plain module."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from train.distributed import Context, Dims
from train.engines import StepResult
from train.scores import Scores
from train.shards import LocalShard, TensorReader, check_tensors


class DdpEngine:
    """Data parallelism by torch's DDP, prepared by Accelerate."""

    def __init__(self, context: Context, *, max_grad_norm: float) -> None:
        self.dims = Dims(context.rank, context.world_size, context.world_size)
        self._device = context.device
        self._max_grad_norm = max_grad_norm

    def prepare(self, scores: Scores, optimizer: torch.optim.Optimizer) -> nn.Module:
        """Returns `scores` wrapped for the exchange of gradients; the module itself in one process."""
        self._optimizer = optimizer
        self._named = {name: p for name, p in scores.model.named_parameters() if p.requires_grad}
        self._parameters = list(self._named.values())
        self._module: nn.Module = scores
        if self.dims.world > 1:
            self._module = self._wrap(scores)
        return self._module

    def _wrap(self, scores: Scores) -> nn.Module:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, DistributedType

        ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        accelerator = Accelerator(cpu=self._device.type == "cpu", kwargs_handlers=[ddp])
        expected = DistributedType.MULTI_CPU if self._device.type == "cpu" else DistributedType.MULTI_GPU
        # Accelerate falls back to a world of one without a word when its set-up is not what it expects.
        if (accelerator.distributed_type, accelerator.num_processes) != (expected, self.dims.world):
            raise RuntimeError(
                f"Accelerate made {accelerator.distributed_type} of {accelerator.num_processes} processes, "
                f"expected {expected} of {self.dims.world}"
            )
        module = accelerator.prepare_model(scores)
        if not isinstance(module, nn.parallel.DistributedDataParallel):
            raise RuntimeError(f"Accelerate returned {type(module).__name__}, expected DistributedDataParallel")
        return module

    @contextlib.contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Holds back the exchange of gradients in all but the last micro-batch."""
        if last or self.dims.world == 1:
            yield
        else:
            with self._module.no_sync():  # type: ignore[operator]
                yield

    def backward(self, loss: Tensor, last: bool) -> None:
        """Adds the gradients of `loss`."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self) -> StepResult:
        """Clips to `max_grad_norm` (0: not at all) and updates."""
        total = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        norm = float(total)
        # Far below the limit torch would multiply every gradient by exactly 1; its rounding decides near the limit.
        if self._max_grad_norm and norm > 0.99 * self._max_grad_norm:
            nn.utils.clip_grads_with_norm_(self._parameters, self._max_grad_norm, total)
        applied = math.isfinite(norm)
        if applied:
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return StepResult(norm, applied)

    def discard(self) -> None:
        """Clears gradients without an update."""
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, list[LocalShard]]:
        """Returns the trained weights and their optimizer state, whole: every rank holds the same."""
        tensors: dict[str, Tensor] = {f"model.{name}": parameter.detach() for name, parameter in self._named.items()}
        for name, parameter in self._named.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = torch.as_tensor(value)
        return {name: [LocalShard.whole(tensor)] for name, tensor in tensors.items()}

    def load_state(self, reader: TensorReader) -> None:
        """Overwrites weights and optimizer state in place.

        Raises:
            CheckpointError: the checkpoint lacks a tensor that this run trains, or has one of another shape.
        """
        keys_by_parameter: dict[str, list[str]] = {}
        for name in reader.names():
            if name.startswith("optimizer."):
                parameter_name, key = name.removeprefix("optimizer.").rsplit(".", 1)
                keys_by_parameter.setdefault(parameter_name, []).append(key)
        check_tensors(reader, {f"model.{name}": tuple(parameter.shape) for name, parameter in self._named.items()})
        for name, parameter in self._named.items():
            with torch.no_grad():
                parameter.copy_(reader.read(f"model.{name}"))
            self._optimizer.state[parameter] = {
                # AdamW counts steps in a float32 scalar beside the weights' device or on the CPU: fused wants the former.
                key: reader.read(f"optimizer.{name}.{key}").to(parameter.device)
                for key in keys_by_parameter.get(name, [])
            }

