"""Progress bars with rate and time left, on the terminal's error stream; a line a bar where that is no terminal."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from oodbench.foreign import printable


class Terminal(Console):
    """A console on which text of files moves no cursor and hides no letter."""

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(*(printable(one) if isinstance(one, str) else one for one in objects), **how)


console = Terminal(stderr=True, highlight=False)
if not console.is_terminal:
    console.width = 140  # a log file wraps nothing


CLOCKED = 0.1
"""Seconds that a bar's clock has run before its rate says anything: results of several workers may arrive at once."""


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__(Column(no_wrap=True))
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(_rate(task, self.unit), style="cyan")


def _rate(task: Task, unit: str) -> str:
    seconds = task.finished_time or task.elapsed or 0.0
    rate = f"{task.completed / seconds:,.0f}" if task.completed and seconds > CLOCKED else "–"
    return f"{rate} {unit}/s"


class Bars:
    """One bar a piece of work, found again by a key, in any order; its clock starts when the one before is done."""

    def __init__(self, progress: Progress, unit: str):
        self._progress, self._unit = progress, unit
        self._bars: dict[Hashable, TaskID] = {}

    def add(self, key: Hashable, label: str, total: int) -> None:
        """A bar of ``total`` units; 0 where nobody knows how many."""
        self._bars[key] = self._progress.add_task(label, total=total or None, start=not self._bars)

    def advance(self, key: Hashable, amount: int) -> None:
        bar = self._bars[key]
        before = self._progress.tasks[bar].finished
        self._progress.start_task(bar)
        self._progress.advance(bar, amount)
        if before or not self._progress.tasks[bar].finished:
            return
        if self._progress.disable:
            self._tell(self._progress.tasks[bar])
        following = next((other for other in self._bars.values() if other > bar), None)
        if following is not None:
            self._progress.start_task(following)

    def tell_unfinished(self) -> None:
        """Say how far the bars came that no line has told of, for a log."""
        for task in self._progress.tasks:
            if self._progress.disable and not task.finished:
                self._tell(task)

    def _tell(self, task: Task) -> None:
        total = "" if task.total is None else f" of {task.total:,.0f}"
        done = f"{task.completed:,.0f}{total} {self._unit}"
        console.print(f"{task.description}: {done}, {_rate(task, self._unit)}", markup=False)


@contextmanager
def progress_bars(unit: str) -> Iterator[Bars]:
    """Bars that count ``unit`` (images, trials, bytes)."""
    label = TextColumn(
        "{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
    )
    columns = (label, BarColumn(10), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    silent = not (console.is_terminal or console.is_jupyter)
    with Progress(*columns, console=console, expand=True, disable=silent) as progress:
        bars = Bars(progress, unit)
        try:
            yield bars
        finally:
            bars.tell_unfinished()
