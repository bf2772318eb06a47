"""Chat templates compiled as transformers compiles them: sandboxed Jinja with its filters, functions and `generation`.

Two differences, both so that a store is the same whenever and wherever it is built: `strftime_now` is frozen, and a
`{% generation %}` block is marked in the output by two characters that no text may contain (Unicode noncharacters).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

START = "\ufdd0"
END = "\ufdd1"
# Llama-3's own fallback date.
FROZEN_DATE = datetime(2024, 7, 26)


_DICT_NAMES = frozenset(dir(dict))
# What Jinja's sandbox allows on a text anyway; `format` and `format_map` have its own safe versions.
_TEXT_METHODS = frozenset(name for name in dir(str) if not name.startswith("_")) - {"format", "format_map"}


class _Namespace(Namespace):
    """A template's own variables; names that start with an underscore would reach into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # No named `self`: a template may well write namespace(self=...).
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _refuse_private(name)
        Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError("a chat template may not set a name that starts with an underscore")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with a short way for what chat templates do most: `message.role` and methods of a text."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict and attribute in obj and attribute not in _DICT_NAMES:
            return obj[attribute]
        if kind is str and attribute in _TEXT_METHODS:
            return getattr(obj, attribute)
        if (kind is _Namespace or kind is LoopContext) and attribute[0] != "_":
            try:
                return getattr(obj, attribute)
            except AttributeError:
                pass
        return super().getattr(obj, attribute)


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` yields its content between START and END."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        return START + caller() + END


class _TemplateDict:
    """The `dict` of a template: builds dictionaries and offers nothing else of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(pattern: str) -> str:
    return FROZEN_DATE.strftime(pattern)


@lru_cache(maxsize=16)
def compile_template(source: str) -> jinja2.Template:
    """Returns the compiled template.

    Raises:
        jinja2.TemplateSyntaxError: `source` is not a template.
    """
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["namespace"] = _Namespace
    environment.globals["dict"] = _TemplateDict()
    template = environment.from_string(source)
    # As a plain dictionary: jinja copies its ChainMap at every rendering, which took longer than the rendering.
    template.globals = dict(template.globals)
    return template
