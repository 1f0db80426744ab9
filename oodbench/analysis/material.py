"""What an analysis is computed from: image sets with the columns that a model's density pass gave of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from oodbench.data.division import drawn_rows
from oodbench.errors import OodbenchError
from oodbench.passes.columns import read_columns
from oodbench.passes.shards import ChangedError, open_images
from oodbench.passes.values import ImageRef


@dataclass(frozen=True)
class SetValue:
    """One image set of a task: what is shown, by what a worker opens it, and the shard keys of its columns."""

    role: str
    identifier: str
    name: str
    ref: ImageRef
    sha256: str
    n: int
    dimensions: int
    keys: tuple[str, ...]
    draw: str = ""
    in_random_order: bool = False

    def rows_of(self, n: int) -> np.ndarray:
        """Where the images stand that a limit of ``n`` would draw."""
        return drawn_rows(min(n, self.n), self.n, self.in_random_order)

    def columns(self) -> Mapping[str, np.ndarray]:
        """What the density pass measured."""
        return read_columns(self.keys).columns

    def images(self) -> np.ndarray:
        """The pixels, uint8 ``(N, C, H, W)``; other ones than the plan's are refused."""
        found = open_images(self.ref)
        if not self.draw and found.sha256 != self.sha256:
            raise ChangedError(
                f"the images of {self.identifier} changed since the plan was made; run again"
            )
        return found.images

    def without_columns(self) -> SetValue:
        """The set for an analysis of its pixels alone."""
        return replace(self, role="", keys=())


@dataclass(frozen=True, eq=False)
class Material:
    """The sets of a task, and its settings."""

    sets: Sequence[SetValue]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> frozenset[str]:
        """Shards and drawings that have to be there."""
        shards = (key for one in self.sets for key in one.keys)
        return frozenset([*shards, *(one.draw for one in self.sets if one.draw)])

    def what(self) -> list[Any]:
        """Everything that the result depends on, JSON-able."""
        sets = [
            [one.role, one.identifier, one.sha256, one.in_random_order, one.keys]
            for one in self.sets
        ]
        return [sets, dict(self.options)]

    def of(self, role: str) -> SetValue:
        """The one set with a role."""
        found = self.find(role)
        if found is None:
            raise OodbenchError(f"this analysis has no {role} images")
        return found

    def find(self, role: str) -> SetValue | None:
        """The set with a role, where there is one."""
        return next((one for one in self.sets if one.role == role), None)
