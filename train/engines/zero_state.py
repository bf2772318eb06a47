"""Weights and optimizer state inside DeepSpeed's ZeRO optimizers: read and written by parameter name, each rank its part.

Every rank holds, of each trained parameter, one range of it flattened (perhaps none): the fp32 weights that the optimizer
updates, and its moments. What is written must reach the working weights too, or the next forward pass would run on stale
ones. The optimizer's state must exist: DeepSpeed makes it in the first update (`warm_up`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from train.engines.local import check_tensor, optimizer_keys
from train.optimizer import whole_shape
from train.shards import LocalShard, TensorReader, flat_shards

# This rank's range of a parameter's fp32 weight (key None) or of a moment, and where in the whole it starts.
PartOf = Callable[[nn.Parameter, str | None], tuple[Tensor, int] | None]


@dataclass(frozen=True, slots=True)
class ZeroState:
    """The state of the parameters `named` in the optimizer `zero`.

    Attributes:
        zero: DeepSpeed's optimizer.
        named: the trained parameters.
        part_of: finds this rank's range.
        refresh: brings the fp32 weights into the working weights of all ranks.
        link: called once the optimizer's state exists.
    """

    zero: Any
    named: dict[str, nn.Parameter]
    part_of: PartOf
    refresh: Callable[[], None]
    link: Callable[[], None] = lambda: None

    def shards(self) -> dict[str, list[LocalShard]]:
        """Returns this rank's part of weights and optimizer state."""
        shards: dict[str, list[LocalShard]] = {}
        step = next(counters(self.zero), None)
        for name, parameter in self.named.items():
            shape = whole_shape(parameter)
            for key, full in ((None, f"model.{name}"), *((key, f"optimizer.{name}.{key}") for key in self._moments())):
                found = self.part_of(parameter, key)
                shards[full] = flat_shards(found[0], shape, found[1]) if found else []
            if step is not None:
                shards[f"optimizer.{name}.step"] = [LocalShard.whole(step)]
        return shards

    def load(self, reader: TensorReader) -> None:
        """Overwrites trained weights and optimizer state; state that the reader has not becomes that of step 0.

        Raises:
            CheckpointError: a tensor is missing or has another shape.
        """
        keys = optimizer_keys(reader)
        names = reader.names()
        steps = set()
        for name, parameter in self.named.items():
            own = keys.get(name, [])
            for key in (None, *self._moments()):
                full = f"model.{name}" if key is None else f"optimizer.{name}.{key}"
                if key is None or own:
                    check_tensor(reader, names, full, whole_shape(parameter))
                self._write(parameter, key, reader, full if key is None or own else None)
            steps.add(float(reader.read(f"optimizer.{name}.step")) if "step" in own else 0.0)
        self.set_counters(max(steps, default=0.0))
        self.refresh()

    def load_weights(self, every: dict[str, nn.Parameter], reader: TensorReader) -> None:
        """Overwrites the fp32 weights of what is trained, and the shards of frozen weights."""
        for name, parameter in every.items():
            if name in self.named:
                self._write(parameter, None, reader, name)
            elif hasattr(parameter, "ds_tensor"):
                _copy(parameter.ds_tensor, _own_start(parameter), whole_shape(parameter), reader, name)
        self.refresh()

    def set_counters(self, value: float) -> None:
        """Sets the optimizer's step counters."""
        for counter in counters(self.zero):
            counter.fill_(value)

    def _moments(self) -> list[str]:
        state: dict[str, Any] = next(iter(self.zero.optimizer.state.values()), {})
        return [key for key, value in state.items() if torch.is_tensor(value) and value.dim()]

    def _write(self, parameter: nn.Parameter, key: str | None, reader: TensorReader, name: str | None) -> None:
        found = self.part_of(parameter, key)
        if found is None:
            return
        part, start = found
        if name is None:
            part.zero_()
        else:
            part.copy_(reader.read_flat(name, start, start + part.numel()))


def counters(zero: Any) -> Iterator[Tensor]:
    """Yields the step counter of each flat group (AdamW's scalar tensors)."""
    for state in zero.optimizer.state.values():
        if "step" in state:
            yield state["step"]


def partitioned_state(zero: Any, named: dict[str, nn.Parameter]) -> ZeroState:
    """Returns the state of ZeRO-1 or ZeRO-2: flat groups of parameters, cut into one range a rank."""

    def part_of(parameter: nn.Parameter, key: str | None) -> tuple[Tensor, int] | None:
        mapping = parameter._hp_mapping  # type: ignore[attr-defined]
        if mapping is None:  # the parameter lies wholly in other ranks' ranges
            return None
        return mapping.get_hp_fragment(key).detach(), mapping.lp_fragment_address.start

    def link() -> None:
        # DeepSpeed links parameters to their moments after the update of the first group; those of later groups have none
        # yet then, and stay without.
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()

    return ZeroState(zero, named, part_of, zero.update_lp_params, link)


def sharded_state(zero: Any, named: dict[str, nn.Parameter]) -> ZeroState:
    """Returns the state of ZeRO-3: each parameter cut into equal ranges, the last ones padded."""

    def part_of(parameter: nn.Parameter, key: str | None) -> tuple[Tensor, int] | None:
        part, _ = zero._get_fp32_opt_state_partition(parameter, release_swap_buffers=False, optim_state_key=key)
        start = _own_start(parameter)
        length = min(part.numel(), prod(whole_shape(parameter)) - start)
        return (part.detach().narrow(0, 0, length), start) if length > 0 else None

    def refresh() -> None:
        # Small weights stay gathered between steps: they are shared out again, then gathered anew.
        zero._partition_all_parameters()
        for number in range(len(zero.fp16_partitioned_groups_flat)):
            zero._reassign_or_swap_out_partitioned_parameters(number)
        if zero.persistent_parameters:
            zero.persistent_parameters[0].all_gather(zero.persistent_parameters)

    return ZeroState(zero, named, part_of, refresh)


def forget_gradients(zero: Any) -> None:
    """Drops the gradients of earlier micro-batches of this step."""
    zero.zero_grad(set_to_none=True)
    if hasattr(zero, "averaged_gradients") and hasattr(zero, "all_grad_tensors"):
        # ZeRO-1 and 2 add to what an earlier micro-batch left, unless it is the first.
        zero.micro_step_id = -1
        for group in zero.averaged_gradients:
            zero.averaged_gradients[group] = None
            zero.all_grad_tensors[group] = None


def _own_start(parameter: Any) -> int:
    return int(parameter.ds_tensor.numel()) * torch.distributed.get_rank(parameter.ds_process_group)


def _copy(part: Tensor, start: int, shape: tuple[int, ...], reader: TensorReader, name: str) -> None:
    length = min(part.numel(), prod(shape) - start)
    if length > 0:
        with torch.no_grad():
            part.view(-1).narrow(0, 0, length).copy_(reader.read_flat(name, start, start + length))
