"""Passes over image sets, a shard at a time: the only stage that is cached, and the only costly one that is parallel."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from oodbench.data.images import ImageSet, content_hash, load_images
from oodbench.data.views import Shape, apply_view
from oodbench.errors import OodbenchError
from oodbench.passes.batches import as_column, prepare, run_pass
from oodbench.registry import statistics
from oodbench.store import ColumnStore, Shard, key_of
from oodbench.zoo.cards import Card
from oodbench.zoo.describe import describe

SECONDS = "seconds"
SHARD = 500
"""Images a shard: the unit of caching, of loss and of parallel work."""


@dataclass(frozen=True)
class ImageRef:
    """An image set by name, as a task carries it to a worker."""

    reference: str
    shape: Shape
    limit: int | None = None
    contract: int = 100
    """Per cent to which pixels are contracted towards mid-grey, after the model's own view."""


@lru_cache(maxsize=1024)
def open_images(ref: ImageRef) -> ImageSet:
    """The image set of a reference; opened once a process."""
    found = load_images(ref.reference, shape=ref.shape).drawn(ref.limit)
    if ref.contract == 100:
        return found
    view = f"contract{ref.contract}"
    return replace(found, images=apply_view(found.images, view), view=",".join(filter(None, (found.view, view))))


@dataclass(frozen=True)
class ImagePass:
    """One walk of a model (None: model-free) over an image set."""

    statistic: str
    """A statistic that the pass gives; names the pass."""
    model: str | None
    images: ImageRef
    prepared_on: ImageRef | None = None
    """In-dist reference images, for passes that are prepared on some."""

    @property
    def name(self) -> str:
        """``pass`` or ``pass of model``."""
        name = statistics[self.statistic].name
        return f"{name} of {describe(self.model).name}" if self.model else name

    @property
    def label(self) -> str:
        """The pass and its images, for people; all contractions of a set go by one label."""
        plain = open_images(replace(self.images, contract=100)).identifier
        return f"{self.name} on {plain}" + ", contracted" * (self.images.contract < 100)


@dataclass(frozen=True)
class ShardTask:
    """Measure one pass on one shard and store it under ``key``."""

    statistic: str
    model: str | None
    images: ImageRef
    start: int
    key: str
    seed: int
    device: str
    prepared_on: ImageRef | None = None


def shard_starts(n: int) -> range:
    """First index of each shard of ``n`` images."""
    return range(0, n, SHARD)


@lru_cache(maxsize=1024)
def shard_hashes(ref: ImageRef) -> tuple[str, ...]:
    """Content hash of each shard of an image set."""
    images = open_images(ref).images
    return tuple(content_hash(images[start : start + SHARD]) for start in shard_starts(len(images)))


def measure_shard(task: ShardTask) -> int:
    """Measure a shard into the store; returns the number of images."""
    images = open_images(task.images).images[task.start : task.start + SHARD]
    entry = statistics[task.statistic]
    began = time.perf_counter()
    if entry.model_free:
        columns = dict(entry.compute(images))
    else:
        assert task.model is not None
        given = task.statistic, task.model, task.seed, task.device
        columns = run_pass(entry, _model_for(*given), images, _prepared(*given, task.prepared_on))
    ColumnStore().put(
        task.key,
        Shard(
            {name: as_column(entry, name, values, images) for name, values in columns.items()},
            {"seconds": time.perf_counter() - began},
        ),
    )
    return len(images)


def _model_for(statistic: str, reference: str, seed: int, device: str) -> Any:
    return _model(reference, seed, device, not statistics[statistic].differentiates)


@lru_cache(maxsize=4)
def _model(reference: str, seed: int, device: str, folded: bool) -> Any:
    from oodbench.zoo.load import load_model
    from oodbench.zoo.scoring import scoring_form

    model = load_model(reference, seed, device)
    return scoring_form(model) if folded and isinstance(describe(reference), Card) else model


@lru_cache(maxsize=4)
def _prepared(statistic: str, reference: str, seed: int, device: str, ref: ImageRef | None) -> tuple[Any, ...]:
    images = open_images(ref).images if ref else None
    return prepare(statistics[statistic], _model_for(statistic, reference, seed, device), images)


@lru_cache(maxsize=64)
def model_identity(model: str) -> str:
    """Content hash of a model; read once a process."""
    return describe(model).identity()


def forget() -> None:
    """Drop what this process remembers of images and models, which may have changed on disk since."""
    for remembered in (open_images, shard_hashes, model_identity, _model, _prepared, describe):
        remembered.cache_clear()


def shard_tasks(image_pass: ImagePass, seed: int, device: str) -> list[ShardTask]:
    """The shards of a pass, each under a key made of content: statistic, weights, noise seed, device and pixels."""
    who = [model_identity(image_pass.model), seed, device.split(":")[0]] if image_pass.model else []
    entry, ref = statistics[image_pass.statistic].identity, image_pass.prepared_on
    who += [open_images(ref).sha256] if ref else []
    starts = shard_starts(len(open_images(image_pass.images)))
    return [
        ShardTask(
            image_pass.statistic,
            image_pass.model,
            image_pass.images,
            start,
            key_of(entry, who, images),
            seed,
            device,
            ref,
        )
        for start, images in zip(starts, shard_hashes(image_pass.images), strict=True)
    ]


def read_columns(image_pass: ImagePass, seed: int, device: str) -> dict[str, np.ndarray]:
    """All columns of a finished pass, from the store, with the seconds that each shard took."""
    store, shards = ColumnStore(), []
    for task in shard_tasks(image_pass, seed, device):
        shard = store.get(task.key)
        if shard is None:
            raise OodbenchError(
                f"the columns of {image_pass.name} on {open_images(image_pass.images).identifier} are not in the cache; run again"
            )
        shards.append({**shard.columns, SECONDS: np.atleast_1d(shard.about["seconds"])})
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
