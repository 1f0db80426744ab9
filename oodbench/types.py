"""The values that pass between stages. Nothing here computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from oodbench.errors import ScorerError

Columns = Mapping[str, np.ndarray]
"""Statistic name → per-image numbers, float64 ``(N,)`` or ``(N, K)``."""

Of = Literal["model", "background", "general", "ensemble", "backgrounds"]
"""Whose statistic it is: the model's own, its background or its general model's, or those of its ensemble's members or of
all its backgrounds."""
SEVERAL = ("ensemble", "backgrounds")
"""Those that are several models, whose statistics stand side by side, ``(N, K)``."""
BACKGROUNDS: Final = "backgrounds"
"""In a grid, in place of values: one of the model's backgrounds, by its number."""

TunesOn = Literal["none", "in-dist ref", "in-dist train", "validation OOD"]
"""What data a scorer looks at beside the test images; what a model was trained on is not counted."""
Groups = Literal["mean of columns", "mean of scores", "own test"]
"""How a scorer judges a group of images as one: by its mean columns, by the mean of its scores, or by a test of its own."""
PreparedOn = Literal["ref", "train"]
"""The in-dist split that a pass is prepared on."""


@dataclass(frozen=True)
class Pass:
    """One walk over the images, giving one or more statistics at once.

    Attributes
    ----------
    name : of the pass
    statistics : name → unit of what it gives; a model without a capability may give fewer
    compute : ``(model, images) -> {statistic: (B,)}`` with torch tensors, or ``(images) -> …`` on uint8 numpy arrays
        when ``model_free``
    version : changes whenever the numbers do
    built_with : libraries that the numbers depend on, with their versions: of a codec, for instance
    capability : what a model must have, the name of a method, for the whole pass or by statistic; empty for any model
    package : an optional package that it imports, with the extra that installs it: ``(package, extra)``
    differentiates : needs gradients, and therefore the model as it was trained rather than folded
    prepare : ``(model, in-dist images) -> state``, which ``compute`` then takes as its last argument; where ``model_free``
        ``(images) -> {name: array}`` on uint8 numpy arrays, which the cache keeps
    prepared_on : the in-dist split that ``prepare`` is given images of: all, or the last 200 for a pass of a model
    least_prepared : dimensions of an image → images without which it cannot be prepared; None where one is enough
    code : gives the digest of a user's code; nothing for a built-in pass, which its version identifies
    """

    name: str
    statistics: Mapping[str, str]
    compute: Callable[..., Mapping[str, Any]]
    version: str
    model_free: bool = False
    capability: str | Mapping[str, str] = ""
    package: tuple[str, str] | None = None
    differentiates: bool = False
    prepare: Callable[..., Any] | None = None
    prepared_on: PreparedOn = "ref"
    least_prepared: Callable[[int], int] | None = None
    built_with: str = ""
    code: Callable[[], str] = str

    def capability_for(self, statistic: str) -> str:
        """The method that a model must have to give ``statistic``; empty where any model does."""
        return (
            self.capability
            if isinstance(self.capability, str)
            else self.capability.get(statistic, "")
        )

    def too_few(self, found: int, dimensions: int) -> str | None:
        """What is said where there are fewer images than it can be prepared on, or None."""
        least = self.least_prepared(dimensions) if self.least_prepared else 1
        if found >= least:
            return None
        return (
            f"the pass {self.name!r} is prepared on at least {least:,} in-dist {self.prepared_on} images of {dimensions:,} "
            f"numbers each; here are {found:,}"
        )

    @property
    def digest(self) -> str:
        """Of the code of a user's pass, as it was loaded or, typed in a notebook, as it is now; empty for a built-in one."""
        return self.code()

    @property
    def identity(self) -> str:
        """``name:version``, or the statistics' names, version and digest of a user's pass: part of every cache key and row."""
        if not self.digest:
            return ":".join(filter(None, (self.name, self.version, self.built_with)))
        return f"{','.join(sorted(self.statistics))}:{self.version}:{self.digest}"


class Learnt(NamedTuple):
    """What a scorer knows before it judges: what it was fitted to, and what it chose; None each where it does neither."""

    fitted: Any
    chosen: Mapping[str, Any] | None


