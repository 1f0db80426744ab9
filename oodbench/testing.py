"""Contract tests for scorers and models, for plugin authors and for our own test suite.

Each check returns sentences, one a broken promise, with the likely cause; an empty list means that all hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from oodbench.data.images import ImageSet, in_split, load_images
from oodbench.errors import OodbenchError, ScorerError
from oodbench.model_tests import TOLERANCE, check_model, check_named
from oodbench.passes.batches import measure
from oodbench.registry import (
    load_plugin,
    models_in,
    plugin_parts,
    registered_by,
    scorers,
    statistics,
)
from oodbench.resolver import Resolver, cannot_give
from oodbench.types import BACKGROUNDS, Columns, Scorer, side_by_side, split_need
from oodbench.zoo.describe import describe, relatives
from oodbench.zoo.load import load_model

__all__ = [
    "PixelHistogram", "UniformModel", "check", "check_model", "check_scorer", "probe_columns",
]  # fmt: skip


class UniformModel:
    """Every image of ``bins`` levels equally likely: exactly ``log₂ bins`` bits a dimension, 8 for 256 levels."""

    likelihood = "exact"

    def __init__(self, shape: tuple[int, int, int] = (1, 28, 28), bins: int = 256):
        self.shape, self.bins = shape, bins

    def log_prob(self, images: Tensor) -> Tensor:
        return torch.full(
            (len(images),), -math.prod(self.shape) * math.log(self.bins), dtype=torch.float64
        )


class PixelHistogram:
    """Independent pixels with one histogram of levels: the simplest exact model that learns anything.

    ``log p(x) = Σ_d log h(x_d)``, with one count added to each level.
    """

    likelihood = "exact"

    def __init__(self, images: np.ndarray, bins: int = 256):
        self.shape: tuple[int, ...] = images.shape[1:]
        counts = np.bincount(images.reshape(-1), minlength=bins) + 1
        self.log_histogram = torch.from_numpy(np.log(counts / counts.sum()))

    def log_prob(self, images: Tensor) -> Tensor:
        return self.log_histogram[images.long()].flatten(1).sum(1)


PROBED = (
    "glow-fashionmnist",
    "vae-fashionmnist",
    "hvae-fashionmnist",
    "diffusion-fashionmnist",
    "pixelcnn-fashionmnist",
    "classifier-fashionmnist",
    "glow-cifar10",
)
"""Models of the zoo on which scorers are probed: the first that gives what a scorer needs."""


class Probe(NamedTuple):
    """Columns that a scorer is probed with: of reference, test and, where it tunes, validation OOD images."""

    reference: Columns
    test: Columns
    validation: Columns | None = None


def probe_columns(scorer: Scorer, n: int = 60) -> Probe:
    """Real columns for a scorer, of ``ref``, of ``test`` and of inverted ``ref`` images, measured with a model of the zoo.

    Members of an ensemble stand in for backgrounds to choose among: no card of the zoo lists two. All of ``ref`` stands in for
    ``train``, of which too little travels in the package.
    """
    resolver = Resolver(0, "cpu")
    measured = [_of_ensemble(need) for need in scorer.all_needs]
    reasons = {name: cannot_give(resolver.model(name), measured) for name in PROBED}
    model = next((name for name, reason in reasons.items() if reason is None), None)
    if model is None:
        raise ScorerError(f"{scorer.name} cannot be probed: {reasons[PROBED[0]]}")

    def of_split(split: str, limit: int | None = n) -> ImageSet:
        known = describe(model)
        return load_images(in_split(known.trained_on, split), shape=known.shape).drawn(limit)

    def columns(split: str, view: str = "") -> Columns:
        found, images = {}, of_split(split).through(view) if view else of_split(split)
        for need in scorer.all_needs:
            statistic, of = split_need(_of_ensemble(need))
            free = statistics[statistic].model_free
            found_models = [None] if free else [load_model(name) for name in relatives(model, of)]
            own = [
                measure(
                    one, images, statistic, reference=of_split("ref"), train=of_split("ref", None)
                )[statistic]
                for one in found_models
            ]
            column = side_by_side(own, of)
            column.flags.writeable = False
            found[need] = column
        return found

    return Probe(columns("ref"), columns("test"), columns("ref", "invert") if scorer.tune else None)


def _of_ensemble(need: str) -> str:
    statistic, of = split_need(need)
    return f"ensemble_{statistic}" if of == BACKGROUNDS else need


def check_scorer(scorer: Scorer, columns: Probe | None = None) -> list[str]:
    """Probe a scorer's contract; ``columns`` are measured on real images when not given."""
    probe = probe_columns(scorer) if columns is None else columns
    test = probe.test
    try:
        score = scorer.fitted(probe.reference, probe.validation)
        whole = score(test)
    except Exception as error:
        cause = (
            "; columns are read-only: copy one before changing it"
            if "read-only" in str(error)
            else ""
        )
        return [f"{scorer.name}: raises {type(error).__name__}: {error}{cause}"]
    n = len(next(iter(test.values())))
    if whole.shape != (n,):
        return [
            f"{scorer.name}: returns shape {whole.shape} for {n} images; it must be one score an image, shape ({n},)"
        ]
    return [f"{scorer.name}: {fault}" for fault in _scorer_faults(scorer, score, whole, probe)]


