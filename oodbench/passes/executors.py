"""Executors: what does the tasks of a run, one seam for every engine.

============  ================================================  ====================================
engine        where a task is done                              a task that ends its process
============  ================================================  ====================================
`Serial`      in this process, when its result is asked for     ends the run
`Processes`   in one of a pool of processes of this machine     is tried again, at last alone
`Ray`         shards in a worker of a cluster, see `cluster`    is tried again on any node
============  ================================================  ====================================

A fourth engine is one more class and one more line in :func:`executor_for`: ``submit`` takes a task, ``results``
yields each as it is done, ``cancel`` stops all. It does tasks whose ``here`` is true with :func:`attempt` in this
process, sends the others as pickled values, and answers for a task that went wrong with a :class:`Failure`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from oodbench.passes.failures import Failure, attempt, packed, unpacked
from oodbench.passes.workers import Worker, dismiss, listen
from oodbench.signals import uninterrupted

__all__ = [
    "Executor", "Failure", "Processes", "Serial", "Task", "attempt", "default_workers", "executor_for",
]  # fmt: skip

TRIES = 3
"""A task that ended as many processes has failed."""


class Task(Protocol):
    """Work made of names and plain values, so that any process can do it; ``str`` of it names it to people."""

    @property
    def here(self) -> bool:
        """Whether only this process can do it."""

    def perform(self) -> Any:
        """Do the work; what it returns is pickled."""


class Executor(Protocol):
    """Takes tasks, also while results are read, and yields each with its result as it is done."""

    def submit(self, task: Task) -> None:
        """Take a task; tasks begin in the order in which they were submitted."""

    def results(self) -> Iterator[tuple[Task, Any | Failure]]:
        """Each task with what it returned, in the order of completion, until none is left."""

    def cancel(self) -> None:
        """Forget what waits and end what runs."""

    @property
    def capacity(self) -> int:
        """Tasks that it should have at once: enough that nothing idles, few enough that what is urgent comes soon."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cancel()


def default_workers(device: str) -> int:
    """One single-threaded process a core on a CPU; one process in all on an accelerator."""
    return min(os.cpu_count() or 1, 16) if device == "cpu" else 1


def executor_for(
    workers: int, plugins: Sequence[Path] = (), timeout: float | None = None
) -> Serial | Processes:
    """The engine for as many processes; ``plugins`` are the files that each of them loads.

    Parameters
    ----------
    timeout : seconds after which a task's process is ended and the task has failed, which takes a process of its own
    """
    apart = workers > 1 or timeout is not None
    return Processes(workers, plugins, timeout) if apart else Serial()


class Serial(Executor):
    """Does each task in this process when its result is asked for."""

    capacity = 1

    def __init__(self) -> None:
        self._waiting: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def results(self) -> Iterator[tuple[Task, Any | Failure]]:
        while self.busy:
            yield from self.ready(0)

    @property
    def busy(self) -> bool:
        """Whether a result is still to come."""
        return bool(self._waiting)

    def ready(self, seconds: float) -> Iterator[tuple[Task, Any | Failure]]:
        """The next result, where one is to come."""
        if self._waiting:
            task = self._waiting.popleft()
            yield task, attempt(task.perform)

    def cancel(self) -> None:
        self._waiting.clear()


@dataclass
class _Job:
    task: Task
    sent: bytes
    deaths: int = 0
    given: float = 0.0
    """When a process got it."""

    @property
    def suspect(self) -> bool:
        """Whether the next try is the last."""
        return self.deaths == TRIES - 1


