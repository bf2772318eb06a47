"""Every rank holds everything; gradients are averaged. A process alone runs the plain module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn

from configs.schema import EngineSection, TrainingSection
from train.distributed import Context, Dims
from train.engines import MakeOptimizer, StepResult
from train.engines.local import clipped_step, fill_part, load_torch_state, quiet_update, torch_state, trained
from train.loss_scale import LossScale
from train.scores import Scores
from train.shards import LocalShard, TensorReader


class DdpEngine:
    """Data parallelism by torch's DDP, prepared by Accelerate."""

    autocasts = True
    loads_shards = reads_weights = False
    is_sharded = False

    def __init__(self, section: EngineSection, training: TrainingSection, context: Context) -> None:
        self.dims = Dims(context.rank, context.world_size, context.world_size)
        self.weights_device = context.device
        self._max_grad_norm = training.max_grad_norm
        self._scale = LossScale.of(training.precision)

    def construction(self) -> contextlib.AbstractContextManager[object]:
        """Returns a context that changes nothing: the model is built whole."""
        return contextlib.nullcontext()

    def prepare(self, scores: Scores, make_optimizer: MakeOptimizer) -> nn.Module:
        """Returns `scores` wrapped for the exchange of gradients; the module itself in one process."""
        self._model = scores.model
        self.optimizer = make_optimizer(scores.model.named_parameters())
        self._named = dict(trained(scores.model))
        self._parameters = list(self._named.values())
        self._module: nn.Module = scores
        if self.dims.world > 1:
            self._module = self._wrap(scores)
        return self._module

    def _wrap(self, scores: Scores) -> nn.Module:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, DistributedType

        ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        on_cpu = self.weights_device.type == "cpu"
        accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=[ddp])
        expected = DistributedType.MULTI_CPU if on_cpu else DistributedType.MULTI_GPU
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

    def load_weights(self, reader: TensorReader) -> None:
        """Overwrites every weight."""
        for name, parameter in self._model.named_parameters():
            fill_part(parameter, reader, name)

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
        (loss * self._scale.value if self._scale.is_dynamic else loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> StepResult:
        """Clips and updates."""
        return clipped_step(self._named, self.optimizer, self._max_grad_norm, self._scale)

    def discard(self) -> None:
        """Clears gradients without an update."""
        self.optimizer.zero_grad(set_to_none=True)

    def replicas(self) -> dict[str, Tensor]:
        """Returns the trained weights, which every rank holds alike."""
        return {name: parameter.detach() for name, parameter in self._named.items()}

    def warm_up(self) -> None:
        """Makes one update that changes nothing."""
        quiet_update(self.optimizer)

    def state(self) -> dict[str, list[LocalShard]]:
        """Returns the trained weights and their optimizer state, whole: every rank holds the same."""
        return torch_state(self._named, self.optimizer)

    def load_state(self, reader: TensorReader) -> None:
        """Overwrites weights and optimizer state in place."""
        load_torch_state(self._named, self.optimizer, reader)

    def gather(self, name: str) -> Tensor:
        """Returns a copy of the weight."""
        return self._model.get_parameter(name).detach().to("cpu", copy=True)

    def direct_calls(self) -> contextlib.AbstractContextManager[object]:
        """Returns a context that changes nothing: the model is whole."""
        return contextlib.nullcontext()
