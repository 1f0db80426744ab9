"""The story: plan → what is left → measure and judge as columns come → compare → pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodbench.cache import older_cache, sweep_cache
from oodbench.passes.executors import Executor, default_workers, executor_for
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
from oodbench.work import Book, Work, work_left

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
    older = older_cache()
    if older:
        console.print(older, markup=False)
    plan = make_plan(suite, only, options.device)
    tell(plan)
    work = work_left(plan, results)
    book = Book(results, plan)
    with ExitStack() as stack:
        stack.callback(sweep, folder)
        stack.callback(sweep_cache)
        screen = stack.enter_context(screen_for(options.show, work, plan, options.workers))
        plugins = (*map(Path, suite.plugins), *options.plugins)
        executor = stack.enter_context(executor_for(options.workers, plugins, options.timeout))
        carry_out(work, executor, book, screen)
        screen.stage("figures and pages")
        book.close(skip_rows(suite.name, plan.skips))
        with results.held():  # another run into this folder would write its own view of the rows
            write_report(folder)
    return results.rows("rows")


def carry_out(work: Work, executor: Executor, book: Book, screen: Screen) -> None:
    """Do what is left as it becomes possible, then compare the scorers of each pair on the scores that are there."""
    queue, shown = Queue(executor, work.remake), time.monotonic()
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
