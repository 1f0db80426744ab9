"""Tasks that tests give to executors; workers import this file by its name."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oodbench.errors import MissingDataError, UnknownNameError


@dataclass(frozen=True)
class Square:
    number: int
    here: bool = False

    def perform(self):
        return self.number**2


@dataclass(frozen=True)
class Pid:
    """The process that does it, after some seconds, with what it prints on the way."""

    seconds: float = 0.0
    here: bool = False

    def perform(self):
        print("printed by a task")
        time.sleep(self.seconds)
        return os.getpid()


@dataclass(frozen=True)
class Modules:
    """Does another task; the kind of its result, and which of some modules the process has imported then."""

    task: Any
    names: tuple[str, ...]
    here: bool = False

    def perform(self):
        done = self.task.perform()
        return type(done).__name__, [name for name in self.names if name in sys.modules]


@dataclass(frozen=True)
class Threads:
    here: bool = False

    def perform(self):
        before = "torch" in sys.modules
        import torch

        return before, torch.get_num_threads(), os.environ["MALLOC_TRIM_THRESHOLD_"]


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class TwoArgumentsError(Exception):
    """Pickles, but cannot be made again from its message alone."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


ERRORS = {
    "plain": lambda: ValueError("a plain one"),
    "key": lambda: KeyError("net.weight"),
    "memory": lambda: MemoryError(),
    "assertion": lambda: AssertionError(),
    "empty": lambda: RuntimeError(),
    "exit": lambda: SystemExit(3),
    "interrupt": lambda: KeyboardInterrupt(),
    "mute": lambda: MuteError(),
    "two arguments": lambda: TwoArgumentsError("one", "two"),
    "holds a lock": lambda: ValueError(threading.Lock()),
    "ours": lambda: MissingDataError("the set is not here; get it"),
    "name": lambda: UnknownNameError("statistic", "x", ["y"]),
}


@dataclass(frozen=True)
class Raises:
    error: str
    here: bool = False

    def perform(self):
        raise ERRORS[self.error]()


class Once:
    """Pickles, and cannot be read back."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise LookupError("not here")


RESULTS = {"lock": threading.Lock, "function": lambda: lambda: 0, "once": Once}


@dataclass(frozen=True)
class Returns:
    result: str
    here: bool = False

    def perform(self):
        return RESULTS[self.result]()


@dataclass(frozen=True)
class Unsendable:
    here: bool = False

    def __reduce__(self):
        raise TypeError("a task of objects")

    def perform(self):
        return "done"


@dataclass(frozen=True)
class Unreadable:
    here: bool = False

    def __reduce__(self):
        return _refuse, ()

    def perform(self):
        return "done"


@dataclass(frozen=True)
class Dies:
    """Ends its process in its first tries; each try leaves a file that says which workers there were."""

    folder: Path
    tries: int
    how: str = "exit"
    rest: float = 0.0
    here: bool = False

    def __str__(self):
        return "a deadly task"

    def perform(self):
        begun = len(list(self.folder.glob("try-*")))
        (self.folder / f"try-{begun}").write_text(" ".join(siblings()))
        if begun >= self.tries:
            time.sleep(self.rest)
            return "alive"
        if self.how == "exit":
            os._exit(7)
        if self.how == "fork" and os.fork() == 0:
            time.sleep(10)  # holds the pipe of its parent open
        os.kill(os.getpid(), signal.SIGSEGV if self.how == "segfault" else signal.SIGKILL)
        return "survived"


@dataclass(frozen=True)
class Waits:
    """Leaves its process in a file and waits; a second try does not."""

    folder: Path
    here: bool = False

    def perform(self):
        file = self.folder / "pid"
        if file.exists():
            return "alive"
        (self.folder / "new").write_text(str(os.getpid()))
        (self.folder / "new").rename(file)
        time.sleep(60)
        return "waited in vain"


@dataclass(frozen=True)
class Knows:
    """Whether a model of this name is registered where the task is done."""

    name: str
    here: bool = False

    def perform(self):
        from oodbench.registry import models

        return self.name in models


def siblings():
    """Workers of this worker's parent, itself among them."""
    children = Path(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read_text().split()
    return [
        child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@dataclass(frozen=True)
class Forks:
    """Starts a process of its own, as a model that loads its images with workers does."""

    here: bool = False

    def perform(self):
        from multiprocessing import get_context

        child = get_context("fork").Process(target=time.sleep, args=(0,))
        child.start()
        child.join()
        return child.exitcode
