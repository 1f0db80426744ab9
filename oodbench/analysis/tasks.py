"""The paper's explanations as tasks: what each row, and each figure of images or columns, is computed from.

==============  ====================================================================================================
likelihood      mean log-probability of one image set under one model, and of the terms that it is made of
graying         the same, of images contracted by several factors, towards mid-grey and towards their own mean
second-order    predicted against measured gap of two image sets, see :mod:`oodbench.analysis.second_order`
flow            what each scale of a flow makes of one image set, see :mod:`oodbench.analysis.flow_parts`
samples         images drawn from a model: likelier than which sets, ‖z‖ before rounding, and at other temperatures
members         AUROC of raw likelihood of each member of an ensemble by itself
training        bits/dim, and AUROC of raw likelihood, after each validation of a model's training
complexity      AUROC of scorers with what baselines see in an image taken out, see :mod:`oodbench.analysis.complexity`
==============  ====================================================================================================

These are rows of ``analysis.jsonl``. What figures draw, in ``curves.jsonl``: ``likelihoods``, ``decomposition``,
``contracted``, ``latents``, ``grid``, ``coupling``, ``data``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from oodbench.adjusting import Adjustment
from oodbench.analysis import curves, rows
from oodbench.analysis.complexity import Judgement, complexity
from oodbench.analysis.material import Material, SetValue
from oodbench.data.corruptions import rung
from oodbench.digests import code_digest
from oodbench.errors import OodbenchError, StoreError
from oodbench.passes.columns import LostError
from oodbench.passes.shards import ChangedError
from oodbench.passes.values import Images, Model
from oodbench.plan import Plan, Subject, Trial
from oodbench.registry import scorers
from oodbench.store import SCHEMA, Row, key_of
from oodbench.trials.replicates import metrics_digest


def _of_flow(material: Material) -> rows.Result:
    from oodbench.analysis.flow_parts import flow

    return flow(material)


def _of_coupling(material: Material) -> rows.Result:
    from oodbench.analysis.flow_parts import coupling

    return coupling(material)


RULES: Mapping[str, Callable[[Any], rows.Result]] = {
    "likelihood": rows.likelihood,
    "graying": rows.graying,
    "second-order": rows.second_order,
    "flow": _of_flow,
    "samples": rows.samples,
    "members": rows.members,
    "training": rows.training,
    "complexity": complexity,
    "likelihoods": curves.likelihoods,
    "decomposition": curves.decomposition,
    "contracted": curves.contracted,
    "latents": curves.latents,
    "grid": curves.grid,
    "coupling": _of_coupling,
    "data": curves.data,
}
ANALYSES = (
    "likelihood", "graying", "second-order", "flow", "samples", "members", "training", "complexity",
)  # fmt: skip
"""Kinds that are rows of ``analysis.jsonl``; the others are drawn by figures."""
USUAL = ("rows", "curves", "second_order", "assumptions", "complexity")
"""Modules whose code a row belongs to, where its kind has none of its own."""
OWN = {"flow": ("flow_parts",), "coupling": ("flow_parts",)}
"""Kind → the modules whose code computes it."""
LOADS = ("second-order", "flow", "coupling")
"""Kinds that load the model, which may be of this process alone."""
SHOWN = (75, 50)
"""Per cent of contraction that the histograms show."""
ENSEMBLE = "ensemble_log_prob"
"""What a trial reads of the members of an ensemble."""
IN_GRID = 16
"""Images of each set that a grid shows."""


@cache
def analysis_digest(names: tuple[str, ...]) -> str:
    """Hash of the code of these modules of :mod:`oodbench.analysis`."""
    modules = [f"oodbench.analysis.{name}" for name in names]
    own = code_digest(*modules, within="oodbench.analysis")
    return key_of(
        own, code_digest("oodbench.trials.curves", within="oodbench.trials"), metrics_digest()
    )


@dataclass(frozen=True, eq=False)
class AnalysisTask:
    """One row to be."""

    kind: str
    key: str
    head: Row
    material: Material | Judgement
    here: bool = False
    files: tuple[str, ...] = field(default=())

    @property
    def tables(self) -> tuple[str]:
        return ("analysis" if self.kind in ANALYSES else "curves",)

    @property
    def after(self) -> frozenset[str]:
        """The shards, and drawings, that have to be there before."""
        return self.material.keys

    @property
    def label(self) -> str:
        return f"{self.kind} of {self.head.get('model', '')} on {self.head.get('images', self.head['in_dist'])}"

    def __str__(self) -> str:
        return self.label

    def failed(self, reason: str) -> dict[str, list[Row]]:
        """The row of a task that could not be computed."""
        return {self.tables[0]: [self.head | {"status": "failed", "reason": reason}]}

    def perform(self) -> Found:
        """Compute the row; what fails gives a FAILED row with its reason."""
        try:
            row, files = RULES[self.kind](self.material)
        except (LostError, ChangedError, StoreError):
            raise
        except OodbenchError as error:
            return Found(self.failed(str(error)))
        return Found({self.tables[0]: [self.head | {"status": "ok"} | row]}, files)


@dataclass(frozen=True, eq=False)
class Found:
    """Rows by table, and small files beside them: path in the results folder → content."""

    rows: Mapping[str, list[Row]]
    files: Mapping[str, bytes] = field(default_factory=dict)


def analysis_tasks(plan: Plan) -> list[AnalysisTask]:
    """The rows that a plan's models and pairs come to, and what figures draw; explanations only where a suite asks."""
    found = [*_of_pairs(plan)]
    for subject in plan.subjects:
        found += _of_subject(plan, subject)
    found += [_complexity(plan, one) for one in plan.adjustments]
    for test in dict.fromkeys(subject.test.identifier for subject in plan.subjects):
        found += _of_data(plan, [one for one in plan.subjects if one.test.identifier == test])
    return list({task.key: task for task in found}.values())


