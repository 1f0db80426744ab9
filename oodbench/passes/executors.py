"""Executors: serial or processes behind one ``map``. Tasks are names, not objects, so that any worker can do them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from oodbench.errors import OodbenchError
from oodbench.registry import load_plugin

Task = TypeVar("Task")
Result = TypeVar("Result")

WORKER = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""glibc keeps freed memory in the worker: without it a third of a pass is page faults. One process a core has one thread."""


def default_workers(device: str) -> int:
    """One single-threaded process a core on a CPU; one process in all on an accelerator."""
    return min(os.cpu_count() or 1, 16) if device == "cpu" else 1


def map_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int = 1, plugins: Sequence[Path] = ()
) -> Iterator[tuple[Task, Result | Exception]]:
    """Yield ``(task, result or exception)`` in the order of completion; one task's failure leaves the others alone.

    Raises
    ------
    OodbenchError : a worker process died (out of memory, killed); finished shards are kept
    """
    if workers <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield task, _attempt(function, task)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), get_context("spawn"), _start_worker, (tuple(plugins), os.getpid())
    )
    try:
        with _environment(WORKER), _without_main():
            futures = {pool.submit(_attempt, function, task): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise OodbenchError(
            "a worker process died, perhaps for want of memory. What is finished is kept: run the same command again, "
            "with fewer --workers if it happens again"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _attempt(function: Callable[[Task], Result], task: Task) -> Result | Exception:
    try:
        return function(task)
    except Exception as error:
        return error


def _start_worker(plugins: tuple[Path, ...], parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_exit_without, args=(parent,), daemon=True).start()
    import torch

    torch.set_num_threads(1)
    for plugin in plugins:
        load_plugin(plugin)


def _exit_without(parent: int) -> None:
    """Leave when the parent was killed, instead of waiting for tasks forever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide ``__main__`` from processes started inside, which need nothing of it and would run the user's script again."""
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__spec__", "__file__") if hasattr(main, name)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(hidden)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for processes started inside; what the user has set stays."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
