"""What can be named: one rule for names, one owner a name, and plugins that are what their files say."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

import pytest

from oodbench import errors
from oodbench.errors import OodbenchError, ScorerError, UnknownNameError
from oodbench.names import checked_identifier, checked_name
from oodbench.registry import (
    Source,
    load_plugin,
    models,
    register_model,
    register_scorer,
    register_statistics,
    registered_by,
    scorers,
    statistics,
)
from oodbench.zoo.cards import ZOO

HEAD = "import oodbench as ob\n"
SCORER = HEAD + "@ob.register_scorer('{name}')\ndef mine(pixel_mean):\n    return {body}\n"


@pytest.fixture(autouse=True)
def _only_for_one_test():
    kinds = (statistics, scorers, models)
    len(statistics), len(scorers)
    before = [(dict(kind._entries), dict(kind._sources)) for kind in kinds]
    yield
    for kind, (entries, sources) in zip(kinds, before, strict=True):
        kind._entries, kind._sources = entries, sources


@pytest.mark.parametrize(
    "name", ["a", "glow-small_1.5", "β-vae", "3d", "x" * 100, "k=64", "a+b", "हिन्दी", "模型"]
)
def test_names(name):
    assert checked_name("model", name) == name


@pytest.mark.parametrize(
    "name", ["", " a", "a b", "a/b", "two\u2028lines", "-a", ".a", "x" * 101, "a\n", "a\x00", "|", "a*", "\u202ea", "e\u0301", 3]
)  # fmt: skip
def test_what_is_no_name_is_refused_with_its_repr(name):
    with pytest.raises(OodbenchError, match="model") as refused:
        checked_name("model", name)
    assert repr(name) in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["a-b", "1a", "class", "ﬁt"])
def test_a_statistic_is_an_argument_too(name):
    with pytest.raises(OodbenchError, match="argument of a Python function"):
        checked_identifier("statistic", name)


def test_everything_that_is_shipped_has_a_name():
    for kind in (statistics, scorers):
        assert [checked_name(kind.kind, name) for name in kind] == list(kind)
    assert all(checked_name("model", folder.name) for folder in ZOO.iterdir())


CARD = next(folder.name for folder in sorted(ZOO.iterdir()) if folder.is_dir())
SHADOWS = [
    (
        "@ob.register_scorer('likelihood')\ndef f(pixel_mean):\n    return pixel_mean\n",
        "density.py",
    ),
    (
        "@ob.register_statistics({'log_prob': '1'}, version='1')\ndef f(model, x):\n    pass\n",
        "density.py",
    ),
    (f"@ob.register_model({CARD!r})\nclass M:\n    pass\n", CARD),
]


@pytest.mark.parametrize(("code", "place"), SHADOWS, ids=["scorer", "statistic", "model"])
def test_a_shipped_name_is_refused_with_both_places(tmp_path, code, place):
    path = tmp_path / "mine.py"
    path.write_text(HEAD + code)
    with pytest.raises(ScorerError, match="is taken, by") as refused:
        load_plugin(path)
    assert str(path) in str(refused.value)
    assert place in str(refused.value)


def test_a_shipped_name_is_refused_before_anything_was_looked_up():
    program = (
        "import oodbench as ob\ntry: ob.register_scorer('likelihood')(lambda log_prob: log_prob)\n"
        "except Exception as error: print(type(error).__name__)\nprint(ob.scorer('typicality').name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["ScorerError", "typicality"]


def test_two_statistics_of_one_function_name_are_two():
    def make(name, value):
        def mine(images):
            return {name: images.mean((1, 2, 3)) + value}

        register_statistics({name: "1"}, version="1", model_free=True)(mine)

    make("first", 1.0), make("second", 1.0)
    before = statistics["first"].identity
    assert before != statistics["second"].identity
    make("first", 2.0)
    assert statistics["first"].identity != before
    make("first", 1.0)
    assert statistics["first"].identity == before


def test_versions_of_libraries_stand_apart_from_that_of_the_statistic():
    png = statistics["code_length_png"]
    assert "zlib" not in png.version
    assert png.identity == f"code_length_png:{png.version}:{png.built_with}"
    assert statistics["log_prob"].identity == f"density:{statistics['log_prob'].version}"


def test_a_notebook_cell_that_runs_again_replaces_its_entry():
    identities = []
    for cell, body in (("111", "-log_prob"), ("222", "log_prob"), ("333", "log_prob  # the same")):
        code = f"import oodbench as ob\n@ob.register_scorer('cell')\ndef cell(log_prob):\n    return {body}\n"
        exec(compile(code, f"ipykernel_1/{cell}.py", "exec"), {"__name__": "__main__"})
        identities.append(scorers["cell"].identity)
    assert identities[0] != identities[1] == identities[2]
    assert "cell" in scorers.local


def test_a_class_typed_without_a_file_registers():
    code = (
        "import oodbench as ob\n@ob.register_scorer('typed')\nclass Typed:\n    q = 0.5\n"
        "    def score(self, log_prob):\n        return self.q * log_prob\nprint(ob.scorer('typed').digest)"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-"], input=text, capture_output=True, text=True, check=True
        ).stdout
        for text in (code, code, code.replace("0.5", "0.6"))
    ]
    assert printed[0] == printed[1] != printed[2]


PLUGIN = """import helper
import oodbench as ob
SIGN = {sign}
@ob.register_scorer('mine', cite='{cite}')
class Mine:
    {doc}
    k = {k}
    def score(self, pixel_mean):
        return helper.A * SIGN * self.k * pixel_mean
