"""Curvatures in the cache of columns, under what they are computed from."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import cache

import numpy as np
from torch import Tensor

from oodbench.analysis.second_order import curvature
from oodbench.digests import code_digest
from oodbench.models.multiscale import MultiscaleFlow
from oodbench.store import ColumnStore, Shard, array_bytes, key_of

CURVATURE = "curvature"


@dataclass(frozen=True)
class KeptCurvature:
    """:func:`~oodbench.analysis.second_order.curvature`, computed once for a model, its points and its vectors.

    The in-dist images of a model are points and vectors beside every OOD set, and in every run.

    Attributes
    ----------
    identity : of the model that it is asked about
    """

    identity: str

    def __call__(
        self, model: MultiscaleFlow, points: Tensor, left: Tensor, right: Tensor
    ) -> np.ndarray:
        given = [_digest(one) for one in (points, left, right)]
        key = key_of(CURVATURE, curvature_code(), self.identity, given)
        store = ColumnStore()
        kept = store.get(key)
        if kept is not None:
            return kept.columns[CURVATURE]
        began = time.process_time()
        found = curvature(model, points, left, right)
        about = {"statistic": CURVATURE, "images": len(found), "model_identity": self.identity}
        seconds = time.process_time() - began
        store.put(key, Shard({CURVATURE: found}, about | {"cpu_seconds": seconds}))
        return found


@cache
def curvature_code() -> str:
    """Digest of the code that computes curvatures; the flow's own has a version in the model's identity."""
    return code_digest("oodbench.analysis.second_order", within="oodbench.analysis.second_order")


def _digest(vectors: Tensor) -> str:
    return hashlib.sha256(array_bytes(vectors.numpy())).hexdigest()