def _of_pairs(plan: Plan) -> Iterator[AnalysisTask]:
    """The histograms of log p on each pair, with training images where there are some, of models that have one; a ladder of
    corruptions has a figure of its own."""
    pairs: dict[tuple[Model, Images, Images], Trial] = {}
    drawn = (one for one in plan.trials if one.density and rung(one.ood.identifier) is None)
    for trial in drawn:
        pairs.setdefault((trial.model, trial.test, trial.ood), trial)
    trained = {
        (subject.model, subject.test): [_of(subject, "train", subject.train)]
        for subject in plan.subjects
        if subject.train
    }
    for (model, test, ood), trial in pairs.items():
        sets = [
            _set("test", test, trial.density["test"].keys),
            _set("ood", ood, trial.density["ood"].keys),
            *trained.get((model, test), []),
        ]
        head = _curve_head("likelihoods", model, test, plan) | {"ood": ood.identifier}
        yield _task("likelihoods", head, Material(sets))


def _of_subject(plan: Plan, subject: Subject) -> Iterator[AnalysisTask]:
    model = subject.model
    for role, images in _sets_of(subject):
        ref = [_of(subject, "ref", subject.ref)] if subject.ref else []
        head = _head("likelihood", plan, subject, role, images)
        yield _task("likelihood", head, Material([_of(subject, role, images), *ref]), model)
    for role, images in _real(subject):
        yield _graying(plan, subject, role, images)
    if model.gives("latent_shapes"):
        for images in subject.oods:
            yield _second_order(plan, subject, images)
    if _is_our_flow(model):
        for role, images in _real(subject):
            head = _head("flow", plan, subject, role, images)
            options = _loading(plan, model)
            yield _task("flow", head, Material([_of(subject, role, images)], options), model)
    if subject.samples:
        yield _samples(plan, subject, subject.samples)
    for images in subject.oods:
        yield from _members(plan, subject, images)
    yield from _training(plan, subject)
    yield from _drawn(plan, subject)


def _sets_of(subject: Subject) -> list[tuple[str, Images]]:
    """Role and image set of each likelihood row."""
    found = [("test", subject.test), *(("ood", images) for images in subject.oods)]
    found += [("train", subject.train)] if subject.train else []
    found += [("second test", images) for images in subject.second_tests]
    return found + ([("samples", subject.samples)] if subject.samples else [])


def _real(subject: Subject) -> list[tuple[str, Images]]:
    """The test set and each OOD set that is not generated."""
    found = [("test", subject.test), *(("ood", images) for images in subject.oods)]
    return [(role, images) for role, images in found if not images.synthetic]


def _graying(plan: Plan, subject: Subject, role: str, images: Images) -> AnalysisTask:
    settings = plan.suite.analysis
    assert settings is not None
    n = min(settings.gray_images, images.n)
    contracted = [_of(subject, name, one) for name, one in subject.grayed[images].items()]
    options = {
        "rows": images.rows_of(n),
        "test_rows": subject.test.rows_of(min(settings.gray_images, subject.test.n)),
    }
    sets = [_of(subject, "images", images), _of(subject, "test", subject.test), *contracted]
    head = _head("graying", plan, subject, role, images) | {"n": n}
    return _task("graying", head, Material(sets, options), subject.model)


