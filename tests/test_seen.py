"""What a scorer has seen: models, training images, validation sets. What no author declares is derived."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import oodbench as ob
from oodbench import cli
from oodbench.registry import load_plugin, register_scorer, scorers, statistics
from oodbench.testing import check_scorer
from oodbench.types import split_need


@pytest.fixture(autouse=True)
def _scorers_of_one_test():
    len(scorers)
    before = dict(scorers._entries), dict(scorers._sources)
    yield
    scorers._entries, scorers._sources = before


# --- a baseline is what needs no model, whatever its author says


@pytest.mark.parametrize("said", [None, False, True])
def test_a_scorer_of_pixel_numbers_alone_is_a_baseline(said):
    register_scorer("sizes", baseline=said)(lambda pixel_mean, code_length_png: pixel_mean)
    assert ob.scorer("sizes").baseline


@pytest.mark.parametrize("said", [None, False, True])
def test_a_scorer_that_reads_a_model_is_no_baseline(said):
    class Fitted:
        def fit(self, log_prob):
            return log_prob.mean()

        def score(self, mean, pixel_mean):
            return pixel_mean

    register_scorer("fits", baseline=said)(Fitted)
    register_scorer("reads", baseline=said)(lambda pixel_mean, background_log_prob: pixel_mean)
    assert not ob.scorer("fits").baseline
    assert not ob.scorer("reads").baseline


def test_every_shipped_baseline_is_one_by_its_needs():
    for scorer in scorers.values():
        free = [statistics[split_need(need)[0]].model_free for need in scorer.all_needs]
        assert scorer.baseline is all(free)
        assert scorer.said_baseline is None
    assert {"code-length-png", "pixel-mean"} <= {s.name for s in scorers.values() if s.baseline}


def test_check_says_where_an_author_is_wrong():
    register_scorer("sizes", baseline=False)(lambda pixel_mean: pixel_mean)
    register_scorer("reads", baseline=True)(lambda log_prob: -log_prob)
    (of_sizes,), (of_reads,) = (check_scorer(ob.scorer(name)) for name in ("sizes", "reads"))
    assert "nothing that it needs is a model's: it is ranked among the baselines" in of_sizes
    assert "log_prob is a model's: it is ranked among the scorers of models" in of_reads


def test_check_says_that_a_scorer_is_a_baseline(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import oodbench as ob\n@ob.register_scorer('bright')\ndef bright(pixel_mean): return pixel_mean\n"
        "@ob.register_scorer('dark')\ndef dark(log_prob): return -log_prob\n"
    )
    load_plugin(plugin)
    said = CliRunner().invoke(cli.main, ["check", str(plugin)])
    assert said.exit_code == 0, said.output
    passed = "all contract tests passed"
    assert said.output.splitlines() == [
        f"bright: {passed} (model-free: it is ranked among the baselines)",
        f"dark: {passed}",
    ]
