"""Suite files: strict YAML, every fault at once with file, line, field and the nearest valid name."""

from __future__ import annotations

import pytest

from oodbench.errors import SuiteError, UnknownNameError
from oodbench.suite import load_suite, suite_names
from oodbench.yaml_files import load_yaml
from oodbench.zoo.cards import Card

GOOD = """\
name: mine
title: Mine
models: [glow-fashionmnist]
pairs:
  - {in_dist: fashionmnist, ood: [mnist]}
scorers: [likelihood]
"""


def fault(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SuiteError) as raised:
        load_suite(str(path))
    return str(raised.value).replace(str(tmp_path), "")


def test_shipped_suites_load():
    assert {"paper", "quick"} <= set(suite_names())
    assert all(load_suite(name).name == name for name in suite_names())


def test_unknown_suites_offer_the_nearest():
    with pytest.raises(
        UnknownNameError,
        match=r"no suite is called 'papr'; did you mean 'paper'\? A path to a \.yaml",
    ):
        load_suite("papr")


def test_a_good_file_loads(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD + "limit: 1e2\n")
    assert load_suite(str(tmp_path / "mine.yaml")).limit == 100


def test_a_model_s_own_limit_makes_a_suite_s_smaller_and_never_larger(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD + "limits: {glow-fashionmnist: 30}\n")
    suite = load_suite(str(tmp_path / "mine.yaml"))
    assert (suite.limit_of("glow-fashionmnist"), suite.limit_of("other")) == (30, None)
    limited = suite.model_copy(update={"limit": 20})
    assert (limited.limit_of("glow-fashionmnist"), limited.limit_of("other")) == (20, 20)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t + "sed: 3\n", "/mine.yaml:7: sed: no such field; did you mean 'seed'?"),
        (
            lambda t: t.replace("ood:", "odd:"),
            "/mine.yaml:5: pairs.0.odd: no such field; did you mean 'ood'?",
        ),
        (lambda t: t + "limit: many\n", "/mine.yaml:7: limit: Input should be a valid integer"),
        (
            lambda t: t + "limits: {glow-fashionmist: 3}\n",
            "limits name the model 'glow-fashionmist', which the suite's models do not; did you mean 'glow-fashionmnist'?",
        ),
        (lambda t: t + "limit: 0\n", "/mine.yaml:7: limit: Input should be greater than 0"),
        (
            lambda t: t.replace("[likelihood]", "likelihood"),
            "/mine.yaml:6: scorers: Input should be a valid list",
        ),
        (lambda t: t.replace("title: Mine\n", ""), "title: Field required"),
        (
            lambda t: t + "title: Other\n",
            "/mine.yaml:7: not valid YAML: the key 'title' stands twice",
        ),
        (lambda t: t + "about: [\n", "not valid YAML"),
        (lambda t: "just text", "expected `field: value` lines, found str"),
    ],
)
def test_faults_name_line_and_field(tmp_path, change, sentence):
    assert sentence in fault(tmp_path, change(GOOD))


def test_all_faults_are_told_at_once(tmp_path):
    assert len(fault(tmp_path, GOOD + "sed: 3\nlimit: many\n").splitlines()) == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SuiteError, match=r"none\.yaml cannot be read"):
        load_suite(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hosted: {repo: a/b, revision: 4e5f6a7}", ""),
        ("hosted: {repo: a/b, revision: 1e10}", "hosted.revision: "),
        ("? [a, b]\n: c", "a key must be one name, not a list or a mapping"),
        ("? {a: b}\n: c", "a key must be one name, not a list or a mapping"),
        ("~: c", "the field None is no text; put quotes around it"),
        ("1: c", "the field 1 is no text; put quotes around it"),
        ("reported: {x: 2026-13-45}", "not valid YAML"),
    ],
)
def test_what_only_looks_like_a_number_is_text_and_no_key_is_raw(tmp_path, line, said):
    path = tmp_path / "card.yaml"
    card = "name: g\nfamily: glow\nconfig: {shape: [1, 28, 28]}\ntrained_on: mnist\nlikelihood: exact\n"
    path.write_text(card + line)
    if not said:
        assert load_yaml(path, Card, folder=tmp_path).hosted.revision == "4e5f6a7"
        return
    with pytest.raises(SuiteError) as raised:
        load_yaml(path, Card, folder=tmp_path)
    assert said in str(raised.value)
    assert str(path) in str(raised.value)
