"""The story: plan → measure what is missing → evaluate → rows → leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from oodbench.analysis.tasks import (
    StudyTask,
    can_be_opened,
    draw,
    samples_of,
    samples_wanted,
    study_head,
    study_key,
    study_passes,
    study_row,
    study_tasks,
    undrawn_row,
)
from oodbench.errors import StoreError
from oodbench.passes.executors import default_workers, map_tasks
from oodbench.passes.shards import SHARD, ImagePass, ShardTask, forget, measure_shard, open_images, shard_tasks
from oodbench.plan import Plan, make_plan, trial_passes
from oodbench.progress import progress_bars
from oodbench.registry import load_plugin, models, registered_by, scorers, statistics
from oodbench.report import gallery, missing_figures, write_report
from oodbench.store import ColumnStore, Row, read_rows, write_rows
from oodbench.suite import Suite, load_suite
from oodbench.trials.comparison import contest_key, contest_row, contests
from oodbench.trials.rows import TrialTask, cost_rows, evaluate, failed, skip_row, trial_key
from oodbench.types import split_need
from oodbench.zoo.describe import describe

if TYPE_CHECKING:
    import pandas as pd

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what."""

    workers: int = 1
    device: str = "cpu"
    plugins: tuple[Path, ...] = ()


def run(
    suite: str, out: str | Path | None = None, *, limit: int | None = None, only: Iterable[str] = (),
    plugins: Iterable[str | Path] = (), workers: int | None = None, device: str = "cpu", seed: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Run a suite; what is in the cache is not measured again, so an interrupted run goes on where it stopped.

    Parameters
    ----------
    suite : name of a suite (``oodbench list suites``) or path to a ``.yaml``
    out : folder of rows, leaderboard and figures, by default ``runs/<suite>``
    limit : use the first N images of each set
    only : names of models, scorers or image sets to restrict the run to
    plugins : files that register scorers, statistics or models
    workers : processes, by default one a core (one in all on an accelerator)
    device : ``cpu``, ``cuda``, …
    seed : in place of the suite's

    Returns
    -------
    one row a trial, as in ``rows.jsonl``
    """
    import pandas as pd

    paths = tuple(Path(plugin) for plugin in plugins)
    for path in paths:
        load_plugin(path)
    options = Options(default_workers(device) if workers is None else workers, device, paths)
    rows = run_suite(adapted(load_suite(suite), limit, seed, paths), options, out, only)
    return pd.json_normalize(rows)


def adapted(suite: Suite, limit: int | None, seed: int | None, plugins: Iterable[Path]) -> Suite:
    """The suite with a limit or a seed from the command line, and with the scorers and models of plugin files added."""
    changes: dict[str, object] = {
        name: value for name, value in (("limit", limit), ("seed", seed)) if value is not None
    }
    added = [registered_by(path) for path in plugins]
    changes["scorers"] = list(dict.fromkeys([*suite.scorers, *(name for names, _ in added for name in names)]))
    changes["models"] = list(dict.fromkeys([*suite.models, *(name for _, names in added for name in names)]))
    return suite.model_copy(update=changes)


def run_suite(suite: Suite, options: Options, out: str | Path | None = None, only: Iterable[str] = ()) -> list[Row]:
    """Run a suite as a value into ``out``; the rows that other trials of the suite already have there are kept."""
    forget()
    folder = Path(out) if out is not None else Path("runs") / suite.name
    plan, whole = make_plan(suite, only), make_plan(suite)
    rows_file = folder / "rows.jsonl"
    existing = {row["key"]: row for row in read_rows(rows_file) if row["status"] == "ok"}
    tasks = {trial_key(task): task for task in trial_tasks(whole, options)}
    wanted = {trial_key(task): task for task in trial_tasks(plan, options)}
    kept = {key: existing[key] for key in tasks if key in existing}

    new = {key: task for key, task in wanted.items() if key not in kept}
    studies = Studies(folder, plan, whole, options)
    passes = [*needed_passes(new.values()), *(p for task in studies.new for p in study_passes(task))]
    failures = measure_missing(list(dict.fromkeys(passes)), suite.seed, options)
    rows = [*kept.values(), *evaluate_all(list(new.values()), failures, options)]
    write_rows(rows_file, [*rows, *(skip_row(suite.name, skip) for skip in whole.skips)])
    studies.write(failures, options)
    if new or not (folder / "costs.jsonl").exists():
        measured = [p for p in needed_passes(tasks.values()) if is_measured(p, suite.seed, options)]
        known = [*read_rows(folder / "costs.jsonl"), *cost_rows(measured, suite.seed, options.device)]
        write_rows(folder / "costs.jsonl", {row["pass"]: row for row in known}.values())
    sound = [tasks[row["key"]] for row in rows if row["status"] == "ok"]
    write_contests(folder / "contests.jsonl", sound, options)
    changed = {describe(task.trial.model).name for task in new.values()} | {describe(t.model).name for t in studies.new}
    draw_missing(folder, changed, sound, studies.tasks)
    write_report(folder)
    return read_rows(rows_file)


def draw_missing(
    folder: Path, changed: Collection[str], trials: Sequence[TrialTask], studies: Sequence[StudyTask]
) -> None:
    """Draw the figures that are not there, and those of models that have new rows."""
    rows, contests = (read_rows(folder / f"{name}.jsonl") for name in ("analysis", "contests"))
    wanted = gallery(read_rows(folder / "rows.jsonl"), rows, contests)
    lacking = missing_figures(folder, wanted)
    todo = [
        one
        for one in wanted
        if one in lacking or one.of in changed or (changed and one.kind in ("data", "training", "ranks"))
    ]
    if todo:
        # here, since matplotlib takes a second that a finished run saves
        from oodbench.report.figures import Material, draw_figures

        draw_figures(folder, todo, Material(trials, studies, rows, contests))


def write_contests(file: Path, tasks: Sequence[TrialTask], options: Options) -> None:
    """Compare the scorers of each pair on the same images; contests whose trials have not changed are kept."""
    wanted = {contest_key(contest): contest for contest in contests(tasks)}
    kept = {row["key"]: row for row in read_rows(file) if row["key"] in wanted}
    new = [contest for key, contest in wanted.items() if key not in kept]
    rows = [*kept.values(), *_all(contest_row, new, options, "pairs", "paired comparisons")]
    if rows or file.exists():
        write_rows(file, rows)


class Studies:
    """The rows of the paper's explanations in ``analysis.jsonl``: those that are there and stay, and those to compute."""

    def __init__(self, folder: Path, plan: Plan, whole: Plan, options: Options):
        self.file = folder / "analysis.jsonl"
        self.tasks = study_tasks(whole, options.device)
        # a restricted plan may lack the scorers that bring reference images, which do not make it another row
        admitted = {replace(task, ref=None) for task in study_tasks(plan, options.device)}
        wanted = [task for task in self.tasks if replace(task, ref=None) in admitted]
        self.undrawn = draw_missing_samples(wanted, options)
        keys = {task: study_key(task) for task in self.tasks if can_be_opened(task)}
        existing = {row["key"]: row for row in read_rows(self.file) if row["status"] == "ok"}
        self.kept = {key: existing[key] for key in keys.values() if key in existing}
        self.new = [task for task in wanted if task in keys and keys[task] not in self.kept]

    def write(self, failures: dict[ImagePass, str], options: Options) -> None:
        """Compute the new rows and write all; a row whose passes failed is a FAILED row."""
        rows = [*self.kept.values(), *(undrawn_row(task, why) for task, why in self.undrawn.items())]
        sound = []
        for task in self.new:
            why = [failures[p] for p in study_passes(task) if p in failures]
            if why:
                rows.append({**study_head(task), "status": "failed", "reason": "; ".join(why)})
            else:
                sound.append(task)
        rows += _all(study_row, sound, options, "rows", "the paper's explanations")
        if rows or self.file.exists():
            write_rows(self.file, rows)


def draw_missing_samples(tasks: Sequence[StudyTask], options: Options) -> dict[StudyTask, str]:
    """Draw the images of models that have none in the cache; returns why a model could not be drawn from."""
    todo = [task for task in samples_wanted(tasks) if not samples_of(task).exists()]
    failures = {}
    with progress_bars("models") as bars:
        if todo:
            bars.add("samples", "images drawn from models", len(todo))
        for task, result in _map(draw, todo, options):
            if isinstance(result, StoreError):
                raise result
            if isinstance(result, Exception):
                failures[task] = f"{type(result).__name__}: {result}"
            bars.advance("samples", 1)
    return failures


def trial_tasks(plan: Plan, options: Options) -> list[TrialTask]:
    """The plan's trials with all that their rows depend on."""
    return [
        TrialTask(plan.suite.name, trial, plan.suite.seed, plan.suite.bootstrap, options.device)
        for trial in plan.trials
    ]


def needed_passes(tasks: Iterable[TrialTask]) -> list[ImagePass]:
    """The passes that trials read, each once, in order."""
    return list(dict.fromkeys(p for task in tasks for p in trial_passes(task.trial)))


def is_measured(image_pass: ImagePass, seed: int, options: Options) -> bool:
    """Whether all shards of a pass are in the cache."""
    store = ColumnStore()
    return all(task.key in store for task in shard_tasks(image_pass, seed, options.device))


def _map(
    function: Callable[[Task], Result], tasks: Sequence[Task], options: Options
) -> Iterator[tuple[Task, Result | Exception]]:
    """Map in worker processes, but here what only this process knows: names that a script or notebook registered."""
    here = [task for task in tasks if _is_local(task)]
    elsewhere = [task for task in tasks if not _is_local(task)]
    yield from map_tasks(function, elsewhere, options.workers, options.plugins)
    yield from map_tasks(function, here)


def _all(
    function: Callable[[Task], Result], tasks: Sequence[Task], options: Options, unit: str, label: str
) -> list[Result]:
    """The results of all tasks, under one progress bar; an error that a task did not turn into a row is raised."""
    results = []
    with progress_bars(unit) as bars:
        if tasks:
            bars.add(label, label, len(tasks))
        for _, result in _map(function, tasks, options):
            if isinstance(result, Exception):
                raise result
            results.append(result)
            bars.advance(label, 1)
    return results


def _is_local(task: object) -> bool:
    local = scorers.local | models.local | statistics.local
    if isinstance(task, ShardTask):
        return task.model in local or task.statistic in local
    if isinstance(task, StudyTask):
        return task.model in local
    if isinstance(task, tuple):
        return any(_is_local(one) for one in task)
    assert isinstance(task, TrialTask)
    needs = scorers[task.trial.scorer].all_needs
    return bool(local & {task.trial.scorer, task.trial.model, *(split_need(need)[0] for need in needs)})


def measure_missing(passes: Sequence[ImagePass], seed: int, options: Options) -> dict[ImagePass, str]:
    """Measure the shards that the cache lacks; returns why passes failed, if any did.

    Raises
    ------
    StoreError : the cache cannot be written
    """
    store = ColumnStore()
    missing = {t: p for p in passes for t in shard_tasks(p, seed, options.device) if t.key not in store}
    failures: dict[ImagePass, str] = {}
    with progress_bars("images") as bars:
        todo: dict[str, int] = {}
        for task, image_pass in missing.items():
            size = min(SHARD, len(open_images(image_pass.images)) - task.start)
            todo[image_pass.label] = todo.get(image_pass.label, 0) + size
        for label, total in todo.items():
            bars.add(label, label, total)
        for task, result in _map(measure_shard, list(missing), options):
            if isinstance(result, StoreError):
                raise result
            if isinstance(result, Exception):
                failures[missing[task]] = f"{missing[task].name} failed: {result or type(result).__name__}"
            else:
                bars.advance(missing[task].label, result)
    return failures


def evaluate_all(tasks: Sequence[TrialTask], failures: dict[ImagePass, str], options: Options) -> list[Row]:
    """The rows of trials; those whose passes failed are FAILED rows with the reason."""
    reasons = {task: [failures[p] for p in trial_passes(task.trial) if p in failures] for task in tasks}
    rows = [failed(task, "; ".join(dict.fromkeys(why))) for task, why in reasons.items() if why]
    sound = [task for task in tasks if not reasons[task]]
    return [*rows, *_all(evaluate, sound, options, "trials", "metrics and their intervals")]
