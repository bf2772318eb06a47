"""Signals ask for a stop; only a second interrupt, a second later, leaves at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from train import signals
from train.signals import StopRequest


def in_child(work: Callable[[], int]) -> int:
    """Returns the exit code of `work` run in a forked process, whose signal handlers are its own."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT"])
def test_each_signal_asks_for_a_stop_and_repeats_are_counted(name: str) -> None:
    def work() -> int:
        said: list[str] = []
        stop = StopRequest(said.append).install()
        if stop.wanted or stop.cause:
            return 1
        for _ in range(3):
            os.kill(os.getpid(), getattr(signal, name))
        return 0 if stop.wanted and stop.cause == f"{name} x3" and said == [name] else 2

    assert in_child(work) == 0


@pytest.mark.parametrize(("gaps_s", "left"), [([0.0], False), ([0.9], False), ([1.0], True), ([0.1, 0.95], True)])
def test_only_a_second_interrupt_a_second_later_leaves(
    gaps_s: list[float], left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 50.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    leaving: list[bool] = []
    stop = StopRequest(leave=lambda: leaving.append(True))
    stop._receive(signal.SIGINT, None)
    for gap_s in gaps_s:
        now += gap_s
        stop._receive(signal.SIGTERM, None)
        stop._receive(signal.SIGINT, None)
    assert bool(leaving) is left


def test_leaving_ends_the_process_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> int:
        times = iter([1.0, 2.5])
        monkeypatch.setattr(time, "monotonic", lambda: next(times))
        StopRequest().install()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return 1

    assert in_child(work) == signals.EXIT_INTERRUPTED == 130


def test_a_stop_from_inside() -> None:
    said: list[str] = []
    stop = StopRequest(said.append)
    stop.request("stop file")
    stop.request("stop file")
    assert (stop.wanted, stop.cause, said) == (True, "stop file x2", ["stop file"])
