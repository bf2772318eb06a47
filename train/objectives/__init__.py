"""Objectives by name; contract.py says what one is."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from torch import nn

from configs.schema import ObjectiveSection
from configs.schema.objective import LIKELIHOOD
from data_pipelines.collate import Batch
from train.objectives.contract import Documents, Measured, Objective, Term, WindowObjective
from train.objectives.sft import Sft

__all__ = ["Documents", "Measured", "Objective", "Sft", "Term", "WindowObjective", "build_objective", "look_at_window"]

# Any other objective.name -> where it is; the class takes (section, documents).
OBJECTIVES: dict[str, str] = {
    "dpo": "train.objectives.dpo:Dpo",
    "kto": "train.objectives.kto:Kto",
    "orpo": "train.objectives.orpo:Orpo",
    "simpo": "train.objectives.simpo:Simpo",
    "reward": "train.objectives.reward:Reward",
}


def build_objective(section: ObjectiveSection, documents: Documents) -> Objective:
    """Returns the objective of the configuration for the documents of one part of a store."""
    if section.name in LIKELIHOOD:  # that cpt labels every token is decided when data is prepared
        return Sft()
    module, attribute = OBJECTIVES[section.name].split(":")
    objective: Objective = getattr(import_module(module), attribute)(section, documents)
    return objective


def look_at_window(objective: Objective, module: nn.Module, batches: Iterable[Batch]) -> None:
    """Lets an objective that asks for it see a whole window before its first backward; every rank calls it."""
    if isinstance(objective, WindowObjective):
        objective.window_stats(module, batches)
