"""Workers: processes that do one task at a time, each at the end of a pipe, so that it is known what each one does."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, current_process, get_context
from multiprocessing.connection import Connection
from pathlib import Path

from oodbench.passes.failures import Failure, attempt, packed, unpacked
from oodbench.registry import load_plugin

ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""glibc keeps freed memory: without it a third of a pass is page faults. One process a core has one thread."""
GRACE = 0.6
"""Seconds that a process has to leave before it is killed."""


class Worker:
    """A process that answers each pickled task with its pickled result, loading ``plugins`` first."""

    def __init__(self, plugins: Sequence[Path]):
        self.busy = False
        self.pipe, theirs = get_context("spawn").Pipe()
        arguments = theirs, tuple(plugins), os.getpid()
        self.process = get_context("spawn").Process(target=_work, args=arguments, daemon=True)
        with _environment(ENVIRONMENT), _without_main():
            self.process.start()
        theirs.close()  # so that the pipe ends when the process does

    def give(self, sent: bytes) -> None:
        self.busy = True
        with suppress(OSError):  # it died just now, which is noticed when we listen
            self.pipe.send_bytes(sent)

    def answer(self) -> bytes | None:
        """The result of its task; None where it died."""
        self.busy = False
        try:
            return self.pipe.recv_bytes() if self.pipe.poll() else None
        except (EOFError, OSError):
            return None

    def end(self) -> str:
        """How the process ended; one that merely closed its pipe is killed."""
        dismiss([self])
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        name = {number.value: number.name for number in signal.Signals}.get(-code, str(-code))
        return f"signal {name}" + ", perhaps for want of memory" * (name == "SIGKILL")


def listen(workers: Sequence[Worker], seconds: float) -> list[Worker]:
    """The workers that have answered or died, waiting at most so many seconds for the first."""
    pipes: dict[object, Worker] = {worker.pipe: worker for worker in workers}
    heard = [pipes[pipe] for pipe in connection.wait([worker.pipe for worker in workers], seconds)]
    # a process that a plugin forked may hold the pipe of a dead worker open
    dead = [worker for worker in workers if worker.process.exitcode is not None]
    return list(dict.fromkeys([*heard, *dead]))


def dismiss(workers: Sequence[Worker]) -> None:
    """End workers: idle ones leave when their pipe closes, busy ones are told to, late ones are killed."""
    for worker in workers:
        worker.pipe.close()
        if worker.busy:
            worker.process.terminate()
    deadline = time.monotonic() + GRACE
    for worker in workers:
        worker.process.join(max(0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join(GRACE)


def _work(pipe: Connection, plugins: Sequence[Path], parent: int) -> None:
    """What a worker does until its pipe ends."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the parent's to handle
    os.dup2(2, 1)  # what a model prints is no line of the command's output
    current_process().daemon = False  # a plugin may start processes of its own
    threading.Thread(target=_exit_without, args=(parent,), daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(_result(pipe.recv_bytes(), plugins))


def _result(sent: bytes, plugins: Sequence[Path]) -> bytes:
    try:
        for plugin in plugins:
            load_plugin(plugin)
        task = unpacked(sent, "a task")
        return packed(attempt(task.perform), f"the result of {task}")
    except BaseException as error:
        return pickle.dumps(Failure.of(error))


def _exit_without(parent: int) -> None:
    """Leave when the parent was killed, instead of working for nobody."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide ``__main__`` from processes started inside, which would run the user's script again."""
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
    """Environment variables for processes started inside."""
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
        os.environ.update(before)
