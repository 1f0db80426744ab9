"""What a person sees of a plan before a run, and of its rows at the end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import groupby

from oodbench.data.corruptions import KINDS
from oodbench.passes.shards import ShardTask
from oodbench.passes.values import ImagePass, Images
from oodbench.plan import Plan
from oodbench.report.means import by_set, mean_in, mean_over_sets
from oodbench.report.tables import auroc_text, skip_lines
from oodbench.store import STANDINGS, Row, Standing, standing
from oodbench.trials.counted import is_counted
from oodbench.work import Work

SHOWN = 8
"""Lines of a part of the plan's page, unless all are asked for."""


def plan_page(plan: Plan, work: Work, whole: bool = False) -> Iterator[str]:
    """What a run would do: passes by model, trials by pair, skips by reason; each by itself where ``whole``."""
    yield f"{plan.suite.name}: {plan.suite.title}"
    yield _sum(plan, work)
    parts = {
        "measure": _passes(plan, work, whole),
        "evaluate": _trials(plan, whole),
        "skip": _skips(plan, whole),
    }
    for verb, lines in parts.items():
        yield from _part(verb, lines, whole)
    for remark in plan.remarks:
        yield f"note     {remark}"
    if not whole:
        yield "--all lists each pass, trial and skip."


def _sum(plan: Plan, work: Work) -> str:
    shards = sum(isinstance(job, ShardTask) for job in work.jobs)
    left = f"{shards} shards left" if shards else "nothing is left to measure"
    time = f", about {work.seconds:,.0f} CPU-seconds" if work.seconds else ""
    return (
        f"{len(plan.passes)} passes, {len(plan.trials)} trials, {len(plan.skips)} skips; "
        f"{work.cached} shards are cached, {left}{time}"
    )


def _part(verb: str, lines: Iterable[str], whole: bool) -> Iterator[str]:
    found, width = list(lines), shutil.get_terminal_size((160, 24)).columns
    for line in found if whole else found[:SHOWN]:
        text = f"{verb:8} {line}"
        yield text if whole or len(text) <= width else text[: width - 1] + "…"
    if not whole and len(found) > SHOWN:
        yield f"{verb:8} … and {len(found) - SHOWN} more"


def _passes(plan: Plan, work: Work, whole: bool) -> Iterator[str]:
    missing = {job.key for job in work.jobs if isinstance(job, ShardTask)}
    if whole:
        for one in plan.passes:
            state = _state(one.keys, missing)
            yield f"{one.label} ({one.images.n:,} images, {state})"
        return
    for owner, passes in groupby(sorted(plan.passes, key=_owner), key=_owner):
        own = list(passes)
        kinds = ", ".join(dict.fromkeys(one.kind for one in own))
        images, keys = sum(one.images.n for one in own), {key for one in own for key in one.keys}
        left = _state(keys, missing)
        yield f"{owner or 'without a model'}: {kinds} on {len(own)} sets, {images:,} images, {left}"


def _state(keys: Collection[str], missing: Collection[str]) -> str:
    """What of some shards is left to measure."""
    left = sum(key in missing for key in set(keys))
    return f"{left} of {len(keys)} shards left" if left else "cached"


def _owner(one: ImagePass) -> str:
    return one.model.name if one.model else ""


def _trials(plan: Plan, whole: bool) -> Iterator[str]:
    if whole:
        for trial in plan.trials:
            group = f", groups of {trial.group_size}" if trial.group_size > 1 else ""
            pair = f"{trial.test.identifier} → {trial.ood.identifier}"
            yield f"{trial.scorer.name}{group} with {trial.model.name}: {pair}"
        return
    found: dict[str, list[str]] = {}
    for trial in plan.trials:
        pair = f"{trial.test.identifier} → {trial.ood.identifier}"
        found.setdefault(pair, []).append(trial.model.name)
    for pair, names in found.items():
        yield f"{pair}: {len(names)} trials of {', '.join(dict.fromkeys(names))}"


def _skips(plan: Plan, whole: bool) -> list[str]:
    """By pair and reason; in brief by reason, with the models that it holds for."""
    if whole:
        return skip_lines((skip.in_dist, skip.ood, skip.reason) for skip in plan.skips)
    return skips_by_reason((skip.model, skip.in_dist, skip.ood, skip.reason) for skip in plan.skips)


def skips_by_reason(skips: Iterable[tuple[str, str, str, str]]) -> list[str]:
    """Of (model, in-dist, OOD, reason): a line a reason, with the models that it is said of, else the pairs."""
    found: dict[str, dict[str, None]] = {}
    for model, in_dist, ood, why in skips:
        reason = why.removeprefix(f"{model} ")
        of_model = bool(model) and reason != why
        found.setdefault(reason, {})[model if of_model else f"{in_dist} → {ood}"] = None
    return [f"{reason}: {', '.join(who)}" for reason, who in found.items()]


