"""What a classifier, which was trained on class labels, makes of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oodbench.registry import register_statistics

if TYPE_CHECKING:
    from torch import Tensor


@register_statistics({"logits": "nats", "features": "1"}, version="1", capability="classify")
def classification(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Logits ``(B, classes)`` and the features before the last layer ``(B, K)``."""
    logits, features = model.classify(images)
    return {"logits": logits, "features": features}
