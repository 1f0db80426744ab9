"""Contract tests of density models. They measure through the code that runs measure with.

Each test gives sentences, one a broken promise, with the likely cause. What a person's model returns is looked at first,
since nothing else can be asked of what is not one number an image.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oodbench.contract import DensityModel, bits_per_dim
from oodbench.data.images import load_images
from oodbench.errors import DataError
from oodbench.passes.batches import as_column, computed, run_pass
from oodbench.passes.executors import Failure, Processes
from oodbench.passes.shards import load_verified
from oodbench.registry import statistics
from oodbench.types import Pass
from oodbench.zoo.cards import Card
from oodbench.zoo.describe import (
    UserModel,
    describe,
    is_folded,
    made_twice,
    unknown_names,
    unknown_set,
)

logger = logging.getLogger("oodbench")

TOLERANCE = 1e-5
"""Relative difference up to which two evaluations of the same image count as equal."""
PROBES, FEW = 64, 16
"""Images that a model is measured on, and those of them that are measured again in other ways."""
LARGEST_MOVE, SHARE = 0.02, 0.99
"""An ODE has enough steps where halving them moves this share of images by less, in bits/dim."""
UNIT_IMAGES, UNIT_LEVELS = 4, 8
"""Of the test of units: pixels of each image whose level is changed, and levels that each is changed to."""
EVIDENCE = 5.0
"""Nats by which the images must speak for one unit before it is named."""

ALONE = Pass(
    "log_prob", {"log_prob": "nats"}, lambda model, images: {"log_prob": model.log_prob(images)}, ""
)
"""A model's own ``log_prob`` as a pass."""


def measured(model: DensityModel, images: np.ndarray) -> np.ndarray:
    """``log p`` of images in nats ``(N,)``, as a run measures it."""
    entry = statistics["log_prob"]
    columns = run_pass(entry, model, images)
    return as_column(entry, "log_prob", columns["log_prob"], images)


def probe_images(shape: tuple[int, int, int], trained_on: str = "", n: int = PROBES) -> np.ndarray:
    """Real images of a model's shape: of its own set where that is here, else of the bundled sample."""
    usual = "fashionmnist" if shape[0] == 1 else "cifar10"
    own = [trained_on] if trained_on and unknown_set(trained_on) is None else []
    for name in own:
        try:
            return np.array(load_images(f"{name}/test", shape=shape).drawn(n).images)
        except DataError:  # not here, or of another shape
            continue
    return np.array(load_images(f"{usual}/test", shape=shape).drawn(n).images)


def check_model(model: Any, name: str = "model") -> list[str]:
    """Probe a density model's contract on real images and on noise."""
    shape = getattr(model, "shape", ())
    if len(shape) != 3 or not callable(getattr(model, "log_prob", None)):
        return [f"{name}: needs an attribute shape = (C, H, W) and a method log_prob(images)"]
    images = probe_images(tuple(shape), str(getattr(model, "trained_on", "")))
    copies = _copied(model), _copied(model)  # before it has seen anything
    try:
        own = computed(ALONE, model, _batch(model, images))["log_prob"]
        fault = returned_fault(own, len(images))
        if fault:
            return [f"{name}: {fault}"]
        probe = Probe(model, images, measured(model, images), own.detach().cpu())
        if not np.isfinite(probe.log_prob).all():
            bad = int((~np.isfinite(probe.log_prob)).sum())
            return [f"{name}: {bad} of {len(images)} log-probabilities are NaN or infinite"]
        faults = [fault for test in TESTS for fault in test(probe)]
        faults += _first_batch(copies, images[:FEW])
    except Exception as error:
        return [f"{name}: {_raised(error, images)}"]
    return [f"{name}: {fault}" for fault in faults]


def check_classifier(model: Any, card: Card) -> list[str]:
    """Probe a classifier's ``classify`` on real images, as a run measures it."""
    images, entry = probe_images(card.shape, card.trained_on), statistics["logits"]
    whole = run_pass(entry, model, images)
    alone = [run_pass(entry, model, images[place : place + 1]) for place in range(FEW)]
    faults = []
    for column, values in whole.items():
        found = np.concatenate([one[column] for one in alone])
        if not np.isfinite(values).all():
            faults.append(f"{column} of {len(images)} images hold NaN or infinite numbers")
        elif not np.allclose(found, values[:FEW], rtol=1e-3, atol=TOLERANCE):
            faults.append(
                f"{column} of an image depend on the images beside it; is it in training mode?"
            )
    return [f"{card.name}: {fault}" for fault in faults]


