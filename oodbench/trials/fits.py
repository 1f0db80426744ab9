"""Each scorer fitted once, each set scored once: what a process remembers of its last trials, by content.

The trials of one model and in-dist set share reference and test images. What was computed is known by the scorer's identity
and the numbers themselves, wherever they came from, and never by the names of sets or the keys of passes.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oodbench.store import key_of
from oodbench.types import Columns, Scorer


class Memory:
    """The last results, by key."""

    def __init__(self, most: int):
        self.most = most
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def found(self, key: str, make: Callable[[], Any]) -> Any:
        """What was made for this key, made now where it is not known; what fails is not remembered."""
        if key not in self._kept:
            self._kept[key] = make()
        self._kept.move_to_end(key)
        if len(self._kept) > self.most:
            self._kept.popitem(last=False)
        return self._kept[key]


_states, _scores = Memory(32), Memory(64)


class FittedScorer:
    """A scorer fitted on in-dist reference columns, and tuned on those of validation OOD images: ``columns -> (N,)``, larger =
    more OOD; one that fits nothing takes none.

    Scores belong to the memory that all trials of a process share: nobody writes into them.
    """

    def __init__(
        self, scorer: Scorer, identity: str, reference: Columns, validation: Columns | None = None
    ):
        self.scorer = scorer
        read = [*scorer.fit_needs * bool(scorer.fit), *scorer.needs * bool(scorer.tune)]
        needed = {name: reference[name] for name in read}
        tuning = {name: validation[name] for name in scorer.needs} if validation else {}
        self.key = key_of(identity, columns_digest(needed), columns_digest(tuning))
        self.state = _states.found(self.key, lambda: scorer.state_of(needed, tuning))

    def __call__(self, columns: Columns) -> np.ndarray:
        needed = {name: columns[name] for name in self.scorer.needs}
        key = key_of(self.key, columns_digest(needed))
        found: np.ndarray = _scores.found(key, lambda: self._scored(needed))
        return found

    def of_groups(self, columns: Columns) -> np.ndarray:
        """The scorer's own test of groups, of columns ``(G, M)`` or ``(G, M, K)``."""
        return self.scorer.scored_groups(
            self.state, {name: columns[name] for name in self.scorer.needs}
        )

    def _scored(self, columns: Columns) -> np.ndarray:
        # a copy, since a scorer may return a column itself
        scores = np.array(self.scorer.scored(self.state, columns))
        scores.flags.writeable = False
        return scores


def columns_digest(columns: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and numbers."""
    digest = hashlib.sha256()
    for name, column in sorted(columns.items()):
        digest.update(f"{name} {column.dtype} {column.shape}".encode())
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
