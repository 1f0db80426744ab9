"""model × images → columns: the only stage that touches torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from oodbench.contract import DensityModel
from oodbench.data.images import ImageSet
from oodbench.errors import DataError, ModelError, ScorerError
from oodbench.passes.values import preparing
from oodbench.registry import statistics
from oodbench.types import Columns, Pass, PreparedOn

if TYPE_CHECKING:
    from oodbench.models.noise import Ahead

BATCH = 64
"""Images a batch, for a model without a ``batch_size`` of its own."""
ON_ACCELERATOR = 16
"""Times as many images a batch on an accelerator, whose memory and many cores want them."""
OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory")
"""What torch says where the machine has no more memory, for which it has no class of errors."""
PREPARED_ON: Mapping[PreparedOn, tuple[str, str]] = {
    "ref": ("reference", "reference"),
    "train": ("training", "train"),
}
"""The split that a pass is prepared on → what its images are called, and the argument of :func:`measure`."""


def run_pass(
    entry: Pass, model: DensityModel | None, images: np.ndarray, prepared: Sequence[Any] = ()
) -> Mapping[str, np.ndarray]:
    """Run a pass over uint8 images, a model's in batches; ``prepared`` holds what :func:`prepare` returned.

    Raises
    ------
    ModelError : not even one image fits the memory, of an accelerator or of the machine
    """
    if entry.model_free:
        return entry.compute(images, *prepared)
    assert model is not None
    import torch

    from oodbench.models.noise import drawn_ahead

    device, done = _device(model), 0
    found: list[Mapping[str, Any]] = []
    while done < len(images):
        try:
            for batch in loaded(images[done:], batch_size_of(model), device, device.type != "cpu"):
                with drawn_ahead(batch):
                    found.append(computed(entry, model, batch.images, prepared))
                done += len(batch.images)
        except (torch.OutOfMemoryError, MemoryError):
            _halve(model, device)
        except RuntimeError as error:
            if not any(words in str(error) for words in OUT_OF_MEMORY):
                raise
            _halve(model, device)
    return {
        name: np.concatenate([np.asarray(torch.as_tensor(b[name]).detach().cpu()) for b in found])
        for name in found[0]
    }


def loaded(images: np.ndarray, size: int, device: Any, ahead: bool) -> Iterator[Ahead]:
    """Batches on the model's device.

    Parameters
    ----------
    ahead : while a batch is scored, a thread loads the next one and draws the noise that the model asked of the batches
        before. It is the noise that the model would draw itself, so that scores stay.
    """
    import torch

    from oodbench.models.noise import Ahead, Noise

    asked: set[Noise] = set()

    def load(start: int) -> Ahead:
        here = torch.from_numpy(np.array(images[start : start + size]))
        drawn = {noise: noise.of(here).to(device) for noise in tuple(asked)}
        return Ahead(here.to(device), drawn)

    if not ahead:
        yield from map(load, range(0, len(images), size))
        return
    with ThreadPoolExecutor(1) as loader:
        coming = loader.submit(load, 0)
        for following in range(size, len(images) + size, size):
            batch, coming = coming.result(), loader.submit(load, following)
            yield batch
            asked |= batch.asked


def computed(
    entry: Pass, model: DensityModel, batch: Any, prepared: Sequence[Any] = ()
) -> Mapping[str, Any]:
    """What a pass gives for one batch: without gradients, unless the pass differentiates or the model does so inside.

    A model may differentiate with ``torch.enable_grad()`` or without it, as a continuous flow does for its trace.
    """
    import torch

    if not entry.differentiates:
        try:
            # inference mode is a little faster, but its tensors can never take part in a gradient
            with torch.no_grad():
                return entry.compute(model, batch, *prepared)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
    with torch.enable_grad():
        return entry.compute(model, batch, *prepared)


def batch_size_of(model: DensityModel) -> int:
    """Images that a model is given at a time; on an accelerator more, and as many as the memory was found to hold."""
    size = int(getattr(model, "batch_size", BATCH))
    return _fitting.get(model, size if _device(model).type == "cpu" else ON_ACCELERATOR * size)


_fitting: WeakKeyDictionary[DensityModel, int] = WeakKeyDictionary()
"""Models whose batches did not fit the memory → images that are tried now."""


def _halve(model: DensityModel, device: Any) -> None:
    """Give the model half as many images at a time from now on; :class:`ModelError` where it is one already."""
    size = batch_size_of(model)
    if size == 1:
        where = (
            "is free; use fewer --workers"
            if device.type == "cpu"
            else f"{device} has; use --device cpu"
        )
        raise ModelError(f"{type(model).__name__} needs more memory for one image than {where}")
    _fitting[model] = size // 2


def prepare(entry: Pass, model: DensityModel | None, in_dist: np.ndarray | None) -> tuple[Any, ...]:
    """What a pass learns from in-dist images before it is run: empty, or its one state.

    Raises
    ------
    ScorerError : there are no images, or fewer than it needs
    """
    if entry.prepare is None:
        return ()
    if in_dist is None:
        kind, argument = PREPARED_ON[entry.prepared_on]
        raise ScorerError(
            f"the pass {entry.name!r} is prepared on in-dist {kind} images; give `{argument}`"
        )
    if reason := entry.too_few(len(in_dist), math.prod(in_dist.shape[1:])):
        raise ScorerError(reason)
    if entry.model_free:
        return (entry.prepare(in_dist),)
    import torch

    batch = torch.from_numpy(np.array(in_dist[-preparing(len(in_dist)) :])).to(_device(model))
    return (entry.prepare(model, batch),)


def _device(model: DensityModel | None) -> Any:
    """Where a model's parameters are, and its images have to be."""
    import torch

    parameters: Any = model.parameters() if isinstance(model, torch.nn.Module) else ()
    return next((one.device for one in parameters), torch.device("cpu"))


