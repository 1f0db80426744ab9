"""What a plan leaves to do, and the book of what is done."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oodbench.analysis.tasks import AnalysisTask, Found, analysis_tasks
from oodbench.errors import StoreError
from oodbench.passes.costs import Costs
from oodbench.passes.executors import Failure
from oodbench.passes.queue import Job
from oodbench.passes.shards import DrawTask, ShardTask
from oodbench.passes.values import SHARD, ImagePass, shard_starts
from oodbench.paths import write_if_changed, write_whole
from oodbench.plan import Plan, Trial
from oodbench.store import ColumnStore, Row
from oodbench.trials.comparison import ComparisonTask
from oodbench.trials.results import ResultsFolder
from oodbench.trials.rows import Judged, TrialTask, trial_tasks
from oodbench.trials.scores import RECORD, ScoreFiles, has_scores, scores_file

logger = logging.getLogger("oodbench")
EVERY = 2.0
"""Seconds between two writings of rows."""


@dataclass(frozen=True)
class Work:
    """The jobs of a run, those first that are to be done first, and what is there already."""

    jobs: Sequence[Job]
    shards: dict[str, ShardTask]
    draws: dict[str, DrawTask]
    cached: int
    """Shards that are in the cache."""
    costs: Costs

    @property
    def seconds(self) -> float:
        """CPU-seconds that the jobs will take, about."""
        return sum(map(self.costs.of_job, self.jobs))

    def remake(self, keys: Iterable[str]) -> list[Job]:
        """The tasks that make again what is not in the cache any more."""
        store, wanted = ColumnStore(), set(keys)
        shards = [self.shards[key] for key in wanted & self.shards.keys() if key not in store]
        draws = [self.draws[key] for key in wanted & self.draws.keys() if not self.draws[key].done]
        return [*draws, *shards]


def work_left(plan: Plan, results: ResultsFolder) -> Work:
    """Rows that the folder lacks, and the shards that they need and the cache lacks, in the order in which to do them.

    Rows come first, each as soon as its columns are there; of the passes those of cheap trials, so that rows come early;
    what only explanations read comes after, and the explanations last.
    """
    judged, explained = trial_tasks(plan), list(analysis_tasks(plan))
    kept = {table: results.kept(table) for table in ("rows", "analysis", "curves")}
    rows, explanations = (
        [task for task in tasks if not _is_there(task, kept, results.folder)]
        for tasks in (judged, explained)
    )
    draws = {draw.key: draw for subject in plan.subjects for draw in subject.draws}
    explaining = [one for subject in plan.subjects for one in subject.density.values()]
    costs = Costs.of(plan.passes)
    passes = dict.fromkeys([*cheapest_first(plan, costs), *explaining])
    shards = {task.key: task for one in passes for task in shard_tasks(one)}
    wanted = {key for task in (*rows, *explanations) for key in task.after}
    store = ColumnStore()
    missing = [shards[key] for key in shards if key in wanted and key not in store]
    opened = {task.drawn for task in missing if task.drawn} | wanted
    undrawn = [draw for key, draw in draws.items() if key in opened and not draw.done]
    needed = len(wanted & shards.keys())
    real, of_samples = (
        [task for task in missing if bool(task.drawn) is drawn] for drawn in (False, True)
    )
    jobs = [*rows, *real, *undrawn, *of_samples, *explanations]
    return Work(jobs, shards, draws, needed - len(missing), costs)


@dataclass(frozen=True)
class Part:
    """The ``number``-th of ``of`` parts of a suite's shards, from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def holds(self, place: int) -> bool:
        """Whether the shard at a place of the plan is in this part."""
        return place % self.of == self.number - 1


def part_left(work: Work, part: Part) -> Work:
    """The shards of a part that the cache lacks, with the drawings that they wait for.

    Shards are dealt out like cards, by their place in the plan, so that each part has its share of costly models, and the same
    shards whatever other parts have measured before.
    """
    own = {key for place, key in enumerate(work.shards) if part.holds(place)}
    shards = [job for job in work.jobs if isinstance(job, ShardTask) and job.key in own]
    drawn = {shard.drawn for shard in shards}
    draws = [job for job in work.jobs if isinstance(job, DrawTask) and job.key in drawn]
    return replace(work, jobs=[*draws, *shards])


def cheapest_first(plan: Plan, costs: Costs) -> list[ImagePass]:
    """The passes of a plan's trials, those of the cheapest trial first, so that pair after pair is complete."""

    def cost(trial: Trial) -> float:
        return sum(map(costs.of_pass, trial.passes))

    return [one for trial in sorted(plan.trials, key=cost) for one in trial.passes]


def _is_there(
    task: TrialTask | AnalysisTask, kept: dict[str, dict[str, Row]], folder: Path
) -> bool:
    row = kept[task.tables[0]].get(task.key)
    if row is None:
        return False
    if isinstance(task, TrialTask):
        drawn = task.key in kept["curves"] or not task.is_single
        return drawn and (_travel_apart(folder, row) or has_scores(folder, row))
    return all(_holds(folder / path, row["sha256"]) for path in task.files)


