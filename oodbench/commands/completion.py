"""What a shell completes: names of what there is. Click asks these functions while a word is typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Complete = Callable[[Any, Any, str], list[str]]


def _completing(names: Callable[[], Iterable[str]]) -> Complete:
    def complete(context: Any, parameter: Any, begun: str) -> list[str]:
        return sorted(name for name in names() if name.startswith(begun))

    return complete


def _models() -> Iterable[str]:
    from oodbench.zoo.cards import zoo

    return zoo()


def _sets() -> Iterable[str]:
    from oodbench.data.catalog import catalog

    return catalog()


def _scorers() -> Iterable[str]:
    from oodbench.registry import scorers

    return scorers


def _suites() -> Iterable[str]:
    from oodbench.suite import suite_names

    return suite_names()


def _statistics() -> Iterable[str]:
    from oodbench.registry import statistics

    return statistics


def _every() -> Iterable[str]:
    return {*_models(), *_sets(), *_scorers(), *_suites(), *_statistics()}


def _restricting() -> Iterable[str]:
    return {*_models(), *_sets(), *_scorers()}


models, sets, scorers = map(_completing, (_models, _sets, _scorers))
suites, every, restricting = map(_completing, (_suites, _every, _restricting))
