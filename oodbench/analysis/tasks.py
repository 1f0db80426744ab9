"""The paper's explanations as rows: each task is one row, with the passes that it reads and a key made of content.

==============  ====================================================================================================
likelihood      mean log-probability of one image set under one model, and of the terms that it is made of
graying         the same, of images contracted towards mid-grey by several factors
second-order    predicted against measured gap of two image sets, see :mod:`oodbench.analysis.second_order`
training        bits/dim, and AUROC of raw likelihood, after each validation of a model's training
==============  ====================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oodbench import __version__
from oodbench.analysis.samples import draw_samples, samples_path, samples_ref
from oodbench.contract import bits_per_dim
from oodbench.data.catalog import is_synthetic
from oodbench.data.images import parse_identifier
from oodbench.errors import OodbenchError
from oodbench.passes.shards import ImagePass, ImageRef, model_identity, open_images, shard_tasks
from oodbench.plan import Plan, cannot_give, passes_of, unavailable
from oodbench.store import SCHEMA, Row, key_of
from oodbench.suite import Analysis
from oodbench.trials.rows import DIGITS, density_columns
from oodbench.zoo.cards import Card, training_log
from oodbench.zoo.describe import describe, relatives

VERSION = 1
"""Of the rows; a new one whenever their numbers change."""
TERMS = ("log_prob", "log_prob_z", "log_det", "latent_norm", "reconstruction", "kl")


@dataclass(frozen=True)
class StudyTask:
    """One row to be, with all that it depends on."""

    kind: str
    model: str
    settings: Analysis
    seed: int
    device: str
    role: str
    """Of ``images``: ``train``, ``test``, ``ood`` or ``samples``; ``member`` where ``model`` is one of an ensemble."""
    test: ImageRef
    """The in-dist test set."""
    images: ImageRef
    """The set that the row is about."""
    ref: ImageRef | None = None
    """In-dist reference images, which the typical log-probability is taken from."""


def study_tasks(plan: Plan, device: str) -> list[StudyTask]:
    """The rows that a plan's models and pairs come to; none for a suite without ``analysis``."""
    settings = plan.suite.analysis
    if settings is None:
        return []
    seed, refs = plan.suite.seed, {(t.model, t.test): t.ref for t in plan.trials if t.ref}
    found: dict[StudyTask, None] = {}
    for model, test, ood in dict.fromkeys((t.model, t.test, t.ood) for t in plan.trials):
        for kind, role, images in _subjects(model, test, ood, settings, seed):
            ref = refs.get((model, test))
            found[StudyTask(kind, model, settings, seed, device, role, test, images, ref)] = None
    for model, test in dict.fromkeys((t.model, t.test) for t in plan.trials):
        for member in _members(model):
            found[StudyTask("training", member, settings, seed, device, "member", test, test)] = None
    return list(found)


def _members(model: str) -> list[str]:
    """The models of a model's ensemble, where all are here: trainings that differ in their seed alone."""
    return relatives(model, "ensemble") if cannot_give(model, ["ensemble_log_prob"]) is None else []


def _subjects(
    model: str, test: ImageRef, ood: ImageRef, settings: Analysis, seed: int
) -> Iterable[tuple[str, str, ImageRef]]:
    """Kind, role and image set of the rows that a model and a pair ask for."""
    yield "training", "test", test
    for role, images in (("test", test), ("ood", ood)):
        yield "likelihood", role, images
        if not _synthetic(images):
            yield "graying", role, images
    train = _training_images(test, settings.images)
    if unavailable(train) is None:
        yield "likelihood", "train", train
    if settings.samples and describe(model).gives("sample"):
        yield "likelihood", "samples", samples_ref(model, settings.samples, seed)
    if describe(model).gives("latent_shapes"):
        yield "second-order", "ood", ood


def _synthetic(images: ImageRef) -> bool:
    return is_synthetic(parse_identifier(images.reference).name)


def _training_images(test: ImageRef, n: int) -> ImageRef:
    return ImageRef(str(parse_identifier(test.reference).in_split("train")), test.shape, n)


def grayed(images: ImageRef, n: int, percent: int) -> ImageRef:
    """``n`` images drawn from a set, contracted towards mid-grey."""
    return ImageRef(images.reference, images.shape, min(n, len(open_images(images))), percent)


def study_passes(task: StudyTask) -> list[ImagePass]:
    """The passes that a row is computed from."""
    sets = [task.images, task.test]
    if task.kind == "training":
        return []
    if task.kind == "likelihood" and task.ref:
        sets.append(task.ref)
    if task.kind == "graying":
        sets += [grayed(task.images, task.settings.images, percent) for percent in task.settings.gray]
    return [p for images in dict.fromkeys(sets) for p in passes_of(task.model, "log_prob", images)]


def samples_wanted(tasks: Iterable[StudyTask]) -> list[StudyTask]:
    """One task for each model that images are to be drawn from."""
    return list({task.model: task for task in tasks if task.role == "samples"}.values())


def samples_of(task: StudyTask) -> Path:
    """Where the images drawn from a task's model lie, or will."""
    return samples_path(task.model, task.settings.samples, task.seed)