def _travel_apart(folder: Path, row: Row) -> bool:
    return (folder / RECORD).exists() and not scores_file(folder, row).exists()


def _holds(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def shard_tasks(one: ImagePass) -> list[ShardTask]:
    """The shards of a pass as tasks."""
    images, model = one.images, one.model
    starts = shard_starts(images.n)
    return [
        ShardTask(
            key=key,
            pass_name=one.name,
            statistic=one.statistic,
            identity=one.identity,
            images=images.ref,
            images_name=images.identifier,
            images_here=min(SHARD, images.n - start),
            start=start,
            pixels=pixels,
            drawn=images.draw,
            seed=one.seed,
            device=one.device,
            here=one.here,
            model=model.reference if model else None,
            model_identity=model.identity if model else "",
            model_name=model.name if model else "",
            folded=model.folded if model else False,
            prepared_on=one.prepared_on.ref if one.prepared_on else None,
        )
        for key, start, pixels in zip(one.keys, starts, images.shards, strict=True)
    ]


class Book:
    """Enters results: rows and files into the folder, failures into its log."""

    def __init__(self, results: ResultsFolder, plan: Plan):
        self.results, self.plan, self.folder = results, plan, results.folder
        self.scores = ScoreFiles(self.folder)
        self._new: dict[str, list[Row]] = {}
        self._written = time.monotonic()
        self._failures: list[str] = []
        self._write()  # a folder that cannot be written is found before the first pass

    def enter(self, job: Job, result: Any) -> None:
        """Take one job's result: the driver alone writes rows, scores and small files."""
        if isinstance(result, Failure):
            # a cache that cannot be written fails every other task too
            if result.kind == "StoreError":
                raise StoreError(result.message)
            self._note(job, result)
            if isinstance(job, TrialTask | AnalysisTask | ComparisonTask):
                self._add(job.failed(result.sentence))
        elif isinstance(result, Judged):
            if self._add_sound(job, result.rows) and result.scores is not None:
                self.scores.add(result.row, result.scores)
        elif isinstance(result, Found):
            for path, content in result.files.items():
                write_if_changed(self.folder / path, content)
            self._add_sound(job, result.rows)
        elif isinstance(job, ComparisonTask):
            self._add_sound(job, result)
        if time.monotonic() - self._written > EVERY:
            self.flush()

    def missing(self, tasks: Iterable[ComparisonTask]) -> list[ComparisonTask]:
        """The comparisons whose rows the folder lacks."""
        kept = self.results.kept("comparisons")
        return [task for task in tasks if task.key not in kept]

    def flush(self) -> None:
        """Write the rows that came since."""
        for row in self._write():
            logger.warning(
                "%s failed this time (%s); the row measured before stands",
                row.get("scorer") or row.get("kind"),
                row.get("reason"),
            )
        self._written = time.monotonic()

    def close(self, skips: list[Row]) -> None:
        """Write what is left, with the skips as planned now, and drop scores and pictures that no row names."""
        self.flush()
        with self.results.held():
            self.results.merge({"rows": skips}, gone=self._planned_anew)
            self.scores.keep_only(self.results.rows("rows"))
        if not self._failures:
            (self.folder / "failures.log").unlink(missing_ok=True)
        else:
            log = "\n\n".join(self._failures) + "\n"
            write_whole(self.folder / "failures.log", lambda file: file.write(log.encode()))

    def _write(self) -> list[Row]:
        """Rows and scores in one go, so that no other run finds one without the other; returns rows that were refused."""
        with self.results.held():
            refused = self.results.merge(self._new)
            self.scores.write()
        self._new = {}
        return refused

    def _planned_anew(self, row: Row) -> bool:
        only = self.plan.only
        if row.get("status") != "skipped":
            return False
        of_scorer = not row["scorer"] or only.admits_scorer(row["scorer"])
        of_model = not row["model"] or only.admits_model(row["model"])
        return of_scorer and of_model and only.admits_sets(row["in_dist"], row["ood"])

    def _add(self, tables: Mapping[str, Sequence[Row]]) -> None:
        for table, rows in tables.items():
            self._new.setdefault(table, []).extend(rows)

    def _add_sound(self, job: Any, tables: Mapping[str, list[Row]]) -> bool:
        """Enter what a job gave, or its failure where a number is not finite, which JSON and figures cannot hold."""
        given = [row for rows in tables.values() for row in rows]
        bad = next((field for row in given for field in _not_finite(row)), None)
        self._add(job.failed(f"its {bad} is NaN or infinite") if bad else tables)
        return bad is None

    def _note(self, job: Job, failure: Failure) -> None:
        self._failures.append(f"{job.label}\n{failure.traceback or failure.sentence}")


def _not_finite(row: Row) -> Iterator[str]:
    for field, value in row.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            yield field
