"""What a person sees while a suite runs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from oodbench.analysis.tasks import AnalysisTask
from oodbench.passes.executors import Failure
from oodbench.passes.queue import Job
from oodbench.passes.work import DrawTask, ShardTask
from oodbench.plan import Plan
from oodbench.progress import console, progress_bars
from oodbench.work import Work

LABELS = {
    DrawTask: "images drawn from models",
    ShardTask: "images measured",
    AnalysisTask: "the paper's explanations",
}
"""Kind of job → its bar; every other job is a row."""


class Screen:
    """A bar for each kind of work, and a sentence for each failure."""

    def __init__(self, work: Work, plan: Plan):
        self._bars = progress_bars("units")
        self._totals: Counter[str] = Counter()
        for job in work.jobs:
            self._totals[_label(job)] += _amount(job)
        self._remarks = plan.remarks
        self._told: set[str] = set()

    def __enter__(self) -> Screen:
        self._shown = self._bars.__enter__()
        for remark in self._remarks:
            console.print(remark)
        for label, total in self._totals.items():
            self._shown.add(label, label, total)
        return self

    def __exit__(self, *error: Any) -> None:
        self._bars.__exit__(*error)

    def done(self, job: Job, result: Any) -> None:
        """Advance the job's bar; a failure is told once."""
        label = _label(job)
        if label in self._totals:
            self._shown.advance(label, _amount(job))
        if isinstance(result, Failure) and result.sentence not in self._told:
            self._told.add(result.sentence)
            console.print(f"{job.label}: {result.sentence}", markup=False)


def _label(job: Job) -> str:
    return LABELS.get(type(job), "rows")


def _amount(job: Job) -> int:
    return job.images_here if isinstance(job, ShardTask) else 1
