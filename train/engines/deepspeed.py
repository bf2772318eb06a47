"""DeepSpeed's ZeRO stages 1 to 3 (arXiv 1910.02054), prepared by Accelerate: optimizer state, gradients, weights shared out.

Accelerate's own wrapper would step inside `backward`; here the engine is driven directly: the accumulation boundary is
set by hand, and `gradient_accumulation_steps` stays 1, so that DeepSpeed divides the loss by nothing but the ranks.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from configs.schema import EngineSection, TrainingSection
from train.distributed import Context, Dims
from train.engines import MakeOptimizer, StepResult
from train.engines.deepspeed_config import deepspeed_config
from train.engines.local import trained
from train.engines.zero_state import forget_gradients, partitioned_state, sharded_state
from train.quiet import quiet_deepspeed
from train.router import moe_blocks
from train.scores import Scores
from train.shards import LocalShard, TensorReader


class DeepSpeedEngine:
    """ZeRO-1, ZeRO-2 or ZeRO-3, as `engine.name` says."""

    autocasts = False

    def __init__(self, section: EngineSection, training: TrainingSection, context: Context) -> None:
        from accelerate import Accelerator, DeepSpeedPlugin
        from accelerate.utils import DistributedType, InitProcessGroupKwargs
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        quiet_deepspeed(context.device.type)
        os.environ.setdefault("LOCAL_RANK", str(context.local_rank))  # DeepSpeed insists; srun and a lone process set none
        self.dims = Dims(context.rank, context.world_size, context.world_size)
        self.stage = int(section.name.removeprefix("zero"))
        self.loads_shards = self.is_sharded = self.stage == 3
        # ZeRO-1 and 2 make their fp32 masters from working weights that are rounded already.
        self.reads_weights = self.stage == 3 or training.precision != "fp32"
        self.weights_device = context.device
        self._config = deepspeed_config(section, training, context.device.type)
        self._precision = training.precision
        plugin = DeepSpeedPlugin(hf_ds_config=self._config, zero3_init_flag=False)
        backend = InitProcessGroupKwargs(backend=section.backend)
        # On a CPU `cpu=True` would silently train DDP.
        self._accelerator = Accelerator(deepspeed_plugin=plugin, kwargs_handlers=[backend])
        # The plugin has told transformers, which from now on would share out every model that it makes, in its own way:
        # one with random weights would start from other numbers, and the converter of experts would meet their shards.
        unset_hf_deepspeed_config()
        found = (self._accelerator.distributed_type, self._accelerator.num_processes)
        if found != (DistributedType.DEEPSPEED, self.dims.world):
            raise RuntimeError(f"Accelerate made {found[0]} of {found[1]} processes, expected DeepSpeed of {self.dims.world}")

    @contextlib.contextmanager
    def construction(self) -> Iterator[None]:
        """Context in which every layer of a model is shared out as soon as it is made (ZeRO-3)."""
        import deepspeed
        from transformers.modeling_utils import prevent_arange_dtype_change

        config = {**self._config, "train_batch_size": self.dims.world, "train_micro_batch_size_per_gpu": 1}
        # Without the second context RoPE's frequencies would be computed in the weights' type.
        with deepspeed.zero.Init(config_dict_or_path=config), prevent_arange_dtype_change():
            yield

    def prepare(self, scores: Scores, make_optimizer: MakeOptimizer) -> nn.Module:
        """Returns DeepSpeed's engine around `scores`."""
        from deepspeed.utils import set_z3_leaf_modules

        if self.stage == 3 and (blocks := moe_blocks(scores.model)):
            # Which experts run depends on the data: gathered one by one, ranks would wait for each other's.
            set_z3_leaf_modules(scores, blocks)
        self._model = scores.model
        self._named = dict(trained(scores.model))
        engine, _ = self._accelerator.prepare(scores, make_optimizer(scores.model.named_parameters()))
        self._engine: Any = engine
        self.optimizer = self._zero = engine.optimizer
        if engine.zero_optimization_stage() != self.stage or engine.dp_world_size != self.dims.dp_size:
            raise RuntimeError(
                f"DeepSpeed runs stage {engine.zero_optimization_stage()} on {engine.dp_world_size} ranks, "
                f"expected stage {self.stage} on {self.dims.dp_size}"
            )
        self._state = (sharded_state if self.stage == 3 else partitioned_state)(self._zero, self._named)
        module: nn.Module = engine
        return module

    def load_weights(self, reader: TensorReader) -> None:
        """Fills this rank's part of every weight."""
        self._state.load_weights(dict(self._model.named_parameters()), reader)

    def micro_batch(self, last: bool) -> contextlib.AbstractContextManager[object]:
        """Sets the accumulation boundary: gradients are complete after the last micro-batch."""
        self._engine.set_gradient_accumulation_boundary(is_boundary=last)
        return contextlib.nullcontext()

    def backward(self, loss: Tensor, last: bool) -> None:
        """Adds the gradients of `loss`."""
        self._engine.set_gradient_accumulation_boundary(is_boundary=last)
        self._engine.backward(loss)

    def step(self) -> StepResult:
        """Clips and updates; DeepSpeed skips an update with a norm that is not finite, silently, so its count is compared."""
        skipped = self._engine.skipped_steps
        self._engine.step()
        applied = self._engine.skipped_steps == skipped
        norm = self._engine.get_global_grad_norm() if applied else math.inf
        result = float(norm)
        return StepResult(result, applied and math.isfinite(result), overflowed=not applied and self._precision == "fp16")

    def discard(self) -> None:
        """Clears gradients without an update, those of earlier micro-batches too."""
        forget_gradients(self._zero)

    def warm_up(self) -> None:
        """Makes one update that changes nothing: DeepSpeed makes its optimizer state in the first one."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        self._engine.step()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._state.link()
        self._state.set_counters(0.0)

    def state(self) -> dict[str, list[LocalShard]]:
        """Returns this rank's part of fp32 weights and optimizer state."""
        return self._state.shards()

    def load_state(self, reader: TensorReader) -> None:
        """Overwrites this rank's part of weights and optimizer state."""
        self._state.load(reader)

    def gather(self, name: str) -> Tensor:
        """Returns the whole weight: the fp32 master of a trained one."""
        from deepspeed.utils import safe_get_full_fp32_param
        from deepspeed.zero import GatheredParameters

        parameter = self._model.get_parameter(name)
        if parameter.requires_grad:
            whole: Tensor = safe_get_full_fp32_param(parameter)
            return whole.detach().to("cpu", copy=True)
        with GatheredParameters([parameter] if self.stage == 3 else []):
            return parameter.detach().to("cpu", copy=True)

    def replicas(self) -> dict[str, Tensor]:
        """Returns the working weights, which ZeRO-1 and 2 keep whole on every rank; ZeRO-3 keeps nothing twice."""
        return {} if self.stage == 3 else {name: parameter.detach() for name, parameter in self._named.items()}

    def direct_calls(self) -> contextlib.AbstractContextManager[object]:
        """Returns a context that changes nothing: hooks on every layer gather its weights."""
        return contextlib.nullcontext()
