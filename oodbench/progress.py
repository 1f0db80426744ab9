"""Progress bars with rate and time left, on the terminal's error stream."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

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

console = Console(stderr=True, highlight=False)
if not console.is_terminal:
    console.width = 140  # a log file wraps nothing


CLOCKED = 0.1
"""Seconds that a bar's clock has run before its rate says anything: results of several workers may arrive at once."""


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__(Column(no_wrap=True))
        self.unit = unit

    def render(self, task: Task) -> Text:
        seconds = task.finished_time or task.elapsed or 0.0
        rate = f"{task.completed / seconds:,.0f}" if task.completed and seconds > CLOCKED else "–"
        return Text(f"{rate} {self.unit}/s", style="cyan")


class Bars:
    """One bar a piece of work, found again by a key; a bar's clock starts when the one before is done."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._bars: dict[Hashable, TaskID] = {}

    def add(self, key: Hashable, label: str, total: int) -> None:
        """A bar of ``total`` units; 0 where nobody knows how many."""
        self._bars[key] = self._progress.add_task(label, total=total or None, start=not self._bars)

    def advance(self, key: Hashable, amount: int) -> None:
        bar = self._bars[key]
        self._progress.start_task(bar)
        self._progress.advance(bar, amount)
        done = self._progress.tasks[bar].finished
        following = next((other for other in self._bars.values() if other > bar), None)
        if done and following is not None:
            self._progress.start_task(following)


@contextmanager
def progress_bars(unit: str) -> Iterator[Bars]:
    """Bars that count ``unit`` (images, trials, bytes)."""
    label = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    columns = (label, BarColumn(10), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    with Progress(*columns, console=console, expand=True) as progress:
        yield Bars(progress)
