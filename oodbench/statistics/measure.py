"""model × images → columns: the only stage that touches torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from oodbench.data.images import ImageSet
from oodbench.errors import DataError, ScorerError
from oodbench.registry import statistics
from oodbench.types import Columns, Pass

BATCH = 64
"""Images a batch, for a model without a ``batch_size`` of its own."""


def run_pass(entry: Pass, model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Run a model's pass over uint8 images in batches."""
    import torch

    device = next(iter(model.parameters())).device if isinstance(model, torch.nn.Module) else "cpu"
    size = getattr(model, "batch_size", BATCH)
    batches: list[Mapping[str, Any]] = []
    with torch.inference_mode():
        for start in range(0, len(images), size):
            batch = torch.from_numpy(np.array(images[start : start + size])).to(device)
            batches.append(entry.compute(model, batch))
    return {name: np.concatenate([np.asarray(torch.as_tensor(b[name]).cpu()) for b in batches]) for name in batches[0]}


def as_column(entry: Pass, name: str, values: Any, images: np.ndarray) -> np.ndarray:
    column = np.asarray(values)
    if name not in entry.statistics:
        raise ScorerError(f"the pass {entry.name!r} returned {name!r}, which it does not declare")
    if len(column.shape) not in (1, 2) or len(column) != len(images):
        raise ScorerError(
            f"{name!r} has shape {column.shape} for {len(images)} images; it must be (N,) or (N, K): one number an image"
        )
    return column.astype(np.float64)


def measure(model: Any, images: ImageSet, *names: str) -> Columns:
    """Measure statistics of an image set in this process, without the cache: for notebooks and tests.

    Parameters
    ----------
    model : a density model, or None for model-free statistics
    images : of the model's shape
    names : statistics (``oodbench list statistics``)

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
        columns = entry.compute(images.images) if entry.model_free else run_pass(entry, model, images.images)
        found.update({key: as_column(entry, key, values, images.images) for key, values in columns.items()})
        if name not in found:
            raise ScorerError(
                f"{type(model).__name__} gives no {name!r}: it lacks the method that the pass {entry.name!r} asks for"
            )
    return {name: found[name] for name in names}