def _contracted(plan: Plan, subject: Subject) -> Iterator[AnalysisTask]:
    """The histograms of the in-dist test set, contracted; none where no factor that they show was measured."""
    settings, test = plan.suite.analysis, subject.test
    assert settings is not None
    names = [f"{kind}{percent}" for kind in ("contract", "shrink") for percent in SHOWN]
    grayed = subject.grayed.get(test, {})
    shown = [_of(subject, name, grayed[name]) for name in names if name in grayed]
    if shown:
        options = {"rows": test.rows_of(min(settings.gray_images, test.n))}
        head = _curve_head("contracted", subject.model, test, plan)
        yield _task("contracted", head, Material([_of(subject, "test", test), *shown], options))


def _second_order(plan: Plan, subject: Subject, images: Images) -> AnalysisTask:
    settings = plan.suite.analysis
    assert settings is not None
    model = subject.model
    options = {
        "test_rows": subject.test.rows_of(min(settings.images, subject.test.n)),
        "images_rows": images.rows_of(min(settings.images, images.n)),
        "probes": settings.probes,
        **_loading(plan, model),
    }
    sets = [_of(subject, "test", subject.test), _of(subject, "images", images)]
    head = _head("second-order", plan, subject, "ood", images)
    return _task("second-order", head, Material(sets, options), model)


def _loading(plan: Plan, model: Model) -> Row:
    """By what a task loads its model."""
    return {"seed": plan.suite.seed, "model": model.reference, "identity": model.identity}


def _is_our_flow(model: Model) -> bool:
    return model.folded and model.gives("latent_shapes")


def _samples(plan: Plan, subject: Subject, samples: Images) -> AnalysisTask:
    drawn = [_of(subject, f"{at:g}", images) for at, images in subject.drawn.items()]
    real = [_of(subject, role, images) for role, images in _real(subject)]
    head = _head("samples", plan, subject, "samples", samples)
    options = {"with_norm": subject.draws[0].with_norm}
    return _task("samples", head, Material([*real, *drawn], options), subject.model)


def _members(plan: Plan, subject: Subject, images: Images) -> Iterator[AnalysisTask]:
    """The members of an ensemble one by one, where a trial on these images reads them."""
    wanted = (subject.model, subject.test, images)
    trials = [one for one in plan.trials if (one.model, one.test, one.ood) == wanted]
    reading = next((one for one in trials if ENSEMBLE in one.reads["ood"]), None)
    if reading is None:
        return
    sets = [
        _set(f"{role} {number}", own, one.keys)
        for role, own in (("test", subject.test), ("ood", images))
        for number, one in enumerate(reading.reads[role][ENSEMBLE])
    ]
    head = _head("members", plan, subject, "ood", images)
    yield _task("members", head, Material(sets), subject.model)


def _training(plan: Plan, subject: Subject) -> Iterator[AnalysisTask]:
    own = [("test", subject.model), *(("member", member) for member in subject.members)]
    for role, model in own:
        head = _head("training", plan, subject, role, subject.test)
        inputs = head["inputs"] | {"model": model.identity}
        head |= {"model": model.name, "likelihood": model.likelihood, "inputs": inputs}
        yield _task("training", head, Material([], {"log": subject.logs[model]}))


def _complexity(plan: Plan, one: Adjustment) -> AnalysisTask:
    reads = {
        side: {need: tuple(own.keys for own in passes) for need, passes in needs.items()}
        for side, needs in one.reads.items()
    }
    identities = {scorer.name: scorer.identity for scorer in one.scorers}
    places, seed = one.left_out.places, plan.suite.seed
    judgement = Judgement(one.model.name, identities, one.covariates, reads, places, seed)
    head = _head_of(plan, one.model, one.test, "ood", one.ood) | {
        "kind": "complexity",
        "ref": one.ref.identifier,
    }
    local = any(name in scorers.local for name in identities)
    return replace(_task("complexity", head, judgement), here=local)


