"""oodbench: out-of-distribution detection with deep generative models, measured.

Every public name below is imported when it is first used, so that ``import oodbench`` stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "run": "oodbench.runner",
    "load_model": "oodbench.zoo.load",
    "load_images": "oodbench.data.images",
    "measure": "oodbench.passes.batches",
    "scorer": "oodbench.registry",
    "register_scorer": "oodbench.registry",
    "register_statistics": "oodbench.registry",
    "register_model": "oodbench.registry",
    "auroc": "oodbench.metrics",
    "detection_metrics": "oodbench.metrics",
    "bits_per_dim": "oodbench.contract",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'oodbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
