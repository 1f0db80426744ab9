"""Files of others, made up and damaged at will: each is read right or refused in one sentence, never with a traceback.

By default a small budget, so that each kind is tried in a second. ``OODBENCH_FUZZ=3600`` tries for so many seconds in all.
"""

from __future__ import annotations

import contextlib
import html
import io
import json
import os
import re
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from safetensors.numpy import save as save_safetensors

from oodbench.cli import _named_values
from oodbench.data.arrays import array_files
from oodbench.data.pictures import Picture, decode, header
from oodbench.errors import OodbenchError
from oodbench.foreign import printable
from oodbench.report import check_report
from oodbench.report.page import prose
from oodbench.report.tables import text
from oodbench.store import ColumnStore, Shard, read_lines, read_rows, sealed, sealed_row
from oodbench.suite import load_suite
from oodbench.trials.number_files import read_numbers
from oodbench.trials.recount import score_faults
from oodbench.trials.results import ResultsFolder
from oodbench.zoo.cards import load_card, training_log
from oodbench.zoo.checkpoints import read_checkpoint
from oodbench.zoo.load import parse_weights

SECONDS = float(os.environ.get("OODBENCH_FUZZ", 0))
"""Of all tests here together; 0 for the small budget."""
KINDS = 11
SMALL = 40
"""Examples of a kind within the small budget."""
LATE = 5.0
"""Seconds within which any file of a few kilobytes is read or refused."""

PAPER = Path(__file__).parents[1] / "leaderboards" / "paper"
SUITE = (
    "name: s\ntitle: t\nmodels: [glow-fashionmnist]\npairs: [{in_dist: fashionmnist, ood: [mnist]}]\n"
    "scorers: [likelihood]\n"
)
CARD = "name: g\nfamily: glow\nconfig: {shape: [1, 28, 28]}\ntrained_on: mnist\nlikelihood: exact\n"


def fuzzed(slow=1):
    """Settings of a kind; ``slow`` kinds get so many times fewer examples of the small budget."""
    return settings(
        max_examples=200 if SECONDS else SMALL // slow,
        deadline=None,
        derandomize=not SECONDS,
        database=None,
        phases=[Phase.explicit, Phase.generate] if SECONDS else list(Phase),
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def again():
    """Calls a property once, and again until its share of the seconds is over."""

    def calls(tries, *arguments):
        ends = time.monotonic() + SECONDS / KINDS
        tries(*arguments)
        while time.monotonic() < ends:
            tries(*arguments)

    return calls


@contextlib.contextmanager
def refused_or_read():
    """One sentence of ours, or nothing; a traceback of anything else fails the test, and so does a long wait."""
    began = time.monotonic()
    with contextlib.suppress(OodbenchError):
        yield
    assert time.monotonic() - began < LATE * (1 + os.getloadavg()[0])


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20),
    st.sampled_from(["../x", "/x", "a|b\n", "\x1b[2J", "\u2028", "[^1]", "<script>", "=1+1", "nan", "mnist", "a" * 5000]),
)  # fmt: skip
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
damage = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4), st.integers(0, 8)),
    min_size=1,
    max_size=6,
)


def damaged(content: bytes, changes) -> bytes:
    """Bytes with pieces replaced at places given as shares of the whole."""
    for place, new, gone in changes:
        start = int(place * len(content))
        content = content[:start] + new + content[start + gone :]
    return content


def changed(tree, data):
    """A value with one part, drawn at any depth, replaced, dropped or renamed."""
    if isinstance(tree, dict) and tree and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(tree)))
        return {**tree, key: changed(tree[key], data)}
    if isinstance(tree, list) and tree and data.draw(st.booleans()):
        number = data.draw(st.integers(0, len(tree) - 1))
        return [*tree[:number], changed(tree[number], data), *tree[number + 1 :]]
    if isinstance(tree, dict) and tree and data.draw(st.booleans()):
        gone = data.draw(st.sampled_from(sorted(tree)))
        return {key: value for key, value in tree.items() if key != gone}
    return data.draw(values)