def _copied(model: Any) -> Any:
    """A copy of a model; None where it cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception:  # an open file, a lock
        return None


def _raised(error: Exception, images: np.ndarray) -> str:
    said = Failure.of(error).sentence
    return (
        f"log_prob of uint8 images of shape {images.shape[1:]} raises {said}; "
        "images come as levels 0 … 255, and scaling them belongs inside"
    )


def returned_fault(found: Any, n: int) -> str:
    """What is wrong with the kind of value that ``log_prob`` returned for n images; empty where it is one number an image."""
    if found is None:
        return "log_prob returns None; is a `return` missing?"
    if isinstance(found, np.ndarray):
        return "log_prob returns a numpy array; return a tensor: torch.from_numpy(…)"
    if isinstance(found, list):
        return (
            "log_prob returns a list, whose digits are lost on the way; return a tensor: "
            "torch.tensor(…, dtype=torch.float64)"
        )
    if not isinstance(found, Tensor):
        return f"log_prob returns a {type(found).__name__}; return the log-probabilities alone, a tensor ({n},)"
    if found.shape != (n,):
        what = (
            "one number for the whole batch" if not found.shape else f"shape {tuple(found.shape)}"
        )
        return (
            f"log_prob returns {what} for {n} images; it must be one number an image, shape ({n},)"
        )
    return ""


def _batch(model: Any, images: np.ndarray) -> Tensor:
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
    device = next((one.device for one in parameters), torch.device("cpu"))
    return torch.from_numpy(images.copy()).to(device)


@dataclass(frozen=True)
class Probe:
    """A model, the images that it is probed on, what a run measures of them, and what its ``log_prob`` returned, in nats."""

    model: Any
    images: np.ndarray
    log_prob: np.ndarray
    own: Tensor

    @property
    def dimensions(self) -> int:
        return math.prod(self.images.shape[1:])

    @property
    def exact(self) -> bool:
        return getattr(self.model, "likelihood", "") == "exact"

    def noise(self) -> np.ndarray:
        """Images whose pixels are uniform, as many as are measured again."""
        random = np.random.RandomState(0)
        return random.randint(0, 256, (FEW, *self.images.shape[1:])).astype(np.uint8)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.allclose(one, other, rtol=TOLERANCE, atol=0.0))


# --- the contract, a function a promise


def _precision(probe: Probe) -> Iterator[str]:
    dtype = probe.own.dtype
    if dtype != torch.float64:
        yield f"log_prob returns {dtype}; sum in float64: float32 loses tenths of a nat at thousands of nats"
    if getattr(probe.model, "training", False):
        yield "it is in training mode; call .eval(), else dropout and batch normalisation change scores"


def _one_density(probe: Probe) -> Iterator[str]:
    said_otherwise = any(hasattr(probe.model, name) for name in ("log_prob_terms", "encode"))
    if said_otherwise and not _same(probe.own.double().numpy(), probe.log_prob):
        yield (
            "log_prob is not what its other methods say: runs read log_prob_terms or encode where a model has them, "
            "and those give other numbers"
        )


def _repeated(probe: Probe) -> Iterator[str]:
    few = probe.images[:FEW]
    if not _same(measured(probe.model, few), measured(probe.model, few)):
        yield "scoring the same images again gives other numbers; draw noise from (seed, image bytes), not afresh"
    batch = _batch(probe.model, few)
    computed(ALONE, probe.model, batch)
    if not np.array_equal(batch.cpu().numpy(), few):
        yield "log_prob changes its input; work on a copy"


def _batches(probe: Probe) -> Iterator[str]:
    few = probe.images[:14]
    for size in (1, 7):
        parts = [few[start : start + size] for start in range(0, len(few), size)]
        found = np.concatenate([measured(probe.model, part) for part in parts])
        if not _same(found, probe.log_prob[: len(few)]):
            yield (
                f"batches of {size} and of {PROBES} disagree; something is shared across the batch, or set by the first one "
                "(a normalisation, or the step of an ODE solver that adapts to the whole batch)"
            )


def _order(probe: Probe) -> Iterator[str]:
    turned = measured(probe.model, probe.images[:FEW][::-1])
    if not _same(turned[::-1], probe.log_prob[:FEW]):
        yield "the order of images in a batch changes their scores"


def _scale(probe: Probe) -> Iterator[str]:
    """One sentence at most: signs, units and constants are told apart by what real images and noise are given."""
    real, noise = probe.log_prob, measured(probe.model, probe.noise())
    every, dims = np.concatenate([real, noise]), probe.dimensions
    uniform = -dims * math.log(256)
    if (every >= 0).all() and (every <= 1).all():
        yield "all are between 0 and 1, as probabilities are, which underflow; return log p itself, in nats"
    elif (every == every[0]).all() and not math.isclose(every[0], uniform, rel_tol=1e-6):
        yield f"every image, noise too, is given the same {every[0]:.6g}; does log_prob look at the image?"
    elif (real > 0).any() and noise.mean() > real.mean():
        yield "some are above 0, and noise has larger ones than real images; log_prob may have the wrong sign"
    elif (real > 0).any():
        yield _constant_missing(real, dims)
    elif dims >= 64 and -real.mean() < 8.5:
        yield _too_small(real, dims)
    elif noise.mean() > real.mean() + TOLERANCE * abs(real.mean()):
        yield "uniform noise is more likely than real images; log_prob may have the wrong sign"
    elif probe.exact:
        yield from _units(probe)


def _constant_missing(real: np.ndarray, dims: int) -> str:
    with_constant = float(bits_per_dim(real, (dims,)).mean()) + 8
    return (
        f"{int((real > 0).sum())} of {len(real)} log-probabilities are above 0, but a discrete image's probability is at "
        f"most 1; the D·log 256 of data scaled to [0, 1] may be missing (with it, {with_constant:.2f} bits/dim; "
        f"D·log 128 of data in [−1, 1]: {with_constant - 1:.2f})"
    )


def _too_small(real: np.ndarray, dims: int) -> str:
    return (
        f"log p is {real.mean():.3g} on average, less than one pixel takes, for images of {dims} dimensions; is it divided "
        "by their number, nats or bits a dimension? Return the sum in nats"
    )


def _units(probe: Probe) -> Iterator[str]:
    """Whether an exact log p is in nats, by the levels of single pixels.

    Given all other pixels and a few levels drawn uniformly beside the true one, the true level has the probability
    ``softmax(log p)``. Under ``log₂ p`` that is too sure by a factor of ``1/ln 2``, which the images themselves show.
    """
    found = _levels(probe)
    everything = np.concatenate([found.reshape(-1), probe.log_prob])
    if np.logaddexp.reduce(np.unique(everything)) > TOLERANCE:
        yield (
            "unlike images have probabilities that add up to more than 1; is log p divided by something, "
            "or is a constant missing?"
        )
        return
    nats, bits, any_unit = (_evidence(found, scale) for scale in (1.0, math.log(2), None))
    if bits - nats > EVIDENCE and any_unit - bits < EVIDENCE / 2:
        yield (
            "the levels of single pixels are as likely as they would be if these were bits; log p is in nats, "
            "log₂ p times ln 2 (or the model is far too sure of itself)"
        )


def _levels(probe: Probe) -> np.ndarray:
    """log p of each image with the true and with other levels of one pixel, the true one first: ``(N, 1 + levels)``."""
    random = np.random.RandomState(1)
    n, flat = len(probe.images), probe.images.reshape(len(probe.images), -1)
    found = []
    for _ in range(UNIT_IMAGES):
        where = random.randint(0, flat.shape[1], n)
        columns = [probe.log_prob]
        for _ in range(UNIT_LEVELS):
            changed = flat.copy()
            changed[np.arange(n), where] += random.randint(1, 256, n).astype(np.uint8)
            columns.append(measured(probe.model, changed.reshape(probe.images.shape)))
        found.append(np.stack(columns, 1))
    return np.concatenate(found)


def _evidence(levels: np.ndarray, scale: float | None) -> float:
    """Log-likelihood of the true levels where log p is in units of ``scale`` nats; under the best unit for None."""
    if scale is None:
        return max(_evidence(levels, 2.0**power) for power in np.linspace(-4, 4, 65))
    scaled = levels * scale
    return float((scaled[:, 0] - np.logaddexp.reduce(scaled, axis=1)).sum())


def _solver(probe: Probe) -> Iterator[str]:
    """Whether an ODE has enough steps."""
    steps = getattr(probe.model, "solver_steps", None)
    if not isinstance(steps, int) or steps < 2:
        return
    halved = copy.copy(probe.model)
    halved.solver_steps = steps // 2
    moves = np.abs(
        bits_per_dim(measured(halved, probe.images) - probe.log_prob, (probe.dimensions,))
    )
    largest = (
        f"halving the {steps} steps of its ODE moves log p by up to {moves.max():.2g} bits/dim"
    )
    if (moves < LARGEST_MOVE).mean() < SHARE:
        many = int((moves >= LARGEST_MOVE).sum())
        yield (
            f"{largest}, and {many} of {len(moves)} images by {LARGEST_MOVE} or more; too few steps flatter a model: "
            "give it more"
        )
    else:
        logger.warning(f"{largest}, which is little enough")


def _first_batch(copies: Sequence[Any], images: np.ndarray) -> Iterator[str]:
    """Two copies that have seen nothing yet score the same two batches, one in each order."""
    one, other = copies
    if one is None or other is None:
        return
    halves = images[: len(images) // 2], images[len(images) // 2 :]
    forwards = [measured(one, half) for half in halves]
    backwards = [measured(other, half) for half in halves[::-1]][::-1]
    if not all(map(_same, forwards, backwards)):
        yield (
            "the first batch after loading changes all scores; an ActNorm may set itself on it, or lose its flag when "
            "it is loaded (oodbench.zoo.adapters handles that)"
        )


TESTS = (_precision, _one_density, _repeated, _batches, _order, _scale, _solver)


# --- a model by its name: its names, and whether it is the same when it is made again


@dataclass(frozen=True)
class MeasureElsewhere:
    """log p of images by a model that another process makes, as a task."""

    reference: str
    images: np.ndarray
    here: bool = False

    def __str__(self) -> str:
        return f"measuring {self.reference} in a worker process"

    def perform(self) -> np.ndarray:
        return measured(as_run(self.reference), self.images)


def as_run(reference: str) -> DensityModel:
    """A model in the form in which a run on a CPU measures it."""
    described = describe(reference)
    model: DensityModel = load_verified(
        reference, described.identity(), 0, "cpu", is_folded(described)
    )
    return model


def check_named(name: str, plugins: Sequence[Path] = ()) -> list[str]:
    """Faults of a model by name or card: the names that it gives, its contract, and whether it is the same made again."""
    described = describe(name)
    faults = unknown_names(described)
    model = as_run(name)
    if isinstance(described, Card) and described.uses_labels:
        return faults + check_classifier(model, described)
    of_contract = check_model(model, name)
    again = [] if of_contract else made_again(name, model, plugins)
    return faults + of_contract + [f"{name}: {fault}" for fault in again]


def made_again(name: str, model: DensityModel, plugins: Sequence[Path]) -> list[str]:
    """A sentence where the model comes out otherwise when it is made again, here or in a worker process."""
    described = describe(name)
    images = probe_images(described.shape, described.trained_on)[:FEW]
    expected = measured(model, images)
    if isinstance(described, UserModel):
        fault = _otherwise("", measured(UserModel(name).with_seed(0), images), expected, images)
        if fault:
            return [fault]
    if not described.local:
        found = _elsewhere(MeasureElsewhere(name, images), plugins)
        if isinstance(found, Failure):
            return [f"in a worker process: {found.sentence}"]
        fault = _otherwise(", in another process,", found, expected, images)
        if fault:
            return [fault]
    fitted = made_twice(name)
    return [fitted.removeprefix(f"{name} ")] if fitted else []


def _elsewhere(task: MeasureElsewhere, plugins: Sequence[Path]) -> np.ndarray | Failure:
    with Processes(1, tuple(plugins)) as executor:
        executor.submit(task)
        ((_, found),) = executor.results()
    result: np.ndarray | Failure = found
    return result


def _otherwise(where: str, found: np.ndarray, expected: np.ndarray, images: np.ndarray) -> str:
    if _same(found, expected):
        return ""
    largest = np.abs(bits_per_dim(found - expected, images.shape[1:])).max()
    return (
        f"made again{where} it gives other numbers, by up to {largest:.2g} bits/dim; what is drawn at random when it is made "
        "(an order of pixels, a permutation, weights) must be saved with it or seeded, and what it fits there kept in a file"
    )
