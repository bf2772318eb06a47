"""The configuration that a run was started with; what it reads lies where it lay then, from wherever this is called. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yaml import YAMLError

from configs.compose import thaw
from configs.errors import CheckpointError
from configs.runfolder import RunFolder, read_json
from configs.schema import RunConfig
from configs.schema.objective import START


def frozen_config(run: RunFolder) -> RunConfig:
    """Returns the configuration that the newest attempt of the chain ran with.

    Raises:
        CheckpointError: no attempt came so far, or the file is damaged.
    """
    for link in run.chain():
        path = link.attempt.config_path
        if not path.is_file():
            continue
        try:
            config = thaw(path.read_text(encoding="utf-8"))
        except (YAMLError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: damaged, no longer what the run wrote; aisc verify {run.name} says more") from error
        _place(config, run, link.attempt.read_start() or {})
        return config
    raise CheckpointError(f"{run.path}: no attempt has come as far as its config.yaml; expected a run that has started")


def _place(config: RunConfig, run: RunFolder, start: dict[str, Any]) -> None:
    """Makes relative paths those of the folder in which the run was started.

    start.json has model and tokenizer with their folders; of the others only a finished run says where it was started.
    """
    origin = Path((read_json(run.path / "manifest.json") or {}).get("working_folder", "."))

    def place(path: str) -> str:
        return str(origin / Path(path).expanduser())

    for name, key in (("path", "weight_files"), ("tokenizer", "tokenizer_files")):
        files = list(start.get(key) or {})
        if getattr(config.model, name) and files:
            setattr(config.model, name, place(str(Path(files[0]).parent)))
    if config.data.chat_template:
        config.data.chat_template = place(config.data.chat_template)
    if config.objective.reference != START:
        config.objective.reference = place(config.objective.reference)
    evaluation = config.evaluation
    evaluation.forgetting = [place(path) for path in evaluation.forgetting]
    evaluation.tasks = {name: place(path) for name, path in evaluation.tasks.items()}
    evaluation.base = place(evaluation.base) if evaluation.base else None