@fuzzed()
@given(data=st.data())
def yaml_files(folder, name, whole, read, data):
    if data.draw(st.booleans()):
        with_one_change = changed(yaml.safe_load(whole), data)
        content = yaml.safe_dump(with_one_change, allow_unicode=True).encode(
            "utf-8", "surrogateescape"
        )
    else:
        content = damaged(whole.encode(), data.draw(damage))
    (folder / name).write_bytes(content)
    with refused_or_read():
        read(folder)


def test_suites(tmp_path, again):
    again(yaml_files, tmp_path, "s.yaml", SUITE, lambda folder: load_suite(str(folder / "s.yaml")))


def test_cards(tmp_path, again):
    again(yaml_files, tmp_path, "card.yaml", CARD, lambda folder: load_card(str(folder)).shape)


RECORD = {"weights_sha256": "0" * 64, "recipe": {"seed": 1}, "ref_bits_per_dim": 2.5}


@fuzzed()
@given(data=st.data())
def records_and_logs(folder, data):
    content = json.dumps(changed(RECORD, data)).encode()
    (folder / "trained.json").write_bytes(
        damaged(content, data.draw(damage)) if data.draw(st.booleans()) else content
    )
    log = b"step,ref_bits_per_dim,auroc_mnist\n1,3.5,0.5\n2,2.5,\n"
    (folder / "log.csv").write_bytes(damaged(log, data.draw(damage)))
    card = load_card(str(folder))
    for read in (
        lambda: card.verify(b"weights", "there"),
        lambda: card.training_seed,
        lambda: training_log(card),
    ):
        with refused_or_read():
            read()


def test_records_and_logs_of_trainings(tmp_path, again):
    (tmp_path / "card.yaml").write_text(CARD)
    again(records_and_logs, tmp_path)


def some_rows(table: str, n: int) -> list[dict]:
    """Rows of the published leaderboard: all of one pair, as far as they go."""
    rows = read_rows(PAPER / f"{table}.jsonl")
    model = "glow-fashionmnist" if table != "analysis" else None
    own = [
        row
        for row in rows
        if model in (None, row.get("model")) and row.get("group_size", 1) in (1, None)
    ]
    return own[:n]


@pytest.fixture(scope="module")
def tables():
    return {
        table: some_rows(table, n)
        for table, n in (("rows", 6), ("comparisons", 1), ("analysis", 4))
    }


@fuzzed(slow=2)
@given(data=st.data())
def rows_of_others(folder, tables, data):
    table = data.draw(st.sampled_from(sorted(tables)))
    number = data.draw(st.integers(0, len(tables[table]) - 1))
    row = changed(tables[table][number], data)
    sealing = (
        data.draw(st.booleans()) and isinstance(row, dict) and isinstance(row.get("schema"), int)
    )
    row = sealed_row(row) if sealing else row  # as somebody would who knows the hashes
    for name, rows in tables.items():
        told = (
            [json.dumps(one) for one in [*rows[:number], row, *rows[number + 1 :]]]
            if name == table
            else [json.dumps(one) for one in rows]
        )
        content = ("\n".join(told) + "\n").encode("utf-8", "surrogateescape")
        if name == table and data.draw(st.integers(0, 3)) == 0:
            content = damaged(content, data.draw(damage))
        (folder / f"{name}.jsonl").write_bytes(content)
    for read in (check_report, score_faults, ResultsFolder):
        with refused_or_read():
            read(folder)
    kept, _ = read_lines_or_none(folder / f"{table}.jsonl")
    for one in kept:  # what is taken for a row is one that was written, or one that somebody sealed
        assert one in tables[table] or one == row or one["schema"] < 3


def read_lines_or_none(path):
    try:
        return read_lines(path)
    except OodbenchError:
        return [], []


def test_rows_analysis_and_comparisons(tmp_path, tables, again):
    again(rows_of_others, tmp_path, tables)


