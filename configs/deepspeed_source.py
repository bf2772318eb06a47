"""Which keys the installed DeepSpeed reads, found in its source text.

Importing DeepSpeed imports torch and takes seconds; a refused key must not. So its configuration models are parsed:
pydantic classes give their fields and aliases, plain code gives the keys that it looks up.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

# Keys by name; None: what is inside is not known here, DeepSpeed itself judges it at the start of the run.
Keys = dict[str, Any]

CONFIG = "runtime/config.py"
# Where code looks up a key of the whole settings, under the names that it gives them there.
TOP_LEVEL = {
    CONFIG: ("param_dict", "self._param_dict", "config"),
    "__init__.py": ("config",),
    "runtime/zero/config.py": ("param_dict",),
    "runtime/precision_config.py": ("param_dict",),
    "runtime/activation_checkpointing/config.py": ("param_dict",),
    "runtime/swap_tensor/aio_config.py": ("param_dict",),
    "runtime/tensor_parallel/config.py": ("ds_config",),
    "comm/config.py": ("ds_config",),
    "monitor/config.py": ("param_dict",),
    "utils/config.py": ("param_dict",),
    "profiling/config.py": ("param_dict",),
    "datastates/config.py": ("param_dict",),
}
# Blocks whose code looks up another block's keys under the same name; their own name is known.
OPAQUE = ("data_efficiency", "autotuning")
MODELS = {
    "zero_optimization": "DeepSpeedZeroConfig",
    "bf16": "DeepSpeedBF16Config",
    "bfloat16": "DeepSpeedBF16Config",
    "fp16": "DeepSpeedFP16Config",
    "tensorboard": "TensorBoardConfig",
    "wandb": "WandbConfig",
    "csv_monitor": "CSVConfig",
    "comet": "CometConfig",
    "comms_logger": "CommsLoggerConfig",
    "compile": "CompileConfig",
    "hybrid_engine": "HybridEngineConfig",
    "tensor_parallel": "TPTrainingConfig",
}
LOOKED_UP = {
    "activation_checkpointing": (("runtime/activation_checkpointing/config.py", "act_chkpt_config_dict"),),
    "flops_profiler": (("profiling/config.py", "flops_profiler_dict"),),
    "aio": (("runtime/swap_tensor/aio_config.py", "aio_dict"),),
    "checkpoint": (
        (CONFIG, "checkpoint_params"),
        ("runtime/model_checkpointing/config.py", "checkpoint_dict"),
        ("runtime/model_checkpointing/config.py", "param_dict"),
    ),
    "data_types": ((CONFIG, "data_types_params"),),
    "torch_autocast": ((CONFIG, "param_dict[TORCH_AUTOCAST]"),),
    "optimizer": ((CONFIG, "param_dict[OPTIMIZER]"),),
    "scheduler": ((CONFIG, "param_dict[SCHEDULER]"),),
    "timers": (("utils/config.py", "param_dict[TIMERS]"),),
}
MODEL_FILES = (
    CONFIG,
    "runtime/zero/config.py",
    "runtime/zero/offload_config.py",
    "runtime/zero/leaf_module_config.py",
    "runtime/zenflow/zenflow_config.py",
    "runtime/precision_config.py",
    "runtime/tensor_parallel/config.py",
    "comm/config.py",
    "compile/config.py",
    "monitor/config.py",
    "utils/config.py",
)
CONSTANT_FILES = (
    "runtime/constants.py",
    "runtime/swap_tensor/constants.py",
    "runtime/model_checkpointing/constants.py",
    "comm/constants.py",
    "profiling/constants.py",
    *TOP_LEVEL,
)
# Tables in CONFIG of keys that earlier versions had; they are refused with a reason.
REMOVED = ("_REMOVED_TOP_LEVEL_CONFIG_KEYS", "_REMOVED_ZERO_CONFIG_KEYS")


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """What one DeepSpeed version reads, and what it refuses because it is gone."""

    version: str
    keys: Keys
    removed: frozenset[str]


@cache
def known_keys() -> KnownKeys | None:
    """Returns the keys of the installed DeepSpeed; None when it is not installed or its source cannot be understood."""
    found = importlib.util.find_spec("deepspeed")
    if found is None or not found.submodule_search_locations:
        return None
    try:
        return read_keys(Path(found.submodule_search_locations[0]), importlib.metadata.version("deepspeed"))
    except (OSError, ValueError, SyntaxError, KeyError, importlib.metadata.PackageNotFoundError):
        return None


def read_keys(package: Path, version: str) -> KnownKeys:
    """Returns the keys that the DeepSpeed in folder `package` reads.

    Raises:
        OSError, SyntaxError: a file is missing or no Python.
        KeyError: a configuration model is not where it was.
        ValueError: the code looks up no key that every version had.
    """
    files = {*CONSTANT_FILES, *MODEL_FILES, *(file for places in LOOKED_UP.values() for file, _ in places)}
    source = {name: ast.parse((package / name).read_text(encoding="utf-8")) for name in files}
    constants = {key: value for name in CONSTANT_FILES for key, value in _constants(source[name])}
    models = {node.name: node for name in MODEL_FILES for node in source[name].body if isinstance(node, ast.ClassDef)}
    keys: Keys = {
        key: None for name, containers in TOP_LEVEL.items() for key in _looked_up(source[name], containers, constants)
    }
    if "train_batch_size" not in keys or "zero_optimization" not in keys:
        raise ValueError("no keys found")
    keys |= dict.fromkeys(OPAQUE)
    removed = frozenset(key for name in REMOVED for key in _table_keys(source[CONFIG], name))
    for key in removed:
        keys.pop(key, None)
    keys |= {key: _fields(models[name], models) for key, name in MODELS.items()}
    for key, places in LOOKED_UP.items():
        inner = [name for file, container in places for name in _looked_up(source[file], (container,), constants)]
        keys[key] = dict.fromkeys(inner) or None
    if keys["timers"]:
        keys["timers"] = dict.fromkeys(keys["timers"], _fields(models["DeepSpeedThroughputTimerConfig"], models))
    return KnownKeys(version, keys, removed)


def _constants(tree: ast.Module) -> list[tuple[str, str]]:
    """Returns the module's `NAME = "text"`; the last one of a name holds."""
    return [
        (target.id, node.value.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]


def _fields(model: ast.ClassDef, models: dict[str, ast.ClassDef]) -> Keys:
    """Returns the fields of a pydantic class and their aliases; a field that is a model itself has its fields inside."""
    keys: Keys = {}
    for node in model.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        named = [name.id for name in ast.walk(node.annotation) if isinstance(name, ast.Name) and name.id in models]
        inside = [name for name in named if any("ConfigModel" in ast.unparse(base) for base in models[name].bases)]
        value = _fields(models[inside[0]], models) if inside else None
        keys[node.target.id] = value
        if isinstance(node.value, ast.Call):
            aliases = [word.value for word in node.value.keywords if word.arg == "alias"]
            keys |= {str(alias.value): value for alias in aliases if isinstance(alias, ast.Constant)}
    return keys


def _looked_up(tree: ast.Module, containers: tuple[str, ...], constants: dict[str, str]) -> list[str]:
    """Returns every key that the code reads from one of `containers`, as source text names them."""
    found: list[str] = []
    for node in ast.walk(tree):
        key = _key_read(node, containers)
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            found.append(key.value)
        elif isinstance(key, ast.Name) and key.id in constants:
            found.append(constants[key.id])
        # `def get_type(param_dict, name=COMMUNICATION_DATA_TYPE)`
        if isinstance(node, ast.FunctionDef) and node.args.args and node.args.args[0].arg in containers:
            found += [constants[d.id] for d in node.args.defaults if isinstance(d, ast.Name) and d.id in constants]
        # `{key: param_dict.get(key, {}) for key in ("tensorboard", "wandb")}`
        if isinstance(node, ast.DictComp) and isinstance(key := _key_read(node.value, containers), ast.Name):
            listed = node.generators[0].iter
            if isinstance(listed, ast.Tuple):
                found += [str(item.value) for item in listed.elts if isinstance(item, ast.Constant)]
    return found


def _key_read(node: ast.AST, containers: tuple[str, ...]) -> ast.expr | None:
    """Returns the key in `c[key]`, `c.get(key)`, `key in c`, `key in c.keys()` or `any_function(c, key, ...)`."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) in containers:
        return node.slice
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
        return node.left if ast.unparse(node.comparators[0]).removesuffix(".keys()") in containers else None
    if not isinstance(node, ast.Call) or not node.args:
        return None
    if isinstance(node.func, ast.Attribute) and node.func.attr == "get" and ast.unparse(node.func.value) in containers:
        return node.args[0]
    return node.args[1] if len(node.args) > 1 and ast.unparse(node.args[0]) in containers else None


def _table_keys(tree: ast.Module, name: str) -> list[str]:
    """Returns the keys of the module's `NAME = {"key": ...}`; none when there is no such table."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and ast.unparse(node.targets[0]) == name:
            return [str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)]
    return []
