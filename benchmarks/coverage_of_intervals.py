"""How often the 95 % intervals of the metrics hold what they estimate: both classes normal, as many images of each.

The in-dist scores are N(0, 1), the OOD ones N(√2·Φ⁻¹(AUROC), 1); at an AUROC of 1 they are uniform on [0, 1] and on [2, 3].
What is true of the populations is integrated, and held where the interval has it inside or on an end. Prints the table of
docs/statistics.md; five minutes on one core.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from oodbench.metrics import METRICS, bootstrap, detection_metrics

AREAS, SIZES = (0.5, 0.9, 0.99, 0.999, 1.0), (20, 200, 2000)
TRIALS, REPLICATES = 400, 300
LEAST = 0.92
"""Coverage that no metric falls below at any of these: 0.95 less three standard errors of 400 trials."""
SHOWN = ("auroc", "aupr_ood", "aupr_in", "fpr95_ood", "fpr95_in")
SETS_PER_DRAW = 25
"""Pairs of score vectors that meet the same bootstrap draws."""


class Coverage(NamedTuple):
    """Share of trials whose interval holds the truth, and the intervals' mean width."""

    held: float
    width: float


def truth(area: float) -> dict[str, float]:
    """The metrics of the populations, with as many images of either class; average precision by the trapezoidal rule."""
    if area == 1:
        return {name: float(not name.startswith("fpr")) for name in METRICS}
    shift = np.sqrt(2) * norm.ppf(area)
    cuts = np.linspace(-9, shift + 9, 200_001)
    caught, flagged = norm.sf(cuts - shift), norm.sf(cuts)
    precision = np.trapezoid(caught / (caught + flagged) * norm.pdf(cuts - shift), cuts)
    found = {"auroc": area}
    for side in ("ood", "in"):  # the classes are alike, so that either may be the positive one
        found[f"aupr_{side}"] = float(precision)
        for percent in (95, 80):
            found[f"fpr{percent}_{side}"] = float(norm.cdf(norm.ppf(percent / 100) - shift))
    return found


def drawn(area: float, n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores of n images a class."""
    if area == 1:
        return random.uniform(0, 1, n), random.uniform(2, 3, n)
    return random.normal(size=n), random.normal(np.sqrt(2) * norm.ppf(area), 1, n)


def coverage(
    area: float, n: int, trials: int = TRIALS, replicates: int = REPLICATES
) -> dict[str, Coverage]:
    """Of each metric."""
    random, known = np.random.default_rng([int(1000 * area), n]), truth(area)
    found = [
        detection_metrics(*drawn(area, n, random), replicates, trial // SETS_PER_DRAW)
        for trial in range(trials)
    ]
    bootstrap._kept.cache_clear()
    return {name: _coverage([one[name] for one in found], known[name]) for name in METRICS}


def _coverage(estimates: list, value: float) -> Coverage:
    held = [one.low - 1e-9 <= value <= one.high + 1e-9 for one in estimates]
    return Coverage(float(np.mean(held)), float(np.mean([one.high - one.low for one in estimates])))


def line(area: float, n: int, found: Mapping[str, Coverage]) -> str:
    """A line of the table."""
    cells = [f"{found[name].held:.3f} ({found[name].width:.3f})" for name in SHOWN]
    return f"| {area:g} | {n:,} | {' | '.join(cells)} |"


def main() -> None:
    print(f"| AUROC | n | {' | '.join(SHOWN)} |")
    print("| --- " * (2 + len(SHOWN)) + "|")
    for area in AREAS:
        for n in SIZES:
            print(line(area, n, coverage(area, n)), flush=True)


if __name__ == "__main__":
    main()
