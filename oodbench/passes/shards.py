"""What a worker does: measure a pass on a shard, or draw images from a model. Only here are a plan's names looked up again.

A worker compares the identity of what it loads with the one in its task and refuses another: a file may have changed
since the plan was made, and a model that fits itself when it is made may come out differently in each process.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from oodbench import __version__
from oodbench.contract import DensityModel
from oodbench.data.division import content_hash
from oodbench.data.images import ImageSet, read_images
from oodbench.errors import DamagedError, ModelError, OodbenchError
from oodbench.passes.batches import BATCH, as_column, batch_size_of, prepare, run_pass
from oodbench.passes.columns import kept_columns
from oodbench.passes.values import SHARD, ImageRef
from oodbench.paths import home
from oodbench.registry import statistics
from oodbench.store import ColumnStore, Shard, array_bytes, key_of, map_sealed, write_sealed
from oodbench.types import Pass
from oodbench.zoo.describe import describe

DETERMINISTIC = "OODBENCH_DETERMINISTIC"
"""Environment variable that ``--deterministic`` sets, so that each process that measures reads it."""
PREPARED = "prepared"
"""Folder of the cache for what model-free passes are prepared with."""


class ChangedError(OodbenchError):
    """What a worker loaded is not what its task names."""


@lru_cache(maxsize=1024)
def open_images(ref: ImageRef) -> ImageSet:
    """The image set of a reference; opened once a process."""
    if ref.sampled:
        images = map_sealed(Path(ref.reference))
        return ImageSet(ref.name or "samples", "test", "", images, len(images))
    found = read_images(ref.reference, ref.shape, ref.name, ref.limit)
    return found.through(ref.contraction) if ref.contraction else found


@lru_cache(maxsize=4)
def load_verified(reference: str, identity: str, seed: int, device: str, folded: bool) -> Any:
    """The model of a task, in the form in which it is scored; another identity than the task's is refused."""
    from oodbench.zoo.load import load_model
    from oodbench.zoo.scoring import scoring_form

    found = describe(reference).identity()
    if found != identity:
        raise ChangedError(
            f"the model {reference} is another one in a worker process than in the plan: its files changed since, or it "
            "comes out differently each time that it is made"
        )
    if os.environ.get(DETERMINISTIC):
        settle()
    model = load_model(reference, seed, device)
    return scoring_form(model) if folded else model


def settle() -> None:
    """Let torch choose kernels that give the same bits each time, in full float32; one that has none of that kind raises."""
    import torch

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def forget() -> None:
    """Drop what this process remembers of images, models and columns, which may have changed on disk since."""
    remembered: tuple[Any, ...] = (open_images, load_verified, _prepared, describe, kept_columns)
    for one in remembered:
        one.cache_clear()


@dataclass(frozen=True)
class ShardTask:
    """Measure one pass on one shard and store it under ``key``.

    Attributes
    ----------
    images_here : images of the shard
    pixels : hash of the shard's images
    drawn : key of the drawing that the images come from; empty for real ones
    images_name, model_name : for people
    """

    key: str
    pass_name: str
    statistic: str
    identity: str
    images: ImageRef
    images_name: str
    images_here: int
    start: int
    pixels: str
    drawn: str
    seed: int
    device: str
    here: bool = False
    model: str | None = None
    model_identity: str = ""
    model_name: str = ""
    folded: bool = True
    prepared_on: ImageRef | None = None

    @property
    def after(self) -> frozenset[str]:
        """The drawing that has to be done before."""
        return frozenset([self.drawn]) if self.drawn else frozenset()

    @property
    def label(self) -> str:
        return self.pass_name

    def __str__(self) -> str:
        return f"{self.pass_name} on {self.images_name}"

    @property
    def done(self) -> bool:
        """Whether the shard lies in the cache, whole."""
        return self.key in ColumnStore()

    def perform(self) -> int:
        """Measure the shard into the store; returns the number of images."""
        images = self.read()
        ColumnStore().put(self.key, self.measured(images))
        return len(images)

    def measured(self, images: np.ndarray) -> Shard:
        """The columns of the shard's images, and what made them; another model, statistic or pixels are refused."""
        self._check_pixels(images)
        entry = self._entry()
        # to load a model and to prepare are no cost of an image
        model: Any = None if entry.model_free else self._model()
        prepared = _prepared(self.statistic, model, self.prepared_on)
        began = time.perf_counter(), time.process_time()
        columns = run_pass(entry, model, images, prepared)
        checked = {name: as_column(entry, name, values, images) for name, values in columns.items()}
        seconds, cpu_seconds = time.perf_counter() - began[0], time.process_time() - began[1]
        about = self._about(len(images)) | {"seconds": seconds, "cpu_seconds": cpu_seconds}
        return Shard(checked, about)

    def read(self) -> np.ndarray:
        """The shard's images, as they lie on this machine."""
        return open_images(self.images).images[self.start : self.start + SHARD]

    def _check_pixels(self, images: np.ndarray) -> None:
        if not self.drawn and content_hash(images) != self.pixels:
            raise ChangedError(
                f"the images of {self.images_name} changed since the plan was made; run again"
            )

    def _entry(self) -> Pass:
        entry = statistics[self.statistic]
        if entry.identity != self.identity:
            raise ChangedError(
                f"the statistic {self.statistic} is another here than in the plan; was its file edited?"
            )
        return entry

    def _model(self) -> DensityModel:
        assert self.model is not None
        folded = self.folded and not statistics[self.statistic].differentiates
        return load_verified(self.model, self.model_identity, self.seed, self.device, folded)

    def _about(self, images: int) -> dict[str, Any]:
        """What made the shard, in words."""
        made = {
            "statistic": self.identity,
            "images_of": self.images_name,
            "images": images,
            "pixels": self.pixels,
            "oodbench": __version__,
            "numpy": np.__version__,
            "pillow": version("pillow"),
            "machine": platform.machine(),
            "device": self.device,
        }
        if self.model is None:
            return made
        import torch

        of_model = {
            "model": self.model_name,
            "model_identity": self.model_identity,
            "seed": self.seed,
        }
        batches = {"batch_size": batch_size_of(self._model()), "threads": torch.get_num_threads()}
        return made | of_model | batches | {"torch": torch.__version__}


