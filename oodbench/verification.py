"""Whether rows hold: each is computed again from weights and images, with an empty cache of columns, and compared."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oodbench.errors import OodbenchError, StoreError
from oodbench.metrics.detection import CURVE_METRICS
from oodbench.passes.executors import Failure, executor_for
from oodbench.passes.queue import Queue
from oodbench.passes.shards import DrawTask, ShardTask, forget
from oodbench.paths import home
from oodbench.plan import Plan, make_plan
from oodbench.runner import adapted
from oodbench.store import Row, read_rows
from oodbench.suite import load_suite
from oodbench.trials.results import ResultsFolder, name_of, one_row
from oodbench.trials.rows import Judged, TrialTask, trial_tasks
from oodbench.work import Work, work_left

MEANS = {"in_dist_bits_per_dim": 1e-4, "ood_bits_per_dim": 1e-4}
POINTS = {
    "auroc": 1e-3,
    **{f"{name}{side}": 5e-3 for name in CURVE_METRICS for side in ("_ood", "_in")},
}
TOLERANCE = MEANS | POINTS
"""Field → how far a recomputed value may be from the row's. Other threads, batches or devices move log p by some 1e-6 of itself,
which turns the order of a few images: the table of ``benchmarks/differences.py`` is in docs/scale.md."""


@dataclass(frozen=True)
class Verdict:
    """What became of one row."""

    row: Row
    holds: bool
    sentence: str

    def __str__(self) -> str:
        row = self.row
        pair = f"{row['scorer']} with {row['model']}: {row['in_dist']} → {row['ood']}"
        word = "holds" if self.holds else "DOES NOT HOLD"
        return f"{row['key'][:12]} {word}: {pair}: {self.sentence}"


def chosen_rows(folder: Path, keys: Sequence[str] = (), sample: int | None = None) -> list[Row]:
    """Measured rows of a folder, those of the keys or a random few; :class:`StoreError` where there are none."""
    rows = [row for row in read_rows(folder / "rows.jsonl") if row["status"] == "ok"]
    if not rows:
        raise StoreError(f"{folder} holds no measured rows")
    found = [one_row(rows, key, folder) for key in keys] or rows
    few = sample is not None and sample < len(found)
    return random.Random(0).sample(found, sample) if few and sample else found


def verify(
    rows: Sequence[Row], *, suite: str | None = None, limit: int | None = None,
    plugins: Sequence[Path] = (), workers: int = 1, device: str = "cpu",
) -> Iterator[Verdict]:  # fmt: skip
    """Compute rows of one suite again, without any column that was measured before, and compare.

    Parameters
    ----------
    suite : in place of the one that the rows name
    limit : as given to the run that made them
    """
    for seed in dict.fromkeys(row["seed"] for row in rows):
        own = [row for row in rows if row["seed"] == seed]
        chosen = adapted(load_suite(suite or own[0]["suite"]), limit, seed, plugins)
        with empty_columns() as scratch:
            forget()
            plan = make_plan(chosen, (), device)
            tasks = {
                name_of("rows", task.head | {"status": "ok"}): task for task in trial_tasks(plan)
            }
            wanted = {row["key"]: tasks.get(name_of("rows", row)) for row in own}
            everything = (*map(Path, chosen.plugins), *plugins)
            found = dict(
                _judged(plan, scratch, list(filter(None, wanted.values())), workers, everything)
            )
            for row in own:
                task = wanted[row["key"]]
                yield _missing(plan, row) if task is None else _verdict(row, task, found[task.key])
        forget()


@contextmanager
def empty_columns() -> Iterator[Path]:
    """A cache without columns, drawings and what is fitted; decoded images and weights are this machine's."""
    usual, before = home(), os.environ.get("OODBENCH_HOME")
    with tempfile.TemporaryDirectory(prefix="oodbench-verify-") as scratch:
        for kind in ("images", "weights", "data"):
            (usual / kind).mkdir(parents=True, exist_ok=True)
            (Path(scratch) / kind).symlink_to((usual / kind).resolve())
        os.environ["OODBENCH_HOME"] = scratch
        try:
            yield Path(scratch) / "results"
        finally:
            del os.environ["OODBENCH_HOME"]
            if before is not None:
                os.environ["OODBENCH_HOME"] = before


def _judged(
    plan: Plan, folder: Path, tasks: Sequence[TrialTask], workers: int, plugins: Sequence[Path]
) -> Iterator[tuple[str, Any]]:
    work = needed_for(tasks, work_left(plan, ResultsFolder(folder)))
    with executor_for(workers, plugins) as executor:
        for job, result in Queue(executor, work.remake).run(work.jobs):
            if isinstance(job, TrialTask):
                yield job.key, result


def needed_for(tasks: Collection[TrialTask], work: Work) -> Work:
    """Of a run's work that which some trials wait for."""
    keys = {key for task in tasks for key in task.after}
    shards = [job for job in work.jobs if isinstance(job, ShardTask) and job.key in keys]
    drawn = {shard.drawn for shard in shards}
    draws = [job for job in work.jobs if isinstance(job, DrawTask) and job.key in drawn]
    return replace(work, jobs=[*tasks, *draws, *shards])


def _missing(plan: Plan, row: Row) -> Verdict:
    """A row that this machine plans no trial for."""
    reasons = [skip.reason for skip in plan.skips if skip.scorer == row["scorer"] and skip.model == row["model"]]  # fmt: skip
    why = (
        reasons[0]
        if reasons
        else "no trial of its suite is of these images; give the --limit of its run"
    )
    return Verdict(row, False, f"it cannot be computed here: {why}")


def _verdict(row: Row, task: TrialTask, result: Any) -> Verdict:
    others = _other_inputs(row, task.head)
    if others:
        return Verdict(row, False, f"it was computed from {others} than lie here")
    if isinstance(result, Failure):
        return Verdict(row, False, result.sentence)
    assert isinstance(result, Judged)
    if result.row["status"] != "ok":
        return Verdict(row, False, result.row["reason"])
    return compared(row, result.row)


def _other_inputs(row: Row, head: Row) -> str:
    """Which of the things that a row was computed from are others here; empty where none is."""
    before, now = row.get("inputs", {}), head["inputs"]
    shown = {"images": "other images", "models": "other weights"}
    return " and ".join(words for name, words in shown.items() if before.get(name) != now[name])


def compared(row: Row, again: Row) -> Verdict:
    """Whether a row's numbers are those that were computed again, within :data:`TOLERANCE`."""
    apart = {name: _apart(row.get(name), again.get(name)) for name in TOLERANCE if row.get(name) is not None}  # fmt: skip
    wrong = [name for name, distance in apart.items() if distance > TOLERANCE[name]]
    if wrong:
        name = wrong[0]
        return Verdict(
            row, False, f"its {name} is {row[name]}, and {again.get(name)} when computed again"
        )
    name = max(apart, key=lambda name: apart[name] / TOLERANCE[name])
    return Verdict(
        row, True, f"AUROC {again['auroc']:.4f}; most apart is {name}, by {apart[name]:.1e}"
    )


def _apart(one: Any, other: Any) -> float:
    return float("inf") if other is None else abs(one - other)


def refuse_unheld(verdicts: Iterable[Verdict]) -> None:
    """:class:`OodbenchError` where a row does not hold."""
    failed = sum(not verdict.holds for verdict in verdicts)
    if failed:
        raise OodbenchError(f"{failed} rows do not hold, for the reasons above")
