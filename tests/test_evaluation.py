"""Notebooks and scripts: what is typed into a cell works, a table in one call, and the scores of a run."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import oodbench as ob
from oodbench.errors import DataError, ModelError, StoreError, UnknownNameError
from oodbench.registry import models, scorers
from oodbench.testing import PixelHistogram
from oodbench.trials.scores import read_scores

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"


@pytest.fixture(scope="module")
def histogram():
    return PixelHistogram(ob.load_images("fashionmnist/ref[:60]").images)


@pytest.fixture
def arrays():
    return {name: ob.load_images(f"{name}/test[:25]").images for name in ("fashionmnist", "mnist")}


def test_a_model_object_and_arrays_give_a_table(home, histogram, arrays, tmp_path):
    table = ob.evaluate(
        histogram,
        arrays["fashionmnist"],
        {"digits": arrays["mnist"]},
        "likelihood",
        out=tmp_path / "out",
    )
    assert table.loc[0, ["model", "ood", "scorer", "status"]].tolist() == [
        "PixelHistogram",
        "digits/all",
        "likelihood",
        "ok",
    ]
    import torch

    test, ood = (
        -histogram.log_prob(torch.from_numpy(np.array(one))).numpy() for one in arrays.values()
    )
    scores = ob.scores(tmp_path / "out", scorer="likelihood")
    found = scores[scores.side == "ood"].sort_values("image").score
    assert found.to_numpy() == pytest.approx(ood)
    assert (
        ob.auroc(scores[scores.side == "in"].score.to_numpy(), found.to_numpy()).value
        == table.auroc[0]
    )
    assert "PixelHistogram" not in models
    assert set(test) >= set(scores[scores.side == "in"].score)


def test_scores_are_those_of_the_run_and_stand_once(home, histogram, tmp_path):
    ob.evaluate(
        histogram,
        "fashionmnist",
        ["mnist", "noise"],
        ["likelihood", "pixel-mean"],
        limit=20,
        out=tmp_path,
    )
    table = ob.scores(tmp_path)
    assert len(table) == 2 * 3 * 20
    one = ob.scores(tmp_path, scorer="pixel-mean", ood="noise")
    from oodbench.store import read_rows

    (row,) = [
        row
        for row in read_rows(tmp_path / "rows.jsonl")
        if (row["scorer"], row["ood_name"]) == ("pixel-mean", "noise")
    ]
    test, ood = read_scores(tmp_path, row)
    assert one[one.side == "in"].score.tolist() == test.tolist()
    assert one[one.side == "ood"].score.tolist() == ood.tolist()
    with pytest.raises(
        StoreError, match="has no scores of scorer 'pixel-men'; there are model: PixelHistogram"
    ):
        ob.scores(tmp_path, scorer="pixel-men")
    with pytest.raises(StoreError, match="no rows with scores"):
        ob.scores(tmp_path / "nothing")


def test_what_cannot_be_evaluated_is_a_sentence(home, histogram, arrays):
    with pytest.raises(ModelError, match=r"3 is no model: it has no method log_prob"):
        ob.evaluate(3, "fashionmnist", "mnist")
    with pytest.raises(DataError, match="there is no OOD set"):
        ob.evaluate(histogram, "fashionmnist", [])
    with pytest.raises(DataError, match="uint8"):
        ob.evaluate(histogram, arrays["mnist"].astype(np.int64), "mnist")
    with pytest.raises(UnknownNameError, match="did you mean"):
        ob.evaluate(histogram, "fashionmnst", "mnist")
    with pytest.raises(UnknownNameError, match="did you mean"):
        ob.evaluate("glow-fashionmnst", "fashionmnist", "mnist")


def test_one_name_may_stand_alone(home, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import oodbench as ob\n@ob.register_scorer('alone')\ndef alone(pixel_mean): return pixel_mean\n"
    )
    (tmp_path / "s.yaml").write_text(
        "name: s\ntitle: t\nmodels: [glow-small-fashionmnist-1]\nlimit: 12\nbootstrap: 0\n"
        "pairs: [{in_dist: fashionmnist, ood: [mnist]}]\nscorers: [pixel-variance, pixel-mean]\n"
    )
    table = ob.run(
        str(tmp_path / "s.yaml"),
        tmp_path / "out",
        only="alone",
        plugins=str(tmp_path / "mine.py"),
        workers=1,
    )
    assert table.scorer.tolist() == ["alone"]
    scorers.drop((tmp_path / "mine.py").resolve())


def typed(code):
    """What a script prints that is piped into Python, as a notebook's cells are: no file holds its code."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-"],
        input=textwrap.dedent(code),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


