"""The story of numbers made elsewhere: files → columns → rows → comparison with a run on the same images → pages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.data.division import image_digests
from oodbench.data.images import load_images
from oodbench.errors import DataError, OodbenchError, StoreError
from oodbench.metrics.comparison import holm
from oodbench.report import refuse_foreign, write_report
from oodbench.report.comparison import PAIRED, gap_text, paired_cells, test_of
from oodbench.store import SCHEMA, Row, is_ranked, key_of, read_rows
from oodbench.trials.comparison import SHARED, Compared, compared, comparison_digest
from oodbench.trials.given import (
    TIED,
    About,
    GivenTask,
    Side,
    finished,
    given_task,
    other_way_round,
    possible,
    run_task,
    tied_share,
)
from oodbench.trials.number_files import HASHES, read_numbers
from oodbench.trials.results import ResultsFolder
from oodbench.trials.rows import Judged
from oodbench.trials.scores import ScoreFiles, scores_in_place
from oodbench.types import Scorer


@dataclass(frozen=True)
class Given:
    """What is to be judged: files by shown name, and the columns that are finished scores.

    Attributes
    ----------
    larger, smaller : columns that are scores, larger or smaller values being more OOD
    against : results folder of a run whose scorers are judged on the same images
    """

    in_dist: tuple[str, Path]
    ood: Sequence[tuple[str, Path]]
    ref: Path | None = None
    larger: Sequence[str] = ()
    smaller: Sequence[str] = ()
    against: Path | None = None


@dataclass
class Found:
    """What a judgement gives: rows with scores, comparisons, and all that has to be told of the numbers."""

    judged: list[Judged] = field(default_factory=list)
    comparisons: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)
    """A line for each scorer of the given numbers beside the best of the run."""


def judge(given: Given, about: About, folder: Path) -> tuple[list[Row], Found]:
    """Judge files of per-image numbers into a results folder; returns its rows, and what is to be told.

    Raises
    ------
    DataError : files that cannot be judged
    StoreError : a folder with somebody else's files
    """
    refuse_foreign(folder)
    found = judgement(given, about)
    results, scores = ResultsFolder(folder), ScoreFiles(folder)
    results.check_suite(about.suite)
    tables: dict[str, list[Row]] = {"rows": [], "curves": [], "comparisons": found.comparisons}
    for one in found.judged:
        for table, rows in one.rows.items():
            tables[table] += rows
        if one.scores is not None:
            scores.add(one.row, one.scores)
    with results.held():
        results.merge(tables)
        scores.write()
        scores.keep_only(results.rows("rows"))
        write_report(folder)
    return results.rows("rows"), found


def judgement(given: Given, about: About) -> Found:
    """What files give, before anything is written."""
    names = [*given.larger, *given.smaller]
    test = Side(given.in_dist[0], read_numbers(given.in_dist[1], names))
    ref = Side(f"{test.name}-ref", read_numbers(given.ref, names)) if given.ref else None
    oods = [Side(name, read_numbers(path, names)) for name, path in given.ood]
    _check_apart(test, oods, ref)
    found = Found()
    for side in (test, *oods, *([ref] if ref else [])):
        found.remarks += of_file(side)
    found.remarks += _lacking(test, oods, ref)
    scorers = [*map(finished, given.larger), *(finished(name, True) for name in given.smaller)]
    run = RunScores(given.against, test, oods) if given.against else None
    for ood in oods:
        tasks = _tasks(about, test, ood, ref, scorers)
        if not tasks:
            raise DataError(f"{test.name} and {ood.name} share no column that a scorer takes")
        _enter(found, tasks)
        found.comparisons += _comparison(about, test, ood, found)
        if run is not None:
            _beside_run(found, run, about, (test, ood, ref), scorers)
    return found


def _tasks(
    about: About, test: Side, ood: Side, ref: Side | None, scores: Sequence[Scorer]
) -> list[GivenTask]:
    both = test.numbers.columns.keys() & ood.numbers.columns.keys()
    reference = set(ref.numbers.columns) if ref else set()
    own = [scorer for scorer in scores if set(scorer.needs) <= both]
    return [
        given_task(about, test, ood, ref, one) for one in (*possible(set(both), reference), *own)
    ]


def _enter(found: Found, tasks: Iterable[GivenTask]) -> None:
    for task in tasks:
        judged = task.perform()
        found.judged.append(judged)
        found.remarks += of_scores(judged, task.scorer.summary == "a finished score")


# what is told


def of_file(side: Side) -> Iterator[str]:
    """Sentences on the numbers of one file that change what may be concluded from them."""
    numbers, where = side.numbers, side.numbers.path.name
    yield from (f"{where}: left out: {why}" for why in numbers.left_out.values())
    for name in numbers.halved:
        yield f"{where}: {name} is stored in half precision, three digits: save it as float64"
    log_prob = numbers.columns.get("log_prob")
    finite = np.empty(0) if log_prob is None else log_prob[np.isfinite(log_prob)]
    if finite.sum() > 0:
        yield (
            f"{where}: log_prob is above 0 on average, which the probability of a discrete image never is: is it −log p, or "
            "the density of scaled pixels without its −D·log 256?"
        )
    doubled = len(numbers.hashes) - len(set(numbers.hashes))
    if doubled:
        yield f"{where}: {doubled} of {numbers.n} images stand there more than once"


def of_scores(judged: Judged, is_finished: bool) -> Iterator[str]:
    """Sentences on scores that are quantised, or that sort the wrong way."""
    row, scores = judged.row, judged.scores
    if scores is None:
        return
    tied = tied_share(scores)
    if tied > TIED:
        distinct = len(np.unique(np.concatenate(list(scores.values()))))
        yield (
            f"{row['scorer']} on {row['ood']}: {tied:.1%} of the pairs of an in-dist and an OOD image have the same score "
            f"({distinct:,} distinct ones), which counts one half; were they rounded, binned or saved in half precision?"
        )
    if is_finished and row["auroc_high"] is not None and row["auroc_high"] < 0.5:
        yield (
            f"{row['scorer']} on {row['ood']} is worse than chance as declared (AUROC {row['auroc']:.3f}); turned round "
            f"it has {other_way_round(scores):.3f}. If larger means more in-dist, declare it so; nothing is turned round here"
        )


def _lacking(test: Side, oods: Sequence[Side], ref: Side | None) -> Iterator[str]:
    """Columns that one file lacks, and what a reference file would make possible."""
    for side in oods:
        for one, other in ((test, side), (side, test)):
            missing = sorted(one.numbers.columns.keys() - other.numbers.columns.keys())
            if missing:
                names, file = ", ".join(missing), one.numbers.path.name
                yield f"{other.numbers.path.name} lacks {names}, which {file} has: not judged"
    columns = set(test.numbers.columns)
    if ref is None:
        fitted = [scorer.name for scorer in possible(columns, columns) if scorer.fit]
        if fitted:
            yield f"with --ref FILE, in-dist images apart from the test images, these are judged too: {', '.join(fitted)}"


def _check_apart(test: Side, oods: Sequence[Side], ref: Side | None) -> None:
    """:class:`DataError` where two files hold one thing, or the reference holds test images."""
    for side in oods:
        if side.numbers.sha256 == test.numbers.sha256:
            raise DataError(f"{side.numbers.path} holds the same numbers as the in-dist file")
    names = [test.name, *(side.name for side in oods)]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise DataError(f"two files are called {doubled!r}; write NAME=FILE")
    if ref is None:
        return
    for side in (test, *oods):
        shared = set(ref.numbers.hashes) & set(side.numbers.hashes)
        if shared or ref.numbers.sha256 == side.numbers.sha256:
            what = f"{len(shared)} images of" if shared else "the same numbers as"
            raise DataError(
                f"{ref.numbers.path} holds {what} {side.numbers.path}: a scorer may not be fitted on images that it judges"
            )


# comparison


def _comparison(
    about: About, test: Side, ood: Side, found: Found, others: Scores | None = None
) -> list[Row]:
    """The comparison of all scorers on one pair, those of a run included."""
    own = _scores_of(found, about.model, test, ood)
    every = {**own, **(others or {})}
    if len(every) < 2:
        return []
    shared = dict(
        zip(SHARED, (about.suite, about.model, test.name, ood.name, about.seed), strict=True)
    )
    key = key_of(SCHEMA, comparison_digest(), [one.row["key"] for one in every.values()])
    return [{"schema": SCHEMA, "key": key, **shared, **compared(every)}]


Scores = dict[str, Compared]


def _scores_of(found: Found, model: str, test: Side, ood: Side) -> Scores:
    """Sound scores of one model on one pair, by scorer."""
    pair = (model, test.name, ood.name)
    own = (
        one
        for one in found.judged
        if (one.row["model"], one.row["in_dist"], one.row["ood"]) == pair
    )
    return {one.row["scorer"]: _compared(one) for one in own if one.scores is not None}


def _compared(judged: Judged) -> Compared:
    assert judged.scores is not None
    scores = judged.scores["in"], judged.scores["ood"]
    return Compared(judged.row, scores, judged.replicates)


class RunScores:
    """The scores of a run on the images that given numbers are of, found by the images' hashes."""

    def __init__(self, folder: Path, test: Side, oods: Sequence[Side]):
        self.folder = folder
        without = [side.numbers.path.name for side in (test, *oods) if not side.numbers.hashes]
        if without:
            raise DataError(
                f"{', '.join(without)}: without a column {HASHES} nobody knows which images these are, and they cannot be "
                f"compared with {folder}; such a column holds the SHA-256 of each image's uint8 pixels (C, H, W)"
            )
        rows = [row for row in read_rows(folder / "rows.jsonl") if _is_comparable(row)]
        if not rows:
            raise StoreError(
                f"{folder} holds no rows with scores; name the results folder of a run"
            )
        self.rows = rows
        self._places: dict[str, dict[str, int]] = {}
        self.unopened: dict[str, str] = {}

    def pairs(self, test: Side, ood: Side) -> Iterator[tuple[list[Row], list[int], list[int]]]:
        """Rows of each pair of sets of the run that holds images of both sides, and which of their lines are shared."""
        grouped: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            grouped.setdefault((row["in_dist"], row["ood"]), []).append(row)
        for rows in grouped.values():
            of_test = self._shared(test, rows[0], "in_dist")
            of_ood = self._shared(ood, rows[0], "ood", self._left_out(rows))
            if min(len(of_test), len(of_ood)) > 1:
                yield rows, of_test, of_ood

    def _shared(self, side: Side, row: Row, role: str, left_out: Collection[int] = ()) -> list[int]:
        places = self.places(row, role)
        found = enumerate(places.get(one) for one in side.numbers.hashes)
        return [number for number, place in found if place is not None and place not in left_out]

    def _left_out(self, rows: Sequence[Row]) -> set[int]:
        """Places of the OOD images that the run left out with one of its models."""
        few = [row for row in rows if row.get("left_out")]
        unjudged = (np.isnan(scores_in_place(self.folder, row)[1]) for row in few)
        return {int(place) for one in unjudged for place in np.flatnonzero(one)}

    def places(self, row: Row, role: str) -> dict[str, int]:
        """Hash → place of each image of a set of the run; nothing for a set that is not here any more."""
        sha256 = row["inputs"]["images"][role]
        if sha256 not in self._places:
            self._places[sha256] = self._opened(row[role], sha256)
        return self._places[sha256]

    def _opened(self, identifier: str, sha256: str) -> dict[str, int]:
        try:
            images = load_images(identifier)
        except OodbenchError as error:
            self.unopened[identifier] = str(error)
            return {}
        if images.sha256 != sha256:
            self.unopened[identifier] = (
                f"{identifier} holds other images here than those that the run judged"
            )
            return {}
        return {one.hex(): place for place, one in enumerate(image_digests(images.images))}

    def scores(self, row: Row, test: Side, ood: Side) -> tuple[np.ndarray, np.ndarray]:
        """The scores of a row on just the images of both sides, in their order."""
        found = scores_in_place(self.folder, row)
        return tuple(  # type: ignore[return-value]
            own[[self.places(row, role)[one] for one in side.numbers.hashes]]
            for own, side, role in zip(found, (test, ood), ("in_dist", "ood"), strict=True)
        )


