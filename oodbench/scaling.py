"""What describes images to a model, checked: their shape, and numbers by which pixels are standardised. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from oodbench.errors import ModelError


def is_number(value: Any) -> bool:
    """Whether it is a finite number; truth values are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """Whether it is a whole number of at least 1."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def checked_shape(value: Any) -> tuple[int, int, int]:
    """``(C, H, W)``, where it is one.

    Raises
    ------
    ModelError : not three whole numbers of at least 1
    """
    sound = isinstance(value, (list, tuple)) and len(value) == 3 and all(map(is_count, value))
    if not sound:
        raise ModelError(f"shape must be [C, H, W], for instance [1, 28, 28], not {value!r}")
    channels, height, width = value
    return channels, height, width


def checked_mean(value: Any, channels: int) -> float | Sequence[float]:
    """What is subtracted from pixels: one number, or one for each channel; :class:`ModelError` otherwise."""
    return _one_or_each("mean", value, channels)


def checked_std(value: Any, channels: int) -> float | Sequence[float]:
    """What pixels are divided by: one number above 0, or one for each channel; :class:`ModelError` otherwise."""
    found = _one_or_each("std", value, channels)
    if min(found if isinstance(found, Sequence) else [found]) <= 0:
        raise ModelError(f"std must be above 0, since pixels are divided by it, not {value!r}")
    return found


def _one_or_each(name: str, value: Any, channels: int) -> float | Sequence[float]:
    each = value if isinstance(value, (list, tuple)) else [value]
    right_length = len(each) == channels or each is not value
    if not (right_length and all(map(is_number, each))):
        raise ModelError(
            f"{name} must be one number, or one for each of {channels} channels, not {value!r}"
        )
    found: float | Sequence[float] = value
    return found


def checked_config(config: dict[str, Any]) -> dict[str, Any]:
    """A card's configuration, where its shape is one and its mean and deviation fit that; as it was given.

    Raises
    ------
    ModelError : a shape, mean or deviation that is none
    """
    channels, *_ = checked_shape(config.get("shape"))
    for name, check in (("mean", checked_mean), ("std", checked_std)):
        if name in config:
            check(config[name], channels)
    return config
