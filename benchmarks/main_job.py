"""CPU-seconds of the README's main job, ``oodbench run --suite paper`` from the bundled sample, by part.

    python benchmarks/main_job.py [--before TREE] [--costs]

Each version starts with an empty cache, one thread, and does its jobs one after another. ``--before`` names the source
tree of an earlier version (``git worktree add``), measured in the same run. Both are divided by the time of one fixed
convolution, so that machines compare. ``--costs`` writes what this version's passes cost where the package keeps it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
COSTS = HERE / "oodbench" / "passes" / "costs.json"
FAMILIES = {"pixelcnn": "passes of PixelCNN++", "vae": "passes of VAEs", "": "codecs and moments"}
KINDS = {
    "TrialTask": "rows",
    "DrawTask": "drawing samples",
    "AnalysisTask second-order": "second-order terms",
    "ComparisonTask": "comparisons",
}


def main() -> None:
    """Measure this version, and an earlier one beside it; print a line a part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="source tree of an earlier version")
    parser.add_argument("--costs", action="store_true", help=f"write {COSTS.name}")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        given.measure.write_text(json.dumps(measured()))
        return
    trees = {"now": HERE} | ({"before": given.before.resolve()} if given.before else {})
    found = {name: in_tree(tree) for name, tree in trees.items()}
    show(found)
    if given.costs:
        write_costs(found["now"])


def in_tree(tree: Path) -> dict[str, object]:
    """What :func:`measured` gives in a process of its own that imports a tree's oodbench."""
    with tempfile.TemporaryDirectory() as empty:
        out = Path(empty) / "found.json"
        environment = os.environ | {"PYTHONPATH": str(tree), "OODBENCH_HOME": f"{empty}/home"}
        environment |= {"OMP_NUM_THREADS": "1"}
        environment.pop("OODBENCH_DATA", None)
        command = [sys.executable, str(Path(__file__).resolve()), "--measure", str(out)]
        subprocess.run(command, cwd=empty, env=environment, check=True)
        return json.loads(out.read_text())


def measured() -> dict[str, object]:
    """CPU-seconds of each job of the main job and of the whole, and those of the fixed convolution."""
    from oodbench.passes.executors import Serial, attempt
    from oodbench.runner import Options, run_suite
    from oodbench.suite import load_suite

    jobs: list[tuple[str, str, int, float]] = []

    def results(self):
        while self._waiting:
            task = self._waiting.popleft()
            began = time.process_time()
            result = attempt(task.perform)
            jobs.append((*described(task), time.process_time() - began))
            yield task, result

    Serial.results = results
    unit = convolution()
    began, clock = time.process_time(), time.perf_counter()
    run_suite(load_suite("paper"), Options(1), "runs")
    total, wall = time.process_time() - began, time.perf_counter() - clock
    return {"unit": (unit + convolution()) / 2, "total": total, "wall": wall, "jobs": jobs}


def described(task: object) -> tuple[str, str, int]:
    """Kind of a job, its pass, and images."""
    kind = " ".join(filter(None, (type(task).__name__, getattr(task, "kind", ""))))
    return kind, getattr(task, "pass_name", ""), getattr(task, "images_here", 1)


def convolution() -> float:
    """CPU-seconds of a convolution of 64 channels over 256 images of 32 × 32, the median of nine."""
    import torch

    torch.set_num_threads(1)
    layer, images = torch.nn.Conv2d(64, 64, 3, padding=1), torch.randn(256, 64, 32, 32)
    with torch.inference_mode():
        times = [timed(lambda: layer(images)) for _ in range(9)]
    return sorted(times)[4]


def timed(work) -> float:
    """CPU-seconds of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def part_of(kind: str, name: str) -> str:
    """The line of the table that a job belongs to."""
    if kind != "ShardTask":
        return KINDS.get(kind, "other explanations")
    model = name.rpartition(" of ")[2] if " of " in name else ""
    family = next((one for one in ("pixelcnn", "vae") if model.startswith(one)), model and "glow")
    return FAMILIES.get(family, "passes of Glows")


def show(found: dict[str, dict]) -> None:
    """A line a part: CPU-seconds, and the same in units of the fixed convolution."""
    parts = {version: by_part(one) for version, one in found.items()}
    names = list(dict.fromkeys(name for one in parts.values() for name in one))
    print("| CPU-seconds | " + " | ".join(parts) + " |")
    print("| --- |" + " --- |" * len(parts))
    for name in names:
        print(
            f"| {name} | " + " | ".join(f"{one.get(name, 0):,.1f}" for one in parts.values()) + " |"
        )
    units = " | ".join(f"{one['total'] / one['unit']:,.0f}" for one in found.values())
    print(f"| whole, in times of the fixed convolution | {units} |")
    shown = ", ".join(f"{version} {1000 * one['unit']:.1f} ms" for version, one in found.items())
    print(f"\nThe fixed convolution takes {shown}.")


def by_part(one: dict) -> dict[str, float]:
    """CPU-seconds of each part and of the whole."""
    parts: dict[str, float] = defaultdict(float)
    for kind, name, _, seconds in one["jobs"]:
        parts[part_of(kind, name)] += seconds
    ordered = dict(sorted(parts.items(), key=lambda part: -part[1]))
    rest = one["total"] - sum(parts.values())
    return ordered | {"plan, figures, pages": rest, "whole": one["total"]}


def write_costs(one: dict) -> None:
    """CPU-seconds of each pass, an image, and of each other kind of job, into the package."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    amounts: dict[tuple[str, str], int] = defaultdict(int)
    for kind, name, images, taken in one["jobs"]:
        seconds[kind, name] += taken
        amounts[kind, name] += images
    each = {key: float(f"{seconds[key] / amounts[key]:.3g}") for key in sorted(seconds)}
    passes = {name: value for (kind, name), value in each.items() if kind == "ShardTask"}
    jobs = {kind: value for (kind, _), value in each.items() if kind != "ShardTask"}
    COSTS.write_text(json.dumps({"passes": passes, "jobs": jobs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
