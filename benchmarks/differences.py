"""How far numbers move between settings that should not matter: threads, batch size, precision, and a GPU where there is one.

``python benchmarks/differences.py [images] [model …]``: beside one thread, the model's batch and float32 on the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch

import oodbench as ob
from oodbench.metrics import detection_metrics
from oodbench.zoo.scoring import scoring_form

PAIRS = {"fashionmnist": "mnist", "cifar10": "svhn"}
MODELS = ("glow-fashionmnist", "vae-fashionmnist", "pixelcnn-fashionmnist")


def log_probs(
    name: str,
    n: int,
    threads: int = 1,
    batch: int | None = None,
    double: bool = False,
    device: str = "cpu",
):
    """log p of both sets of the model's pair, in nats."""
    torch.set_num_threads(threads)
    model = scoring_form(ob.load_model(name, device=device))
    if double:
        model = model.double()
    if batch:
        model.batch_size = batch
    in_dist = name.split("-")[-1]
    sets = (ob.load_images(f"{one}/test[:{n}]", like=model) for one in (in_dist, PAIRS[in_dist]))
    return [ob.measure(model, images, "log_prob")["log_prob"] for images in sets]


def settings() -> dict[str, dict[str, object]]:
    """Setting → arguments of :func:`log_probs`."""
    found: dict[str, dict[str, object]] = {
        "2 threads": {"threads": 2},
        "batches of 1": {"batch": 1},
        "batches of 256": {"batch": 256},
        "float64": {"double": True},
    }
    return found | ({"cuda": {"device": "cuda"}} if torch.cuda.is_available() else {})


def line(name: str, setting: str, usual: list[np.ndarray], other: list[np.ndarray]) -> str:
    """The largest relative difference of log p, and the largest difference of mean bits/dim and of each kind of metric."""
    dimensions = np.prod(ob.load_model(name).shape)
    relative = max(np.abs(b / a - 1).max() for a, b in zip(usual, other, strict=True))
    means = max(abs((a - b).mean()) for a, b in zip(usual, other, strict=True))
    metrics = [detection_metrics(-a, -b, replicates=0) for a, b in (usual, other)]
    apart = {key: abs(metrics[0][key].value - metrics[1][key].value) for key in metrics[0]}
    curves = max(value for key, value in apart.items() if key != "auroc")
    bits = means / dimensions / np.log(2)
    return f"| {name} | {setting} | {relative:.1e} | {bits:.1e} | {apart['auroc']:.1e} | {curves:.1e} |"


def main(n: int, models: tuple[str, ...]) -> None:
    print(
        "| model | setting | log p, relative | bits/dim | AUROC | AUPR, FPR |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name in models:
        usual = log_probs(name, n)
        for setting, arguments in settings().items():
            measure: Callable[..., list[np.ndarray]] = log_probs
            try:
                print(line(name, setting, usual, measure(name, n, **arguments)), flush=True)
            except (RuntimeError, TypeError) as error:  # a family that holds float32 inside
                print(f"| {name} | {setting} | {type(error).__name__} |  |  |  |", flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    main(int(given[0]) if given else 500, tuple(given[1:]) or MODELS)
