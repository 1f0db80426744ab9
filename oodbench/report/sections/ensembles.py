"""Whether an ensemble helps."""

from __future__ import annotations

from oodbench.report.made import labelled, shipped, sizes_words
from oodbench.report.results import subject_of
from oodbench.report.section import Analysis, Section, marked
from oodbench.report.tables import chance_mark, text
from oodbench.store import Row

HEADS = [
    "model",
    "in-dist",
    "OOD",
    "likelihood",
    "mean of the members",
    "ensemble's likelihood",
    "WAIC",
]
SCORERS = ("likelihood", "ensemble-likelihood", "waic")
WORDS = (
    "AUROC of the likelihood of the model itself, the mean of the AUROCs of its ensemble's members by themselves, and "
    "AUROC of their mixture and of WAIC, which subtracts the members' variance from their mean. What an ensemble does is "
    "its distance from its members, which may be other models than the model itself."
)


def section(analysis: Analysis) -> Section:
    lines = []
    for _, ood in analysis.pairs(synthetic=False):
        single, *found = [analysis.auroc(ood, scorer) for scorer in SCORERS]
        names = [text(analysis.results.label(ood)), text(ood["in_dist"]), text(ood["images"])]
        if any(found):
            own = [marked(single), _members(analysis, ood), *map(marked, found)]
            lines.append([*names, *own])
    return Section("Ensembles", [WORDS, *_sizes(analysis, lines)], [(HEADS, lines)])


def _sizes(analysis: Analysis, lines: list[list[str]]) -> list[str]:
    """What each shipped model here is, and what the members of its ensemble are."""
    cards = [shipped(row["model"]) for row in analysis.results.tried] if lines else []
    known = {card.name: card for card in cards if card and card.ensemble}
    return [
        f"{labelled(text(name), name)}; its ensemble: {sizes_words(card.ensemble)}."
        for name, card in sorted(known.items())
    ]


def _members(analysis: Analysis, ood: Row) -> str:
    """The mean AUROC of the members by themselves; a dash where rows of earlier versions lack it."""
    rows = [row for row in analysis.of_kind("members") if row["images"] == ood["images"]]
    own = next((row for row in rows if subject_of(row) == subject_of(ood)), None)
    if own is None:
        return "–"
    mean = sum(own["aurocs"]) / len(own["aurocs"])
    return f"{mean:.3f}{chance_mark(mean)}"