def as_column(entry: Pass, name: str, values: Any, images: np.ndarray) -> np.ndarray:
    column = np.asarray(values)
    if name == "log_prob" and column.shape != (len(images),):
        raise ScorerError(
            f"log_prob has shape {column.shape} for {len(images)} images; it must be one number an image, (N,)"
        )
    if name not in entry.statistics:
        raise ScorerError(f"the pass {entry.name!r} returned {name!r}, which it does not declare")
    if len(column.shape) not in (1, 2) or len(column) != len(images):
        raise ScorerError(
            f"{name!r} has shape {column.shape} for {len(images)} images; it must be (N,) or (N, K): one number an image"
        )
    return column.astype(np.float64)


def measure(
    model: DensityModel | None, images: ImageSet, *names: str, reference: ImageSet | None = None,
    train: ImageSet | None = None,
) -> Columns:  # fmt: skip
    """Measure statistics of an image set in this process, without the cache: for notebooks and tests.

    Parameters
    ----------
    model : a density model, or None for model-free statistics
    images : of the model's shape
    names : statistics (``oodbench list statistics``)
    reference, train : in-dist reference and training images, for statistics that are prepared on some

    Returns
    -------
    name → float64 ``(N,)``

    Raises
    ------
    UnknownNameError : no such statistic
    DataError : images of another shape than the model's
    ScorerError : a statistic that this model cannot give
    """
    if model is not None and tuple(model.shape) != images.shape:
        raise DataError(
            f"{images.identifier} has images of shape {images.shape}, the model takes {tuple(model.shape)}; "
            "load them with load_images(…, like=model)"
        )
    found: dict[str, np.ndarray] = {}
    for name in names:
        if name in found:
            continue
        entry = statistics[name]
        if model is None and not entry.model_free:
            raise ScorerError(f"{name!r} is measured with a model; give one in place of None")
        in_dist = reference if entry.prepared_on == "ref" else train
        prepared = prepare(entry, model, None if in_dist is None else in_dist.images)
        columns = run_pass(entry, model, images.images, prepared)
        found.update(
            {key: as_column(entry, key, values, images.images) for key, values in columns.items()}
        )
        if name not in found:
            raise ScorerError(
                f"{type(model).__name__} gives no {name!r}: it lacks the method that the pass {entry.name!r} asks for"
            )
    return {name: found[name] for name in names}
