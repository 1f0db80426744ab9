"""Whether an ensemble helps."""

from __future__ import annotations

from oodbench.report.section import Analysis, Section, marked
from oodbench.report.tables import text

HEADS = ["model", "in-dist", "OOD", "likelihood", "ensemble's likelihood", "WAIC"]
SCORERS = ("likelihood", "ensemble-likelihood", "waic")
WORDS = (
    "AUROC of the likelihood of the model itself, of the mixture of its ensemble's members, and of WAIC, "
    "which subtracts the members' variance from their mean."
)


def section(analysis: Analysis) -> Section:
    lines = []
    for _, ood in analysis.pairs(synthetic=False):
        found = [analysis.auroc(ood, scorer) for scorer in SCORERS]
        names = [text(analysis.results.label(ood)), text(ood["in_dist"]), text(ood["images"])]
        if any(found[1:]):
            lines.append([*names, *map(marked, found)])
    return Section("Ensembles", [WORDS], [(HEADS, lines)])
