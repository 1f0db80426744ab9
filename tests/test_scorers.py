"""Scorers against their formulas, and the contract of every registered one."""

from __future__ import annotations

import numpy as np
import pytest

import oodbench as ob
from oodbench.errors import ScorerError, UnknownNameError
from oodbench.evaluate import group_means
from oodbench.registry import register_scorer, scorers
from oodbench.testing import check_scorer


@pytest.fixture
def columns(random):
    return {
        "log_prob": random.normal(-3000, 300, 50),
        "background_log_prob": random.normal(-3500, 300, 50),
        "ensemble_log_prob": random.normal(-3000, 300, (50, 5)),
        "code_length_png": random.normal(3000, 200, 50),
        "code_length_jp2": random.normal(2500, 200, 50),
        "pixel_mean": random.uniform(size=50),
        "pixel_variance": random.uniform(size=50),
    }


FORMULAS = {
    "likelihood": lambda c, i, entropy: -c["log_prob"][i],
    "typicality": lambda c, i, entropy: abs(-c["log_prob"][i] - entropy),
    "likelihood-ratio": lambda c, i, entropy: -(c["log_prob"][i] - c["background_log_prob"][i]),
    "waic": lambda c, i, entropy: np.var(c["ensemble_log_prob"][i]) - sum(c["ensemble_log_prob"][i]) / 5,
    "input-complexity-png": lambda c, i, entropy: -c["log_prob"][i] - c["code_length_png"][i],
    "input-complexity-jp2": lambda c, i, entropy: -c["log_prob"][i] - c["code_length_jp2"][i],
    "code-length-png": lambda c, i, entropy: c["code_length_png"][i],
    "pixel-variance": lambda c, i, entropy: c["pixel_variance"][i],
    "pixel-mean": lambda c, i, entropy: c["pixel_mean"][i],
}


@pytest.mark.parametrize("name", FORMULAS)
def test_scores_follow_their_formula(name, columns):
    reference = {key: column[:20] for key, column in columns.items()}
    entropy = sum(-value for value in reference["log_prob"]) / 20
    found = ob.scorer(name).fitted(reference)(columns)
    assert found == pytest.approx([FORMULAS[name](columns, i, entropy) for i in range(50)])


@pytest.mark.parametrize("name", FORMULAS)
def test_every_scorer_keeps_the_contract_on_real_columns(name):
    assert check_scorer(ob.scorer(name)) == []


def test_the_table_above_names_every_built_in_scorer():
    built_in = {name for name, scorer in scorers.items() if "/oodbench/scorers/" in scorer.origin}
    assert built_in == set(FORMULAS)


def test_more_unlike_images_score_higher(columns):
    """On a toy where the OOD images are far less likely, less compressible than the model, and atypical."""
    far = {**columns, "log_prob": columns["log_prob"] - 3000}
    for name in ("likelihood", "typicality", "likelihood-ratio", "input-complexity-png"):
        score = ob.scorer(name).fitted(columns)
        assert ob.auroc(score(columns), score(far)).value > 0.95


def test_groups_are_disjoint_means(columns):
    grouped = group_means(columns, 7, seed=3)
    assert all(len(column) == 7 for column in grouped.values())  # 50 = 7·7 + 1 left over
    assert grouped["log_prob"].mean() == pytest.approx(columns["log_prob"].mean(), rel=0.01)
    again = group_means(columns, 7, seed=3)
    assert all(np.array_equal(grouped[name], again[name]) for name in columns)
    assert group_means(columns, 1, seed=3) is columns


def test_too_few_images_for_groups(columns):
    with pytest.raises(Exception, match="50 images make fewer than two groups of 26"):
        group_means(columns, 26, seed=0)


def test_a_scorer_s_arguments_are_checked():
    with pytest.raises(ScorerError, match="asks for 'log_prb', which is no statistic; did you mean 'log_prob'"):
        register_scorer("bad")(lambda log_prb: log_prb)
    with pytest.raises(ScorerError, match=r"takes \*args"):
        register_scorer("bad")(lambda *columns: columns[0])
    with pytest.raises(ScorerError, match="without a method `score`"):
        register_scorer("bad")(type("NoScore", (), {}))
    with pytest.raises(ScorerError, match="'likelihood' is taken"):
        register_scorer("likelihood")(lambda log_prob: log_prob)
    with pytest.raises(UnknownNameError, match="did you mean 'typicality'"):
        ob.scorer("tipicality")


def registered(code):
    name = f"probe-{code.__name__}"
    register_scorer(name)(code)
    return ob.scorer(name)


def looks_at_others(log_prob):
    return log_prob - log_prob.mean()


def one_number(log_prob):
    return log_prob.mean()


def labels(log_prob):
    return (log_prob > -3000).astype(int)


def in_place(log_prob):
    log_prob *= -1
    return log_prob


def not_finite(log_prob):
    return np.log(log_prob)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (looks_at_others, "depends on the other test images"),
        (one_number, "one score an image"),
        (labels, "not labels"),
        (in_place, "copy one before changing it"),
        (not_finite, "40 scores are NaN or infinite"),
    ],
)
def test_each_broken_promise_of_a_scorer_has_its_sentence(code, sentence):
    try:
        assert any(sentence in fault for fault in check_scorer(registered(code)))
    finally:
        scorers._entries.pop(f"probe-{code.__name__}", None)
