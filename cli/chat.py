"""`aisc chat`: a conversation with a trained model, with the system prompt and template arguments that it was trained with."""

from __future__ import annotations

import sys
from typing import Any

from cli.screens import console, split_values
from configs.errors import UserError
from configs.runfolder import runs_dir
from launch.runs import model_folder

DEFAULT_NEW_TOKENS = 256


def main(arguments: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    values = ("--prompt", "--system", "--max-new-tokens", "--temperature", "run.dir")
    options, words = split_values(arguments, values=values)
    if len(words) != 1:
        raise UserError("aisc chat: expected one RUN or model FOLDER")
    folder = model_folder(words[0], runs_dir(options.get("run.dir")))
    most = number(options, "--max-new-tokens", DEFAULT_NEW_TOKENS)
    temperature = number(options, "--temperature", 0)
    from train.chatting import Conversation

    screen = console()
    conversation = Conversation(
        folder, system=options.get("--system"), max_new_tokens=int(most), temperature=float(temperature)
    )
    if "--prompt" in options:
        conversation.reply(options["--prompt"])
        return 0
    if not sys.stdin.isatty():
        raise UserError("aisc chat: no terminal to talk on; --prompt TEXT asks once")
    screen.print(f"{folder}   empty line: new conversation, Ctrl-D: end", soft_wrap=True, markup=False)
    while True:
        try:
            text = input("\nyou    ").strip()
        except EOFError:
            print()
            return 0
        if not text:
            conversation.forget()
            screen.print("(new conversation)", style="dim")
            continue
        print("model  ", end="", flush=True)
        conversation.reply(text)


def number(options: dict[str, Any], name: str, default: float) -> float:
    """Returns the value of a numeric option.

    Raises:
        UserError: it is not a number, or below 0.
    """
    try:
        value = float(options.get(name, default))
    except ValueError as error:
        raise UserError(f"{name} {options[name]}: expected a number") from error
    if value < 0:
        raise UserError(f"{name} {options[name]}: expected 0 or more")
    return value