@fuzzed()
@given(data=st.data())
def arrays(folder, data):
    shape = tuple(data.draw(st.lists(st.integers(0, 5), max_size=4)))
    dtype = data.draw(st.sampled_from(["u1", "<f4", "?", "<U3", "<c8", "<i8", "M8[s]"]))
    array, buffer = np.zeros(shape, dtype), io.BytesIO()
    suffix = data.draw(st.sampled_from([".npy", ".npz"]))
    np.save(buffer, array) if suffix == ".npy" else np.savez(
        buffer, **{data.draw(st.sampled_from(["images", "log_prob"])): array}
    )
    (folder / f"x{suffix}").write_bytes(
        damaged(buffer.getvalue(), data.draw(damage))
        if data.draw(st.booleans())
        else buffer.getvalue()
    )
    with refused_or_read():
        array_files((folder / f"x{suffix}",)).decode()
    with refused_or_read():
        read_numbers(folder / f"x{suffix}")


def test_arrays(tmp_path, again):
    again(arrays, tmp_path)


@fuzzed()
@given(changes=damage, resealed=st.booleans())
def columns(store, key, whole, changes, resealed):
    content = damaged(whole[:-64], changes)
    store.path(key).write_bytes(sealed(content) if resealed else content + whole[-64:])
    with refused_or_read():
        found = store.get(key)
        if found is not None and not resealed:
            assert content == whole[:-64]


def test_columns(tmp_path, again, caplog):
    store, key = ColumnStore(tmp_path), "ab" * 32
    store.put(key, Shard({"log_prob": np.arange(9.0), "z": np.ones((9, 2))}, {"images": 9}))
    again(columns, store, key, store.path(key).read_bytes())


@fuzzed()
@given(changes=damage, name=st.sampled_from(["x.safetensors", "x.pt"]))
def checkpoints(folder, contents, changes, name):
    content = damaged(contents[name], changes)
    (folder / name).write_bytes(content)
    with refused_or_read():
        dict(read_checkpoint(folder / name))
    with refused_or_read():
        parse_weights(content, folder / name)


def test_checkpoints(tmp_path, again):
    buffer = io.BytesIO()
    torch.save({"module.a": torch.ones(3, 2), "module.b": torch.zeros(4)}, buffer)
    weights = save_safetensors({"a": np.ones((3, 2), np.float32), "b": np.zeros(4, np.float16)})
    again(checkpoints, tmp_path, {"x.pt": buffer.getvalue(), "x.safetensors": weights})


@fuzzed()
@given(header=values | st.dictionaries(st.text(max_size=5), st.fixed_dictionaries({
    "dtype": st.sampled_from(["F32", "F8_E4M3", "U64", "BOOL", "X"]),
    "shape": st.lists(st.integers(-1, 2**62), max_size=4),
    "data_offsets": st.lists(st.integers(-1, 2**62), max_size=3),
}), max_size=3), length=st.none() | st.integers(0, 2**64 - 1))  # fmt: skip
def safetensors_headers(header, length):
    text = json.dumps(header).encode()
    with refused_or_read():
        parse_weights(
            struct.pack("<Q", len(text) if length is None else length) + text + bytes(16),
            Path("x.safetensors"),
        )


def test_headers_of_safetensors(again):
    again(safetensors_headers)


def pictures_of_each_format() -> dict[str, bytes]:
    found = {}
    picture = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        found[kind] = buffer.getvalue()
    return found


@fuzzed()
@given(kind=st.sampled_from(sorted(pictures_of_each_format())), changes=damage)
def pictures(contents, kind, changes):
    picture = Picture("x", damaged(contents[kind], changes))
    for read in (header, decode):
        with refused_or_read():
            read(picture)


def test_pictures(again):
    again(pictures, pictures_of_each_format())


@fuzzed()
@given(
    texts=st.lists(
        st.text(max_size=30)
        | st.sampled_from(
            ["a=[[[[", "a=*x", "a=!!python/name:os", "a=2026-13-45", "a=" + "[" * 200]
        ),
        max_size=3,
    )
)
def options(texts):
    with refused_or_read():
        _named_values(texts)


