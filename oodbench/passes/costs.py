"""What work costs: as measured on this machine, and before that as measured where the package was made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import median

from oodbench.passes.columns import cost_of
from oodbench.passes.shards import ShardTask
from oodbench.passes.values import ImagePass
from oodbench.paths import PACKAGE
from oodbench.store import ColumnStore

PUBLISHED = PACKAGE / "passes" / "costs.json"
"""CPU-seconds of the main job's passes, an image, and of its other jobs, each; ``benchmarks/main_job.py`` writes it."""


@cache
def published() -> Mapping[str, Mapping[str, float]]:
    """``passes``: a pass's name → CPU-seconds an image; ``jobs``: kind of job → CPU-seconds."""
    costs: dict[str, dict[str, float]] = json.loads(PUBLISHED.read_text("utf-8"))
    return costs


@dataclass(frozen=True)
class Costs:
    """CPU-seconds of passes and other jobs.

    Attributes
    ----------
    passes : a pass's name → CPU-seconds an image
    unknown : of a pass that was timed nowhere: the median of the others
    """

    passes: Mapping[str, float]
    unknown: float

    @classmethod
    def of(cls, passes: Iterable[ImagePass]) -> Costs:
        """Costs by the shards in the cache, and of what is not there by those that travel in the package."""
        known = dict(published()["passes"])
        return cls(known | _measured(passes), median(known.values()))

    def of_pass(self, one: ImagePass) -> float:
        """CPU-seconds of a pass over all its images."""
        return self.an_image(one.name) * one.images.n

    def of_job(self, job: object) -> float:
        """CPU-seconds of a job."""
        if isinstance(job, ShardTask):
            return self.an_image(job.pass_name) * job.images_here
        return published()["jobs"].get(kind_of(job), 0.0)

    def an_image(self, name: str) -> float:
        """CPU-seconds an image of the pass called ``name``."""
        return self.passes.get(name, self.unknown)


def kind_of(job: object) -> str:
    """What jobs of about one cost have in common: their type and, of explanations, their kind."""
    return " ".join(filter(None, (type(job).__name__, getattr(job, "kind", ""))))


def _measured(passes: Iterable[ImagePass]) -> dict[str, float]:
    store, found = ColumnStore(), {}
    for one in passes:
        done = next((shard for key in one.keys if (shard := store.get(key)) is not None), None)
        if done is not None and one.name not in found:
            found[one.name] = cost_of([done.about])["cpu_ms_per_image"] / 1000
    return found