def can_be_opened(task: StudyTask) -> bool:
    """Whether the images of a task are there: those drawn from a model may not be yet."""
    return task.role != "samples" or samples_of(task).exists()


def undrawn_row(task: StudyTask, reason: str) -> Row:
    """The FAILED row of a model that no images could be drawn from."""
    model = describe(task.model).name
    what = {"kind": task.kind, "model": model, "role": task.role, "images": "samples", "reason": reason}
    where = {"in_dist": open_images(task.test).identifier, "seed": task.seed}
    return {"schema": SCHEMA, "key": key_of(SCHEMA, what, where), "status": "failed", **what, **where}


def draw(task: StudyTask) -> int:
    """Draw the samples of a task's model; returns how many."""
    draw_samples(task.model, task.settings.samples, task.seed, task.device)
    return task.settings.samples


def study_key(task: StudyTask) -> str:
    """Hash of everything that a row is computed from."""
    shards = [s.key for p in study_passes(task) for s in shard_tasks(p, task.seed, task.device)]
    what = [task.kind, task.role, open_images(task.images).sha256, model_identity(task.model)]
    return key_of(SCHEMA, __version__, VERSION, what, task.settings.model_dump(), shards)


def study_row(task: StudyTask) -> Row:
    """The row of one task; what fails gives a FAILED row with its reason."""
    rules = {"likelihood": _likelihood, "graying": _graying, "second-order": _second_order, "training": _training}
    try:
        return study_head(task) | {"status": "ok"} | rules[task.kind](task)
    except OodbenchError as error:
        return study_head(task) | {"status": "failed", "reason": str(error)}


def study_head(task: StudyTask) -> Row:
    """What a row says of its task."""
    images = open_images(task.images)
    return {
        "schema": SCHEMA,
        "key": study_key(task),
        "kind": task.kind,
        "model": describe(task.model).name,
        "likelihood": describe(task.model).likelihood,
        "in_dist": open_images(task.test).identifier,
        "role": task.role,
        "images": "samples" if task.role == "samples" else images.identifier,
        "synthetic": _synthetic(task.images),
        "n": len(images),
        "dimensions": int(np.prod(task.images.shape)),
        "seed": task.seed,
    }


def columns_of(task: StudyTask, images: ImageRef) -> dict[str, np.ndarray]:
    """What the density pass measured of an image set under the task's model."""
    return density_columns(task.model, images, task.seed, task.device)


def _summary(column: np.ndarray) -> list[float] | None:
    """Mean, its standard error, and median; None where a value is not finite."""
    if not np.isfinite(column).all():
        return None
    error = column.std(ddof=1) / np.sqrt(len(column)) if len(column) > 1 else 0.0
    return [round(float(value), DIGITS) for value in (column.mean(), error, np.median(column))]


def _likelihood(task: StudyTask) -> dict[str, Any]:
    columns = columns_of(task, task.images)
    found: dict[str, Any] = {name: _summary(columns[name]) for name in TERMS if name in columns}
    found["bits_per_dim"] = _summary(bits_per_dim(columns["log_prob"], task.images.shape))
    if task.ref:
        typical = columns_of(task, task.ref)["log_prob"].mean()
        found["typicality"] = _summary(np.abs(columns["log_prob"] - typical))
    return found


def _graying(task: StudyTask) -> dict[str, Any]:
    n = min(task.settings.images, len(open_images(task.images)))
    curve = {100: columns_of(task, task.images)["log_prob"][open_images(task.images).drawn_rows(n)]}
    for percent in task.settings.gray:
        curve[percent] = columns_of(task, grayed(task.images, n, percent))["log_prob"]
    of_test = columns_of(task, task.test)["log_prob"][open_images(task.test).drawn_rows(task.settings.images)]
    bits = {p: _summary(bits_per_dim(column, task.images.shape)) for p, column in sorted(curve.items())}
    return {
        "n": n,
        "curve": [[percent, *(summary or [])] for percent, summary in bits.items()],
        "in_dist_bits_per_dim": _summary(bits_per_dim(of_test, task.test.shape)),
    }


def _second_order(task: StudyTask) -> dict[str, Any]:
    from oodbench.analysis.second_order import Estimate, expand, variance_sums
    from oodbench.zoo.load import load_model

    sets = [open_images(images).drawn(task.settings.images).images for images in (task.test, task.images)]
    of_in, of_ood = (Estimate.of_mean(columns_of(task, images)["log_prob"]) for images in (task.test, task.images))
    found = expand(load_model(task.model, task.seed), sets[0], sets[1], task.settings.probes)
    terms = {"measured": of_ood - of_in, "first": found.first, "second": found.second}
    terms |= {"diagonal": found.diagonal, "at_data": found.at_data}
    return {
        **{name: [round(value.value, 3), round(value.error, 3)] for name, value in terms.items()},
        "closed_form": None if found.closed_form is None else round(found.closed_form, 3),
        "variance_sums": [
            variance_sums(np.asarray(open_images(images).images)).round(DIGITS).tolist()
            for images in (task.test, task.images)
        ],
    }


def _training(task: StudyTask) -> dict[str, Any]:
    card = describe(task.model)
    return {"log": training_log(card) if isinstance(card, Card) else []}
