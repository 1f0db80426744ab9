"""The front page of a leaderboard: each model's scorers ranked, baselines apart, pages and skips listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from oodbench.data.corruptions import rung
from oodbench.data.identifiers import without_counts
from oodbench.report.illustrations import Illustration
from oodbench.report.ladders import ladder_section, ladder_table
from oodbench.report.leads import leads_section
from oodbench.report.made import reported_bits, size_words
from oodbench.report.means import Mean, mean_of, means_table, worst_name
from oodbench.report.older import older_sentence
from oodbench.report.results import Results, Subject, cells, subject_of
from oodbench.report.seeds import seeds_section
from oodbench.report.tables import (
    HEAD,
    LEGEND,
    NO_LIKELIHOOD,
    TAKES,
    Notes,
    bar_of,
    bits_cell,
    distinct,
    metric_cell,
    quoted,
    scorer_takes,
    sentence,
    shown_scorer,
    skip_lines,
    table,
    text,
    trial_of,
)
from oodbench.store import Row, Standing, is_ranked, standing
from oodbench.trials.counted import is_counted

RANKING = """\
Ranks are by mean AUROC over a model's pairs of real images, single images judged one by
one; *worst* is the worst of those pairs, *near* and *far* are the means over the pairs that the
suite calls so. M1, M2, …: model-free baselines, ranked apart. `passes`: walks of a model over the images that a
scorer needs; those that scorers share are made once. `tunes on`: what it looks at beside the test images;
baselines are of three kinds by it.
"""
TUNED = """\
T1, T2, …: scorers that chose a parameter by its AUROC on validation OOD images, ranked apart.
"""
LABELLED = """\
L1, L2, …: scorers of a classifier, which was trained on class labels, as no density model was. They are for reference, and
ranked apart.
"""
RANKED: Mapping[Standing, str] = {"scorer": "", "tuned": "T", "labelled": "L", "baseline": "M"}
"""Standings in the order of a ranking, and what stands before their ranks."""
Trial = tuple[str, str, str, int]


def overview(
    results: Results, pages: Mapping[str, str], illustrations: Iterable[Illustration]
) -> str:
    """The front page: for each model its scorers ranked over pairs of real images; pages and skips listed.

    Scorers are ranked within one model, in-dist set and seed, since a bound and an exact likelihood, or
    two in-dist sets, are not alike. ``pages`` holds the file of each in-dist set's page.
    """
    notes = Notes()
    title = f"# Leaderboard of the suite {quoted(results.suite)}\n"
    parts = [HEAD, title, *older_sentence(results.tried), LEGEND, RANKING]
    parts += leads_section(results)
    parts += [means_table(results)]
    parts += [TUNED] if any(standing(row) == "tuned" for row in results.tried) else []
    parts += [LABELLED] if any(standing(row) == "labelled" for row in results.tried) else []
    parts += [_ranking(results, subject, notes) for subject in _in_order(results)]
    parts += seeds_section(results)
    parts += ladder_section(illustrations)
    lines = [[f"[{text(name)}]({file})", *_summary(results, name)] for name, file in pages.items()]
    parts.append("## Everything else, by in-dist set\n")
    parts.append(table(["page", "in-dist images", "models (bits/dim)", "OOD sets"], lines))
    if results.skips:
        parts += ["## Skipped\n", _skipped(results.skips)]
    parts.append(_measured_with(results.tried))
    return "\n".join(parts) + notes.text()


def _in_order(results: Results) -> list[Subject]:
    """Subjects by the name of their in-dist set, as pages are."""
    names = {subject_of(row): row["in_dist_name"] for row in results.tried}
    return sorted(names, key=lambda subject: (names[subject], subject))


def _skipped(skips: list[Row]) -> str:
    lines = skip_lines(
        sorted((text(row["in_dist"]), text(row["ood"]), sentence(row["reason"])) for row in skips)
    )
    return "\n".join(sorted(f"- {line}" for line in lines)) + "\n"


def _summary(results: Results, in_dist: str) -> list[str]:
    """In-dist images, models with their fit, and OOD sets of one page."""
    page = [row for row in results.tried if row["in_dist_name"] == in_dist]
    own = sorted(page, key=lambda row: (row["ood"], row["model"], row["in_dist"], row["seed"]))
    models = {results.label(row): row for row in own}
    named = [_model_and_fit(label, row) for label, row in models.items()]
    in_dists = distinct(text(row["in_dist"]) for row in own)
    return [", ".join(in_dists), ", ".join(named), ", ".join(_ood_sets(own))]


def _ood_sets(rows: list[Row]) -> list[str]:
    """The OOD sets of some rows; of ladders of corruptions only how many rungs they have."""
    sets = distinct(row["ood"] for row in rows)
    rungs = sum(rung(one) is not None for one in sets)
    said = [f"{rungs} rungs of ladders of corruptions"] if rungs else []
    return [text(one) for one in sets if rung(one) is None] + said


def _model_and_fit(label: str, row: Row) -> str:
    if row.get("uses_labels"):
        return f"{text(label)} (classifier, uses labels)"
    kind = "exact" if row["likelihood"] == "exact" else "bound"
    return f"{text(label)} ({bits_cell(row.get('in_dist_bits_per_dim'))}, {kind})"


def _ranking(results: Results, subject: Subject, notes: Notes) -> str:
    """One subject's scorers by mean AUROC over its pairs of real images; only those with a result on each
    are ranked."""
    rows = results.of_subject(subject)
    alike = [row for row in rows if is_counted(row)]
    trials = sorted({trial_of(row) for row in alike})
    mixed = len(trials) != len({without_counts(row["ood"]) for row in alike})
    groups = _nearness(alike)
    lines: list[list[str]] = []
    for kind, letter in RANKED.items():
        places = [_place(name, alike, trials, notes) for name in _names(alike, kind)]
        ranked = [] if mixed else _ranked(places)
        for rank, place in enumerate(ranked, 1):
            lines.append([f"{letter}{rank}", *place.cells(kind)])
        for place in (one for one in places if one not in ranked):
            mark = notes.mark(f"{place.name}: {_why_unranked(place, trials, mixed)}")
            lines.append([f"not ranked{mark}", *place.cells(kind)])
    pairs = [f"{text(in_dist)} → {text(ood)}" for _, in_dist, ood, _ in trials]
    heads = ["rank", "scorer", "mean", "worst", *groups, *pairs, *TAKES]
    shown = table(heads, lines) if lines else ""
    head = f"## {text(results.name_of(subject))}\n\n{_fit(rows[0])}\n\n"
    return head + shown + ladder_table(rows) + _lacking(results.skips, subject.model)


def _nearness(rows: list[Row]) -> list[str]:
    """What a suite says of some of these pairs: ``near``, ``far``."""
    said = {row.get("nearness") for row in rows}
    return [one for one in ("near", "far") if one in said]


def _fit(row: Row) -> str:
    """What the model's log p(x) is, and its bits/dim in-dist."""
    if row.get("uses_labels"):
        return " ".join([NO_LIKELIHOOD, *_beside(row["model"])])
    exact = row["likelihood"] == "exact"
    kind = "exact" if exact else f"a bound: {text(row['likelihood'])}"
    fit = bits_cell(row.get("in_dist_bits_per_dim"))
    own = f"log p(x) is {kind}; {fit} bits/dim on {text(row['in_dist'])}."
    return " ".join([own, *_beside(row["model"])])