def _is_comparable(row: Row) -> bool:
    sound = row["status"] == "ok" and bool(row.get("scores"))
    return sound and row["group_size"] == 1 and is_ranked(row)


def _beside_run(
    found: Found,
    run: RunScores,
    about: About,
    sides: tuple[Side, Side, Side | None],
    scorers: Sequence[Scorer],
) -> None:
    """Judge the scorers of the run on the images that both have, and compare."""
    test, ood, ref = sides
    met = False
    for rows, of_test, of_ood in run.pairs(test, ood):
        met = True
        if any(row["model"] == about.model for row in rows):
            raise DataError(
                f"{run.folder} has a model {about.model!r} too; call yours otherwise with --model"
            )
        own_test, own_ood = test.only(of_test), ood.only(of_ood)
        if (own_test.name, own_ood.name) != (test.name, ood.name):
            _enter(found, _tasks(about, own_test, own_ood, ref, scorers))
        others = _of_run(found, run, about, rows, own_test, own_ood)
        comparison = _comparison(about, own_test, own_ood, found, others)
        _replace(found.comparisons, comparison)
        found.against += best_of(comparison, set(others))
    if not met:
        reasons = "".join(f"; {why}" for why in run.unopened.values())
        found.remarks.append(
            f"{run.folder} judged no pair that holds images of {test.name} and {ood.name}{reasons}"
        )


