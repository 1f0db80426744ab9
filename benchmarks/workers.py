"""One pass of the shipped Glow over 2,000 images: one process, all cores, and all cores without the allocator setting."""

from __future__ import annotations

import os
import tempfile
import time

from oodbench.passes import executors as execute
from oodbench.passes.shards import ImagePass, ImageRef, measure_shard, shard_tasks


def seconds(workers: int, allocator: bool) -> float:
    kept = execute.WORKER
    execute.WORKER = kept if allocator else {}
    with tempfile.TemporaryDirectory() as home:
        os.environ["OODBENCH_HOME"] = home
        tasks = shard_tasks(
            ImagePass("log_prob", "glow-cifar10", ImageRef("cifar10/test", (3, 32, 32), 2000)), 0, "cpu"
        )
        began = time.perf_counter()
        for _, result in execute.map_tasks(measure_shard, tasks, workers):
            if isinstance(result, Exception):
                raise result
        ended = time.perf_counter()
    execute.WORKER = kept
    return ended - began


def main() -> None:
    cores = os.cpu_count() or 1
    cases = {
        f"{cores} workers": (cores, True),
        f"{cores} workers, default allocator": (cores, False),
        "1 process": (1, False),
    }
    best = {name: min(seconds(*case) for _ in range(2)) for name, case in cases.items()}
    first = next(iter(best.values()))
    for name, value in best.items():
        print(f"{name:32} {value:6.2f} s   {value / first:4.2f} ×")


if __name__ == "__main__":
    main()
