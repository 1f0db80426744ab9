"""Reading what passes measured: columns by the keys of their shards, and what made them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from oodbench.errors import OodbenchError
from oodbench.store import ColumnStore
from oodbench.types import side_by_side, split_need


class LostError(OodbenchError):
    """A shard that was measured is not in the cache any more; it is measured again."""


@dataclass(frozen=True)
class Measured:
    """All columns of one pass over one image set, and what each shard says of its measurement."""

    columns: Mapping[str, np.ndarray]
    about: Sequence[Mapping[str, Any]]


def read_columns(keys: Iterable[str]) -> Measured:
    """The columns of a pass, its shards joined in order.

    Raises
    ------
    LostError : a shard is missing or damaged
    """
    store, shards = ColumnStore(), []
    for key in keys:
        shard = store.get(key)
        if shard is None:
            raise LostError(f"the columns {key[:12]}… are not in the cache any more; run again")
        shards.append(shard)
    names = shards[0].columns
    joined = {name: np.concatenate([shard.columns[name] for shard in shards]) for name in names}
    return Measured(joined, [shard.about for shard in shards])


@lru_cache(maxsize=16)
def kept_columns(keys: tuple[str, ...]) -> Measured:
    """:func:`read_columns`, remembered: the trials of an in-dist set read the same ones. Nobody writes into them."""
    found = read_columns(keys)
    for column in found.columns.values():
        column.flags.writeable = False
    return found


def needed_column(need: str, passes: Iterable[Measured], whose: str) -> np.ndarray:
    """The column of a scorer's need, ``(N,)``, or ``(N, K)`` of several models; nobody writes into it.

    Parameters
    ----------
    passes : what each pass measured that gives it
    whose : the model, for the message

    Raises
    ------
    OodbenchError : the passes lack the statistic
    """
    statistic, of = split_need(need)
    found = [one.columns for one in passes]
    if any(statistic not in one for one in found):
        raise OodbenchError(
            f"{whose} gives no {need!r}: it lacks a method that this statistic asks for"
        )
    return side_by_side([one[statistic] for one in found], of)


def cost_of(about: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Milliseconds an image of wall and of CPU time, and the device, over the shards of one pass."""
    images = sum(one["images"] for one in about)
    wall, cpu = (sum(one[clock] for one in about) for clock in ("seconds", "cpu_seconds"))
    return {
        "device": joined(one["device"] for one in about),
        "ms_per_image": 1000 * wall / images,
        "cpu_ms_per_image": 1000 * cpu / images,
    }


ENVIRONMENT = ("oodbench", "torch", "numpy", "pillow", "machine", "device", "threads", "batch_size")


def made_with(about: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Versions, machine, device, threads and batch size of the measurements; several where shards differ."""
    known = list(about)
    return {name: joined(one[name] for one in known if name in one) for name in ENVIRONMENT}


def joined(values: Iterable[Any]) -> str:
    """Distinct values in order, as text."""
    return " / ".join(dict.fromkeys(map(str, values)))
