"""Judging: curve metrics with a bootstrap beside a plain form and scikit-learn, a million scores, and rows for a new scorer.

The plain form sorts once and reweights all distinct scores, replicate by replicate, in fresh arrays and draws of its own: what
oodbench did before. CPU seconds on one thread are medians of rounds in which all take turns.
"""

from __future__ import annotations

import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_curve

from oodbench.metrics import bootstrap, detection_metrics
from oodbench.passes.shards import forget
from oodbench.plan import Plan, make_plan
from oodbench.runner import Options, adapted, run_suite
from oodbench.suite import Suite, suite_of
from oodbench.trials import fits
from oodbench.trials.rows import _digests_of, shared_images, trial_tasks

SIZES, REPLICATES = (10_000, 26_032), 1000
FEW = 20
"""Replicates of scikit-learn, whose time for a thousand is this in proportion."""
ROUNDS = 3
PAIRS, IMAGES = 12, 10_000
PLUGIN = '''
import numpy as np

import oodbench as ob


@ob.register_model("benchmark")
class Benchmark:
    shape, trained_on, likelihood = (1, 4, 4), "{path}", "a bound"

    def log_prob(self, images):
        return -(images.double().flatten(1) - 100).abs().sum(1)


@ob.register_scorer("benchmark-quantile", cite="nobody")
class Quantile:
    """Distance of log p's quantile among reference images from the median."""

    def fit(self, log_prob):
        return np.sort(log_prob)

    def score(self, known, log_prob):
        return abs(np.searchsorted(known, log_prob) / len(known) - 0.5)
'''


def plainly(scores_in: np.ndarray, scores_ood: np.ndarray, replicates: int) -> dict[str, Any]:
    """The metrics of each replicate by counting at every distinct score."""
    values, places = np.unique(-np.concatenate([scores_in, scores_ood]), return_inverse=True)
    sides, stream = np.split(places, [len(scores_in)]), np.random.RandomState(0)
    found: dict[str, list[float]] = {}
    for _ in range(replicates):
        drawn = [side[stream.randint(0, len(side), len(side))] for side in sides]
        of_in, of_ood = (np.bincount(one, minlength=len(values)) for one in drawn)
        one = {"ood": (of_in, of_ood), "in": (of_ood[::-1], of_in[::-1])}
        for positive, (other, own) in one.items():
            for name, value in plain_curve(other.cumsum(), own.cumsum()).items():
                found.setdefault(f"{name}_{positive}", []).append(value)
    return {name: np.quantile(values, [0.025, 0.975]) for name, values in found.items()}


def plain_curve(flagged: np.ndarray, caught: np.ndarray) -> dict[str, float]:
    gained = np.diff(caught, prepend=0)
    hit = gained > 0
    precision = caught[hit] / (caught[hit] + flagged[hit])
    found = {"aupr": float(gained[hit] @ precision / caught[-1])}
    for tpr in (95, 80):
        first = np.searchsorted(caught, np.ceil(tpr / 100 * caught[-1] - 1e-9))
        found[f"fpr{tpr}"] = float(flagged[first] / flagged[-1])
    return found


def with_sklearn(scores_in: np.ndarray, scores_ood: np.ndarray) -> None:
    """The same of a few replicates, sorting each."""
    stream, sides = np.random.RandomState(0), (scores_in, scores_ood)
    labels = np.repeat([0, 1], [len(side) for side in sides])
    for _ in range(FEW):
        drawn = [side[stream.randint(0, len(side), len(side))] for side in sides]
        for truth, sign in ((labels, 1), (1 - labels, -1)):
            average_precision_score(truth, sign * np.concatenate(drawn))
            roc_curve(truth, sign * np.concatenate(drawn), drop_intermediate=False)


def cpu_seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def drawn_anew() -> None:
    """Draw the multiplicities of a pair, as its first scorer does."""
    bootstrap._kept.cache_clear()
    for _ in bootstrap.multiplicities(*SIZES, REPLICATES, 0):
        pass


