"""The asymmetry: A → B beside B → A."""

from __future__ import annotations

from oodbench.report.section import Analysis, Section
from oodbench.report.tables import bare_name, text

HEADS = ["direction", "AUROC", "other direction", "AUROC"]
WORDS = (
    "AUROC of raw likelihood in both directions of a pair. A set that lies inside another is the "
    "likelier one under models of both, so that one direction fails and the other is easy. Parts of a "
    "set count as the set."
)


def section(analysis: Analysis) -> Section:
    found = _by_direction(analysis)
    both = [(a, b) for a, b in found if (b, a) in found and a < b]
    lines = [[*_half(found, a, b), *_half(found, b, a)] for a, b in both]
    return Section("Both directions", [WORDS], [(HEADS, lines)])


def _by_direction(analysis: Analysis) -> dict[tuple[str, str], list[str]]:
    """The AUROCs of all models that judge a pair of sets, by in-dist and OOD set."""
    found: dict[tuple[str, str], list[str]] = {}
    for test, ood in analysis.pairs(synthetic=False):
        row = analysis.auroc(ood)
        if row is not None:
            direction = bare_name(test["images"]), bare_name(ood["images"])
            cell = f"{row['auroc']:.3f} ({text(analysis.results.label(row))})"
            found.setdefault(direction, []).append(cell)
    return found


def _half(found: dict[tuple[str, str], list[str]], a: str, b: str) -> list[str]:
    return [f"{text(a)} → {text(b)}", ", ".join(found[a, b])]
