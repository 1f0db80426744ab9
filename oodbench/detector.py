"""A model and a scorer as one object with scikit-learn's outlier interface."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_array, check_is_fitted

from oodbench.data.images import ImageSet
from oodbench.errors import ModelError, ScorerError
from oodbench.passes.batches import measure
from oodbench.registry import scorer as scorer_called
from oodbench.registry import statistics
from oodbench.types import Columns, Scorer, side_by_side, split_need
from oodbench.zoo.describe import relatives
from oodbench.zoo.load import load_model


class OutlierDetector(OutlierMixin, BaseEstimator):
    """A density model and a scorer in scikit-learn's outlier convention, **which is the reverse of ours**.

    ``score_samples`` is *minus* the scorer's score: larger = more *normal*, where everything else in oodbench has larger = more
    OOD. ``decision_function(X) = score_samples(X) − offset_``, negative for outliers; ``predict`` gives −1 for OOD and +1 for
    in-dist images. For a ROC curve with OOD as the positive class take ``−score_samples(X)``.

    Parameters
    ----------
    model : an object with ``shape`` and ``log_prob``, or a name (``oodbench list models``)
    scorer : a name (``oodbench list scorers``)
    contamination : share of the images given to ``fit`` that ``predict`` calls outliers, which sets ``offset_``

    Attributes
    ----------
    offset_ : the quantile of ``score_samples`` of the images given to ``fit``
    n_features_in_ : C·H·W

    Images are uint8 ``(N, C, H, W)``, or flat rows ``(N, C·H·W)`` in that order, as scikit-learn's pipelines pass them; whole
    numbers 0…255 of another type are taken too, and anything else is refused.

    Example
    -------
    >>> import oodbench as ob
    >>> ref, ood = (ob.load_images(f"{name}[:60]").images for name in ("fashionmnist/ref", "mnist/test"))
    >>> detector = ob.OutlierDetector("glow-small-fashionmnist-1", "typicality").fit(ref)
    >>> bool((detector.predict(ood) == -1).mean() > 0.2)
    True
    """

    def __init__(self, model: Any = None, scorer: str = "likelihood", contamination: float = 0.05):
        self.model = model
        self.scorer = scorer
        self.contamination = contamination

    def fit(self, X: Any, y: Any = None) -> OutlierDetector:  # noqa: N803
        """Fit the scorer, and the threshold, to in-dist reference images; ``y`` is ignored.

        Raises
        ------
        ValueError : pixels that are no whole numbers 0…255, another number of pixels, a contamination outside (0, 0.5]
        ModelError, ScorerError : no model, or one that cannot give what the scorer needs
        """
        if not 0 < self.contamination <= 0.5:
            raise ValueError(f"contamination must lie in (0, 0.5], not {self.contamination}")
        images = self._images(X)
        self.n_features_in_ = math.prod(images.shape[1:])
        scorer = scorer_called(self.scorer)
        if scorer.tune:
            raise ScorerError(
                f"{scorer.name} tunes on validation OOD images, which an OutlierDetector has none of; choose another scorer"
            )
        self.reference_ = images if any(_prepared(need) for need in scorer.all_needs) else None
        columns = self._columns(scorer, images)
        self.state_ = scorer.state_of(columns)
        self.offset_ = float(np.quantile(-self._scored(scorer, columns), self.contamination))
        return self

    def score_samples(self, X: Any) -> np.ndarray:  # noqa: N803
        """Minus the OOD score of each image, ``(N,)``: larger = more normal."""
        check_is_fitted(self)
        scorer, images = scorer_called(self.scorer), self._images(X)
        found = math.prod(images.shape[1:])
        if found != self.n_features_in_:
            raise ValueError(_features(found, self.n_features_in_))
        return -self._scored(scorer, self._columns(scorer, images))

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803
        """``score_samples(X) − offset_``: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """−1 for images that are called OOD, +1 for the others."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _scored(self, scorer: Scorer, columns: Columns) -> np.ndarray:
        return scorer.scored(self.state_, columns).astype(np.float64)

    def _density(self) -> Any:
        if self.model is None:
            raise ModelError("an OutlierDetector needs a model: an object with log_prob, or a name")
        return load_model(self.model) if isinstance(self.model, str) else self.model

    def _images(self, given: Any) -> np.ndarray:
        """uint8 ``(N, C, H, W)`` at the model's shape, of images or flat rows."""
        X = given.images if isinstance(given, ImageSet) else given  # noqa: N806
        X = check_array(X, dtype=None, allow_nd=True, ensure_all_finite=True, estimator=self)  # noqa: N806
        shape = tuple(self._density().shape)
        n_features = math.prod(X.shape[1:])
        if n_features != math.prod(shape) or (X.ndim != 2 and X.shape[1:] != shape):
            wanted = f"images of shape {shape}, not {X.shape[1:]}"
            raise ValueError(f"{_features(n_features, math.prod(shape))}: {wanted}")
        if X.dtype != np.uint8 and not _whole(X):
            raise ValueError("X holds pixels that are no whole numbers 0…255; give uint8 images")
        return X.astype(np.uint8).reshape(-1, *shape)

    def _columns(self, scorer: Scorer, images: np.ndarray) -> dict[str, np.ndarray]:
        found = ImageSet("given", "test", "", images)
        reference = (
            None if self.reference_ is None else ImageSet("given", "ref", "", self.reference_)
        )
        return {need: self._column(need, found, reference) for need in scorer.all_needs}

    def _column(self, need: str, images: ImageSet, reference: ImageSet | None) -> np.ndarray:
        statistic, of = split_need(need)
        owners = [self._density()]
        if of != "model":
            names = relatives(self.model, of) if isinstance(self.model, str) else []
            owners = [load_model(name) for name in names]
        if not owners:
            raise ScorerError(
                f"{self.scorer} asks for {need}, and this model has no {of} model; name one of the zoo that has"
            )
        own = [measure(one, images, statistic, reference=reference)[statistic] for one in owners]
        return side_by_side(own, of)


def _features(found: int, expected: int) -> str:
    """The sentence that scikit-learn's own estimators say."""
    return f"X has {found} features, but OutlierDetector is expecting {expected} features as input"


def _prepared(need: str) -> bool:
    return statistics[split_need(need)[0]].prepare is not None


def _whole(values: np.ndarray) -> bool:
    if not np.issubdtype(values.dtype, np.number):
        return False
    return bool(((values >= 0) & (values <= 255) & (values == np.floor(values))).all())
