"""What a GPU brings, and whether it gives the same scores: at most eight minutes of one.

Images/s of a scoring pass through the code that runs measure with, batches by memory; its share of the GPU's peak, by
the operations that torch counts in a pass; and how far log p and AUROC lie from those of the CPU, for the shipped Glow
and PixelCNN++ of CIFAR-10, on the bundled samples. Then a Glow of the paper's size (K = 32, L = 3, 512 channels) without
trained weights, for its speed alone. All with convolutions in TF32, which is torch's default, and in float32. Where no GPU
is, one sentence and success.

``--device cpu --images 4`` walks the same code, small.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import oodbench as ob
from oodbench.metrics.ranking import area_under_roc
from oodbench.models.glow import Glow
from oodbench.passes.batches import batch_size_of, run_pass
from oodbench.registry import statistics
from oodbench.zoo.scoring import scoring_form

MODELS, IN_DIST, OOD = ("glow-cifar10", "pixelcnn-cifar10"), "cifar10", "svhn"
SHAPE = (3, 32, 32)
PAPER = {"scales": 3, "steps": 32, "hidden": 512}
SECONDS = 420
"""After which no further model is begun."""
PRODUCT = 8192
"""Side of the matrix product whose speed is called the peak."""


def log_prob(model: Any, images: np.ndarray) -> np.ndarray:
    return run_pass(statistics["log_prob"], model, images)["log_prob"]


def timed(device: torch.device, case: Callable[[], Any]) -> tuple[Any, float]:
    """A result, and the seconds until the device is done with it."""
    began = time.perf_counter()
    found = case()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return found, time.perf_counter() - began


def peak(device: torch.device, side: int) -> float:
    """Operations a second of a float32 matrix product, at the precision that torch is set to."""
    a = torch.randn(side, side, device=device)
    timed(device, lambda: a @ a)
    return max(2 * side**3 / timed(device, lambda: a @ a)[1] for _ in range(5))


@torch.no_grad()
def operations(model: Any, images: np.ndarray, device: torch.device) -> int:
    """Operations of one image's pass in convolutions and products."""
    image = torch.from_numpy(images[:1].copy()).to(device)
    with FlopCounterMode(display=False) as counter:
        model.log_prob(image)
    return int(counter.get_total_flops())


def speed(name: str, model: Any, images: np.ndarray, device: torch.device, most: float) -> None:
    """Print a line on how fast a model scores images, after a first pass that finds the batch that fits."""
    log_prob(model, images)
    _, seconds = timed(device, lambda: log_prob(model, images))
    share = operations(model, images, device) * len(images) / seconds / most
    size = min(batch_size_of(model), len(images))
    print(
        f"{name:18} {size:5} images a batch {len(images) / seconds:10,.0f} images/s "
        f"{share:7.1%} of peak",
        flush=True,
    )


def columns(model: Any, sets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {role: log_prob(model, images) for role, images in sets.items()}


def apart(name: str, there: dict[str, np.ndarray], here: dict[str, np.ndarray]) -> None:
    """Print a line on how far log p and AUROC lie from the CPU's."""
    relative = max(np.abs(there[role] / here[role] - 1).max() for role in here)
    aurocs = [area_under_roc(-one["in-dist"], -one["ood"]) for one in (here, there)]
    print(
        f"{name:18} log p at most {relative:.1e} apart, AUROC {aurocs[0]:.4f} and {aurocs[1]:.4f}, "
        f"{abs(aurocs[1] - aurocs[0]):.1e} apart",
        flush=True,
    )


def paper_glow(device: torch.device, **changes: Any) -> Any:
    """A Glow of the paper's size whose ActNorm is set by noise; nothing else of it is trained."""
    torch.manual_seed(0)
    glow = Glow(SHAPE, **{**PAPER, **changes}).to(device)
    with torch.no_grad():
        glow.loss(torch.randint(0, 256, (16, *SHAPE), dtype=torch.uint8, device=device))
    return scoring_form(glow)


def table(device: torch.device, images: int, side: int, paper: dict[str, Any]) -> None:
    began = time.monotonic()
    names = {"in-dist": IN_DIST, "ood": OOD}
    sets = {
        role: np.array(ob.load_images(f"{name}/test[:{images}]").images)
        for role, name in names.items()
    }
    here = {name: columns(scoring_form(ob.load_model(name)), sets) for name in MODELS}
    print(f"{_name(device)}; the CPU's columns took {time.monotonic() - began:.0f} s")
    for tf32 in (True, False):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        most = peak(device, side)
        print(f"{'TF32' if tf32 else 'float32'}: {most / 1e12:.3g} TFLOP/s in a product of {side}")
        for name in MODELS:
            model: Any = scoring_form(ob.load_model(name, device=str(device)))
            speed(name, model, np.concatenate(list(sets.values())), device, most)
            apart(name, columns(model, sets), here[name])
            if time.monotonic() - began > SECONDS:
                print("the time is up: the rest is left out")
                return
        speed("paper-size Glow", paper_glow(device, **paper), sets["in-dist"], device, most)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def main(given: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args(given)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("There is no GPU here that torch can use, so nothing was measured.")
        return
    small = device.type == "cpu"
    paper = {"steps": 1, "hidden": 16} if small else {}
    table(device, options.images, 256 if small else PRODUCT, paper)


if __name__ == "__main__":
    main(sys.argv[1:])
