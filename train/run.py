"""One training run, from a checked configuration to a finished run folder. The composition root of `train`.

Every rank runs this with the same configuration. Order: data (a store on disk, before any process group), model, run
folder, rehearsal, state, loop, export.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from configs import compose
from configs.durations import parse_duration
from configs.errors import ConfigError, RunFailed
from configs.runfolder import RunFolder, runs_dir
from configs.schema import RunConfig
from data_pipelines.build import Prepared, held_out_prompts, prepare
from data_pipelines.ledger import Ledger
from data_pipelines.loader import Loader
from data_pipelines.order import Order
from train import distributed

logger = logging.getLogger(__name__)
