"""The command's edge: a fault that nobody foresaw is a sentence and a file; odd terminals and homes."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from oodbench.commands import edge
from oodbench.errors import SuiteError
from oodbench.paths import home as home_folder
from oodbench.yaml_files import load_yaml
from oodbench.zoo.cards import Card


def stumbling(error):
    @click.group(cls=edge.Commands)
    def group():
        pass

    @group.command()
    def stumble():
        raise error

    result = CliRunner().invoke(group, ["stumble"])
    assert "Traceback" not in result.output + result.stderr
    return result.exit_code, " ".join((result.output + result.stderr).split())


def test_an_unforeseen_fault_is_one_sentence_and_a_file(home):
    code, said = stumbling(ZeroDivisionError("division\nby zero"))
    assert code == 70
    assert "oodbench stumbled (ZeroDivisionError: division by zero)" in said
    assert "please report it with that file" in said
    (file,) = (home / "errors").glob("*.txt")
    assert str(file) in said
    text = file.read_text()
    assert "Traceback (most recent call last)" in text
    assert "ZeroDivisionError" in text
    assert f"python {sys.version_info.major}" in text


def test_a_fault_without_words_and_a_home_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OODBENCH_HOME", str(tmp_path / "file" / "home"))
    code, said = stumbling(KeyError())
    assert code == 70
    assert "oodbench stumbled (KeyError)" in said
    assert "Traceback" in Path(said.split("traceback is in ")[1].split(": please")[0]).read_text()


@pytest.mark.parametrize(("error", "sentence"), [
    (PermissionError(errno.EACCES, "Permission denied", "rows.jsonl"), "rows.jsonl: Permission denied"),
    (OSError(errno.ENOSPC, "No space left on device", "x"), "x: No space left on device"),
    (MemoryError(), "the memory of this machine does not suffice"),
    (SuiteError("a fault of the user's"), "a fault of the user's"),
])  # fmt: skip
def test_faults_of_the_machine_and_of_the_user_are_no_fault_of_ours(home, error, sentence):
    code, said = stumbling(error)
    assert code == 1
    assert sentence in said
    assert not (home / "errors").exists()


def test_every_exit_code_is_documented():
    page = (Path(__file__).parents[1] / "docs" / "errors.md").read_text("utf-8")
    for code in (0, 1, 2, edge.UNFORESEEN, edge.INTERRUPTED, *edge.STOPPED):
        assert f"| {code} |" in page


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_signs_that_a_terminal_lacks_are_written_plainly(encoding, monkeypatch):
    kept = io.BytesIO()
    stream = io.TextIOWrapper(kept, encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    edge.use_plain_signs()
    print("▼ a → b ‡ 日本")
    assert kept.getvalue().decode(encoding).strip() == "v a -> b ++ \\u65e5\\u672c".replace(
        "++", "++" if encoding != "cp1252" else "‡"
    )


def test_an_empty_home_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("OODBENCH_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_folder() == tmp_path / ".cache" / "oodbench"


CARD = "name: g\nfamily: glow\nconfig: {shape: [1, 28, 28]}\ntrained_on: mnist\nlikelihood: exact\n"


@pytest.mark.parametrize(("more", "sentence"), [
    ("? [a, b]\n: c\n", "card.yaml:6: not valid YAML: a key must be one name, not a list or a mapping"),
    ("? {a: b}\n: c\n", "a key must be one name"),
    ("licence: 2026-13-45\n", "not valid YAML"),
    ("1: x\n", "the field 1 is no text"),
    ("reported: {x: !!python/object:os.system {}}\n", "not valid YAML"),
    ("'[x': 1\n", "card.yaml:6: [x: no such field"),
    ("hosted: {repo: a/b, revision: 4e5}\n", "hosted.revision: Input should be a valid string"),
])  # fmt: skip
def test_odd_yaml_is_a_sentence(tmp_path, more, sentence):
    (tmp_path / "card.yaml").write_text(CARD + more)
    with pytest.raises(SuiteError) as raised:
        load_yaml(tmp_path / "card.yaml", Card, folder=tmp_path)
    assert sentence in str(raised.value)


def test_a_hash_that_begins_like_a_number_is_text(tmp_path):
    (tmp_path / "card.yaml").write_text(
        CARD + "hosted: {repo: a/b, revision: 4e5f6a7}\nreported: {x: 1e5abc}\n"
    )
    card = load_yaml(tmp_path / "card.yaml", Card, folder=tmp_path)
    assert (card.hosted.revision, card.reported["x"]) == ("4e5f6a7", "1e5abc")
