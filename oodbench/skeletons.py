"""Commented beginnings of a scorer, a model and a suite: each passes ``oodbench check`` as it is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from oodbench.errors import OodbenchError
from oodbench.names import checked_name
from oodbench.paths import write_whole
from oodbench.plan import make_plan
from oodbench.runner import adapted
from oodbench.suite import load_suite

SCORER = '''\
"""A scorer of one's own: arithmetic on per-image numbers, larger = more OOD.

Check it:         oodbench check {file}
See it compared:  oodbench run --suite quick --plugin {file}
"""

import numpy as np

import oodbench as ob


@ob.register_scorer("{name}", cite="authors, venue, year, arXiv")
class {class_name}:
    """Distance of log p(x) from its median over reference images, in nats."""

    # The argument names are the list of needs; `oodbench list statistics` shows those that exist. `background_log_prob` asks the
    # model's background model. Columns are numpy arrays, (N,), one number an image.

    def fit(self, log_prob):
        """What is learnt from in-dist reference images; what it returns is the first argument of `score`."""
        return np.median(log_prob)

    def score(self, median, log_prob):
        """One score an image, (N,), from that image's numbers alone."""
        return abs(log_prob - median)


# Without anything to fit, a plain function does: `def {function_name}(log_prob): return -log_prob`.
'''

MODEL = '''\
"""A density model of one's own: any class with `shape` and `log_prob`.

Check it:        oodbench check {file}
Its first rows:  oodbench run --model {file} --in-dist fashionmnist --ood mnist
"""

import math

import torch

import oodbench as ob


@ob.register_model("{name}")
class {class_name}:
    """Independent pixels, each a Gaussian of the images' mean and spread, as a discrete distribution over 0…255."""

    shape = (1, 28, 28)  # (C, H, W) of the images that it takes; others are brought to it by a stated rule
    trained_on = "fashionmnist"  # name or path of its training images; `--in-dist` says it too
    likelihood = "exact"  # or the name of the bound that log_prob is

    def __init__(self):
        # In place of this: build your network, load its weights, call .eval().
        images = torch.from_numpy(ob.load_images("fashionmnist/ref[:500]").images.copy()).double()
        self.mean, self.std = images.mean(0), images.std(0).clamp(min=8.0)

    def log_prob(self, images):
        """uint8 (B, C, H, W) to float64 nats (B,): the log-probability of the discrete image.

        A density of scaled pixels is D·log 256 nats too high, and dequantisation noise must be keyed by the image
        (`oodbench.models.noise.keyed_uniform`), or the score depends on the run.
        """
        x = images.double()
        # The mass of each level is what the Gaussian has between its edges; what lies beyond 0 and 255 belongs to them.
        upper = self._cdf(x + 0.5).masked_fill(images == 255, 1.0)
        lower = self._cdf(x - 0.5).masked_fill(images == 0, 0.0)
        return (upper - lower).clamp(min=1e-12).log().flatten(1).sum(1)

    def _cdf(self, x):
        return 0.5 * (1 + torch.erf((x - self.mean) / (self.std * math.sqrt(2))))
'''

SUITE = """\
# A suite: what is compared. Check it: oodbench check {file}    Run it: oodbench run --suite {file}
name: {name}
title: What this suite compares, in a line

# Names (`oodbench list models`), a card's folder, or `shown name: path`. Models of a file: name it under `plugins`.
models: [glow-fashionmnist]
# plugins: [mymodel.py]

pairs:
  # Names (`oodbench list data`), paths of folders or arrays, or `shown name: path`. Split, draw and view stand behind a
  # name: svhn/test[:500]@grey. A pair is for the models that are trained on its in-dist set, or for those that it names.
  - in_dist: fashionmnist
    ood: [mnist]
    # models: [glow-fashionmnist]

# `oodbench list scorers` shows all; what a model cannot serve is skipped with a sentence.
scorers: [likelihood, typicality, input-complexity-png, code-length-png, pixel-variance, pixel-mean]

# Images that are drawn of each set, in an order that never changes; leave it out for all.
limit: 500
# Groups of images that a scorer judges as one, beside single images.
# group_sizes: {{typicality: [10]}}
# Replicates of the bootstrap for the intervals of AUPR and FPR.
bootstrap: 200
"""

TEXTS = {"scorer": (SCORER, ".py"), "model": (MODEL, ".py"), "suite": (SUITE, ".yaml")}
KINDS = tuple(TEXTS)


def write_skeleton(kind: str, name: str, folder: Path) -> Path:
    """Write the skeleton of one kind as ``folder/name.py`` or ``.yaml``; a file that is there is never written over.

    Raises
    ------
    OodbenchError : a name that none can have, or a file in the way
    """
    text, suffix = TEXTS[kind]
    path = folder / f"{checked_name(kind, name)}{suffix}"
    if path.exists():
        raise OodbenchError(f"{path} is there already; choose another name, or move it away")
    words = "".join(letter if letter.isalnum() else " " for letter in name).split()
    identifier = "_".join(words).lower()
    plain = identifier if identifier.isidentifier() else f"my_{identifier}"
    filled = text.format(
        name=name,
        file=path.name,
        class_name="".join(word.capitalize() for word in plain.split("_")),
        function_name=plain,
    )
    write_whole(path, lambda file: file.write(filled.encode()))
    return path


def suite_faults(reference: str) -> Iterator[str]:
    """What keeps a suite's file from giving rows on this machine; nothing where some can be had.

    Raises
    ------
    OodbenchError : the file is no suite, or names what does not exist
    """
    suite = adapted(load_suite(reference), None, None, ())
    plan = make_plan(suite)
    if not plan.trials:
        reasons = dict.fromkeys([*plan.remarks, *(skip.reason for skip in plan.skips)])
        yield from (f"{suite.name}: {reason}" for reason in reasons)