def _drawn(plan: Plan, subject: Subject) -> Iterator[AnalysisTask]:
    """What figures draw of one model."""
    model, test = subject.model, subject.test
    real = [_of(subject, role, images) for role, images in _real(subject)]
    drawn = [_of(subject, "samples", subject.samples)] if subject.samples else []
    if model.gives("latent_shapes") or model.gives("encode"):
        for column in ("latent_term", *rows.VOLUMES):
            head = _curve_head("decomposition", model, test, plan) | {"column": column}
            yield _task("decomposition", head, Material(real, {"column": column}))
        if drawn:
            head = _curve_head("latents", model, test, plan) | {"dimensions": test.dimensions}
            yield _task("latents", head, Material([*real, *drawn]))
    if _is_our_flow(model):
        yield from _coupling(plan, subject)
    yield from _contracted(plan, subject)
    if drawn and subject.samples:
        shown = {images.identifier for _, images in _real(subject) if images.may_be_shown}
        for one in [*drawn, *(one for one in real if one.identifier in shown)]:
            yield _grid(plan, subject, one, subject.samples.n)


def _coupling(plan: Plan, subject: Subject) -> Iterator[AnalysisTask]:
    """One coupling on an image of each set whose terms permit showing one."""
    shown = [one for one in _real(subject) if one[1].may_be_shown]
    sets = [_of(subject, role, images) for role, images in shown]
    if not sets:
        return
    model = subject.model
    head = _curve_head("coupling", model, subject.test, plan)
    path = f"grids/{key_of(head, model.identity, [one.sha256 for one in sets])[:24]}.png"
    material = Material(sets, _loading(plan, model) | {"file": path})
    yield _task("coupling", head | {"file": path}, material, model, files=(path,))


def _grid(plan: Plan, subject: Subject, one: SetValue, n: int) -> AnalysisTask:
    head = _curve_head("grid", subject.model, subject.test, plan) | {
        "set": one.identifier,
        "role": one.role,
    }
    path = f"grids/{key_of(head, one.sha256, n)[:24]}.png"
    shown = min(n, one.n, IN_GRID)
    options = {"file": path, "n": shown}
    return _task("grid", head | {"file": path, "n": shown}, Material([one], options), files=(path,))


def _of_data(plan: Plan, subjects: list[Subject]) -> Iterator[AnalysisTask]:
    """Histograms of pixel moments over the sets of one in-dist set."""
    sets: dict[str, SetValue] = {}
    for subject in subjects:
        for role, images in _real(subject):
            sets.setdefault(images.identifier, _of(subject, role, images).without_columns())
    in_dist = subjects[0].test.identifier
    for quantity in ("mean", "variance"):
        head = {"kind": "data", "suite": plan.suite.name, "in_dist": in_dist, "quantity": quantity}
        yield _task("data", head, Material(list(sets.values()), {"quantity": quantity}))


def _head(kind: str, plan: Plan, subject: Subject, role: str, images: Images) -> Row:
    """What a row of ``analysis.jsonl`` says of its task."""
    return {"kind": kind, **_head_of(plan, subject.model, subject.test, role, images)}


def _head_of(plan: Plan, model: Model, test: Images, role: str, images: Images) -> Row:
    return {
        "suite": plan.suite.name,
        "model": model.name,
        "likelihood": model.likelihood,
        "in_dist": test.identifier,
        "role": role,
        "images": images.identifier,
        "synthetic": images.synthetic,
        "n": images.n,
        "dimensions": images.dimensions,
        "seed": plan.suite.seed,
        "inputs": {
            "model": model.identity,
            "images": images.sha256,
            "in_dist": test.sha256,
        },
    }


def _curve_head(kind: str, model: Model, test: Images, plan: Plan) -> Row:
    """What a row of ``curves.jsonl`` says of its task."""
    about = {"model": model.name, "in_dist": test.identifier, "seed": plan.suite.seed}
    return {"kind": kind, "suite": plan.suite.name, **about}


def _of(subject: Subject, role: str, images: Images) -> SetValue:
    return _set(role, images, subject.density[images].keys)


def _set(role: str, images: Images, keys: tuple[str, ...]) -> SetValue:
    return SetValue(
        role=role,
        identifier=images.identifier,
        name=images.name,
        ref=images.ref,
        sha256=images.sha256,
        n=images.n,
        dimensions=images.dimensions,
        keys=keys,
        draw=images.draw,
        in_random_order=images.in_random_order,
    )


def _task(
    kind: str,
    head: Row,
    material: Material | Judgement,
    model: Model | None = None,
    files: Iterable[str] = (),
) -> AnalysisTask:
    code = analysis_digest(OWN.get(kind, USUAL))
    key = key_of(SCHEMA, code, head, material.what())
    local = bool(model and model.here and kind in LOADS)
    return AnalysisTask(
        kind, key, {"schema": SCHEMA, "key": key, **head}, material, local, tuple(files)
    )
