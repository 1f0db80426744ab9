"""Signals that end a command: each is raised like Ctrl-C, so that what runs is ended and what is half written is removed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
)
"""What a scheduler, a closed terminal and Ctrl-\\ send."""


class Stopped(KeyboardInterrupt):
    """A signal that asks the command to end; whoever lets Ctrl-C through lets this through."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(signal.Signals(number).name)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise :class:`Stopped` for each of :data:`STOPS` inside; one that was ignored before, as by nohup, stays so."""
    heard = [number for number in STOPS if signal.getsignal(number) == signal.SIG_DFL]
    with handled(dict.fromkeys(heard, _stop)):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let no signal that ends a command interrupt what is inside; one of :data:`STOPS` is raised afterwards.

    Processes started inside ignore Ctrl-C from their first instruction on; they hear the others, by which they are ended:
    a handler does not go through an exec, as a signal that is ignored does.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    ours = [number for number in STOPS if signal.getsignal(number) is _stop]
    with handled({signal.SIGINT: signal.SIG_IGN, **dict.fromkeys(ours, note)}):
        yield
    if came:
        raise Stopped(came[0])


@contextmanager
def handled(handlers: dict[int, Any]) -> Iterator[None]:
    """Signal handlers for what is inside; other threads than the main one, where Python has no say, leave them be."""
    before = {number: signal.getsignal(number) for number in handlers}
    if None in before.values() or threading.current_thread() is not threading.main_thread():
        yield
        return
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)
