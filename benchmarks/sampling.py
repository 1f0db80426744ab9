"""Drawing from the shipped PixelCNN++: keeping what earlier pixels computed, and a plain loop of one pass a pixel.

The two take turns in one run on one thread, with the same generator; CPU seconds are medians over the rounds. The share of
equal levels is below 100 % only where rounding in float32 moved a level, after which the rest of that image differs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor

import oodbench as ob
from oodbench.models.pixelcnn_sampling import sample_plainly

MODELS = ("pixelcnn-fashionmnist", "pixelcnn-cifar10")
IMAGES, FAST_A_ROUND = 16, 3


def cpu_seconds(draw: Callable[..., Tensor]) -> tuple[float, Tensor]:
    """The CPU time of one drawing, and its images."""
    generator = torch.Generator().manual_seed(0)
    began = time.process_time()
    images = draw(IMAGES, generator)
    return time.process_time() - began, images


def line(name: str, rounds: int) -> str:
    """One model's line of the table."""
    model = ob.load_model(name)
    kept, plain = [], []
    model.sample(1)
    for _ in range(rounds):
        kept += [cpu_seconds(model.sample) for _ in range(FAST_A_ROUND)]
        plain.append(cpu_seconds(partial(sample_plainly, model)))
        kept += [cpu_seconds(model.sample) for _ in range(FAST_A_ROUND)]
    fast, slow = (median(seconds for seconds, _ in runs) for runs in (kept, plain))
    equal = (kept[0][1] == plain[0][1]).double().mean().item()
    return f"{name:22} {slow:9.2f} s {fast:9.2f} s {slow / fast:8.1f} × {equal:11.1%}"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(1)
    print(f"{IMAGES} images, CPU time   plain loop        kept     ratio   equal levels")
    for name in MODELS:
        print(line(name, rounds), flush=True)


if __name__ == "__main__":
    main()
