"""CPU-seconds and peak memory of a whole run against images, pairs, scorers and models, with the exponent of a power law.

``python benchmarks/growth.py [--most N]``: N images of the largest set, 10,000 by default, 1,000,000 for the whole table.
The model is a mean of pixels, which costs next to nothing, so that what grows is oodbench's own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml

SCORERS = [
    "likelihood",
    "typicality",
    "pixel-mean",
    "pixel-variance",
    "code-length-png",
    "input-complexity-png",
]
PLUGIN = """
import oodbench as ob

class Mean:
    shape, trained_on, likelihood, batch_size = (1, 28, 28), "IN_DIST", "not stated", 512
    scale = 1.0

    def log_prob(self, images):
        return -self.scale * images.double().flatten(1).mean(1)

def factory(number):
    kind = type(f"Mean{number}", (Mean,), {"scale": 1.0 + number})
    ob.register_model(f"mean{number}")(kind)

for number in range(MODELS):
    factory(number)
"""
CHILD = """
import json, resource, sys
from oodbench.runner import Options, adapted, run_suite
from oodbench.suite import load_suite
suite = adapted(load_suite(sys.argv[1]), None, None, ())
run_suite(suite, Options(show="quiet"), sys.argv[2])
own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({"seconds": own.ru_utime + own.ru_stime, "mb": own.ru_maxrss / 1024}))
"""


def write_images(path: Path, n: int, seed: int) -> None:
    """``n`` smooth grey images, a block at a time."""
    random = np.random.default_rng(seed)
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (n, 28, 28))
    for start in range(0, n, 10_000):
        rough = random.integers(0, 256, (min(10_000, n - start), 7, 7), np.uint8)
        array[start : start + len(rough)] = rough.repeat(4, 1).repeat(4, 2)
    array.flush()


def measured(images: int, pairs: int, scorers: int, models: int) -> dict[str, float]:
    """CPU-seconds and peak MB of one run from an empty cache, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, n in (("test", images), ("ref", 500)):
            write_images(folder / "block.npy", n, len(split))
            np.savez(
                folder / f"own_{split}.npz", images=np.load(folder / "block.npy", mmap_mode="r")
            )
            (folder / "block.npy").unlink()
        for number in range(pairs):
            write_images(folder / f"ood{number}.npy", 500, 10 + number)
        (folder / "mine.py").write_text(
            PLUGIN.replace("IN_DIST", "own").replace("MODELS", str(models))
        )
        suite = {
            "name": "growth", "title": "growth", "models": [f"mean{n}" for n in range(models)], "bootstrap": 100,
            "scorers": SCORERS[:scorers], "plugins": [str(folder / "mine.py")],
            "pairs": [{"in_dist": "own", "ood": [str(folder / f"ood{n}.npy") for n in range(pairs)]}],
        }  # fmt: skip
        (folder / "growth.yaml").write_text(yaml.safe_dump(suite))
        environment = {
            **os.environ,
            "OODBENCH_HOME": str(folder / "home"),
            "OODBENCH_DATA": str(folder),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-c", CHILD, str(folder / "growth.yaml"), str(folder / "out")]
        said = subprocess.run(command, env=environment, capture_output=True, text=True)
        if said.returncode:
            raise SystemExit(said.stderr)
        return dict(json.loads(said.stdout.splitlines()[-1]))


def cases(most: int) -> Iterator[tuple[str, list[dict[str, int]]]]:
    """What grows → the runs, each by all four numbers."""
    usual = {"images": 1000, "pairs": 1, "scorers": 2, "models": 1}
    sizes = [n for n in (1000, 10_000, 100_000, 1_000_000) if n <= most]
    yield "images", [usual | {"images": n} for n in sizes]
    yield "pairs", [usual | {"pairs": n} for n in (1, 4, 16)]
    yield "scorers", [usual | {"scorers": n} for n in (1, 3, 6)]
    yield "models", [usual | {"models": n} for n in (1, 4, 16)]


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of log value against log size, least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=10_000)
    print("| grows | number | CPU-seconds | peak MB |\n| --- | --- | --- | --- |")
    for what, runs in cases(parser.parse_args().most):
        found = [measured(**run) for run in runs]
        sizes = [run[what] for run in runs]
        for size, one in zip(sizes, found, strict=True):
            print(f"| {what} | {size:,} | {one['seconds']:.1f} | {one['mb']:.0f} |", flush=True)
        slopes = [exponent(sizes, [one[name] for one in found]) for name in ("seconds", "mb")]
        print(f"| {what} | exponent | {slopes[0]:.2f} | {slopes[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
