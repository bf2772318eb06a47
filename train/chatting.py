"""A conversation with an exported model, prompted exactly as training wrote its chats."""

from __future__ import annotations

from pathlib import Path

import torch

from configs.schema import DataSection
from data_pipelines import prompts
from train.export import read_chat_settings
from train.models import load_exported


class Conversation:
    """Holds the turns so far; `reply` adds two and streams the answer to stdout.

    Args:
        folder: of the model.
        system: instead of the system prompt stored with the model; None keeps that one.
        max_new_tokens: longest answer.
        temperature: 0 takes the likeliest token every time.
    """

    def __init__(self, folder: Path, *, system: str | None, max_new_tokens: int, temperature: float) -> None:
        from transformers import TextStreamer

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model, self._tokenizer = load_exported(folder, device=device)
        stored = read_chat_settings(folder)
        self._data = DataSection(
            system_prompt=system if system is not None else stored.system_prompt, template_args=stored.template_args
        )
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature
        self._streamer = TextStreamer(self._tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._turns: list[dict[str, str]] = []

    def forget(self) -> None:
        """Starts a new conversation."""
        self._turns.clear()

    def reply(self, text: str) -> str:
        """Returns the model's answer to `text`, printed as it comes."""
        self._turns.append({"role": "user", "content": text})
        ids = torch.tensor([prompts.chat_prompt(self._tokenizer, self._turns, self._data)], device=self._model.device)
        sampling = {"do_sample": True, "temperature": self._temperature} if self._temperature else {"do_sample": False}
        with torch.no_grad():
            out = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self._max_new_tokens,
                eos_token_id=prompts.stop_ids(self._tokenizer, self._data) or None,
                pad_token_id=self._tokenizer.pad_token_id or 0,
                streamer=self._streamer,
                **sampling,
            )
        answer = str(self._tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
        self._turns.append({"role": "assistant", "content": answer})
        return answer