"""
PLAIN = {"sign": "+1", "cite": "", "doc": "'''Words.'''", "k": "1"}


def written(folder, helper="A = 1\n", **changes):
    folder.mkdir(exist_ok=True)
    (folder / "helper.py").write_text(helper)
    (folder / "mine.py").write_text(PLUGIN.format(**PLAIN | changes))
    return folder / "mine.py"


@pytest.mark.parametrize(
    "change", [{"sign": "-1"}, {"k": "2"}, {"cite": "me"}, {"helper": "A = 2\n"}], ids=str
)
def test_an_edit_between_two_loads_is_another_scorer_with_other_numbers(tmp_path, change):
    first = load_plugin(written(tmp_path / "p"))
    identity, number = scorers["mine"].identity, scorers["mine"].score(3.0)
    again = load_plugin(written(tmp_path / "p", **change))
    assert again != first
    assert scorers["mine"].identity != identity
    assert "cite" in change or scorers["mine"].score(3.0) != number
    assert load_plugin(written(tmp_path / "p")) == first
    assert scorers["mine"].score(3.0) == number


def test_a_comment_a_docstring_and_a_move_change_nothing(tmp_path):
    first = load_plugin(written(tmp_path / "p"))
    assert (
        load_plugin(
            written(
                tmp_path / "p",
                doc="'''Others.'''\n\n    # why",
                helper="'''Doc.'''\n\nA = 1  # one\n",
            )
        )
        == first
    )
    scorers.drop(tmp_path / "p" / "mine.py")
    assert load_plugin(written(tmp_path / "q")) == first


def test_what_an_edited_plugin_no_longer_registers_is_gone(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SCORER.format(name="old", body="pixel_mean"))
    load_plugin(path)
    path.write_text(SCORER.format(name="new", body="pixel_mean"))
    load_plugin(path)
    assert "old" not in scorers
    assert registered_by(path) == (["new"], [])


NEIGHBOURS = """import helper
import oodbench as ob
import pkg.deep
from . import helper as h
from helper import A
from pkg.deep import B
@ob.register_scorer('{name}')
def f(pixel_mean):
    import later
    return (helper.A, A, B, pkg.deep.B, h.A, later.C)
"""


def test_each_plugin_has_its_own_neighbours(tmp_path):
    for number, name in enumerate(("one", "two")):
        folder = tmp_path / name
        (folder / "pkg").mkdir(parents=True)
        (folder / "pkg" / "deep.py").write_text("from helper import A\nB = A + 10\n")
        (folder / "helper.py").write_text(f"A = {number}\n")
        (folder / "later.py").write_text("import helper\nC = helper.A + 20\n")
        (folder / "mine.py").write_text(NEIGHBOURS.format(name=name))
        load_plugin(folder / "mine.py")
    for number, name in enumerate(("one", "two")):
        assert scorers[name].score(0) == (
            number,
            number,
            number + 10,
            number + 10,
            number,
            number + 20,
        )
    assert not {"helper", "pkg", "later"} & sys.modules.keys()


def test_an_import_inside_a_function_counts(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        SCORER.format(name="late", body="__import__ and late(pixel_mean)")
        + "def late(x):\n    from beside import K\n    return K * x\n"
    )
    (tmp_path / "beside.py").write_text("K = 2\n")
    (tmp_path / "other.py").write_text("K = 2\n")
    first = load_plugin(path)
    (tmp_path / "other.py").write_text("K = 3\n")
    assert load_plugin(path) == first
    (tmp_path / "beside.py").write_text("K = 3\n")
    assert load_plugin(path) != first
    assert scorers["late"].score(1) == 3


def test_a_plugin_that_raises_leaves_nothing(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SCORER.format(name="half", body="pixel_mean") + "1 / 0\n")
    with pytest.raises(OodbenchError, match=r"mine.py, line 5 raised ZeroDivisionError"):
        load_plugin(path)
    assert "half" not in scorers


def test_entries_of_plugins_are_known_to_workers_and_those_of_scripts_are_not(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(HEAD + "@ob.register_model('theirs')\nclass M:\n    pass\n")
    before = set(models.local)  # models that other tests typed
    digest = load_plugin(path)
    register_model("ours")(lambda: None)
    assert models.local - before == {"ours"}
    assert models.digest("theirs") == digest
    assert registered_by(path) == ([], ["theirs"])


def test_a_tunes_on_that_does_not_exist_is_refused():
    with pytest.raises(ScorerError, match="validation ood"):
        register_scorer("typo", tunes_on="validation ood")


def test_a_scorer_outside_any_file_is_this_notebooks():
    assert (
        Source.of(eval("lambda x: x", {"__name__": "__main__"}), "").place
        == "this notebook or script"
    )


KINDS_OF_ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, OodbenchError)
]


@pytest.mark.parametrize("kind", KINDS_OF_ERRORS, ids=lambda kind: kind.__name__)
def test_errors_survive_the_way_home_from_a_worker(kind):
    error = (
        kind("statistic", "x", ["xy"], "hint") if kind is UnknownNameError else kind("one sentence")
    )
    home = pickle.loads(pickle.dumps(error))
    assert (type(home), str(home), vars(home)) == (kind, str(error), vars(error))
