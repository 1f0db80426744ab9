"""Which pairs are judged once more with what baselines see taken out, see :mod:`oodbench.analysis.complexity`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oodbench.data.corruptions import rung
from oodbench.passes.values import ImagePass, Images, Model
from oodbench.registry import passes_prepared_on
from oodbench.resolver import LeftOut, Resolver
from oodbench.types import Scorer

if TYPE_CHECKING:
    from oodbench.plan import Needs, Plan, Trial


@dataclass(frozen=True, eq=False)
class Adjustment:
    """A pair on which scorers are judged once more with what baselines see taken out.

    Attributes
    ----------
    scorers : those that read a model and tune on no OOD images, whose columns of ``ref`` are measured anyway
    covariates : the columns of baselines that look at no reference images
    reads : of ``in``, ``ood`` and ``ref``: the passes that give what scorers and covariates take
    """

    model: Model
    test: Images
    ood: Images
    ref: Images
    scorers: tuple[Scorer, ...]
    covariates: tuple[str, ...]
    reads: Mapping[str, Needs]
    left_out: LeftOut


def adjustments(plan: Plan, resolver: Resolver) -> list[Adjustment]:
    """One of each pair of real sets that has reference images and baselines; reads only passes that the plan makes anyway."""
    explaining = [one for subject in plan.subjects for one in subject.density.values()]
    measured = frozenset([*plan.passes, *explaining])
    found = [_adjustment(own, resolver, measured) for own in _compared(plan)]
    return [one for one in found if one is not None]


def _compared(plan: Plan) -> list[list[Trial]]:
    """The trials on single images whose scorers are compared, pair by pair of real sets; none of classifiers."""
    found: dict[tuple[Model, Images, Images], list[Trial]] = {}
    for trial in plan.trials:
        real = not trial.ood.synthetic and rung(trial.ood.identifier) is None
        if real and trial.group_size == 1 and trial.density and not trial.seen:
            found.setdefault((trial.model, trial.test, trial.ood), []).append(trial)
    return list(found.values())


def _adjustment(
    trials: Sequence[Trial], resolver: Resolver, measured: frozenset[ImagePass]
) -> Adjustment | None:
    first, scorers = trials[0], [trial.scorer for trial in trials]
    ref = next((trial.ref for trial in trials if trial.ref), None)
    if ref is None:
        return None

    def is_measured(needs: Sequence[str]) -> bool:
        own = (one for need in needs for one in resolver.passes_of(first.model, need, ref))
        return measured.issuperset(own)

    plain = [one for one in scorers if one.baseline and one.tunes_on == "none"]
    covariates = tuple(
        dict.fromkeys(need for one in plain for need in one.needs if is_measured([need]))
    )
    judged = tuple(one for one in scorers if _can_be(one) and is_measured(one.all_needs))
    if not (covariates and judged):
        return None
    wanted = dict.fromkeys([*covariates, *(need for one in judged for need in one.all_needs)])
    reads = {
        side: {need: resolver.passes_of(first.model, need, images) for need in wanted}
        for side, images in (("in", first.test), ("ood", first.ood), ("ref", ref))
    }
    return Adjustment(
        model=first.model,
        test=first.test,
        ood=first.ood,
        ref=ref,
        scorers=judged,
        covariates=covariates,
        reads=reads,
        left_out=first.left_out,
    )


def _can_be(scorer: Scorer) -> bool:
    """Whether it reads a model, tunes on no OOD images, and none of its passes is prepared on in-dist images."""
    prepared = (passes_prepared_on(split, scorer.all_needs) for split in ("ref", "train"))
    return not (scorer.baseline or scorer.tune or any(prepared))
