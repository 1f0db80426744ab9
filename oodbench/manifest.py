"""What a run was made with: versions, machine, settings, hashes and command, an entry of ``manifests.json`` in its folder."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from oodbench import __version__
from oodbench.passes.shards import DETERMINISTIC
from oodbench.passes.workers import ENVIRONMENT
from oodbench.paths import write_if_changed
from oodbench.plan import Plan
from oodbench.store import Row, key_of

NAME = "manifests.json"
LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "pillow", "pandas")


def manifest(plan: Plan, device: str, workers: int, executor: str) -> Row:
    """What a run is made with; two runs that agree in all of it have one manifest."""
    images = {one.images.identifier: one.images.sha256 for one in plan.passes}
    models = {one.model.name: one.model.identity for one in plan.passes if one.model}
    return {
        "oodbench": __version__,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "device": device,
        "executor": executor or ("processes" if workers > 1 else "serial"),
        "workers": workers,
        "threads": _threads(workers, executor),
        "tf32": _tf32(device),
        "deterministic": bool(os.environ.get(DETERMINISTIC)),
        "suite": plan.suite.name,
        "suite_sha256": key_of(plan.suite.model_dump(mode="json")),
        "seed": plan.suite.seed,
        "images": dict(sorted(images.items())),
        "models": dict(sorted(models.items())),
        "statistics": sorted({one.identity for one in plan.passes}),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _threads(workers: int, executor: str) -> int:
    """Of a process that measures."""
    if workers > 1 or executor:
        return int(ENVIRONMENT["OMP_NUM_THREADS"])
    import torch

    return torch.get_num_threads()


def _tf32(device: str) -> bool | None:
    """Whether an accelerator may round what convolutions and products multiply to ten bits; None on a CPU."""
    if device == "cpu":
        return None
    import torch

    return bool(torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)


def add_manifest(folder: Path, made: dict[str, Any]) -> None:
    """Add a manifest to a folder's, unless it is there; to be called while the folder is held."""
    path = folder / NAME
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    if made not in found:
        text = json.dumps([*found, made], indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        write_if_changed(path, text.encode())
