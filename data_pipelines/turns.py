"""How a chat template writes an assistant turn: what opens it, what ends it. Learned from plain chats when it is loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from configs.errors import DataError
from data_pipelines.formats.document import Message
from data_pipelines.problems import RowProblem

Render = Callable[[list[Message], bool], str]
_USER: Message = {"role": "user", "content": "Ape"}
_CHAT: list[Message] = [_USER, {"role": "assistant", "content": "Nut"}]
_LATER: list[Message] = [*_CHAT, {"role": "user", "content": "Elk"}]


@dataclass(frozen=True, slots=True)
class TurnShape:
    """The template's own text around an assistant turn.

    Attributes:
        header: what the generation prompt adds, such as `<|im_start|>assistant` and a line end; may be empty.
        history_header: what stands before an earlier turn's text once the chat goes on; often the same.
        endings: texts of control tokens that end a turn, longest first (`<|end|>` in the history, `<|return|>` at last).
        end_of_turn: the control token that ends the last turn.
        closes_history: whether earlier turns have an end of their own.
    """

    header: str
    history_header: str
    endings: tuple[str, ...]
    end_of_turn: str
    closes_history: bool

    def end_at(self, text: str, position: int) -> int | None:
        """Returns where the ending that stands at `position` stops; None when none stands there."""
        return next((position + len(end) for end in self.endings if text.startswith(end, position)), None)

    def behind_header(self, text: str, block: tuple[int, int]) -> int:
        """Returns the start of `block` without a header, or the rest of one, that it begins with."""
        start, end = block
        header = self.header
        for inside in range(len(header), 0, -1):
            if text.startswith(header[-inside:], start, end) and text.endswith(header[:-inside], 0, start):
                return start + inside
        return start


def learn(render: Render, control: re.Pattern[str]) -> TurnShape:
    """Returns the shape of an assistant turn.

    Args:
        render: (messages, with generation prompt) -> text.
        control: matches the tokenizer's control tokens.

    Raises:
        DataError: the template fails on a plain chat, drops its text, or ends no turn.
    """
    try:
        prompt, asked, text = render([_USER], True), render([_USER], False), render(_CHAT, False)
    except RowProblem as problem:
        raise DataError(
            f"the chat template fails on a plain chat of two turns ({problem.remedy}); "
            "data.chat_template=FILE replaces it, data.template_args gives it arguments"
        ) from problem
    try:
        later = render(_LATER, False)
    except RowProblem:
        later = ""  # A template for single turns: longer chats are refused row by row.
    tail = _behind_nut(text)
    if tail is None:
        raise DataError("the chat template leaves out the assistant's text; data.chat_template=FILE replaces it")
    last = control.search(tail)
    if last is None:
        raise DataError(
            "the chat template writes no end-of-turn token behind the assistant's text: a model would never learn to "
            "stop; data.chat_template=FILE replaces it, or add the token to the tokenizer's special tokens"
        )
    cut = _common(prompt, asked, control)
    header = prompt[cut:]
    middle = (_behind_nut(later) or "").partition("Elk")[0]
    shared = _whole_tokens(os.path.commonprefix([tail, middle]), tail, control)
    endings, closes = {last.group()}, False
    if shared:
        endings, closes = {shared}, True
    elif found := control.search(middle):
        # What stands there may open the next turn: then earlier turns have no end of their own.
        ape = asked.find("Ape")
        closes = found.group() in prompt[ape:cut] or found.group() not in asked[:ape]
        endings |= {found.group()} if closes else set()
    history = later[cut : later.find("Nut")] if later.startswith(prompt[:cut]) else ""
    ordered = tuple(sorted(endings, key=len, reverse=True))
    final = shared or last.group()
    return TurnShape(header, history, ordered, list(control.finditer(final))[-1].group(), closes)


def _behind_nut(text: str) -> str | None:
    at = text.rfind("Nut")
    return text[at + 3 :] if at >= 0 else None


def _common(prompt: str, asked: str, control: re.Pattern[str]) -> int:
    """Returns the length of the common beginning of both, not inside a control token of `prompt`."""
    length = len(os.path.commonprefix([prompt, asked]))
    inside = next((m for m in control.finditer(prompt) if m.start() < length < m.end()), None)
    return inside.start() if inside else length


def _whole_tokens(common: str, tail: str, control: re.Pattern[str]) -> str:
    """Returns the part of `common` from the first control token of `tail` to the last one that is whole in it."""
    whole = [match for match in control.finditer(tail) if match.end() <= len(common)]
    return tail[whole[0].start() : whole[-1].end()] if whole else ""
