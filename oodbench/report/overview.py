"""The front page of a leaderboard: the answer first, then a table for each in-dist set, then one over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from oodbench.data.corruptions import rung
from oodbench.report.answers import (
    bar_sentence,
    cost_sentence,
    leader_sentence,
    likelihood_sentence,
    set_sentence,
)
from oodbench.report.illustrations import Illustration
from oodbench.report.ladders import ladder_section
from oodbench.report.links import Links, page_head
from oodbench.report.made import reported_bits, size_words, sizes_sentence
from oodbench.report.older import older_sentence
from oodbench.report.order import subjects_in_order
from oodbench.report.overall import Standings, overall
from oodbench.report.reasons import skip_list
from oodbench.report.results import Results, Subject
from oodbench.report.seeds import seeds_section
from oodbench.report.set_tables import SetTable
from oodbench.report.tables import (
    LEGEND,
    Notes,
    bits_cell,
    distinct,
    folded,
    only_here_notes,
    quoted,
    table,
    text,
)
from oodbench.store import Row, Standing, standing

READING = """\
Scorers are ranked over pairs of real images, single images judged one by one; groups, noise and constant images, ladders of
corruptions and other metrics stand apart, on the pages of the in-dist sets. A scorer has a rank only where every pair has it.
*model-free*: a baseline that reads no deep model; the bar of a scorer is the best of those that see no more data than it. A
winner is named where it is above every other scorer with a model in the paired test on the same images (DeLong, Holm, 5 %), and
where its lead also exceeds the spread over trainings and seeds, where those were repeated.
"""
TUNED = """\
*(tuned)*: scorers that chose a parameter by its AUROC on validation OOD images; they are ranked nowhere.
"""
LABELLED = """\
*(uses labels)*: scorers of a classifier, which was trained on class labels, as no density model was. They are for reference, and
ranked apart.
"""


def overview(
    results: Results,
    own: Standings,
    links: Links,
    illustrations: Iterable[Illustration],
) -> str:
    """The front page of a results folder; ``illustrations`` are the figures that are drawn."""
    notes, figures = Notes(), list(illustrations)
    parts = page_head(f"Leaderboard of the suite {quoted(results.suite)}", links, "README.md")
    parts += [f"{line}\n" for line in answers(own)]
    parts += [_set_answers(own, links), *headline(figures)]
    for name, file in links.sets.items():
        parts += [f"## In-dist: {text(name)}\n", *_set_tables(own, name, file, notes)]
    parts += ["## Over all in-dist sets\n", overall(own)] if len(own.sets) > 1 else []
    parts += ["## How to read\n", LEGEND, READING, *_apart(results)]
    parts += [f"{note}\n" for note in only_here_notes([], [_names(results.tried)])]
    parts += seeds_section(results) + ladder_section(figures)
    parts += ["## Models and skips\n", folded("Models and their fits", _models(results))]
    lines = skip_list(results.skips, results.tried)
    parts += [folded("Skipped, and why", "\n".join(lines) + "\n")] if lines else []
    parts += [*older_sentence(results.tried), _measured_with(results.tried)]
    return "\n".join(parts) + notes.text()


def answers(own: Standings) -> list[str]:
    """Who is best, what likelihood does, what beats the bar, what it costs: a sentence each."""
    said = [leader_sentence(own), bar_sentence(own), likelihood_sentence(own), cost_sentence(own)]
    return [one for one in said if one]


def _set_answers(own: Standings, links: Links) -> str:
    lines = [
        f"- [{text(name)}]({file}): {set_sentence(own, name)}"
        for name, file in links.sets.items()
        if name in own.sets
    ]
    return "\n".join(lines) + "\n"


def headline(figures: Iterable[Illustration]) -> list[str]:
    """The figure of the finding, with its caption."""
    own = [one for one in figures if one.kind == "headline"]
    return [f"![{one.label}]({one.file})\n\n<sub>{one.caption}</sub>\n" for one in own]


def _set_tables(own: Standings, name: str, file: str, notes: Notes) -> list[str]:
    found = SetTable(own, name, notes)
    if not found.rows:
        return [f"No pair of real images: [all results]({file}).\n"]
    n = len(distinct(row["scorer"] for row in found.rows))
    return [*found.tables(short_form=True), f"[All {n} scorers, figures, commands]({file})\n"]


def _apart(results: Results) -> list[str]:
    """What is said of the standings that only some folders have."""
    kinds = {standing(row) for row in results.tried}
    said: list[tuple[Standing, str]] = [("tuned", TUNED), ("labelled", LABELLED)]
    return [words for kind, words in said if kind in kinds]


def _names(rows: Sequence[Row]) -> list[str]:
    return [name for row in rows for name in (row["in_dist"], row["ood"], row["model"])]


def _models(results: Results) -> str:
    """Each model with what its log p(x) is, its bits/dim beside published ones, its size, and its OOD sets."""
    lines = [_model_line(results, subject) for subject in subjects_in_order(results)]
    sizes = sizes_sentence(row["model"] for row in results.tried)
    shown = table(["model", "in-dist images", "bits/dim", "log p(x)", "OOD sets"], lines)
    published = [f"- {line}" for line in _published(results)]
    return "\n".join([*([f"{sizes}\n"] if sizes else []), shown, *published]) + "\n"


def _model_line(results: Results, subject: Subject) -> list[str]:
    rows = results.of_subject(subject)
    likelihood = rows[0]["likelihood"]
    kind = "exact" if likelihood == "exact" else f"a bound: {text(likelihood)}"
    if rows[0].get("uses_labels"):
        kind = "none: a classifier, uses labels"
    fit = bits_cell(rows[0].get("in_dist_bits_per_dim"))
    names = [text(results.name_of(subject)), text(subject.in_dist)]
    return [*names, fit, kind, ", ".join(_ood_sets(rows))]


def _published(results: Results) -> Iterator[str]:
    """What the literature reports for a model's kind, and what the model is."""
    for model in distinct(subject.model for subject in subjects_in_order(results)):
        size, known = size_words(model), reported_bits(model)
        told = [size, f"published bits/dim: {known}" if known else ""]
        if any(told):
            yield f"{text(model)}: {text('; '.join(filter(None, told)))}"


def _ood_sets(rows: list[Row]) -> list[str]:
    """The OOD sets of some rows; of ladders of corruptions only how many rungs they have."""
    sets = distinct(row["ood"] for row in rows)
    rungs = sum(rung(one) is not None for one in sets)
    said = [f"{rungs} rungs of ladders of corruptions"] if rungs else []
    return [text(one) for one in sets if rung(one) is None] + said


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