OPERATIONS = {
    r"pad(\S+)": "zero padding to {0}",
    r"crop(\S+)": "the centre {0} alone",
    r"square": "the centre square alone",
    r"resize([\dx]+)-([a-z]+)-aa": "resized to {0} ({1}, antialiased)",
    r"resize([\dx]+)-([a-z]+)": "resized to {0} ({1})",
    r"rgb": "grey copied to three channels",
    r"grey": "colours made grey by ITU-R 601 luma",
    r"hflip": "mirrored from left to right",
    r"vflip": "turned upside down",
    r"rot(\d+)": "turned by {0}° anticlockwise",
    rf"({'|'.join(KINDS)})(\d)": "corrupted: {0}, strength {1} of 5",
    r"contract(\d+)": "pixels moved towards mid-grey, to {0} %",
}
"""Operation of a view → the words for it."""


def before(plan: Plan) -> Iterator[str]:
    """What is done to the images before anything is measured: how each set is split, resized and coloured."""
    yield f"{plan.suite.title}: log p of images of {_shapes(plan)}, larger score = more OOD"
    seen: dict[tuple[str, Images], None] = {}
    for trial in plan.trials:
        sets = {"in-dist test": trial.test, "in-dist ref, for fitting": trial.ref, "OOD": trial.ood}
        sets |= {"validation, for tuning": trial.validation}
        seen |= {(role, images): None for role, images in sets.items() if images is not None}
    for role, images in sorted(seen, key=lambda one: list(ROLES).index(one[0])):
        yield f"{role:25} {images.identifier}: {images.n:,} images, {in_words(images)}"
    lines = skip_lines(
        (skip.in_dist, skip.ood, ": ".join(filter(None, (skip.scorer, skip.reason))))
        for skip in plan.skips
    )
    yield from (f"left out                  {line}" for line in lines)


ROLES = ("in-dist test", "in-dist ref, for fitting", "validation, for tuning", "OOD")


def _shapes(plan: Plan) -> str:
    shapes = dict.fromkeys(trial.model.shape for trial in plan.trials)
    return " and ".join("×".join(map(str, shape)) for shape in shapes) or "no model"


def in_words(images: Images) -> str:
    """How pixels were brought to the model's shape, in words."""
    _, at, view = images.identifier.rpartition("@")
    if not at or "/" in view:
        return "pixels as they are"
    return ", ".join(map(_operation, view.split(",")))


def _operation(name: str) -> str:
    for pattern, words in OPERATIONS.items():
        match = re.fullmatch(pattern, name)
        if match:
            return words.format(*match.groups())
    return name


MARKS: dict[Standing, str] = {"scorer": "", "tuned": " †", "labelled": " ¶", "baseline": " *"}
"""Standing → what stands behind a scorer's name."""


def leaderboard(
    rows: Iterable[Row], rank: Callable[[Iterable[Row], str], float | None] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of the ranking on single images: scorers by mean AUROC, model-free ones apart below.

    ``rank`` gives another value to rank a scorer by; one that has none comes last.

    The mean is over in-dist sets, of the mean over each one's pairs and models; the worst pair stands beside it. Noise, constant
    and corrupted images count where there is nothing else.
    """
    single = [row for row in rows if row["status"] != "skipped" and row["group_size"] == 1]
    own = [row for row in single if is_counted(row)] or single
    columns = list(dict.fromkeys((row["model"], row["in_dist"], row["ood"]) for row in own))
    found = {(row["scorer"], row["model"], row["in_dist"], row["ood"]): row for row in own}
    names = dict.fromkeys((standing(row), row["scorer"]) for row in own)
    places = [((rank or _mean)(own, name), kind, name) for kind, name in names]
    places.sort(key=lambda one: (STANDINGS.index(one[1]), one[0] is None, -(one[0] or 0), one[2]))
    lines, means = [], _means(columns)
    for _, kind, name in places:
        cells = [found.get((name, *column)) for column in columns]
        shown = _mean_and_worst(_mean(own, name), cells)[: len(means)]
        lines.append([name + MARKS[kind], *shown, *map(_auroc_cell, cells)])
    one_model = len({model for model, _, _ in columns}) == 1
    heads = [f"→ {ood}" if one_model else f"{model}: → {ood}" for model, _, ood in columns]
    return ["scorer", *means, *heads], lines


def _means(columns: list[tuple[str, str, str]]) -> list[str]:
    """The heads of what sums columns up: a mean of several, the worst of several pairs."""
    pairs = {(in_dist, ood) for _, in_dist, ood in columns}
    return ["mean"] * (len(columns) > 1) + ["worst"] * (len(pairs) > 1)


def _mean(rows: Iterable[Row], scorer: str) -> float | None:
    """The mean over in-dist sets of a scorer's means over their pairs; None where a pair has no result."""
    means = {name: mean_in(own, scorer) for name, own in by_set(rows).items()}
    known = {name: mean.value for name, mean in means.items() if mean is not None}
    return mean_over_sets(known) if len(known) == len(means) else None


def _mean_and_worst(mean: float | None, cells: Iterable[Row | None]) -> list[str]:
    if mean is None:
        return ["", ""]
    return [f"{mean:.3f}", f"{min(row['auroc'] for row in cells if row is not None):.3f}"]


def _auroc_cell(row: Row | None) -> str:
    if row is None:
        return ""
    return "FAILED" if row["status"] == "failed" else auroc_text(row)