def _beside(model: str) -> Iterator[str]:
    """Published bits/dim beside a model's own, and what the model is."""
    published, size = reported_bits(model), size_words(model)
    if published:
        yield f"Published bits/dim: {text(published)}."
    if size:
        yield f"{text(size[0].upper() + size[1:])}."


def _lacking(skips: list[Row], model: str) -> str:
    why = {row["scorer"]: row["reason"] for row in skips if row["model"] == model and row["scorer"]}
    named = "; ".join(f"{text(name)} ({sentence(why[name])})" for name in sorted(why))
    return f"\nNot measured, and not ranked: {named}.\n" if named else ""


def _names(rows: list[Row], kind: Standing) -> list[str]:
    return distinct(sorted(row["scorer"] for row in rows if standing(row) == kind))


class _Place(NamedTuple):
    """A scorer's line in a ranking; ``mean`` is None where a pair has no result."""

    name: str
    mean: float | None
    found: int
    seen: int
    means: list[str]
    results: list[str]
    takes: list[str]

    def cells(self, kind: Standing) -> list[str]:
        return [shown_scorer(self.name, kind), *self.means, *self.results, *self.takes]


def _ranked(places: list[_Place]) -> list[_Place]:
    full = [place for place in places if place.mean is not None]
    return sorted(full, key=lambda place: (-(place.mean or 0), place.name))


