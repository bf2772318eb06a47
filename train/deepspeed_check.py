"""DeepSpeed's own judgement of the merged settings, before anything is built with them."""

from __future__ import annotations

import copy
import importlib.metadata
from typing import Any

from configs.deepspeed_source import known_keys
from configs.engine_rules import DEEPSPEED
from configs.errors import ConfigError
from configs.values import show


def check_with_deepspeed(settings: dict[str, Any]) -> None:
    """Passes `settings` through DeepSpeed's configuration models.

    Args:
        settings: ours and the user's, merged (configs/deepspeed_keys.py); without `auto`.

    Raises:
        ConfigError: DeepSpeed refuses them; names the first key and its reason. Or nobody knows which keys it reads: of one
            that is none of them it says nothing at the top level.
    """
    if known_keys() is None:
        version = importlib.metadata.version("deepspeed")
        raise ConfigError(
            f"engine.deepspeed: which keys DeepSpeed {version} reads is not known here, and a misspelt one would be ignored; "
            f"remove the settings, or pip install deepspeed=={'.'.join(map(str, DEEPSPEED[0]))}"
        )
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError
    from pydantic import ValidationError

    try:
        DeepSpeedConfig(copy.deepcopy(settings))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or error.title
        raise ConfigError(
            f"engine.deepspeed: {_block(settings, first['loc'])}{key}={show(first['input'])}: DeepSpeed refuses it "
            f"({first['msg'][0].lower()}{first['msg'][1:]})"
        ) from error
    except (DeepSpeedConfigError, ValueError, TypeError, AssertionError) as error:
        raise ConfigError(f"engine.deepspeed: DeepSpeed refuses it ({str(error).splitlines()[0]})") from error


def _block(settings: dict[str, Any], location: tuple[Any, ...]) -> str:
    """Returns `zero_optimization.` for a key inside it: a model does not know under which name it was given."""
    for name, block in settings.items():
        inner: Any = block
        for part in location:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if location and inner is not None:
            return f"{name}."
    return ""
