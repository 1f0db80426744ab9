"""The second-order expansion of one model beside several OOD sets: by double backward passes anew for each, and as it is.

As it is: Hessian-vector products forward over reverse, the gradient at the in-dist mean computed once, and what is of the
in-dist images alone taken from the cache. Both give the same terms with the same standard errors. CPU-seconds.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

import numpy as np
import torch
from torch import Tensor

import oodbench as ob
from oodbench.analysis.assumptions import check_assumptions
from oodbench.analysis.kept import KeptCurvature
from oodbench.analysis.second_order import Curvature, expand, log_density
from oodbench.models.multiscale import MultiscaleFlow
from oodbench.zoo.describe import describe

MODEL, IN_DIST, OOD = "glow-cifar10", "cifar10", ("svhn", "mnist", "noise")
AT_ONCE = 32


def double_backward(
    model: MultiscaleFlow, points: Tensor, left: Tensor, right: Tensor
) -> np.ndarray:
    """What curvatures were computed by before."""
    found = []
    for x, u, v in zip(
        *(one.split(AT_ONCE) for one in (points.expand_as(right), left, right)), strict=True
    ):
        y = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(log_density(model, y).sum(), y, create_graph=True)
        (product,) = torch.autograd.grad((gradient * v).sum(), y)
        found.append((product * u).flatten(1).sum(1))
    return torch.cat(found).numpy()


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    torch.set_num_threads(1)
    model = ob.load_model(MODEL)
    assert isinstance(model, MultiscaleFlow)
    in_dist = np.array(ob.load_images(f"{IN_DIST}/test[:{images}]").images)
    sets = {
        name: np.array(ob.load_images(f"{name}/test[:{images}]", like=model).images) for name in OOD
    }
    print(f"{MODEL}, {images} images of each set; CPU-seconds")
    print("OOD set        before    now   before / now   terms apart")
    with tempfile.TemporaryDirectory() as home:
        os.environ["OODBENCH_HOME"] = home
        kept = KeptCurvature(describe(MODEL).identity())
        for name, ood in [*sets.items(), (f"{OOD[-1]} again", sets[OOD[-1]])]:
            times, terms = [], []
            cases: tuple[Curvature, ...] = (double_backward, kept)
            for curvature in cases:
                began = time.process_time()
                found = expand(model, in_dist, ood, images, curvature=curvature)
                check_assumptions(model, in_dist, ood, images, curvature=curvature)
                times.append(time.process_time() - began)
                given = [one for one in found.terms.values() if one]
                terms.append(np.array([[one.value, one.error] for one in given]))
            before, now = times
            apart = np.abs(terms[1] - terms[0]).max() / np.abs(terms[0]).max()
            print(
                f"{name:16} {before:4.1f}  {now:5.1f}   {before / now:12.1f}   {apart:.0e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
