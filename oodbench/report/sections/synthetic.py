"""Constant and noise images."""

from __future__ import annotations

from oodbench.report.section import Analysis, Section, bits, marked
from oodbench.report.tables import text

HEADS = ["model", "images", "test bits/dim", "their bits/dim", "AUROC of −log p"]
WORDS = "Images of one colour, and of independent uniform pixels, which no model was trained on."


def section(analysis: Analysis) -> Section:
    lines = []
    for test, ood in analysis.pairs(synthetic=True):
        names = [text(analysis.results.label(ood)), text(ood["images"])]
        lines.append([*names, bits(test), bits(ood), marked(analysis.auroc(ood))])
    return Section("Constant images and noise", [WORDS], [(HEADS, lines)])
