"""What a person sees while a suite runs: how far it is, how long it will take, and rows as they come.

:func:`screen_for` gives the screen: on a terminal a bar, elsewhere a line every ten seconds; silent or as JSON where asked.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any, Literal, Self

from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from oodbench.foreign import printable
from oodbench.passes.executors import Failure
from oodbench.passes.queue import Job
from oodbench.passes.shards import ShardTask
from oodbench.plan import Plan
from oodbench.progress import console
from oodbench.report.tables import auroc_text
from oodbench.store import Row
from oodbench.trials.rows import Judged, TrialTask
from oodbench.work import Work

Show = Literal["progress", "quiet", "json"]
EVERY = 10.0
"""Seconds between two lines where no terminal is."""
PATIENCE = 300.0
"""Seconds without anything done after which it is said that something may hang."""
TOLD = 0.02
"""Share of the work after which its own pace says how long the rest takes."""


class Tally:
    """How far a run is: passes, images and rows done of all, and the time that is left."""

    def __init__(self, work: Work, workers: int):
        self._costs, self._workers = work.costs, workers
        shards = [job for job in work.jobs if isinstance(job, ShardTask)]
        self._shards_left = Counter(map(_pass_of, shards))
        self.passes, self.passes_done = len(self._shards_left), 0
        self.images, self.images_done = sum(job.images_here for job in shards), 0
        self.rows, self.rows_done = sum(isinstance(job, TrialTask) for job in work.jobs), 0
        self.seconds, self.seconds_done = work.seconds, 0.0
        self._began = time.monotonic()

    def advance(self, job: Job) -> None:
        """Count a job as done."""
        self.seconds_done += self._costs.of_job(job)
        self.rows_done += isinstance(job, TrialTask)
        if isinstance(job, ShardTask):
            self.images_done += job.images_here
            self._shards_left[_pass_of(job)] -= 1
            self.passes_done += not self._shards_left[_pass_of(job)]

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    @property
    def seconds_left(self) -> float:
        """Seconds of wall time until all is done: at the pace so far, and at first by what the jobs cost elsewhere."""
        left = max(self.seconds - self.seconds_done, 0.0)
        if not self.seconds_done or self.seconds_done < TOLD * self.seconds:
            return left / self._workers
        return left * self.elapsed / self.seconds_done

    def sentence(self) -> str:
        """How far it is, in a line."""
        rate = self.images_done / self.elapsed if self.elapsed > 1 else 0
        return (
            f"{self.passes_done} of {self.passes} passes, {self.rows_done} of {self.rows} rows, {rate:,.0f} images/s, "
            f"{duration(self.seconds_left)} left"
        )


def _pass_of(job: ShardTask) -> tuple[str, str]:
    return job.pass_name, job.images_name


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(40), duration(130)
    ('40 s', '2 min')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


class Screen:
    """Tells failures, each once, and nothing else: the screen of ``--quiet``."""

    def __init__(self, work: Work, plan: Plan, workers: int):
        self.tally, self.plan, self.workers = Tally(work, workers), plan, workers
        self.running = ""
        self._failures: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        """Nothing is left open."""

    def done(self, job: Job, result: Any, running: Sequence[Job]) -> None:
        """Take note of a job that is done, and of those that are not yet."""
        self.tally.advance(job)
        self.running = printable(running[0]) if running else ""
        if isinstance(result, Failure):
            self._fail(f"{job.label}: {result.sentence}", result.sentence)
        elif isinstance(result, Judged):
            self.judged(result.row)

    def _fail(self, sentence: str, reason: str) -> None:
        if reason not in self._failures:
            self._failures.add(reason)
            self.failed(sentence)

    def failed(self, sentence: str) -> None:
        """Tell a failure."""
        console.print(sentence, markup=False)

    def judged(self, row: Row) -> None:
        """Take note of a new row."""

    def stage(self, name: str) -> None:
        """Say what is done once all columns and rows are there."""
        self.running = name


class Talking(Screen):
    """Says what will be done before it begins, and tells one row a model and pair as soon as it is judged."""

    def __init__(self, work: Work, plan: Plan, workers: int):
        super().__init__(work, plan, workers)
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._hint, daemon=True)
        names = [trial.scorer.name for trial in plan.trials]
        self._told = "likelihood" if "likelihood" in names else next(iter(names), "")

    def __enter__(self) -> Self:
        for remark in (*self.plan.remarks, self._before()):
            console.print(remark, markup=False)
        self._watch.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._over.set()

    def _hint(self) -> None:
        """Say once that something may hang, while nothing gets done."""
        done = -1.0
        while not self._over.wait(PATIENCE):
            if done == self.tally.seconds_done:
                running = self.running or "what was begun first"
                console.print(
                    f"For {duration(PATIENCE)} nothing was done; {running} may hang. Ctrl-C keeps what is finished; "
                    "--timeout SECONDS ends what takes longer.",
                    markup=False,
                )
                return
            done = self.tally.seconds_done

    def _before(self) -> str:
        tally, name = self.tally, self.plan.suite.name
        if not (tally.passes or tally.rows):
            return f"{name}: all {len(self.plan.trials):,} rows are there"
        processes = f"{self.workers} process{'es' * (self.workers > 1)}"
        time = f"about {tally.seconds:,.0f} CPU-seconds, {duration(tally.seconds_left)} with {processes}"
        return (
            f"{name}: {tally.passes:,} passes over {tally.images:,} images, {tally.rows:,} rows; {time}. "
            "It can be interrupted and goes on where it stopped."
        )

    def judged(self, row: Row) -> None:
        single = row["group_size"] == 1 and not row["synthetic"] and row["status"] == "ok"
        if single and row["scorer"] == self._told:
            pair = f"{row['model']}: {row['in_dist']} → {row['ood']}"
            console.print(f"{pair}, {row['scorer']} AUROC {auroc_text(row)}", markup=False)


class Bar(Talking):
    """One bar for all, and the running pass below its numbers."""

    def __init__(self, work: Work, plan: Plan, workers: int):
        super().__init__(work, plan, workers)
        self._bar = Progress(BarColumn(20), _State(self), console=console, transient=True)
        self._task = self._bar.add_task("", total=self.tally.seconds or 1.0)

    def __enter__(self) -> Self:
        super().__enter__()
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._bar.__exit__(*error)

    def done(self, job: Job, result: Any, running: Sequence[Job]) -> None:
        super().done(job, result, running)
        self._bar.update(self._task, completed=self.tally.seconds_done)


class _State(ProgressColumn):
    """The numbers of a tally as they are when the bar is drawn."""

    max_refresh = 0.5

    def __init__(self, screen: Screen):
        super().__init__()
        self._screen = screen

    def render(self, task: Task) -> Text:
        return Text(f"{self._screen.tally.sentence()}\n{self._screen.running}", overflow="ellipsis")


class Lines(Talking):
    """A line every ten seconds, for logs."""

    def __init__(self, work: Work, plan: Plan, workers: int):
        super().__init__(work, plan, workers)
        self._clock = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Self:
        super().__enter__()
        self._clock.start()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._clock.join()

    def _tell(self) -> None:
        while not self._over.wait(EVERY):
            now = f": {self.running}" if self.running else ""
            state = f"{duration(self.tally.elapsed)}: {self.tally.sentence()}{now}"
            console.print(state, markup=False)


class Json(Screen):
    """A JSON object a line on standard output: the plan, each new row, each failure.

    What a model prints meanwhile goes to the error stream, or a line would be no JSON.
    """

    def __enter__(self) -> Self:
        self._out, sys.stdout = sys.stdout, sys.stderr
        tally = self.tally
        amounts = {name: getattr(tally, name) for name in ("passes", "images", "rows", "seconds")}
        self._write("plan", suite=self.plan.suite.name, remarks=self.plan.remarks, **amounts)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        sys.stdout = self._out

    def _write(self, event: str, **about: Any) -> None:
        with redirect_stdout(self._out):
            write_event(event, **about)

    def failed(self, sentence: str) -> None:
        self._write("failure", message=sentence)

    def judged(self, row: Row) -> None:
        left = round(self.tally.seconds_left, 1)
        self._write("row", row=row, seconds_left=left)


def write_event(event: str, **about: Any) -> None:
    """One JSON object in a line of standard output."""
    print(json.dumps({"event": event, **about}), file=sys.stdout, flush=True)


def screen_for(show: Show, work: Work, plan: Plan, workers: int) -> Screen:
    """The screen of a run, as asked for and as the terminal permits."""
    on_terminal = console.is_terminal or console.is_jupyter
    kinds = {"quiet": Screen, "json": Json, "progress": Bar if on_terminal else Lines}
    return kinds[show](work, plan, workers)
