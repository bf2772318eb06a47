"""The whole configuration as typed dataclasses: the only home of defaults."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from configs.schema.adapter import AdapterSection
from configs.schema.cluster import ClusterSection
from configs.schema.data import DataSection, SourceSection
from configs.schema.evaluation import EvaluationSection
from configs.schema.execution import (
    CheckpointSection,
    EngineSection,
    ExportSection,
    GuardSection,
    RunSection,
    TrackerSection,
)
from configs.schema.model import ModelSection
from configs.schema.objective import ObjectiveSection
from configs.schema.sweep import SweepSection
from configs.schema.training import LrSchedulerSection, OptimizerSection, TrainingSection


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """What one run is. Sections appear in the order in which help shows them."""

    model: ModelSection = field(default_factory=ModelSection)
    adapter: AdapterSection = field(default_factory=AdapterSection)
    data: DataSection = field(default_factory=DataSection)
    objective: ObjectiveSection = field(default_factory=ObjectiveSection)
    training: TrainingSection = field(default_factory=TrainingSection)
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    lr_scheduler: LrSchedulerSection = field(default_factory=LrSchedulerSection)
    engine: EngineSection = field(default_factory=EngineSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    guard: GuardSection = field(default_factory=GuardSection)
    export: ExportSection = field(default_factory=ExportSection)
    run: RunSection = field(default_factory=RunSection)
    cluster: ClusterSection = field(default_factory=ClusterSection)
    tracker: TrackerSection = field(default_factory=TrackerSection)
    sweep: SweepSection = field(default_factory=SweepSection)


SECTIONS: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(RunConfig))

__all__ = [
    "SECTIONS",
    "AdapterSection",
    "CheckpointSection",
    "ClusterSection",
    "DataSection",
    "EngineSection",
    "EvaluationSection",
    "ExportSection",
    "GuardSection",
    "LrSchedulerSection",
    "ModelSection",
    "ObjectiveSection",
    "OptimizerSection",
    "RunConfig",
    "RunSection",
    "SourceSection",
    "SweepSection",
    "TrackerSection",
    "TrainingSection",
]
