"""What a person sees while a run goes on: header, progress, end. Torch-free; plain lines when there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

REFRESH_S = 0.25
PLAIN_LINE_EVERY_S = 30.0
BAR_WIDTH = 24


class Progress:
    """Shows the steps of one run.

    Args:
        console: where to; None shows nothing (ranks above 0).
        total_steps: of the run.
        first_step: already done when this attempt starts.
        epoch_steps: steps of one epoch.
    """

    def __init__(self, console: Console | None, *, total_steps: int, first_step: int, epoch_steps: float) -> None:
        self._console = console
        self._total = total_steps
        self._first = self._step = first_step
        self._epoch_steps = epoch_steps
        self._loss = self._grad_norm = float("nan")
        self._tokens = self._first_tokens = 0
        self._eval: str = ""
        self._saved: tuple[int, float] | None = None
        self._shown = self._last = time.monotonic()
        self._stepping_s = 0.0
        self._live: Live | None = None

    def begin(self, tokens: int) -> None:
        """Starts the clock at `tokens` seen so far; evaluations and saves are no part of the rate shown."""
        self._last = time.monotonic()
        self._tokens = self._first_tokens = tokens
        if self._console is not None and self._console.is_terminal:
            self._live = Live(self._picture(), console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def step(self, step: int, *, loss: float, grad_norm: float, tokens: int) -> None:
        """Takes the figures of one update; redraws a few times a second at most."""
        self._step, self._loss, self._grad_norm, self._tokens = step, loss, grad_norm, tokens
        now = time.monotonic()
        self._stepping_s += now - self._last
        self._last = now
        if self._live is not None:
            if now - self._shown >= REFRESH_S:
                self._shown = now
                self._live.update(self._picture(), refresh=True)
        elif self._console is not None and now - self._shown >= PLAIN_LINE_EVERY_S:
            self._shown = now
            self._console.print(self._line(), highlight=False, soft_wrap=True)

    def evaluated(self, step: int, eval_loss: float, figures: Mapping[str, float]) -> None:
        """Takes a held-out loss, and what else was measured."""
        self._last = time.monotonic()
        when = "before     " if step == 0 else f"step {step:<6}"
        self.say("  ".join([f"{when}eval_loss {eval_loss:.3f}", *(f"{name} {value:.3f}" for name, value in figures.items())]))

    def saving(self) -> None:
        """Takes note of a checkpoint under way: the time that it took so far is no part of the rate shown."""
        self._last = time.monotonic()

    def saved(self, step: int, at: float) -> None:
        """Takes note of a checkpoint that is on the disk since the monotonic time `at`."""
        self._saved = (step, at)

    def say(self, text: str) -> None:
        """Prints one line above the bar."""
        if self._console is not None:
            self._console.print(Text(text), highlight=False)

    def end(self) -> None:
        """Takes the bar away; without a terminal prints the last line."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._console is not None and self._step > self._first:
            self._console.print(self._line(), highlight=False, soft_wrap=True)

    def _figures(self) -> tuple[str, str]:
        elapsed = max(1e-9, self._stepping_s)
        rate = (self._tokens - self._first_tokens) / elapsed
        done = self._step - self._first
        left = elapsed / done * (self._total - self._step) if done else float("nan")
        top = f"epoch {self._step / self._epoch_steps:.1f}  loss {self._loss:.3f}  grad {self._grad_norm:.2f}"
        saved = f"  saved step {self._saved[0]}, {spell_time(time.monotonic() - self._saved[1])} ago" if self._saved else ""
        return top, f"{spell_count(rate)} tokens/s{saved}  {spell_time(left)} left"

    def _line(self) -> Text:
        top, bottom = self._figures()
        return Text(f"{self._step}/{self._total}  {top}  {bottom}")

    def _picture(self) -> Text:
        # Plain text: laying out a table took five times as long, four times a second beside the training.
        top, bottom = self._figures()
        done = min(BAR_WIDTH, round(BAR_WIDTH * self._step / self._total))
        full, empty = ("━", "─") if self._console and self._console.encoding.startswith("utf") else ("-", " ")
        return Text.assemble(
            f" {self._step}/{self._total} ",
            (full * done, "bar.complete"),
            (empty * (BAR_WIDTH - done), "bar.back"),
            f" {100 * self._step / self._total:3.0f} %  {top}\n        {bottom}",
            no_wrap=True,
            overflow="ellipsis",
        )


def spell_time(seconds: float) -> str:
    """Returns `8 min 51 s`, `5 h 30 min` or `12 s`."""
    if seconds != seconds:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def spell_count(number: float) -> str:
    """Returns `11.6 k`, `4.73 M` or `8.19 B`; small numbers as they are."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:.0f}"


def print_header(console: Console | None, title: str, note: str, rows: Sequence[tuple[str, str]]) -> None:
    """Prints the run's name and one line per row: a key and what is known about it."""
    if console is None:
        return
    console.print(Text(f"{title}   ({note})"), highlight=False, soft_wrap=True)
    for key, text in rows:
        console.print(Text(f"  {key:<9}{text}"), highlight=False, soft_wrap=True)
    console.print()