@dataclass(frozen=True)
class Scorer:
    """Arithmetic from columns to an OOD score (larger = more OOD).

    Attributes
    ----------
    needs : statistics that ``score`` takes, by its argument names
    fit_needs : statistics of the in-dist reference images that ``fit`` takes
    fit : reference columns → state, None for scorers without one
    score : columns (after the state and what it tuned, where there are such) → ``(N,)``
    baseline : all that it needs is model-free, so that it is ranked apart
    said_baseline : what its author takes it for; None where that is not said
    tunes_on : what data it looks at beside the test images
    least_reference : in-dist reference images without which it cannot be fitted
    tune : columns of in-dist reference and of validation OOD images (after the state) → its choice; None for those that tune
        nothing
    grid : what it chooses from: parameter → candidate values, or :data:`BACKGROUNDS`
    groups : how it judges a group of images; None for those that judge single ones alone
    score_groups : its own test of groups: columns ``(G, M)`` or ``(G, M, K)`` (after what ``score`` takes first) → ``(G,)``
    origin : the file that it stands in
    code : gives the digest of its code
    """

    name: str
    needs: tuple[str, ...]
    fit_needs: tuple[str, ...]
    fit: Callable[..., Any] | None
    score: Callable[..., np.ndarray]
    cite: str = ""
    summary: str = ""
    baseline: bool = False
    said_baseline: bool | None = None
    tunes_on: TunesOn = "none"
    least_reference: int = 1
    tune: Callable[..., Mapping[str, Any]] | None = None
    grid: Mapping[str, Any] = field(default_factory=dict)
    groups: Groups | None = None
    score_groups: Callable[..., np.ndarray] | None = None
    origin: str = ""
    code: Callable[[], str] = str

    @property
    def digest(self) -> str:
        """Of its code and of the modules beside it that it imports, as loaded or, typed in a notebook, as it is now."""
        return self.code()

    @property
    def identity(self) -> str:
        """``name:digest``, part of every row's key."""
        return f"{self.name}:{self.digest}"

    def fitted(
        self, reference: Columns, validation: Columns | None = None
    ) -> Callable[[Columns], np.ndarray]:
        """The scorer after fitting and tuning: ``columns -> (N,)``, larger = more OOD.

        Parameters
        ----------
        reference : columns of in-dist reference images
        validation : columns of validation OOD images, for a scorer that tunes
        """
        state = self.state_of(reference, validation)
        return lambda columns: self.scored(state, columns)

    def state_of(self, reference: Columns, validation: Columns | None = None) -> Learnt:
        """What it learns from in-dist reference columns, and chooses by them and those of validation OOD images.

        Raises
        ------
        ScorerError : too few reference images, no validation images, or a choice that is not of the grid
        """
        fitted = self._fitted(reference)
        return Learnt(
            fitted, None if self.tune is None else self._tuned(fitted, reference, validation)
        )

    def _fitted(self, reference: Columns) -> Any:
        if self.fit is None:
            return None
        found = len(next(iter(reference.values()), ()))
        if found < self.least_reference:
            raise ScorerError(self.too_few(found))
        return self.fit(*(reference[name] for name in self.fit_needs))

    def _tuned(self, fitted: Any, reference: Columns, validation: Columns | None) -> dict[str, Any]:
        if not validation:
            raise ScorerError(
                f"{self.name} tunes on validation OOD images, and there are none here"
            )
        assert self.tune is not None
        sides = [{need: side[need] for need in self.needs} for side in (reference, validation)]
        chosen = self.tune(*([fitted] if self.fit else []), *sides)
        return self._checked_choice(chosen, sides[0])

    def _checked_choice(self, chosen: Any, columns: Columns) -> dict[str, Any]:
        grid = {name: self._candidates(values, columns) for name, values in self.grid.items()}
        known = isinstance(chosen, Mapping) and chosen.keys() == grid.keys()
        if not known or any(chosen[name] not in grid[name] for name in grid):
            raise ScorerError(f"{self.name} tunes to {chosen!r}, which is not of its grid, {grid}")
        return {name: grid[name][grid[name].index(chosen[name])] for name in grid}

    def _candidates(self, values: Any, columns: Columns) -> list[Any]:
        if values != BACKGROUNDS:
            return list(values)
        first = next(columns[need] for need in self.needs if split_need(need)[1] == BACKGROUNDS)
        return list(range(first.shape[1]))

    def scored(self, state: Learnt, columns: Columns) -> np.ndarray:
        """The OOD score of columns ``(N,)``, given what was learnt."""
        return np.asarray(self.score(*self._arguments(state, columns)))

    def scored_groups(self, state: Learnt, columns: Columns) -> np.ndarray:
        """Its own test of groups, of columns ``(G, M)`` or ``(G, M, K)``, given what was learnt: ``(G,)``."""
        assert self.score_groups is not None
        return np.asarray(self.score_groups(*self._arguments(state, columns)))

    def _arguments(self, state: Learnt, columns: Columns) -> list[Any]:
        learnt = [state.fitted] if self.fit else []
        learnt += [state.chosen] if self.tune else []
        return [*learnt, *(columns[name] for name in self.needs)]

    @property
    def calibrates(self) -> bool:
        """Whether a rejection threshold can be told of it: it is fitted, on columns that are enough to score the same images."""
        return bool(self.fit) and set(self.needs) <= set(self.fit_needs)

    def too_few(self, found: int) -> str:
        """What is said where there are fewer in-dist reference images than it needs."""
        return f"{self.name} needs at least {self.least_reference} in-dist reference images, not {found}; use a larger limit"

    def no_groups(self) -> str:
        """What is said where groups are asked of a scorer that judges single images alone; empty for others."""
        if self.groups is not None:
            return ""
        return (
            f'{self.name} does not say how a group of images is judged as one; register it with groups="mean of scores", or '
            '"own test" and a method `score_groups`'
        )

    @property
    def all_needs(self) -> tuple[str, ...]:
        """Every statistic that it reads, of reference or of test images."""
        return tuple(dict.fromkeys(self.needs + self.fit_needs))


def side_by_side(columns: Sequence[np.ndarray], of: Of) -> np.ndarray:
    """One column of the statistics of the models that a need asks: ``(N,)``, or ``(N, K)`` of several."""
    return np.stack(columns, 1) if of in SEVERAL else columns[0]


def split_need(need: str) -> tuple[str, Of]:
    """A scorer's argument name as (statistic, of whom): ``background_log_prob`` is the background model's ``log_prob``.

    >>> split_need("ensemble_log_prob")
    ('log_prob', 'ensemble')
    """
    for of in ("background", "general", *SEVERAL):
        if need.startswith(f"{of}_"):
            return need.removeprefix(f"{of}_"), of  # type: ignore[return-value]
    return need, "model"
