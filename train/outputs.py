"""What a run will write, looked at before its first step: room on the disk, and an export that works."""

from __future__ import annotations

from configs.errors import ConfigError
from configs.runfolder import RunFolder
from configs.schema import RunConfig
from train import distributed
from train.adapters import trained_parameters
from train.distributed import Context
from train.export import check_export, original_dtype
from train.inputs import Inputs
from train.learner import Learner
from train.space import check_room, needs_of


def check_outputs(config: RunConfig, run: RunFolder, inputs: Inputs, learner: Learner, context: Context) -> None:
    """Checks before the first step that the disk has room for what will be written, and that the export will work.

    Raises:
        ConfigError: on every rank, what rank 0 found.
    """
    problem = ""
    if context.is_main:
        try:
            dtype = original_dtype(config.model.path)
            export_bytes = check_export(
                learner.model, merge=config.export.merge, is_sharded=learner.engine.is_sharded, dtype=dtype
            )
            needs = needs_of(
                inputs.plan,
                trained=trained_parameters(learner.model)[0],
                optimizer=config.optimizer.name,
                keep=config.checkpoint.keep,
                evaluates=inputs.prepared.validation is not None,
                export_bytes=export_bytes,
            )
            check_room(run, needs)
        except ConfigError as error:
            problem = str(error)
    problem = distributed.broadcast_json(problem)
    if problem:
        raise ConfigError(problem)