class Processes(Executor):
    """Does tasks in up to ``workers`` processes, which start when a task needs one.

    A process that dies costs its task a try. The last try comes when no other task is left, in the only process that
    there is, since the others may have taken the memory that it needs. A task that takes longer than ``timeout`` seconds
    has failed, and is not tried again.
    """

    def __init__(self, workers: int, plugins: Sequence[Path] = (), timeout: float | None = None):
        self._limit, self._plugins, self._timeout = workers, plugins, timeout
        self._workers: dict[Worker, _Job | None] = {}
        self._here: deque[Task] = deque()
        self._waiting: deque[_Job] = deque()
        self._suspects: deque[_Job] = deque()
        self._done: deque[tuple[Task, Any | Failure]] = deque()

    @property
    def capacity(self) -> int:
        return 2 * self._limit

    def submit(self, task: Task) -> None:
        if task.here:
            self._here.append(task)
            return
        sent = attempt(packed, task, f"the task {task}")
        if isinstance(sent, Failure):
            self._done.append((task, sent))
            return
        self._waiting.append(_Job(task, sent))
        self._hear(0)  # an idle worker may have died meanwhile
        self._hand_out()

    def results(self) -> Iterator[tuple[Task, Any | Failure]]:
        while self.busy:
            yield from self.ready(1)

    @property
    def busy(self) -> bool:
        """Whether a result is still to come."""
        left = self._done, self._here, self._waiting, self._suspects, self._running()
        return any(left)

    def ready(self, seconds: float) -> Iterator[tuple[Task, Any | Failure]]:
        """A result, where one comes within so many seconds."""
        self._hear(0 if self._done or self._here else seconds)
        self._hand_out()
        if self._done:
            yield self._done.popleft()
        elif self._here:
            task = self._here.popleft()
            yield task, attempt(task.perform)

    def cancel(self) -> None:
        for waiting in (self._here, self._waiting, self._suspects, self._done):
            waiting.clear()
        self._dismiss()

    def _running(self) -> list[_Job]:
        return [job for job in self._workers.values() if job]

    def _hand_out(self) -> None:
        """Give waiting tasks to idle workers, and a suspect to the only one when nothing else is left."""
        if any(job.suspect for job in self._running()):
            return
        while self._waiting and (worker := self._idle()):
            self._give(worker, self._waiting.popleft())
        if self._suspects and not self._running():
            self._dismiss()
            self._give(self._start(), self._suspects.popleft())

    def _idle(self) -> Worker | None:
        idle = next((worker for worker, job in self._workers.items() if job is None), None)
        return self._start() if idle is None and len(self._workers) < self._limit else idle

    def _start(self) -> Worker:
        with uninterrupted():
            worker = Worker(self._plugins)
            self._workers[worker] = None
        return worker

    def _give(self, worker: Worker, job: _Job) -> None:
        self._workers[worker] = job
        job.given = time.monotonic()
        worker.give(job.sent)

    def _end_late(self) -> None:
        """End the processes whose task takes too long."""
        if self._timeout is None:
            return
        latest = time.monotonic() - self._timeout
        late = {w: job for w, job in self._workers.items() if job and job.given < latest}
        for worker, job in late.items():
            del self._workers[worker]
            worker.end()
            message = f"{job.task} took more than the {self._timeout:g} s of --timeout"
            self._done.append((job.task, Failure("TimedOut", message, ours=True)))

    def _hear(self, seconds: float) -> None:
        """Take what workers have to say, waiting at most so many seconds for it."""
        for worker in listen(list(self._workers), seconds):
            answer, job = worker.answer(), self._workers[worker]
            if answer is None:
                self._replace(worker, job)
            elif job:
                self._workers[worker] = None
                result = attempt(unpacked, answer, f"the result of {job.task}")
                self._done.append((job.task, result))
        self._end_late()

    def _replace(self, worker: Worker, job: _Job | None) -> None:
        """Bury a worker; its task waits for another one, or has failed."""
        del self._workers[worker]
        how = worker.end()
        if job is None:
            return
        job.deaths += 1
        if job.deaths == TRIES:
            message = f"the process that did {job.task} ended ({how}), three times"
            self._done.append((job.task, Failure("WorkerDied", message)))
        elif job.suspect:
            self._suspects.append(job)
        else:
            self._waiting.appendleft(job)

    def _dismiss(self) -> None:
        with uninterrupted():  # a second Ctrl-C must not leave processes behind
            dismiss(list(self._workers))
            self._workers.clear()
