"""A chat as the text the model sees, with the characters it learns: each assistant turn and its end-of-turn token.

Where a turn starts is what the model is given at inference (the generation prompt, `add_generation_prompt`), where it
ends is the first control token behind its text. Three ways to find both, each exact or refused, never guessed:

- `{% generation %}` blocks of the template, with the end-of-turn token added when the block leaves it out;
- one rendering with every content between two marker characters: what stands between contents is the template's own
  text, in which header and end token are looked up. Used only when removing the markers gives the plain rendering;
- prefixes: the prompt of each assistant turn must be a prefix of the whole text (tool calls, reasoning, templates that
  trim or rewrite contents).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from configs.errors import DataError
from data_pipelines.formats.document import REASONING_KEYS, Chat, Message
from data_pipelines.jinja import END, START, compile_template
from data_pipelines.problems import WHOLE_ROW, RowProblem
from data_pipelines.turns import learn

Span = tuple[int, int]
_PIECES = re.compile(f"[{START}{END}]")
_MARKERS = str.maketrans("", "", START + END)
_MOST_ROLES = 1024
_USER: Message = {"role": "user", "content": "Ape"}


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text of a chat and its learned characters: `spans` are [start, end), ending behind the end-of-turn token."""

    text: str
    spans: list[Span]


class ChatTemplate:
    """Renders chats with one template and its arguments.

    Args:
        source: the Jinja text.
        args: data.template_args, over the tokenizer's special tokens.
        special_tokens: bos_token, eos_token and so on, as the template may name them.
        control_tokens: every text that the tokenizer turns into one added token.

    Raises:
        DataError: the template cannot be compiled, fails on a plain chat, or writes no end-of-turn token.
    """

    def __init__(
        self, source: str, *, args: dict[str, Any], special_tokens: dict[str, str], control_tokens: Sequence[str]
    ) -> None:
        self.source = source
        self._args = {**special_tokens, **args}
        longest_first = sorted((token for token in control_tokens if token.strip()), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        try:
            self._template = compile_template(source)
        except jinja2.TemplateSyntaxError as error:
            raise DataError(
                f"chat template, line {error.lineno}: {error.message}; data.chat_template names another"
            ) from error
        self.has_generation = re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", source) is not None
        self._between: dict[tuple[str, ...], tuple[list[str], list[Span | None]]] = {}
        self._arguments_as_text = False
        self.shape = learn(lambda messages, asks: self._render(messages, None, generation_prompt=asks), self._control)
        self._arguments_as_text = self._wants_text_arguments()

    @property
    def end_of_turn(self) -> str:
        """The control token that ends the last assistant turn."""
        return self.shape.end_of_turn

    def _wants_text_arguments(self) -> bool:
        """Returns whether the arguments of a tool call must be JSON text (DeepSeek-V3) instead of an object."""
        call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
        as_text = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
        for candidate in (call, as_text):
            try:
                self._render([_USER, {"role": "assistant", "content": "", "tool_calls": [candidate]}], None)
            except RowProblem:
                continue
            return candidate is as_text
        return False

    def prompt(self, messages: list[Message], tools: list[Any] | None = None) -> str:
        """Returns the text that asks for the next assistant turn."""
        return self._render(self._plain(messages), tools, generation_prompt=True)

    def render(self, chat: Chat) -> Rendered:
        """Returns the text of a chat and what is learned in it.

        Raises:
            RowProblem: the template refuses the chat, or has no exact boundaries for it.
        """
        messages = self._plain(chat.messages)
        self._check_texts(messages)
        if self.has_generation:
            return self._from_blocks(self._render(messages, chat.tools, keep_markers=True), messages)
        text = self._render(messages, chat.tools)
        spans = self._from_marks(text, messages, chat.tools)
        return Rendered(text, self._from_prefixes(text, messages, chat.tools) if spans is None else spans)

    def _check_texts(self, messages: list[Message]) -> None:
        """Refuses texts that would forge a boundary: our markers, or an end of turn inside an assistant's text."""
        turns = 0
        for message in messages:
            content = message["content"]
            if START in content or END in content:
                raise RowProblem(WHOLE_ROW, "holds U+FDD0 or U+FDD1", "these are no characters; remove them")
            if message["role"] == "assistant":
                turns += 1
                if self.end_of_turn in content:
                    raise RowProblem(
                        WHOLE_ROW, f"{self.end_of_turn} inside an assistant's text", "remove it; the template writes it"
                    )
            elif turns and not self.shape.closes_history:
                raise _no_end()

    def _render(
        self,
        messages: list[Message],
        tools: list[Any] | None,
        *,
        generation_prompt: bool = False,
        keep_markers: bool = False,
    ) -> str:
        try:
            text = self._template.render(
                messages=messages, tools=tools, documents=None, add_generation_prompt=generation_prompt, **self._args
            )
        except jinja2.TemplateError as error:
            raise _refusal(error, self.source) from error
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
            raise _refusal(error, self.source) from error
        return text if keep_markers or not self.has_generation else text.translate(_MARKERS)

    # -- {% generation %} ---------------------------------------------------------------------------------------------

    def _from_blocks(self, marked: str, messages: list[Message]) -> Rendered:
        """Returns text and spans from the template's own generation blocks."""
        text: list[str] = []
        blocks: list[Span] = []
        length = 0
        for piece in re.split(f"([{START}{END}])", marked):
            if piece == START:
                blocks.append((length, -1))
            elif piece == END:
                blocks[-1] = (blocks[-1][0], length)
            else:
                text.append(piece)
                length += len(piece)
        turns = sum(message["role"] == "assistant" for message in messages)
        if len(blocks) < turns:
            raise RowProblem(
                WHOLE_ROW,
                f"{len(blocks)} generation blocks for {turns} assistant turns",
                "the chat template marks only some; data.chat_template replaces it",
                reason="fewer generation blocks than assistant turns",
            )
        whole = "".join(text)
        return Rendered(whole, [self._with_end(whole, block) for block in blocks if block[1] > block[0]])

    def _with_end(self, text: str, block: Span) -> Span:
        """Returns the block from behind its header up to its end-of-turn token, which it may hold or be followed by."""
        start, end = self.shape.behind_header(text, block), block[1]
        ending = self._last_ending(text, start, end)
        if ending is not None and not text[ending:end].strip():
            return start, ending
        following = self._control.search(text, end)
        stop = self.shape.end_at(text, following.start()) if following else None
        if following is None or stop is None or text[end : following.start()].strip():
            raise _no_end()
        return start, stop

    def _last_ending(self, text: str, start: int, end: int) -> int | None:
        """Returns where the last ending between `start` and `end` stops; None when there is none."""
        found = [(text.rfind(ending, start, end), len(ending)) for ending in self.shape.endings]
        at, length = max(found)
        return at + length if at >= 0 else None

    # -- markers around contents --------------------------------------------------------------------------------------

    def _from_marks(self, text: str, messages: list[Message], tools: list[Any] | None) -> list[Span] | None:
        """Returns the spans of the assistant turns in `text`; None when a content is dropped, moved or changed.

        `text` must be the contents with the template's own texts between them. Those depend on the roles alone in all
        but a few chats, so they are kept by roles; a text that they do not make is marked anew.
        """
        if tools or not self.shape.header or any(len(message) > 2 for message in messages):
            return None
        roles = tuple([message["role"] for message in messages])
        contents = [message["content"] for message in messages]
        known = self._between.get(roles)
        if known is None or _woven(known[0], contents) != text:
            between = self._mark(roles, contents)
            if between is None or _woven(between, contents) != text:
                return None
            edges = self._edges(roles, between)
            if edges is None:
                return None
            known = between, edges
            if len(self._between) < _MOST_ROLES:
                self._between[roles] = known
        between, edges = known
        spans: list[Span] = []
        position = 0
        for own, content, edge in zip(between, contents, edges, strict=False):
            end = position + len(own) + len(content)
            if edge:
                spans.append((position + edge[0], end + edge[1]))
            position = end
        return spans

    def _edges(self, roles: Sequence[str], between: Sequence[str]) -> list[Span | None] | None:
        """Returns for each assistant turn where its header ends in the text before it, and its end in the text behind."""
        edges: list[Span | None] = []
        for role, before, behind in zip(roles, between, between[1:], strict=False):
            if role != "assistant":
                edges.append(None)
                continue
            header_end = self._header_end(before)
            ending = self._control.search(behind)
            stop = self.shape.end_at(behind, ending.start()) if ending else None
            if header_end is None or stop is None:
                return None
            edges.append((header_end, stop))
        return edges

    def _mark(self, roles: Sequence[str], contents: Sequence[str]) -> list[str] | None:
        """Returns the template's own texts before, between and behind the contents; None when some are not there."""
        marked = [{"role": role, "content": START + text + END} for role, text in zip(roles, contents, strict=True)]
        try:
            pieces = _PIECES.split(self._render(marked, None, keep_markers=True))
        except RowProblem:
            return None
        if len(pieces) != 2 * len(contents) + 1 or pieces[1::2] != list(contents):
            return None
        return pieces[::2]

    def _header_end(self, between: str) -> int | None:
        """Returns where the generation prompt ends in the template's own text between two contents.

        The template may write a shorter header in the history than it asks with (Qwen3 without thinking): then the
        turn starts with its content, provided that this header is a beginning of what it asks with.
        """
        header, shorter = self.shape.header, self.shape.history_header
        at = between.rfind(header)
        if at >= 0:
            return at + len(header)
        return len(between) if shorter and header.startswith(shorter) and between.endswith(shorter) else None

    # -- prefixes -----------------------------------------------------------------------------------------------------

    def _from_prefixes(self, text: str, messages: list[Message], tools: list[Any] | None) -> list[Span]:
        """Returns the spans of the assistant turns from the prompts that ask for each.

        Raises:
            RowProblem: an earlier turn is written in another way once the chat goes on, or a turn has no end.
        """
        spans: list[Span] = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            if i == 0:
                raise RowProblem(
                    WHOLE_ROW,
                    "starts with an assistant turn",
                    "this chat template has no prompt for it; start with another",
                )
            start = self._start_of(text, messages[:i], tools)
            if start is None or (spans and start < spans[-1][1]):
                raise RowProblem(
                    WHOLE_ROW,
                    "an assistant turn without an exact start",
                    "the template writes it otherwise than it asks for it: data.template_args or data.chat_template",
                )
            spans.append((start, self._end_of(text, start, messages[: i + 1], tools)))
        return spans

    def _start_of(self, text: str, before: list[Message], tools: list[Any] | None) -> int | None:
        """Returns where the turn after `before` starts: behind the prompt that asks for it."""
        prompt = self._render(before, tools, generation_prompt=True)
        if text.startswith(prompt):
            return len(prompt)
        header, shorter = self.shape.header, self.shape.history_header
        if not header.startswith(shorter) or not prompt.endswith(header):
            return None
        shorter = prompt[: len(prompt) - len(header)] + shorter
        if self.shape.history_header and prompt.startswith(shorter) and text.startswith(shorter):
            return len(shorter)
        return None

    def _end_of(self, text: str, start: int, turns: list[Message], tools: list[Any] | None) -> int:
        """Returns the end of the end-of-turn token of the turn that starts at `start` and is the last of `turns`."""
        closed = self._render(turns, tools)
        if text.startswith(closed) and len(closed) > start:
            ending = self._last_ending(text, start, len(closed))
            tokens = list(self._control.finditer(text, start if ending is None else ending, len(closed)))
            last = tokens[-1] if tokens else None
            if ending is None and last is not None:
                ending = last.end()  # A call may end with a token of its own.
            if ending is None or (text[ending : len(closed)].strip() and last is None):
                raise _no_end()
            return ending
        # The turn is written differently at the end of a chat (reasoning kept): its first end token, in its own region.
        found = [(at, len(end)) for end in self.shape.endings if (at := text.find(end, start)) >= 0]
        opening = self._control.match(self.shape.history_header)
        if not found or opening is None or opening.group() in text[start : min(found)[0]]:
            raise _no_end()
        at, length = min(found)
        return at + length

    def _plain(self, messages: list[Message]) -> list[Message]:
        """Returns messages as this template expects them: reasoning under each of its names, arguments as it takes them."""
        made = []
        for message in messages:
            if len(message) > 2:
                reasoning = next((message[key] for key in REASONING_KEYS if message.get(key)), None)
                if reasoning is not None:
                    message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
                if self._arguments_as_text and "tool_calls" in message:
                    message = {**message, "tool_calls": [_with_text_arguments(call) for call in message["tool_calls"]]}
            made.append(message)
        return made


def _woven(between: Sequence[str], contents: Sequence[str]) -> str:
    """Returns the texts of the template and the contents in turn; the former are one more."""
    pieces = [""] * (2 * len(contents) + 1)
    pieces[::2] = between
    pieces[1::2] = contents
    return "".join(pieces)


def _with_text_arguments(call: Message) -> Message:
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


def _refusal(error: Exception, source: str) -> RowProblem:
    """Returns the problem of a template that raises; its words are shown only when they stand in the template."""
    words = str(error)
    said = words if words and words in source and len(words) < 120 else type(error).__name__
    return RowProblem(WHOLE_ROW, "refused by the chat template", said)


def _no_end() -> RowProblem:
    return RowProblem(
        WHOLE_ROW,
        "an assistant turn without an end-of-turn token",
        "the chat template leaves it out; data.chat_template",
    )
