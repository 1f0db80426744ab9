"""What is on disk is whole, and identity is content."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from oodbench import paths
from oodbench.errors import StoreError
from oodbench.store import SCHEMA, ColumnStore, key_of, read_rows, write_rows


def test_a_shard_comes_back_as_it_was(home):
    store = ColumnStore()
    columns = {"log_prob": np.array([-1.5, np.nan, -np.inf]), "two": np.ones((3, 2))}
    assert "ab12" not in store
    assert store.get("ab12") is None
    store.put("ab12", columns, 0.25)
    found = store.get("ab12")
    assert np.array_equal(found["log_prob"], columns["log_prob"], equal_nan=True)
    assert found["two"].shape == (3, 2)
    assert found["seconds"] == 0.25


@pytest.mark.parametrize("damage", ["flip", "truncate", "replace"])
def test_a_damaged_shard_counts_as_not_here(home, caplog, damage):
    store = ColumnStore()
    store.put("ab12", {"log_prob": np.arange(100.0)}, 0)
    content = bytearray(store.path("ab12").read_bytes())
    if damage == "flip":
        content[200] ^= 1
    store.path("ab12").write_bytes({"flip": content, "truncate": content[:300], "replace": b"<html>"}[damage])
    assert store.get("ab12") is None
    assert "damaged" in caplog.text
    assert "ab12" not in store


def test_keys_are_content():
    assert key_of("density:1", ["weights", 0], "images") == key_of("density:1", ["weights", 0], "images")
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
    rows = [{"schema": SCHEMA, "key": key, "auroc": 0.5} for key in "cab"]
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
        ('{"schema": 1, "au', "rows.jsonl:1 is not a row"),
    ],
)
def test_foreign_rows_are_refused(tmp_path, line, message):
    (tmp_path / "rows.jsonl").write_text(line + "\n")
    with pytest.raises(StoreError, match=message):
        read_rows(tmp_path / "rows.jsonl")
