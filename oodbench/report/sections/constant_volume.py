"""The phenomenon without the volume terms."""

from __future__ import annotations

import math

from oodbench.report.section import Analysis, Pair, Section, bits, marked
from oodbench.report.tables import text
from oodbench.store import Row

VOLUMES = ("prior_volume", "log_det")
STILL = 1e-6
"""Nats by which a volume may vary and be called constant."""
HEADS = [
    "model",
    "in-dist",
    "OOD",
    "test bits/dim",
    "OOD bits/dim",
    "‖z‖/√D, test",
    "‖z‖/√D, OOD",
    "AUROC of −log p",
]
WORDS = (
    "In a flow whose couplings only shift and whose prior is a fixed N(0, I), log|det| and −Σ log σ are each one "
    "number for all images: log p(x) is −½‖z‖² plus a constant, so that no volume can favour an image. What remains "
    "of the finding is the distance of z from the mode alone."
)


def is_constant_volume(row: Row) -> bool:
    """Whether a likelihood row has both volumes, and neither varies over its images."""
    return all(row.get(name) and row[name][1] < STILL for name in VOLUMES)


def section(analysis: Analysis) -> Section:
    pairs = [pair for pair in analysis.pairs(synthetic=False) if is_constant_volume(pair[0])]
    lines = [_line(analysis, pair) for pair in pairs]
    shown = {analysis.results.label(ood) for _, ood in pairs}
    figures = [one for one in analysis.figures("likelihoods") if one.of in shown]
    return Section("Constant volume", [WORDS, _verdict(pairs)], [(HEADS, lines)], figures)


def _line(analysis: Analysis, pair: Pair) -> list[str]:
    test, ood = pair
    names = [text(analysis.results.label(ood)), text(ood["in_dist"]), text(ood["images"])]
    norms = [f"{row['latent_norm'][0] / math.sqrt(row['dimensions']):.3f}" for row in pair]
    return [*names, bits(test), bits(ood), *norms, marked(analysis.auroc(ood))]


def _verdict(pairs: list[Pair]) -> str:
    inverted = sum(ood["log_prob"][0] > test["log_prob"][0] for test, ood in pairs)
    return f"With constant volume the OOD images have the higher mean log p on {inverted} of {len(pairs)} pairs."
