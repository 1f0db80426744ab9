"""Rows of older schemas, brought to today's names, and the sentence that pages say of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from oodbench.store import SCHEMA, Row

RENAMED = {"id_bits_per_dim": "in_dist_bits_per_dim"}
"""Fields that had another name before schema 3."""
RENAMED_MODELS = {
    "ecef0383db9569d918dd89f02d0f44d90ecbd3d661954721fc1f591d4ab4961d": "glow-additive-fashionmnist",
    "3e65490e8cc5eba8f0c7cdc657279e75c5bed43a0cf8c61518d64604809369d3": "glow-additive-cifar10",
}
"""Cards that had another name when rows were measured, by the model's identity in those rows: two Glows with additive
couplings and a learned prior were called constant-volume, which the prior's volume is not."""
COMPARISONS, COSTS = "contests.jsonl", "costs.jsonl"
"""Files that schema 2 wrote beside its rows."""


def is_older(row: Row) -> bool:
    """Whether a row is of a schema before today's."""
    return bool(row["schema"] < SCHEMA)


def brought_up(row: Row, costs: Mapping[str, Row]) -> Row:
    """A row with today's names; its cost is that of its passes in the folder's older file of costs."""
    if not is_older(row):
        return row
    named = {RENAMED.get(name, name): value for name, value in row.items()}
    known = {name: costs[name] for name in row.get("passes", []) if name in costs}
    cost = {name: _cost(one) for name, one in known.items()}
    return {**named, "cost": cost} if cost else named


def _cost(row: Row) -> Row:
    return {
        "ms_per_image": row["ms_per_image"],
        "cpu_ms_per_image": None,
        "device": row["device"],
    }


def renamed(tables: Mapping[str, list[Row]], rows: str) -> dict[str, list[Row]]:
    """The tables of a folder with today's names of models: those that all rows of the table ``rows`` know by identity."""
    identities: dict[str, set[str]] = {}
    for row in tables[rows]:
        known = row.get("inputs") or row.get("provenance") or {}
        identity = known.get("models", {}).get(row["model"])
        identities.setdefault(row["model"], set()).update([identity] if identity else [])
    names = {
        name: RENAMED_MODELS[min(found)]
        for name, found in identities.items()
        if len(found) == 1 and min(found) in RENAMED_MODELS
    }
    return {table: [_named(row, names) for row in own] for table, own in tables.items()}


def _named(row: Row, names: Mapping[str, str]) -> Row:
    model = str(row.get("model", ""))
    if model not in names:
        return row
    reason = {"reason": row["reason"].replace(model, names[model])} if "reason" in row else {}
    return {**row, "model": names[model], **reason}


def older_sentence(rows: Iterable[Row]) -> list[str]:
    """What a page says at its head where some of the rows that it shows are of an older schema; nothing
    elsewhere."""
    shown = list(rows)
    older = [row for row in shown if is_older(row)]
    if not older:
        return []
    schemas = " and ".join(str(schema) for schema in sorted({row["schema"] for row in older}))
    return [
        f"{len(older):,} of {len(shown):,} rows are of schema {schemas}, measured before a row held the "
        "hash of its own values; they are replaced when measured again.\n"
    ]