def test_options(again):
    again(options)


pieces = st.sampled_from([
    "a", "b", "_", "*", "`", "|", "\\", "<", ">", "&", "~~", "[", "]", "(", ")", "!", "^", "$", "{", "#", "-",
    "\n", "&lt;", "&#60;",
    "[^1]", "[a](b)", "<b>", "```", "__", "\x1b", "\u2028", "| --- |",
])  # fmt: skip


@fuzzed()
@given(parts=st.lists(pieces, min_size=1, max_size=8))
def texts(parts):
    shown = "".join(parts)
    meant = " ".join(printable(shown.replace("\n", " ")).split())
    if not meant:
        return
    page = MARKDOWN.render(f"| head |\n| --- |\n| {text(shown)} |\n")
    (cell,) = re.findall(r"<td>(.*)</td>", page, re.DOTALL)
    assert html.unescape(cell) == meant
    assert not re.search(r"<(?!/?(td|tr|tbody|table|thead|th)\b)", page)
    assert html.unescape(prose(text(shown))) == meant


MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def test_text_of_others_is_shown_letter_by_letter_in_markdown_and_html(again):
    again(texts)


def test_aliases_nesting_and_size_of_yaml_have_limits(tmp_path):
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    for content, sentence in (
        (SUITE + laughs, "aliases stand for more than"),
        (SUITE + "about: " + "[" * 200 + "]" * 200, "nested more than"),
        (SUITE + "x: &x [*x]\n", "nested more than"),
        (SUITE + "#" * 600_000, "more than the 500,000 that are read"),
    ):
        (tmp_path / "s.yaml").write_text(content)
        with pytest.raises(OodbenchError, match=sentence):
            load_suite(str(tmp_path / "s.yaml"))


def test_a_header_that_promises_terabytes_and_a_bomb_in_a_zip(tmp_path, monkeypatch):
    head = {"descr": "|u1", "fortran_order": False, "shape": (9_999_999_999, 28, 28)}
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        file.write(bytes(1568))
    with pytest.raises(OodbenchError, match=r"promises 7,839,999,999,216 bytes.* 1,568 are there"):
        array_files((tmp_path / "x.npy",))
    monkeypatch.setattr("oodbench.foreign.BOMB", 1 << 20)  # writing a gigabyte takes seconds
    np.savez_compressed(tmp_path / "b.npz", images=np.zeros((2000, 30, 30), np.uint8))
    for read in (
        lambda: array_files((tmp_path / "b.npz",)),
        lambda: read_numbers(tmp_path / "b.npz"),
    ):
        with pytest.raises(OodbenchError, match="more than 200 times as many"):
            read()


def test_a_checkpoint_that_shows_one_number_a_trillion_times(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "x.pt")
    with pytest.raises(OodbenchError, match="shows each number more than once"):
        read_checkpoint(tmp_path / "x.pt")
    torch.save({"a": torch.zeros(9)}, tmp_path / "y.pt")
    with (
        zipfile.ZipFile(tmp_path / "y.pt") as plain,
        zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(OodbenchError, match="compressed zip"):
        read_checkpoint(tmp_path / "z.pt")


@pytest.mark.parametrize(("text", "shown"), [
    ("plain −½ é 日本", "plain −½ é 日本"),
    ("\x1b[2J\rno", "\\x1b[2J\\rno"),
    ("a\u202eb\u2028c\x85d", "a\\u202eb\\u2028c\\x85d"),
    ("two\nlines", "two\nlines"),
])  # fmt: skip
def test_text_of_files_moves_no_cursor(text, shown):
    assert printable(text) == shown


def test_a_folder_of_rows_that_is_whole_is_still_read(tmp_path, tables):
    for name, rows in tables.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert ResultsFolder(tmp_path).rows("rows") == tables["rows"]
