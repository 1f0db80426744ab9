"""Flipped bits and files cut short: kind, file, quarter and bit drawn at random over the whole cache and results folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from oodbench.analysis import second_order
from oodbench.runner import Options, run_suite
from oodbench.suite import Analysis, Pair, Suite

SUITE = Suite(
    name="flips",
    title="t",
    models=["glow-small-fashionmnist-1"],
    limit=12,
    bootstrap=0,
    pairs=[Pair(in_dist="fashionmnist", ood=["mnist"])],
    scorers=["likelihood", "typicality", "pixel-mean"],
    analysis=Analysis(images=4, gray=(50,), samples=2, probes=2),
)
CACHE = {"columns": "*.npz", "images": "*.npy", "samples": "*.npy"}
RESULTS = {
    "rows": "rows.jsonl",
    "analysis": "analysis.jsonl",
    "comparisons": "comparisons.jsonl",
    "curves": "curves.jsonl",
    "scores": "scores/**/*.npz",
    "grids": "grids/*.png",
    "manifest": "figures/drawn.json",
}
MEASURED = ("cost", "provenance", "measured_sha256")
"""What differs between two measurements of the same numbers."""
CUT = 0.3
"""Share of the damage that cuts a file in place of flipping a bit."""
AT_ONCE = 10
"""Flips before each run: in ten files where there are as many."""


class Undisturbed:
    """A cache and a results folder as a run left them."""

    def __init__(self, home: Path, folder: Path):
        self.home, self.folder = home, folder
        run_suite(SUITE, Options(), folder)
        self.cache, self.results = contents(home), contents(folder)
        self.values = values(folder)

    def restore(self) -> None:
        """Everything as it was, so that each batch meets the same files."""
        for root, files in ((self.home, self.cache), (self.folder, self.results)):
            shutil.rmtree(root)
            for path, content in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def values(folder: Path) -> dict[str, list[str]]:
    """The rows of each table without what measuring took, the scores, and the pictures."""
    found = {}
    for table in ("rows", "analysis", "comparisons", "curves"):
        lines = (folder / f"{table}.jsonl").read_text().split("\n")
        rows = [json.loads(line) for line in lines if line]
        kept = [{name: row[name] for name in row if name not in MEASURED} for row in rows]
        found[table] = sorted(json.dumps(row, sort_keys=True) for row in kept)
    files = [*folder.glob("scores/**/*.npz"), *folder.glob("grids/*.png")]
    for path in files:
        found[str(path.relative_to(folder))] = [path.read_bytes().hex()]
    return found


def flip(path: Path, random: np.random.Generator) -> None:
    """Flip one bit in the beginning, the second or third quarter or the end of a file, or cut it there."""
    data = bytearray(path.read_bytes())
    place = int((random.integers(4) + random.random()) / 4 * len(data))
    data[place] ^= 1 << int(random.integers(8))
    cut = random.random() < CUT
    path.write_bytes(data[:place] if cut else data)


def says_the_same(damaged: bytes, whole: bytes) -> bool:
    """Whether the flip changed how a number is written and not the number: ``1e-5`` and ``1E-5``."""
    try:
        old, new = (
            [json.loads(line) for line in text.decode().split("\n") if line]
            for text in (whole, damaged)
        )
    except ValueError:
        return False
    return bool(old == new)


def flipped(
    undisturbed: Undisturbed, kinds: dict[str, str], root: Path, random, counts: Counter
) -> dict[Path, bytes]:
    """Flip one bit in each of several files, drawn by kind; the damaged contents."""
    damaged: dict[Path, bytes] = {}
    names = random.permutation([*kinds] * AT_ONCE)[:AT_ONCE]
    for kind in names:
        under = root / kind if kinds is CACHE else root
        files = sorted(under.rglob(kinds[kind]) if kinds is CACHE else under.glob(kinds[kind]))
        assert files, f"no {kind} to damage"
        path = files[random.integers(len(files))]
        if path in damaged:
            continue
        flip(path, random)
        if says_the_same(path.read_bytes(), undisturbed_bytes(undisturbed, path)):
            path.write_bytes(undisturbed_bytes(undisturbed, path))
            continue
        damaged[path] = path.read_bytes()
        counts[kind, "flips"] += 1
    return damaged


def undisturbed_bytes(undisturbed: Undisturbed, path: Path) -> bytes:
    return (undisturbed.cache | undisturbed.results)[path]


def kind_of(path: Path, undisturbed: Undisturbed) -> str:
    if path in undisturbed.cache:
        return path.relative_to(undisturbed.home).parts[0]
    first = path.relative_to(undisturbed.folder).parts[0]
    return {"figures": "manifest"}.get(first, first.removesuffix(".jsonl"))


def try_flips(undisturbed: Undisturbed, n: int, seed: int) -> Counter:
    """Flip at least ``n`` bits, some before each run, in the cache and in the results in turn."""
    random, counts, turn = np.random.default_rng(seed), Counter(), 0
    while sum(count for (_, what), count in counts.items() if what == "flips") < n:
        undisturbed.restore()
        kinds, root = ((CACHE, undisturbed.home), (RESULTS, undisturbed.folder))[turn % 2]
        turn += 1
        damaged = flipped(undisturbed, kinds, root, random, counts)
        if kinds is CACHE:  # rows that are there ask for no column
            shutil.rmtree(undisturbed.folder)
        run_suite(SUITE, Options(), undisturbed.folder)
        assert values(undisturbed.folder) == undisturbed.values, sorted(map(str, damaged))
        for path, content in damaged.items():
            noticed = not path.exists() or path.read_bytes() != content
            counts[kind_of(path, undisturbed), "detected"] += noticed
            assert noticed, f"the flip in {path} stayed"
    return counts


def told(counts: Counter) -> str:
    kinds = [*CACHE, *RESULTS]
    return "\n".join(
        f"{kind:12} {counts[kind, 'flips']:5} flips {counts[kind, 'detected']:5} detected"
        for kind in kinds
    )


def drawn_quickly(folder: Path, illustrations) -> None:
    for one in illustrations:
        path = folder / one.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<svg>{one.digest}</svg>")


def once(compute):
    """Its first result ever after: the expansion takes seconds, and is the same in each run."""
    found = []

    def again(*arguments):
        if not found:
            found.append(compute(*arguments))
        return found[0]

    return again


@pytest.fixture
def undisturbed(home, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(
        "oodbench.report.figures.draw", drawn_quickly
    )  # drawing takes seconds a run
    monkeypatch.setattr("oodbench.analysis.second_order.expand", once(second_order.expand))
    caplog.set_level(logging.CRITICAL, "oodbench")
    return Undisturbed(home, tmp_path / "out")


def test_every_flipped_bit_is_noticed_and_made_good(undisturbed):
    counts = try_flips(undisturbed, 60, seed=0)
    print(told(counts))
    assert all(counts[kind, "flips"] for kind in [*CACHE, *RESULTS])


@pytest.mark.slow
def test_two_thousand_flipped_bits(undisturbed):
    print(told(try_flips(undisturbed, 2000, seed=1)))
