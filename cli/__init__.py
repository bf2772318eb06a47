"""The `aisc` command."""

import sys
from pathlib import Path

# A user's folder often holds a train.py or a configs/, and PYTHONPATH=. puts it first: our own folder goes before it.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [_ROOT, *(entry for entry in sys.path if entry != _ROOT)]
