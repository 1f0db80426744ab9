"""Tasks in the order in which they can be done: each is submitted once what it waits for is there.

What several runs share, they make once: a run submits a task of the cache after it has claimed it, and takes for done what
another run made. What another run is at waits here, beside the rest of the work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from heapq import heappop, heappush
from itertools import count
from typing import Any, Literal, Protocol

from oodbench.passes.claims import Claims
from oodbench.passes.executors import Executor, Failure

logger = logging.getLogger("oodbench")
ASK = 0.2
"""Seconds between two looks at what another run is at."""


class Job(Protocol):
    """A task with a key, and the keys of the tasks that have to be done before."""

    @property
    def key(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def after(self) -> frozenset[str]: ...
    @property
    def here(self) -> bool: ...
    def perform(self) -> Any: ...


def is_shared(job: Job) -> bool:
    """Whether what a job makes lies in the cache, for all runs; its ``done`` then says whether it is there."""
    return hasattr(type(job), "done")


class Queue:
    """Feeds an executor.

    Of what can be done, that which stands first in the list of jobs goes first, so that a pair is judged as soon as its
    columns are there; few tasks are ahead of the executor, so that it can. A task whose prerequisite failed fails with
    its reason.

    Parameters
    ----------
    remake : from keys that a task did not find any more to the tasks that make them again
    claims : this run's, on a cache that it may share
    """

    def __init__(
        self,
        executor: Executor,
        remake: Callable[[Iterable[str]], Iterable[Job]],
        claims: Claims | None = None,
    ):
        self.executor, self.remake, self.claims = executor, remake, claims
        self._ready: list[tuple[int, int, Any]] = []
        """A heap of places in the list, order of arrival and jobs."""
        self._arrivals = count()
        self._places: dict[str, int] = {}
        self._missing: dict[Job, set[str]] = {}
        self._dependents: dict[str, list[Job]] = {}
        self._known: set[str] = set()
        self._tried: set[tuple[str, str]] = set()
        self._told: set[str] = set()
        self._deadly: dict[str, Failure] = {}
        """Label of jobs that ended their processes, or took too long → how: others of that label are not tried."""
        self._in_flight: dict[Job, None] = {}
        self._elsewhere: list[Job] = []
        """Jobs that another run has claimed."""
        self._asked = 0.0

    @property
    def running(self) -> list[Job]:
        """What the executor has: the jobs in the order in which it got them."""
        return list(self._in_flight)

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Any]]:
        """Yield each job with its result, or its :class:`Failure`, as they come."""
        todo = list(jobs)
        self._known |= {job.key for job in todo}
        self._places = {job.key: place for place, job in enumerate(todo)}
        for job in todo:
            self._add(job, job.after & self._known)
        yield from self._fed()
        while self._in_flight or self._elsewhere:
            if not self._in_flight:
                time.sleep(ASK)
                yield from self._fed()
            done: Iterator[tuple[Any, Any]] = self.executor.results()
            for job, result in done:
                del self._in_flight[job]
                if self.claims and is_shared(job):
                    self.claims.release(job.key)
                if isinstance(result, Failure) and result.kind in ("WorkerDied", "TimedOut"):
                    self._deadly[job.label] = result
                if not self._again(job, result):
                    yield job, result
                    yield from self._released(job, result)
                yield from self._fed()

    def _add(self, job: Job, missing: Iterable[str]) -> None:
        self._missing[job] = set(missing)
        for key in self._missing[job]:
            self._dependents.setdefault(key, []).append(job)
        if not self._missing[job]:
            self._push(job)

    def _push(self, job: Job) -> None:
        """A job can be done; what is made again, which stands in no list, goes before all others."""
        heappush(self._ready, (self._places.get(job.key, -1), next(self._arrivals), job))

    def _fed(self) -> Iterator[tuple[Job, Any]]:
        """Give the executor what is ready, as much as it should have; yield what needs no trying."""
        self._ask_again()
        while self._ready and len(self._in_flight) < self.executor.capacity:
            _, _, job = heappop(self._ready)
            failure = self._deadly.get(job.label)
            state = "failed" if failure else self._state(job)
            if state == "elsewhere":
                self._elsewhere.append(job)
            elif state == "free":
                self.executor.submit(job)
                self._in_flight[job] = None
            else:
                yield job, failure
                yield from self._released(job, failure)

    def _state(self, job: Job) -> Literal["free", "elsewhere", "made"]:
        """Whether this run is to do a job, another one is at it, or has done it meanwhile."""
        if self.claims is None or not is_shared(job):
            return "free"
        if not self.claims.take(job.key):
            return "elsewhere"
        # asked after the claim, since another run makes before it gives back
        if not job.done:  # type: ignore[attr-defined]
            return "free"
        self.claims.release(job.key)
        return "made"

    def _ask_again(self) -> None:
        """Look again, now and then, at what other runs are at."""
        if time.monotonic() - self._asked > ASK:
            self._asked = time.monotonic()
            waiting, self._elsewhere = self._elsewhere, []
            for job in waiting:
                self._push(job)

    def _released(self, job: Job, result: Any) -> Iterator[tuple[Job, Any]]:
        """Free what waited for a job, or fail it with the job's reason."""
        for other in self._dependents.pop(job.key, []):
            if isinstance(result, Failure):
                if other in self._missing:
                    del self._missing[other]
                    failure = replace(
                        result, message=f"{job.label} failed: {result.sentence}", ours=True
                    )
                    yield other, failure
                    yield from self._released(other, failure)
            elif other in self._missing:
                self._missing[other].discard(job.key)
                if not self._missing[other]:
                    self._push(other)

    def _again(self, job: Job, result: Any) -> bool:
        """Whether a failure is worth another try: columns that vanished are made again, what is another model there is
        measured here. Each once."""
        kind = result.kind if isinstance(result, Failure) else ""
        if kind not in ("LostError", "ChangedError") or (job.key, kind) in self._tried:
            return False
        self._tried.add((job.key, kind))
        if kind == "LostError":
            makers = list(self.remake(job.after))
            self._known |= {maker.key for maker in makers}
            for maker in makers:
                self._add(maker, ())
            self._add(job, {maker.key for maker in makers})
            return True
        if job.here:
            return False
        self._tell(f"{result.message}; it is measured in this process")
        moved = replace(job, here=True)  # type: ignore[type-var]
        self._add(moved, ())
        return True

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            logger.warning(sentence)
