"""A scoring pass of the shipped models beside its convolutions alone, which are the floor, and beside the unfolded model.

All take turns in one run, on the same weights and test images, and passes must agree; times are CPU time of one thread,
medians over the rounds, and a ratio is the median of the rounds' ratios. The convolutions are those of the plain network,
whatever the scoring form makes of them. Each table is made twice: in the default environment, where much of a pass is page
faults, and with the allocator setting of our workers. Only the second says what the code itself brings.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import oodbench as ob
from oodbench.models.pixelcnn import PixelCNN
from oodbench.models.pixelcnn_scoring import ScoredPixelCNN
from oodbench.passes.workers import ENVIRONMENT
from oodbench.zoo.cards import load_card
from oodbench.zoo.scoring import ChannelMixing, scoring_form

TARGETS = {
    "glow-fashionmnist": 1.15,
    "glow-cifar10": 1.15,
    "vae-fashionmnist": 1.15,
    "vae-cifar10": 1.15,
    "pixelcnn-fashionmnist": 1.3,
    "pixelcnn-cifar10": 1.3,
}
"""What a pass may take, in times its convolutions alone."""
IMAGES, ROUNDS = 64, 7
HEAD = "model                  batch   ms/image   unfolded   plain network   convolutions alone   target"
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, ChannelMixing)


def bare_convolutions(model: nn.Module, batches: list[Tensor]) -> Callable[[], None]:
    """Run every layer that is one convolution or product, on the inputs that it sees in a pass of the plain network."""
    calls: list[tuple[nn.Module, Tensor]] = []
    layers = [m for m in model.modules() if isinstance(m, CONVOLUTIONS)]
    handles = [
        m.register_forward_hook(lambda m, inputs, _: calls.append((m, inputs[0].clone())))
        for m in layers
    ]
    plain_pass(model, batches)
    for handle in handles:
        handle.remove()

    def run() -> None:
        for layer, x in calls:
            layer(x)

    return run


def one_pass(model: Any, batches: list[Tensor]) -> Tensor:
    return torch.cat([model.log_prob(batch) for batch in batches])


def plain_pass(model: Any, batches: list[Tensor]) -> Tensor:
    """A pass of the scoring form in which PixelCNN++ has the network that it was trained with."""
    with patch.object(ScoredPixelCNN, "network", PixelCNN.network):
        return one_pass(model, batches)


def cpu_times(cases: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each case in each round; the cases take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            began = time.thread_time()
            case()
            seconds[name].append(time.thread_time() - began)
    return seconds


def ratio(over: list[float], under: list[float]) -> float:
    return median(one / other for one, other in zip(over, under, strict=True))


def line(name: str, rounds: int) -> str:
    """One model's line of the table."""
    model = ob.load_model(name)
    form: Any = scoring_form(model)
    source = f"{load_card(name).trained_on}/test[:{IMAGES}]"
    images = torch.from_numpy(ob.load_images(source).images.copy())
    batches = list(images.split(form.batch_size))
    cases = {
        "pass": partial(one_pass, form, batches),
        "unfolded": partial(one_pass, model, batches),
        "plain": partial(plain_pass, form, batches),
    }
    expected = cases["unfolded"]()
    assert all(torch.allclose(case(), expected, rtol=1e-5) for case in cases.values())
    alone = bare_convolutions(form, batches)
    alone()
    times = cpu_times({**cases, "alone": alone}, rounds)
    own = times["pass"]
    plain = (
        f"{ratio(times['plain'], own):.2f} ×" if isinstance(form, ScoredPixelCNN) else "the same"
    )
    found, target = ratio(own, times["alone"]), TARGETS[name]
    return (
        f"{name:21} {form.batch_size:6} {1000 * median(own) / IMAGES:10.2f} {ratio(times['unfolded'], own):8.2f} × "
        f"{plain:>15} {found:18.2f} ×   ≤ {target:.2f} {'met' if found <= target else 'missed'}"
    )


@torch.inference_mode()
def table(rounds: int) -> None:
    torch.set_num_threads(1)
    print(HEAD)
    for name in TARGETS:
        print(line(name, rounds), flush=True)


def main() -> None:
    arguments = [one for one in sys.argv[1:] if one != "--table"]
    if "--table" in sys.argv:
        table(int(arguments[0]) if arguments else ROUNDS)
        return
    for title, setting in (
        ("default environment", {}),
        ("with our workers' allocator setting", ENVIRONMENT),
    ):
        print(f"\n{title}", flush=True)
        subprocess.run(
            [sys.executable, __file__, *arguments, "--table"],
            env={**os.environ, **setting},
            check=True,
        )


if __name__ == "__main__":
    main()
