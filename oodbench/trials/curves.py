"""What figures draw, small enough to be stored beside the rows: histograms, ROC curves, scatter plots,
image grids.

Each function takes columns, scores or images and returns values that JSON can hold, or the bytes of a PNG
file, so that nobody needs columns, images or weights to draw a figure again.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from oodbench.metrics.ranking import counts

DECIMALS = 4
"""Of a rate in a ROC curve: a hundredth of what a panel can show."""
FAR = 8
"""Interquartile ranges from the quartiles beyond which a histogram's span does not reach."""
HUGE = 1e300
"""Larger values count as this one, so that the width of a span stays finite."""
BLOCK = 1024
"""Images whose squares are summed at a time."""


def histograms(columns: Mapping[str, np.ndarray], bins: int = 60) -> dict[str, Any]:
    """Histograms of several sets over one span.

    Parameters
    ----------
    columns : the values of each set, by the set's identifier
    bins : of equal width

    Returns
    -------
    ``span``, the ends of the histograms, or None where no value is finite; and ``sets``, for each set its name,
    how many values it has, how many of them are not finite or lie outside the span, the counts of the bins, and
    the median of the finite values
    """
    finite = {name: _finite(column) for name, column in columns.items()}
    span = _span([column for column in finite.values() if len(column)])
    sets = [
        _histogram(name, np.size(columns[name]), own, span, bins) for name, own in finite.items()
    ]
    return {"span": span, "sets": sets}


def _finite(column: np.ndarray) -> np.ndarray:
    flat = np.asarray(column, np.float64).ravel()
    return np.clip(flat[np.isfinite(flat)], -HUGE, HUGE)


def _span(columns: list[np.ndarray]) -> list[float] | None:
    """The range of all but half a per cent at each column's ends, and of what is near its quartiles."""
    if not columns:
        return None
    ends = [_ends(column) for column in columns]
    low, high = min(first for first, _ in ends), max(last for _, last in ends)
    # never narrower than what 64 bits can divide into bins
    margin = max(0.05 * (high - low), 1e-9 * max(abs(low), abs(high))) or 1.0
    return [low - margin, high + margin]


def _ends(column: np.ndarray) -> tuple[float, float]:
    """The ends of one column; a flow may give a noise image −10²⁰ nats, which would leave one bin to all
    others."""
    low, first, third, high = np.quantile(column, [0.005, 0.25, 0.75, 0.995])
    far = FAR * (third - first)
    return float(max(low, first - far)), float(min(high, third + far))


def _histogram(
    name: str, n: int, finite: np.ndarray, span: list[float] | None, bins: int
) -> dict[str, Any]:
    found = np.zeros(bins, int)
    if span is not None:
        found, _ = np.histogram(finite, bins, (span[0], span[1]))
    return {
        "set": name,
        "n": n,
        "not_finite": n - len(finite),
        "outside": len(finite) - int(found.sum()),
        "counts": found.tolist(),
        "median": float(np.median(finite)) if len(finite) else None,
    }


def roc(scores_in: np.ndarray, scores_ood: np.ndarray, points: int = 200) -> dict[str, list[float]]:
    """Rates of in-dist images flagged and of OOD images caught, at up to ``points`` thresholds and from
    the origin."""
    flagged, caught = counts(scores_in, scores_ood)
    chosen = np.unique(np.linspace(0, len(flagged) - 1, points).astype(int))
    return {"flagged": _rates(flagged, chosen), "caught": _rates(caught, chosen)}


def _rates(cumulative: np.ndarray, chosen: np.ndarray) -> list[float]:
    rates = cumulative[chosen] / cumulative[-1]
    return [0.0, *rates.round(DECIMALS).tolist()]


def scatter(x: np.ndarray, y: np.ndarray, shown: int = 300) -> dict[str, Any]:
    """The first ``shown`` points of which both numbers are finite, and how many of all points are not.

    ``x_ends`` and ``y_ends`` are those of a histogram of the points, so that outliers of one set leave
    the others room; None where there is no point.
    """
    finite = np.isfinite(x) & np.isfinite(y)
    points = {"x": _finite(x[finite][:shown]), "y": _finite(y[finite][:shown])}
    ends = {f"{axis}_ends": _ends(own) if len(own) else None for axis, own in points.items()}
    drawn = {axis: own.tolist() for axis, own in points.items()}
    return {**drawn, **ends, "not_finite": int((~finite).sum())}


def pixel_moments(images: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and variance of each pixel and channel over 8-bit images ``(N, C, H, W)``, in units of the
    full scale ``(C·H·W,)``."""
    total = images.sum(0, dtype=np.uint64)
    squares = np.zeros_like(total)
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK].astype(np.uint64)
        squares += (block * block).sum(0)
    mean = total.ravel() / len(images)
    variance = squares.ravel() / len(images) - mean**2
    return {"mean": mean / 255, "variance": variance / 255**2}


def grid(images: np.ndarray, n: int, across: int = 8) -> bytes:
    """The first ``n`` images ``(N, C, H, W)`` as one picture of rows of ``across``, as the bytes of a PNG
    file."""
    file = io.BytesIO()
    Image.fromarray(_tiled(_coloured(np.asarray(images[:n])), across)).save(file, "PNG")
    return file.getvalue()


def _coloured(images: np.ndarray) -> np.ndarray:
    """Images with three channels: the first three, or the first one as grey."""
    return images[:, :3] if images.shape[1] >= 3 else np.repeat(images[:, :1], 3, 1)


def _tiled(images: np.ndarray, across: int) -> np.ndarray:
    n, channels, height, width = images.shape
    rows = -(-n // across)
    padded = np.full((rows * across, channels, height, width), 255, np.uint8)
    padded[:n] = images
    tiles = padded.reshape(rows, across, channels, height, width).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(tiles.reshape(rows * height, across * width, channels))