def curve_lines() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=SIZES[0]), random.normal(1, 1, SIZES[1])
    ours, theirs = detection_metrics(*scores, 200, 0), plainly(*scores, 200)
    for name, ends in theirs.items():
        width = ours[name].high - ours[name].low
        assert np.allclose(ours[name][1:], ends, atol=width / 3), name
    cases = {
        "plain": lambda: plainly(*scores, REPLICATES),
        "scikit-learn": lambda: with_sklearn(*scores),
        "pair": drawn_anew,
        "scorer": lambda: detection_metrics(*scores, REPLICATES, 0),
    }
    rounds = [{name: cpu_seconds(case) for name, case in cases.items()} for _ in range(ROUNDS)]
    took = {name: median(one[name] for one in rounds) for name in cases}
    took["scikit-learn"] *= REPLICATES / FEW
    print(f"curve metrics, {SIZES[0]:,} / {SIZES[1]:,} scores, {REPLICATES:,} replicates")
    say("  scikit-learn on each replicate (in proportion)", took["scikit-learn"], took["scorer"])
    say("  plain form, a scorer", took["plain"], took["scorer"])
    say("  ours, a scorer", took["scorer"], took["scorer"])
    say("  ours, once a pair: drawing multiplicities", took["pair"], took["scorer"])


def say(what: str, seconds: float, unit: float) -> None:
    print(f"{what:58} {seconds:8.2f} s {seconds / unit:8.1f} ×", flush=True)


def million_line() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=500_000), random.normal(1, 1, 500_000)
    ours = cpu_seconds(lambda: detection_metrics(*scores, 100, 0))
    plain = cpu_seconds(lambda: plainly(*scores, 100))
    bootstrap._kept.cache_clear()
    tracemalloc.start()
    detection_metrics(*scores, 100, 0)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    print(f"a million scores, 100 replicates, draws included, {peak:.0f} MB at most")
    say("  plain form", plain, ours)
    say("  ours", ours, ours)


def twelve_pairs(folder: Path, scorers: list[str], replicates: int) -> Suite:
    """One in-dist set against twelve others."""
    random, in_dist = np.random.default_rng(0), folder / "near.npy"
    plugin = folder / "plugin.py"
    if not plugin.exists():
        plugin.write_text(PLUGIN.format(path=in_dist))
        for number in range(PAIRS):
            np.save(folder / f"ood{number}.npy", pixels(random, IMAGES, 3 * number))
        np.save(in_dist, pixels(random, 66_667, 0))  # of which 15 % are test images
    oods = [{f"ood{number}": str(folder / f"ood{number}.npy")} for number in range(PAIRS)]
    pair = {"in_dist": {"near": str(in_dist)}, "ood": oods, "models": ["benchmark"]}
    suite = suite_of({
        "name": "benchmark", "title": "Twelve pairs", "models": ["benchmark"], "pairs": [pair],
        "scorers": scorers, "bootstrap": replicates, "plugins": [str(plugin)],
    })  # fmt: skip
    return adapted(suite, None, None, ())


def pixels(random: np.random.Generator, n: int, shift: int) -> np.ndarray:
    drawn = random.normal(100 + shift, 30, (n, 1, 4, 4))
    return np.clip(drawn, 0, 255).astype(np.uint8)


def rows_lines(folder: Path) -> None:
    """Rows of a scorer that no run has judged, from cached columns; the plain form's are its own time for as many pairs."""
    run_suite(twelve_pairs(folder, ["typicality"], 0), Options(), folder / "out")
    print(f"rows of a new scorer: {PAIRS} pairs × {IMAGES:,} images, from cached columns")
    random = np.random.default_rng(0)
    scores = random.normal(size=IMAGES), random.normal(1, 1, IMAGES)
    plain = PAIRS * cpu_seconds(lambda: plainly(*scores, REPLICATES))
    for replicates in (0, REPLICATES):
        plan = make_plan(twelve_pairs(folder, ["benchmark-quantile"], replicates), (), "cpu")
        seconds, fitted = judged(plan)
        say(f"  ours, {replicates:,} replicates, {fitted} fit", seconds, seconds)
    say("  plain form, resampling alone", plain, seconds)


def judged(plan: Plan) -> tuple[float, int]:
    """CPU seconds of a plan's rows, and how often its scorer was fitted."""
    fits._states, fits._scores = fits.Memory(32), fits.Memory(64)
    forget()
    for remembered in (bootstrap._kept, shared_images, _digests_of):
        remembered.cache_clear()
    tasks = trial_tasks(plan)
    seconds = cpu_seconds(lambda: [task.perform() for task in tasks])
    return seconds, len(fits._states._kept)


def main() -> None:
    curve_lines()
    million_line()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OODBENCH_HOME"] = f"{folder}/home"
        rows_lines(Path(folder))


if __name__ == "__main__":
    main()