@lru_cache(maxsize=4)
def _prepared(statistic: str, model: Any, ref: ImageRef | None) -> tuple[Any, ...]:
    entry, images = statistics[statistic], open_images(ref) if ref else None
    if images is None or not entry.model_free:
        return prepare(entry, model, images.images if images else None)
    return (_kept_state(entry, images),)


def _kept_state(entry: Pass, images: ImageSet) -> Mapping[str, np.ndarray]:
    """What a model-free pass learns from in-dist images, from the cache where it is there: a covariance takes its time."""
    key, store = key_of("prepared", entry.identity, images.sha256), ColumnStore(home() / PREPARED)
    found = store.get(key)
    if found is None:
        (state,) = prepare(entry, None, images.images)
        found = Shard(state, {"statistic": entry.identity, "images_of": images.identifier})
        store.put(key, found)
    return found.columns


UNROUNDED = "latent_norm_unrounded"
"""Column of a drawing: norm of the standardised latents before the draw was rounded to levels and clamped."""
OVERFLOWED = "overflowed"
"""What a drawing says of the draws whose pass through the inverse was not finite in the weights' precision."""
MOST_LOST = 3
"""Times the images asked for that may overflow before a drawing is given up."""


def samples_path(key: str) -> Path:
    """Where the images of a drawing lie, or will."""
    return home() / "samples" / f"{key}.npy"


@dataclass(frozen=True)
class DrawTask:
    """Draw ``n`` images from a model and keep them as an image set.

    The sampler's random stream starts at ``seed``; images belong to the kind of device that they were drawn on.

    Attributes
    ----------
    temperature : by which the standard deviations of the prior are multiplied; other ones than 1 need ``with_norm``
    with_norm : the model gives the norm of each draw's latents before rounding, which is kept as a column under ``key``
    """

    key: str
    model: str
    model_identity: str
    model_name: str
    shape: tuple[int, int, int]
    n: int
    seed: int
    device: str
    temperature: float = 1.0
    with_norm: bool = False
    here: bool = False
    after: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        at = "" if self.temperature == 1 else f" at temperature {self.temperature:g}"
        return f"drawing from {self.model_name}{at}"

    def __str__(self) -> str:
        return self.label

    @property
    def done(self) -> bool:
        """Whether the images lie in the cache, whole; a damaged file counts as not here."""
        try:
            map_sealed(samples_path(self.key))
        except (FileNotFoundError, DamagedError):
            return False
        return not self.with_norm or self.key in ColumnStore()

    def perform(self) -> int:
        """Draw into the cache; returns how many.

        Raises
        ------
        ModelError : what the model draws is not uint8 images of its shape
        """
        import torch

        model = load_verified(self.model, self.model_identity, self.seed, self.device, False)
        generator = torch.Generator(self.device).manual_seed(self.seed)
        images = (self._with_norms if self.with_norm else self._plainly)(model, generator)
        write_sealed(samples_path(self.key), array_bytes(images))
        return self.n

    def _plainly(self, model: Any, generator: Any) -> np.ndarray:
        sizes = [min(BATCH, self.n - start) for start in range(0, self.n, BATCH)]
        drawn = [self._checked(model.sample(size, generator=generator), size) for size in sizes]
        return np.concatenate(drawn)

    def _with_norms(self, model: Any, generator: Any) -> np.ndarray:
        """The images, after their norms were stored; draws that overflow are no images, and are counted and drawn again."""
        kept, norms, overflowed = [], np.empty(0), 0
        while len(norms) < self.n:
            size = min(BATCH, self.n - len(norms))
            drawn, found = model.sample_with_norm(
                size, temperature=self.temperature, generator=generator
            )
            norm = np.asarray(found.cpu(), np.float64)
            finite = np.isfinite(norm)
            kept.append(self._checked(drawn, size)[finite])
            norms = np.concatenate([norms, norm[finite]])
            overflowed += int((~finite).sum())
            if overflowed > MOST_LOST * self.n:
                raise ModelError(
                    f"{overflowed} of {overflowed + len(norms)} draws from {self.model_name} overflow: "
                    "its inverse does not hold"
                )
        about = {"images_of": self.label, "images": self.n, "device": self.device}
        ColumnStore().put(self.key, Shard({UNROUNDED: norms}, about | {OVERFLOWED: overflowed}))
        return np.concatenate(kept)

    def _checked(self, drawn: Any, n: int) -> np.ndarray:
        images, wanted = np.asarray(drawn.cpu()), (n, *self.shape)
        if images.dtype != np.uint8 or images.shape != wanted:
            found = f"{images.dtype} {images.shape}"
            raise ModelError(
                f"sample(n, generator=…) of {self.model_name} gave {found}, not uint8 {wanted}"
            )
        return images
