"""One pass of the shipped Glow over 2,000 images: one process, all cores, and all cores with glibc's own allocator."""

from __future__ import annotations

import os
import tempfile
import time
from unittest.mock import patch

from oodbench.passes import workers as processes
from oodbench.passes.executors import Failure, executor_for
from oodbench.passes.values import ImageRef
from oodbench.resolver import Resolver
from oodbench.work import shard_tasks

RESOLVER = Resolver(seed=0, device="cpu")
MODEL = RESOLVER.model("glow-cifar10")
IMAGES = RESOLVER.images(ImageRef("cifar10/test", MODEL.shape, 2000))
(PASS,) = RESOLVER.passes_of(MODEL, "log_prob", IMAGES)
THREADS = {
    name: value for name, value in processes.ENVIRONMENT.items() if name.endswith("_NUM_THREADS")
}


def seconds(workers: int, environment: dict[str, str]) -> float:
    """Wall time of the pass from an empty cache, the start of the processes included."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["OODBENCH_HOME"] = home
        tasks = shard_tasks(PASS)
        began = time.perf_counter()
        with (
            patch.object(processes, "ENVIRONMENT", environment),
            executor_for(workers) as executor,
        ):
            for task in tasks:
                executor.submit(task)
            for _, result in executor.results():
                if isinstance(result, Failure):
                    raise SystemExit(result.sentence)
            return time.perf_counter() - began


def main() -> None:
    cores = os.cpu_count() or 1
    cases = {
        f"{cores} workers": (cores, processes.ENVIRONMENT),
        f"{cores} workers, glibc's allocator": (cores, THREADS),
        "1 process": (1, {}),
    }
    best = {name: min(seconds(*case) for _ in range(2)) for name, case in cases.items()}
    first = next(iter(best.values()))
    for name, value in best.items():
        print(f"{name:32} {value:6.2f} s   {value / first:4.2f} ×")


if __name__ == "__main__":
    main()