def _why_unranked(place: _Place, trials: list[Trial], mixed: bool) -> str:
    if mixed:
        return "its rows are of unlike image sets"
    if place.seen:
        return f"a model that it reads has seen the OOD set of {place.seen} of {len(trials)} pairs"
    return f"{place.found} of {len(trials)} pairs have a result"


def _place(name: str, rows: list[Row], trials: list[Trial], notes: Notes) -> _Place:
    mine = [row for row in rows if row["scorer"] == name]
    own = cells(mine, "model", "in_dist", "ood", "seed")
    sound = [row for row in mine if row["status"] == "ok"]
    found = [row for row in sound if is_ranked(row)]
    found_rows = map(own.get, trials)
    results = [metric_cell(row, "auroc", notes, bar_of(row, rows)) for row in found_rows]
    mean = mean_of(mine, len(trials))
    means = [
        *_mean_and_worst(mean, rows),
        *(_mean_of_group(mine, rows, one) for one in _nearness(rows)),
    ]
    value, seen = mean and mean.value, len(sound) - len(found)
    return _Place(name, value, len(found), seen, means, results, scorer_takes(mine))


def _mean_and_worst(mean: Mean | None, rows: list[Row]) -> list[str]:
    if mean is None:
        return ["", ""]
    return [f"{mean.value:.3f}", f"{mean.worst['auroc']:.3f} ({worst_name(mean.worst, rows)})"]


def _mean_of_group(mine: list[Row], rows: list[Row], nearness: str) -> str:
    """The mean over the pairs that the suite calls near, or far."""
    own, known = ([row for row in some if row.get("nearness") == nearness] for some in (mine, rows))
    mean = mean_of(own, len(set(map(trial_of, known))))
    return "" if mean is None else f"{mean.value:.3f}"


def _measured_with(rows: list[Row]) -> str:
    """Versions and devices that the rows were measured with."""
    known = [one for row in rows for one in _environments(row.get("provenance"))]
    if not known:
        return ""
    versions = sorted({_versions(one) for one in known} - {""})
    devices = sorted({_device(one) for one in known})
    return (
        f"Measured with {'; '.join(map(text, versions))} on {', '.join(map(text, devices))}. "
        "Hashes of weights and images stand in each row.\n"
    )


def _environments(provenance: Any) -> Iterator[Mapping[str, Any]]:
    """What provenance says of each measurement: the mappings in it that name a device."""
    if isinstance(provenance, Mapping):
        if "device" in provenance:
            yield provenance
        else:
            for value in provenance.values():
                yield from _environments(value)
    elif isinstance(provenance, list):
        for value in provenance:
            yield from _environments(value)


def _versions(one: Mapping[str, Any]) -> str:
    known = {**one, **one.get("versions", {})}
    return ", ".join(
        f"{name} {known[name]}" for name in ("numpy", "oodbench", "torch") if known.get(name)
    )


def _device(one: Mapping[str, Any]) -> str:
    return f"{one['device']} ({one['machine']})" if one.get("machine") else str(one["device"])
