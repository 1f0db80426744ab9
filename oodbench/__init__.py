"""oodbench: out-of-distribution detection with deep generative models, measured.

Every public name below is imported when it is first used, so that ``import oodbench`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oodbench.contract import bits_per_dim as bits_per_dim
    from oodbench.data.images import load_images as load_images
    from oodbench.detector import OutlierDetector as OutlierDetector
    from oodbench.evaluation import evaluate as evaluate
    from oodbench.evaluation import scores as scores
    from oodbench.frames import results as results
    from oodbench.metrics import auroc as auroc
    from oodbench.metrics import detection_metrics as detection_metrics
    from oodbench.passes.batches import measure as measure
    from oodbench.registry import register_model as register_model
    from oodbench.registry import register_scorer as register_scorer
    from oodbench.registry import register_statistics as register_statistics
    from oodbench.registry import scorer as scorer
    from oodbench.runner import run as run
    from oodbench.zoo.load import load_model as load_model
    from oodbench.zoo.networks import from_continuous as from_continuous
    from oodbench.zoo.networks import from_noise_predictor as from_noise_predictor
    from oodbench.zoo.networks import from_velocity as from_velocity

__version__ = "0.1.0"

_PUBLIC = {
    "run": "oodbench.runner",
    "evaluate": "oodbench.evaluation",
    "scores": "oodbench.evaluation",
    "results": "oodbench.frames",
    "OutlierDetector": "oodbench.detector",
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
    "from_continuous": "oodbench.zoo.networks",
    "from_noise_predictor": "oodbench.zoo.networks",
    "from_velocity": "oodbench.zoo.networks",
}

__all__ = [
    "OutlierDetector",
    "__version__",
    "auroc",
    "bits_per_dim",
    "detection_metrics",
    "evaluate",
    "from_continuous",
    "from_noise_predictor",
    "from_velocity",
    "load_images",
    "load_model",
    "measure",
    "register_model",
    "register_scorer",
    "register_statistics",
    "results",
    "run",
    "scorer",
    "scores",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'oodbench' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
