"""The story: plan → what is left → measure and judge as columns come → compare → pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodbench.cache import older_cache, sweep_cache
from oodbench.errors import OodbenchError
from oodbench.manifest import add_manifest, manifest
from oodbench.passes.claims import Claims
from oodbench.passes.executors import Executor, Failure, default_workers, executor_for
from oodbench.passes.queue import Queue
from oodbench.passes.shards import forget
from oodbench.paths import sweep
from oodbench.plan import Plan, make_plan
from oodbench.progress import console
from oodbench.registry import load_plugin, registered_by
from oodbench.report import refuse_foreign, write_overview, write_report
from oodbench.running import Screen, Show, screen_for
from oodbench.store import Row
from oodbench.suite import Suite, load_suite, suite_of
from oodbench.trials.comparison import comparison_tasks
from oodbench.trials.results import ResultsFolder
from oodbench.trials.rows import skip_rows
from oodbench.work import Book, Part, Work, part_left, work_left

if TYPE_CHECKING:
    import pandas as pd


PAGE_EVERY = 10.0
"""Seconds between two writings of the leaderboard while rows come."""


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what."""

    workers: int = 1
    device: str = "cpu"
    plugins: tuple[Path, ...] = ()
    show: Show = "progress"
    timeout: float | None = None
    executor: str = ""
    """``ray`` or ``ray://ADDRESS``; empty: processes of this machine."""


