"""Gradients of log p with respect to the parameters, image by image: one at a time, together, and a batched backward pass.

The three take turns in one run, on the same weights and images, with the allocator setting of our workers. A batched
pass gives one gradient for all images, which no statistic can use; it is what the work costs at least. Beside the times
stands how far the gradients' norms lie apart, in the weights' own precision, where rounding flips a ReLU now and then,
and in float64.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor

import oodbench as ob
from oodbench.passes.workers import ENVIRONMENT
from oodbench.statistics.parameter_gradients import gradients_one_by_one, gradients_together
from oodbench.zoo.cards import load_card

MODELS = ("glow-cifar10", "glow-fashionmnist", "pixelcnn-fashionmnist", "vae-fashionmnist")
IMAGES, ROUNDS, BATCH = 32, 5, 16
Gradients = Callable[[Any, Tensor], Iterator[list[Tensor]]]


def batched(model: Any, images: Tensor) -> Iterator[list[Tensor]]:
    """The gradient of a batch's summed log p."""
    parameters = [one for one in model.parameters() if one.requires_grad]
    for batch in images.split(BATCH):
        yield list(torch.autograd.grad(model.log_prob(batch).sum(), parameters))


def norms(gradients: Gradients, model: Any, images: Tensor) -> Tensor:
    """``log ‖∇_θ log p(x)‖²`` of each image and parameter."""
    found = [
        torch.stack([one.reshape(len(one), -1).double().square().sum(1) for one in few], 1)
        for few in gradients(model, images)
    ]
    return torch.cat(found).log()


def table() -> None:
    torch.set_num_threads(1)
    print(
        "model                   one by one / batched   together / batched   "
        "norms apart: median, largest, in float64"
    )
    for name in MODELS:
        model: Any = ob.load_model(name)
        reference = f"{load_card(name).trained_on}/test[:{IMAGES}]"
        images = torch.from_numpy(ob.load_images(reference).images.copy())
        times: dict[Gradients, list[float]] = {}
        for _ in range(ROUNDS):
            for case in (batched, gradients_one_by_one, gradients_together):
                began = time.process_time()
                for _ in case(model, images):
                    pass
                times.setdefault(case, []).append(time.process_time() - began)
        of_batched, loop, together = (median(one) for one in times.values())
        apart = _apart(model, images)
        in_double = _apart(model.double(), images[:BATCH])
        print(
            f"{name:23} {loop / of_batched:20.2f} {together / of_batched:20.2f}   "
            f"{apart.median():.0e}, {apart.max():.0e}, {in_double.max():.0e}",
            flush=True,
        )


def _apart(model: Any, images: Tensor) -> Tensor:
    """How far the two forms lie apart, relative to the norm: ``½|Δ log ‖∇‖²|``."""
    both = (norms(one, model, images) for one in (gradients_one_by_one, gradients_together))
    plain, together = both
    return (plain - together).abs() / 2


def main() -> None:
    if "--table" in sys.argv:
        table()
        return
    own = [sys.executable, __file__, "--table"]
    subprocess.run(own, env={**os.environ, **ENVIRONMENT}, check=True)


if __name__ == "__main__":
    main()
