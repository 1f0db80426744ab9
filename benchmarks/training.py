"""`oodbench train` beside a bare loop: the same model, images, batches, optimiser and clipping, step by step.

Two lengths of each are timed and their difference taken, so that what a training costs once, its last validation, its
checkpoint and the files that it writes, does not count as a cost of each step. CPU-seconds, medians, in turns.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

import oodbench as ob
from oodbench.data.images import in_split
from oodbench.zoo.cards import Card, load_card
from oodbench.zoo.load import build
from oodbench.zoo.train import train

MODEL, SHORT, LONG, ROUNDS = "glow-fashionmnist", 5, 35, 3


def on_bundled_images(card: Card, path: Path) -> Card:
    """The card for the images that are bundled, divided like an array of one's own; of training images there are few."""
    np.save(path, ob.load_images(f"{card.trained_on}/test").images)
    return card.model_copy(update={"trained_on": str(path)})


def shortened(card: Card, steps: int) -> Card:
    """The card with a recipe of so many steps, validated at the last."""
    assert card.recipe is not None
    changes = {"steps": steps, "validate_every": steps, "watch": []}
    return card.model_copy(update={"recipe": card.recipe.model_copy(update=changes)})


def by_oodbench(card: Card) -> None:
    with tempfile.TemporaryDirectory() as folder:
        train(card, Path(folder) / "trained", "cpu", threads=1)


def bare_loop(card: Card) -> None:
    recipe = card.recipe
    assert recipe is not None
    images = ob.load_images(in_split(card.trained_on, "train"), shape=card.shape).images
    pixels = torch.from_numpy(np.array(images))
    model = build(card).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(
        model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    for _ in range(recipe.steps):
        batch = pixels[torch.randint(len(pixels), (recipe.batch_size,))]
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            loss = model.loss(batch).mean()  # type: ignore[operator]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimiser.step()


def seconds_a_step(case: Callable[[Card], None], card: Card) -> float:
    """What each further step costs, in CPU-seconds."""
    spent = []
    for steps in (SHORT, LONG):
        began = time.process_time()
        case(shortened(card, steps))
        spent.append(time.process_time() - began)
    return (spent[1] - spent[0]) / (LONG - SHORT)


def main() -> None:
    torch.set_num_threads(1)
    name = sys.argv[1] if len(sys.argv) > 1 else MODEL
    cases = (bare_loop, by_oodbench)
    with tempfile.TemporaryDirectory() as folder:
        card = on_bundled_images(load_card(name), Path(folder) / "images.npy")
        times = [[seconds_a_step(case, card) for case in cases] for _ in range(ROUNDS)]
    bare, ours = (median(one) for one in zip(*times, strict=True))
    assert card.recipe is not None
    print(f"{card.name}, {card.recipe.batch_size} images a batch, CPU-ms a step:")
    print(f"bare loop {1000 * bare:.1f}, oodbench train {1000 * ours:.1f}: {ours / bare - 1:+.1%}")


if __name__ == "__main__":
    main()