def run(
    suite: str, out: str | Path | None = None, *, limit: int | None = None, only: str | Iterable[str] = (),
    plugins: str | Path | Iterable[str | Path] = (), workers: int | None = None, device: str = "cpu", seed: int | None = None,
    quiet: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Run a suite; what is in the cache is not measured again, so an interrupted run goes on where it stopped.

    Parameters
    ----------
    suite : name of a suite (``oodbench list suites``) or path to a ``.yaml``
    out : folder of rows, leaderboard and figures, by default ``runs/<suite>``
    limit : draw N images of each set, in an order that never changes
    only : names of models, scorers or image sets to restrict the run to; one may stand alone
    plugins : files that register scorers, statistics or models
    workers : processes, by default one a core (one in all on an accelerator)
    device : ``cpu``, ``cuda``, …
    seed : in place of the suite's
    quiet : say nothing but failures

    Returns
    -------
    one row a trial, as in ``rows.jsonl``
    """
    import pandas as pd

    paths = tuple(Path(plugin) for plugin in as_many(plugins))
    processes = default_workers(device) if workers is None else workers
    options = Options(processes, device, paths, "quiet" if quiet else "progress")
    chosen = adapted(load_suite(suite), limit, seed, paths)
    return pd.json_normalize(run_suite(chosen, options, out, as_many(only)))


def as_many(given: str | Path | Iterable[str | Path]) -> tuple[Any, ...]:
    """What is given, be it one name or several."""
    return (given,) if isinstance(given, str | Path) else tuple(given)


def adapted(suite: Suite, limit: int | None, seed: int | None, plugins: Iterable[Path]) -> Suite:
    """The suite with a limit or a seed from the command line, and with the scorers and models of plugin files added.

    The suite's own plugins are loaded too; they add nothing beyond what the suite names.
    """
    given = list(plugins)
    for plugin in (*map(Path, suite.plugins), *given):
        load_plugin(plugin)
    added = [registered_by(path) for path in given]
    settings = {"limit": limit, "seed": seed}
    changes: dict[str, object] = {
        name: value for name, value in settings.items() if value is not None
    }
    new_scorers = [name for names, _ in added for name in names if name not in suite.scorers]
    new_models = [name for _, names in added for name in names if name not in suite.models]
    changes["scorers"] = [*suite.scorers, *dict.fromkeys(new_scorers)]
    changes["models"] = [*suite.models, *dict.fromkeys(new_models)]
    return suite_of(suite.model_dump() | changes)


def run_suite(
    suite: Suite, options: Options, out: str | Path | None = None, only: Iterable[str] = (),
    tell: Callable[[Plan], None] = lambda plan: None,
) -> list[Row]:  # fmt: skip
    """Run a suite as a value into ``out``; rows that the folder has already stay there.

    Parameters
    ----------
    tell : is given the plan before anything is measured

    Raises
    ------
    StoreError : files of somebody else's are in the way
    """
    forget()
    folder = Path(out) if out is not None else Path("runs") / suite.name
    refuse_foreign(folder)
    results = ResultsFolder(folder)
    results.check_suite(suite.name)
    tell_older_cache()
    plan = make_plan(suite, only, options.device)
    tell(plan)
    work = work_left(plan, results)
    book = Book(results, plan)
    with ExitStack() as stack:
        stack.callback(sweep, folder)
        stack.callback(sweep_cache)
        screen = stack.enter_context(screen_for(options.show, work, plan, options.workers))
        queue = stack.enter_context(queue_for(suite, options, work))
        carry_out(work, queue, book, screen)
        screen.stage("figures and pages")
        book.close(skip_rows(suite.name, plan.skips))
        made = manifest(plan, options.device, options.workers, options.executor)
        with results.held():  # another run into this folder would write its own view of the rows
            if work.jobs:
                add_manifest(folder, made)
            write_report(folder)
    return results.rows("rows")


def tell_older_cache() -> None:
    """Say, once, that the cache holds files of an earlier version."""
    older = older_cache()
    if older:
        console.print(older, markup=False)


@contextmanager
def queue_for(suite: Suite, options: Options, work: Work) -> Iterator[Queue]:
    """The queue of a run, whose engine and claims end with it."""
    plugins = (*map(Path, suite.plugins), *options.plugins)
    with engine(suite, options, plugins) as executor, Claims() as claims:
        yield Queue(executor, work.remake, claims)


def engine(suite: Suite, options: Options, plugins: Sequence[Path]) -> Executor:
    """What does the tasks of a run."""
    if not options.executor:
        return executor_for(options.workers, plugins, options.timeout)
    from oodbench.passes.cluster import Ray

    address = options.executor.removeprefix("ray").removeprefix("://")
    return Ray(address, suite.resources, options.device, options.workers, plugins)


def measure_part(
    suite: Suite, options: Options, part: Part, out: str | Path | None = None, only: Iterable[str] = ()
) -> int:  # fmt: skip
    """Measure a part of a suite into the cache, without rows: those of a last :func:`run_suite`, in ``out``, need no more.

    Returns
    -------
    shards and drawings that this process made

    Raises
    ------
    OodbenchError : something could not be measured; what could be stands in the cache
    """
    forget()
    tell_older_cache()
    plan = make_plan(suite, only, options.device)
    results = ResultsFolder(Path(out) if out is not None else Path("runs") / suite.name)
    work, made, failures = part_left(work_left(plan, results), part), 0, 0
    with ExitStack() as stack:
        screen = stack.enter_context(screen_for(options.show, work, plan, options.workers))
        queue = stack.enter_context(queue_for(suite, options, work))
        for job, result in queue.run(work.jobs):
            screen.done(job, result, queue.running)
            failures += isinstance(result, Failure)
            made += isinstance(result, int)
    if failures:
        raise OodbenchError(f"{failures} shards could not be measured, for the reasons above")
    return made


def carry_out(work: Work, queue: Queue, book: Book, screen: Screen) -> None:
    """Do what is left as it becomes possible, then compare the scorers of each pair on the scores that are there."""
    shown = time.monotonic()
    for job, result in queue.run(work.jobs):
        screen.done(job, result, queue.running)
        book.enter(job, result)
        if time.monotonic() - shown > PAGE_EVERY:
            book.flush()
            write_overview(book.folder)
            shown = time.monotonic()
    book.flush()
    screen.stage("comparisons of scorers")
    rows = book.results.rows("rows")
    for job, result in queue.run(book.missing(comparison_tasks(rows, book.folder))):
        screen.done(job, result, queue.running)
        book.enter(job, result)
