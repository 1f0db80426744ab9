"""A scoring pass of the shipped models: folded, unfolded, and the folded form's convolutions alone, which is the ceiling.

The three take turns in one run, on the same weights and images, and the two passes must agree. Each table is made twice:
in the default environment, where much of a pass is page faults, and with the allocator setting of our workers on both
sides. Only the second says what the code itself brings.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import oodbench as ob
from oodbench.passes.workers import ENVIRONMENT
from oodbench.zoo.cards import load_card
from oodbench.zoo.scoring import ChannelMixing, scoring_form

MODELS = ("glow-fashionmnist", "glow-cifar10", "pixelcnn-fashionmnist", "vae-fashionmnist")
IMAGES, ROUNDS = 128, 7


def bare_convolutions(model: nn.Module, batches: list[torch.Tensor]) -> Callable[[], None]:
    """Run every layer that is one convolution or product, on the inputs that it sees in a pass."""
    calls: list[tuple[nn.Module, torch.Tensor]] = []
    layers = [
        m
        for m in model.modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | ChannelMixing)
    ]
    handles = [
        m.register_forward_hook(lambda m, inputs, _: calls.append((m, inputs[0].clone())))
        for m in layers
    ]
    for batch in batches:
        model.log_prob(batch)  # type: ignore[operator]
    for handle in handles:
        handle.remove()

    def run() -> None:
        for layer, x in calls:
            layer(x)

    return run


def best_times(cases: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Seconds of the fastest of several rounds in which the cases take turns."""
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(ROUNDS):
        for name, case in cases.items():
            began = time.perf_counter()
            case()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def one_pass(model: Any, batches: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([model.log_prob(batch) for batch in batches])


@torch.inference_mode()
def table() -> None:
    torch.set_num_threads(1)
    print(
        "model                     batch   folded ms/image   unfolded / folded   folded / convolutions alone"
    )
    for name in MODELS:
        model = ob.load_model(name)
        form = scoring_form(model)
        images = torch.from_numpy(
            ob.load_images(f"{load_card(name).trained_on}/test[:{IMAGES}]").images.copy()
        )
        size: int = form.batch_size  # type: ignore[assignment]
        batches = list(images.split(size))
        passes = {"unfolded": model, "folded": form}
        results = {key: one_pass(one, batches) for key, one in passes.items()}
        assert torch.allclose(results["unfolded"], results["folded"], rtol=1e-5)
        cases = {key: partial(one_pass, one, batches) for key, one in passes.items()}
        best = best_times({**cases, "convolutions": bare_convolutions(form, batches)})
        folded = best["folded"]
        print(
            f"{name:25} {size:5}   {1000 * folded / IMAGES:15.2f}   {best['unfolded'] / folded:17.2f}   "
            f"{folded / best['convolutions']:27.2f}"
        )


def main() -> None:
    if "--table" in sys.argv:
        table()
        return
    for title, setting in (
        ("default environment", {}),
        ("with our workers' allocator setting", ENVIRONMENT),
    ):
        print(f"\n{title}", flush=True)
        subprocess.run(
            [sys.executable, __file__, "--table"], env={**os.environ, **setting}, check=True
        )


if __name__ == "__main__":
    main()
