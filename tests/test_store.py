"""What is on disk is whole, and identity is content."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from oodbench import paths
from oodbench.errors import DamagedError, StoreError
from oodbench.store import (
    SCHEMA,
    ColumnStore,
    Shard,
    array_bytes,
    faults,
    key_of,
    map_sealed,
    read_lines,
    read_rows,
    read_sealed,
    sealed_row,
    write_rows,
    write_sealed,
)


def test_a_shard_comes_back_as_it_was(home):
    store = ColumnStore()
    columns = {"log_prob": np.array([-1.5, np.nan, -np.inf]), "two": np.ones((3, 2))}
    assert "ab12" not in store
    assert store.get("ab12") is None
    store.put("ab12", Shard(columns, {"seconds": 0.25}))
    found = store.get("ab12")
    assert np.array_equal(found.columns["log_prob"], columns["log_prob"], equal_nan=True)
    assert found.columns["two"].shape == (3, 2)
    assert found.about == {"seconds": 0.25}
    assert set(found.columns) == set(columns)


@pytest.mark.parametrize("damage", ["flip", "truncate", "replace"])
def test_a_damaged_shard_counts_as_not_here(home, caplog, damage):
    store = ColumnStore()
    store.put("ab12", Shard({"log_prob": np.arange(100.0)}, {}))
    content = bytearray(store.path("ab12").read_bytes())
    if damage == "flip":
        content[200] ^= 1
    store.path("ab12").write_bytes(
        {"flip": content, "truncate": content[:300], "replace": b"<html>"}[damage]
    )
    assert store.get("ab12") is None
    assert "damaged" in caplog.text
    assert "ab12" not in store


def test_keys_are_content():
    assert key_of("density:1", ["weights", 0], "images") == key_of(
        "density:1", ["weights", 0], "images"
    )
    assert len({key_of("density:1", [w, s], i) for w in "ab" for s in (0, 1) for i in "cd"}) == 8


def test_writing_is_all_or_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def fails(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreError, match=r"No space left on device\. Free some space"):
        paths.write_whole(path, fails)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"cannot write .*set OODBENCH_HOME"):
        paths.write_whole(tmp_path / "file" / "x", lambda file: None)


def test_rows_are_sorted_lines_and_come_back(tmp_path):
    rows = [sealed_row({"schema": SCHEMA, "key": key, "auroc": 0.1 + 0.2}) for key in "cab"]
    write_rows(tmp_path / "rows.jsonl", rows)
    once = (tmp_path / "rows.jsonl").read_bytes()
    assert [row["key"] for row in read_rows(tmp_path / "rows.jsonl")] == ["a", "b", "c"]
    write_rows(tmp_path / "rows.jsonl", reversed(rows))
    assert (tmp_path / "rows.jsonl").read_bytes() == once
    assert read_rows(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"schema": 99}', f"schema 99, this oodbench knows up to {SCHEMA}"),
        ('{"schema": 3, "au', "rows.jsonl:1 is not a row"),
        ("[1, 2]", "rows.jsonl:1 is not a row .it is no object"),
        ("null", "rows.jsonl:1 is not a row"),
        ('{"key": "a"}', "rows.jsonl:1 is not a row .it is no object with a schema"),
        (
            '{"schema": 3, "key": "a", "auroc": 0.999}',
            "rows.jsonl:1 is not what was written: its values_sha256",
        ),
    ],
)
def test_foreign_rows_are_refused(tmp_path, line, message):
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(StoreError, match=message):
        read_rows(tmp_path / "rows.jsonl")


def test_every_bit_of_a_sealed_file_is_proved(tmp_path):
    path = tmp_path / "a.npy"
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_sealed(path, array_bytes(array))
    assert np.array_equal(map_sealed(path), array)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedError, match=r"a\.npy is damaged"):
            read_sealed(path)
    for short in (whole[:-1], whole[:64], b""):
        path.write_bytes(short)
        with pytest.raises(DamagedError):
            map_sealed(path)


def test_a_row_proves_itself():
    row = sealed_row(
        {"schema": 3, "key": "k", "auroc": 0.1 + 0.2, "cost": {"a": 1.5}, "provenance": {}}
    )
    assert faults(row) is None
    assert "values_sha256" in str(faults(row | {"auroc": 0.999}))
    assert "measured_sha256" in str(faults(row | {"cost": {"a": 1.4}}))
    assert faults({name: value for name, value in row.items() if name != "values_sha256"})
    again = sealed_row(row | {"cost": {"a": 9.0}})
    assert again["values_sha256"] == row["values_sha256"]  # cost and provenance differ between runs
    assert again["measured_sha256"] != row["measured_sha256"]
    assert faults({"schema": 2, "key": "k", "auroc": 0.5}) is None  # older rows hold no hash


def test_lines_end_at_line_feeds_alone(tmp_path):
    row = sealed_row({"schema": 3, "key": "two\u2028lines\x85"})
    write_rows(tmp_path / "rows.jsonl", [row])
    assert read_rows(tmp_path / "rows.jsonl") == [row]


def test_damaged_lines_are_told_from_rows(tmp_path):
    rows = [sealed_row({"schema": 3, "key": key}) for key in "ab"]
    write_rows(tmp_path / "rows.jsonl", rows)
    text = (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "rows.jsonl").write_bytes(text.replace(b'"a"', b'"\xff"'))
    found, damaged = read_lines(tmp_path / "rows.jsonl")
    assert found == rows[1:]
    assert len(damaged) == 1


def test_a_number_that_json_does_not_know_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_rows(tmp_path / "rows.jsonl", [{"schema": 3, "auroc": float("nan")}])
