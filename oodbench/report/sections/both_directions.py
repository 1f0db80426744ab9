"""The asymmetry: A → B beside B → A."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oodbench.report.section import Analysis, Section
from oodbench.report.tables import bare_name, text
from oodbench.store import Row

Direction = tuple[str, str]

HEADS = ["direction", "AUROC", "other direction", "AUROC"]
WORDS = "AUROC of raw likelihood in both directions of a pair. Parts of a set count as the set."


def section(analysis: Analysis) -> Section:
    found = _by_direction(analysis)
    both = [(a, b) for a, b in found if (b, a) in found and a < b]
    lines = [[*_half(analysis, found, a, b), *_half(analysis, found, b, a)] for a, b in both]
    words = [WORDS, *([_tally(found, both)] if both else [])]
    return Section("Both directions", words, [(HEADS, lines)])


def _by_direction(analysis: Analysis) -> dict[Direction, list[Row]]:
    """The rows of likelihood of all models that judge a pair of sets, by in-dist and OOD set."""
    found: dict[Direction, list[Row]] = {}
    for test, ood in analysis.pairs(synthetic=False):
        row = analysis.auroc(ood)
        if row is not None:
            direction = bare_name(test["images"]), bare_name(ood["images"])
            found.setdefault(direction, []).append(row)
    return found


def _tally(found: Mapping[Direction, list[Row]], both: Sequence[Direction]) -> str:
    """On how many pairs one set is the likelier one under the models of both."""
    likelier = {pair: _likelier_of_both(found, *pair) for pair in both}
    one_sided = [
        f"{text(name)} of {text(a)} and {text(b)}" for (a, b), name in likelier.items() if name
    ]
    rest = [f"{text(a)} and {text(b)}" for (a, b), name in likelier.items() if not name]
    told = f"One set is the likelier one under every model of both directions on {len(one_sided)} of {len(both)} pairs"
    told += f" ({'; '.join(one_sided)})" if one_sided else ""
    return told + (f"; not so on {'; '.join(rest)}." if rest else ".")


def _likelier_of_both(found: Mapping[Direction, list[Row]], a: str, b: str) -> str:
    """The set that every model of either set finds the likelier one; empty where there is none."""
    b_likelier = [row["auroc"] < 0.5 for row in found[a, b]]
    b_likelier += [row["auroc"] > 0.5 for row in found[b, a]]
    return b if all(b_likelier) else "" if any(b_likelier) else a


def _half(analysis: Analysis, found: Mapping[Direction, list[Row]], a: str, b: str) -> list[str]:
    shown = [f"{row['auroc']:.3f} ({text(analysis.results.label(row))})" for row in found[a, b]]
    return [f"{text(a)} → {text(b)}", ", ".join(shown)]
