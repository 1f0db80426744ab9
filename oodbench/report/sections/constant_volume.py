"""The phenomenon without the volume term."""

from __future__ import annotations

from oodbench.report.section import Analysis, Section, bits, marked
from oodbench.report.tables import text

HEADS = ["model", "in-dist", "OOD", "test bits/dim", "OOD bits/dim", "AUROC of −log p"]
WORDS = (
    "In a flow whose couplings only shift, log|det| is one number for all images, so that it cannot "
    "favour any. What remains of the finding is log p(z) alone."
)


def section(analysis: Analysis) -> Section:
    lines, shown = [], set()
    for test, ood in analysis.pairs(synthetic=False):
        if test.get("log_det") and test["log_det"][1] == 0:
            label = analysis.results.label(ood)
            names = [text(label), text(ood["in_dist"]), text(ood["images"])]
            lines.append([*names, bits(test), bits(ood), marked(analysis.auroc(ood))])
            shown.add(label)
    figures = [one for one in analysis.figures("likelihoods") if one.of in shown]
    return Section("Constant volume", [WORDS], [(HEADS, lines)], figures)
