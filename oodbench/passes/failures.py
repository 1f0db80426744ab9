"""Failures: what went wrong in a task, as text, since exceptions may not survive the way between processes."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oodbench.errors import OodbenchError

UNSAID = {
    "AssertionError": "an assertion does not hold",
    "MemoryError": "out of memory",
    "NotImplementedError": "this is not implemented",
}
"""What is said for errors that usually come without a message."""


@dataclass(frozen=True)
class Failure:
    """What went wrong; ``kind`` is the error's class, ``ours`` whether it was an OodbenchError."""

    kind: str
    message: str
    traceback: str = ""
    ours: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        trace = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, _message(error), trace, isinstance(error, OodbenchError))

    @property
    def sentence(self) -> str:
        """The message, after its class unless we wrote it for people."""
        return self.message if self.ours else f"{self.kind}: {self.message}"


def _message(error: BaseException) -> str:
    try:
        text = str(error).strip()
    except Exception:  # a plugin's class may fail to say what it is
        text = ""
    return text or UNSAID.get(type(error).__name__, "raised without a message")


def attempt(work: Callable[..., Any], *arguments: Any) -> Any | Failure:
    """What the work returns, or how it failed; only Ctrl-C goes through."""
    try:
        return work(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may call sys.exit
        return Failure.of(error)


def packed(value: object, name: str) -> bytes:
    """The pickled value; OodbenchError says which one cannot be."""
    try:
        return pickle.dumps(value)
    except Exception as error:
        why = Failure.of(error).sentence
        raise OodbenchError(f"{name} cannot leave its process: {why}") from error


def unpacked(sent: bytes, name: str) -> Any:
    """The value that was pickled; OodbenchError says which one cannot be made again."""
    try:
        return pickle.loads(sent)
    except Exception as error:
        why = Failure.of(error).sentence
        raise OodbenchError(f"{name} cannot be read in another process: {why}") from error