def test_cells_work_replace_and_break_nothing(home):
    said = typed("""
        import oodbench as ob
        from oodbench.errors import ScorerError

        def cell(number, source):  # as ipykernel runs one: a file name that does not exist, made of the content
            exec(compile(source, f"/tmp/ipykernel_1/{number}.py", "exec"), namespace)

        namespace = {"__name__": "__main__", "ob": ob}
        scorer = '''
        @ob.register_scorer("typed")
        class Typed:
            def fit(self, log_prob): return log_prob.mean()
            def score(self, mean, log_prob): return %s(log_prob - mean)
        '''
        model = '''
        @ob.register_model("typed")
        class Model:
            shape = (1, 28, 28)
            def log_prob(self, x): return %s * x.double().flatten(1).sum(1)
        '''
        for number, (sign, factor) in enumerate((("+", -1), ("-", -2))):
            cell(10 * number, scorer % sign)
            cell(10 * number + 1, model % factor)
            fitted = ob.scorer("typed").fitted({"log_prob": __import__("numpy").zeros(3)})
            print(float(fitted({"log_prob": __import__("numpy").ones(1)})[0]))
            images = ob.load_images("mnist/test[:1]")
            print(float(ob.measure(ob.load_model("typed"), images, "log_prob")["log_prob"][0] / images.images.sum()))
        for shadow in ("likelihood", "likelihood"):
            try:
                cell(99, f"@ob.register_scorer('{shadow}')\\ndef mine(log_prob): return log_prob")
            except ScorerError as error:
                print(str(error)[:43])
        print([ob.scorer(name).name for name in ("likelihood", "typicality", "dose-kde", "typed")])
    """)
    assert said[:4] == ["1.0", "-1.0", "-1.0", "-2.0"]
    assert said[4:6] == ["the scorer name 'likelihood' is taken, by /"] * 2
    assert said[6] == "['likelihood', 'typicality', 'dose-kde', 'typed']"


def test_an_edited_model_of_a_cell_gives_other_rows(home, tmp_path):
    aurocs = []
    for sign in (-1.0, 1.0):

        class Typed:
            shape = (1, 28, 28)
            likelihood = "exact"
            sign = 0.0

            def log_prob(self, images):
                return -3000 + self.sign * images.double().flatten(1).mean(1)

        Typed.sign = sign
        table = ob.evaluate(Typed, "fashionmnist", "mnist", "likelihood", limit=20, out=tmp_path)
        aurocs += table.auroc.tolist()
    assert aurocs[0] == pytest.approx(1 - aurocs[1])


def test_the_plotting_backend_of_a_notebook_stays(home):
    said = typed("""
        import matplotlib
        matplotlib.use("svg")
        from matplotlib import pyplot
        import oodbench as ob
        from oodbench.testing import UniformModel
        pyplot.figure()
        ob.evaluate(UniformModel(), "fashionmnist", "mnist", "pixel-mean", limit=5)
        print(matplotlib.get_backend(), pyplot.get_fignums())
    """)
    assert said[0] == "svg [1]"


def test_the_api_is_shown():
    assert {"evaluate", "scores", "OutlierDetector", "run", "measure", "load_images"} <= set(
        dir(ob)
    )


def test_notebooks_are_stored_without_output_and_hold_no_path():
    found = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert len(found) == 2
    for path in found:
        text = path.read_text("utf-8")
        assert '"outputs": []' in text
        assert '"output_type"' not in text
        assert "/home/" not in text
        assert "/root" not in text


@pytest.mark.slow
def test_notebooks_run(home):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    subprocess.run([sys.executable, str(NOTEBOOKS / "execute.py")], check=True)