def _of_run(
    found: Found, run: RunScores, about: About, rows: Sequence[Row], test: Side, ood: Side
) -> Scores:
    """The rows of a run on shared images; a baseline once, since it is the same with every model."""
    others: Scores = {}
    for row in rows:
        name = row["scorer"] if row["baseline"] else f"{row['scorer']} ({row['model']})"
        if name in others:
            continue
        scores = run.scores(row, test, ood)
        judged = run_task(about, row, test, ood, scores).perform()
        found.judged.append(judged)
        if judged.scores is not None:
            others[name] = _compared(judged)
    return others


def _replace(rows: list[Row], new: Sequence[Row]) -> None:
    """Put comparisons in the place of those of the same pair."""
    names = {(row["in_dist"], row["ood"]) for row in new}
    rows[:] = [row for row in rows if (row["in_dist"], row["ood"]) not in names] + list(new)


def best_of(comparisons: Sequence[Row], others: set[str]) -> Iterator[str]:
    """For each given scorer its AUROC, and the paired difference to the best scorer and the best baseline of the run."""
    for row in comparisons:
        names, aurocs = row["scorers"], np.array(row["auroc"])
        best = _best(names, aurocs, others - set(row["tuned"]), set(row["baselines"]))
        own = [number for number, name in enumerate(names) if name not in others]
        tests = [(one, other) for one in own for other in best.values()]
        found = [test_of(row, names[one], names[other]) for one, other in tests]
        corrected = holm([one.p for one in found])
        yield f"{row['in_dist']} → {row['ood']}, the same images; differences are paired, p corrected by Holm:"
        for (one, other), gap, p in zip(tests, found, corrected, strict=True):
            kind = next(kind for kind, number in best.items() if number == other)
            yield (
                f"  {names[one]} {aurocs[one]:.3f} less {names[other]} {aurocs[other]:.3f}, {kind} of the run: "
                f"{gap_text(gap.estimate)}, p {p:.2g}{_paired(row, names[one], names[other])}"
            )


def _paired(row: Row, one: str, other: str) -> str:
    """The paired differences of the other metrics, where there was a bootstrap."""
    if not row["paired"]:
        return ""
    found = zip(PAIRED.values(), paired_cells(row, one, other), strict=True)
    return "".join(f"; {metric} {gap}" for metric, gap in found)


def _best(
    names: Sequence[str], aurocs: np.ndarray, others: set[str], baselines: set[str]
) -> Mapping[str, int]:
    """The best scorer and the best baseline among the run's."""
    of_run: dict[str, Any] = {
        "the best scorer": [n for n, name in enumerate(names) if name in others - baselines],
        "the best baseline": [n for n, name in enumerate(names) if name in others & baselines],
    }
    return {kind: max(own, key=lambda n: aurocs[n]) for kind, own in of_run.items() if own}
