"""What goes wrong, in sentences: every error a user can cause is an :class:`OodbenchError` and prints without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OodbenchError(Exception):
    """Base of all errors that name a thing, say what is wrong with it and what to do."""


class UnknownNameError(OodbenchError):
    """A name that no registry, catalog or folder knows; offers the nearest that exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = ""):
        self.kind, self.name, self.known = kind, name, sorted(known)
        self.hint = hint
        super().__init__(
            f"no {kind} is called {name!r}{did_you_mean(name, self.known)}{' ' + hint if hint else ''}"
        )

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str], str]]:
        """What pickle keeps on the way home from a worker: the arguments, not the sentence made of them."""
        return type(self), (self.kind, self.name, self.known, self.hint)


class DataError(OodbenchError):
    """Images that are missing, unreadable or not what their name says."""


class MissingDataError(DataError):
    """A known image set that is not on this machine; the message says how to get it."""


class ModelError(OodbenchError):
    """A model, card or weights file that cannot be used."""


class ScorerError(OodbenchError):
    """A scorer, statistic or plugin that breaks its contract."""


class UnhashableError(OodbenchError):
    """A value that cannot be hashed, so that nothing measured with it can be kept; the message names the attribute."""


class SuiteError(OodbenchError):
    """A suite file that is not valid; the message names file, line and field."""


class StoreError(OodbenchError):
    """A file of results that cannot be read or written."""


class DamagedError(StoreError):
    """A file that is not what was written; what the cache holds is made again."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause for the end of a sentence: the nearest known names, or all of them where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; known: {', '.join(known)}." if known else "."