def _scorer_faults(
    scorer: Scorer,
    score: Callable[[Columns], np.ndarray],
    whole: np.ndarray,
    probe: Probe,
) -> Iterator[str]:
    test = probe.test
    if not np.issubdtype(whole.dtype, np.floating):
        yield f"returns {whole.dtype}; scores are ranked, so return real numbers, not labels"
    if not np.isfinite(whole).all():
        yield f"{int((~np.isfinite(whole)).sum())} scores are NaN or infinite on finite columns"
        return
    if scorer.said_baseline not in (None, scorer.baseline):
        yield _wrongly_said(scorer)
    half = {name: column[: len(whole) // 2] for name, column in test.items()}
    if not np.allclose(score(half), whole[: len(whole) // 2], rtol=TOLERANCE):
        yield "an image's score depends on the other test images; normalise with the reference columns in `fit`"
    turned = {name: column[::-1] for name, column in test.items()}
    if not np.allclose(score(turned)[::-1], whole, rtol=TOLERANCE):
        yield "the order of the images changes their scores"
    again = scorer.fitted(probe.reference, probe.validation)(test)
    if not np.allclose(again, whole, rtol=TOLERANCE):
        yield "fitting again on the same reference gives other scores; seed whatever is random"
    if probe.validation and _choices(scorer, probe) > 1:
        yield "what it tunes to depends on the order of the images"


def _choices(scorer: Scorer, probe: Probe) -> int:
    """How many choices a scorer makes on images in their order and the other way round."""
    assert probe.validation is not None
    sides = (probe.reference, probe.validation)
    turned = [{name: column[::-1] for name, column in side.items()} for side in sides]
    chosen = [scorer.state_of(*each).chosen for each in (sides, turned)]
    return len({repr(one) for one in chosen})


def _wrongly_said(scorer: Scorer) -> str:
    free = [need for need in scorer.all_needs if not statistics[split_need(need)[0]].model_free]
    why = f"{free[0]} is a model's" if free else "nothing that it needs is a model's"
    return (
        f"it says baseline={scorer.said_baseline}, but {why}: it is ranked among the "
        f"{'baselines' if scorer.baseline else 'scorers of models'} all the same; leave the word out"
    )


def standing(name: str) -> str:
    """Where a checked scorer will be ranked, if that is not among the scorers of models; empty for models."""
    baseline = name in scorers and scorers[name].baseline
    return " (model-free: it is ranked among the baselines)" if baseline else ""


def check(target: str) -> tuple[list[str], list[str]]:
    """Run the contract tests on a model by name or card, on ``file.py:Name``, or on a plugin file: (faults, names checked).

    Of a file all that it registers is checked, else the classes that `oodbench run --model` takes from it.
    """
    path, name = plugin_parts(target)
    if path.suffix != ".py":
        return check_named(target), [target]
    load_plugin(target)
    scorer_names, model_names = registered_by(path)
    if name:
        scorer_names, model_names = [], [name]
    elif not (scorer_names or model_names):
        model_names = models_in(path)
    faults = [fault for own in scorer_names for fault in _told(own, partial(_check_scorer, own))]
    for own in model_names:
        faults += _told(own, partial(_check_model, own, f"{path}:{own}"))
    return faults, [*scorer_names, *model_names]


def _check_scorer(name: str) -> list[str]:
    return check_scorer(scorers[name])


def _check_model(name: str, plugin: str) -> list[str]:
    load_plugin(plugin)
    return check_named(name, [Path(plugin)])


def _told(name: str, checking: Callable[[], list[str]]) -> list[str]:
    """The faults that a check finds, or why it could not be made."""
    try:
        return checking()
    except OodbenchError as error:
        return [f"{name}: {error}"]
