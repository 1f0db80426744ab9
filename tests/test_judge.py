"""Numbers made elsewhere: read right or refused, told what is wrong with them, judged as a run judges."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import oodbench as ob
from oodbench.cli import main
from oodbench.data.division import image_digests
from oodbench.errors import DataError
from oodbench.judging import Given, judge, judgement
from oodbench.report import check_report
from oodbench.runner import Options, run_suite
from oodbench.store import read_rows
from oodbench.suite import Suite
from oodbench.trials.given import About
from oodbench.trials.number_files import read_numbers
from oodbench.trials.recount import score_faults

ABOUT = About("s", "mine", "exact", 784, bootstrap=20)


@pytest.fixture
def columns(random):
    def of(shift, n=80):
        log_prob = random.normal(-2000 + shift, 100, n)
        return {"log_prob": log_prob, "code_length_png": random.normal(1500, 50, n)}

    return {"in": of(0), "ood": of(150), "ref": of(0)}


@pytest.fixture
def files(columns, tmp_path):
    for name, own in columns.items():
        np.savez(tmp_path / f"{name}.npz", **own)
    return tmp_path


def given(files, **more):
    return Given(("fashion", files / "in.npz"), [("digits", files / "ood.npz")], **more)


def rows_of(found):
    return {one.row["scorer"]: one.row for one in found.judged}


def rewrite(files, name, **columns):
    with np.load(files / f"{name}.npz") as archive:
        kept = dict(archive) | columns
    np.savez(files / f"{name}.npz", **{name: one for name, one in kept.items() if one is not None})


def test_rows_are_what_the_numbers_give(files, columns):
    found = judgement(given(files, ref=files / "ref.npz"), ABOUT)
    rows = rows_of(found)
    assert {"likelihood", "typicality", "input-complexity-png", "code-length-png"} <= rows.keys()
    test, ood, ref = (columns[name]["log_prob"] for name in ("in", "ood", "ref"))
    assert rows["likelihood"]["auroc"] == ob.auroc(-test, -ood).value
    entropy = -ref.mean()
    assert rows["typicality"]["auroc"] == ob.auroc(abs(-test - entropy), abs(-ood - entropy)).value
    assert rows["likelihood"]["in_dist_bits_per_dim"] == pytest.approx(
        -test.mean() / 784 / np.log(2)
    )
    assert rows["code-length-png"]["baseline"]
    assert rows["typicality"]["ref"] == "fashion-ref"
    (comparison,) = found.comparisons
    assert set(comparison["scorers"]) == rows.keys()


def test_what_is_stored_is_what_a_run_stores(files, tmp_path):
    rows, _ = judge(given(files, ref=files / "ref.npz"), ABOUT, tmp_path / "out")
    assert {row["status"] for row in rows} == {"ok"}
    assert check_report(tmp_path / "out") == []
    assert score_faults(tmp_path / "out") == []
    suite = Suite(name="t", title="t", models=["glow-small-fashionmnist-1"], limit=12, bootstrap=0, scorers=["typicality"],
                  pairs=[{"in_dist": "fashionmnist", "ood": ["mnist"]}])  # fmt: skip
    (measured,) = run_suite(suite, Options(), tmp_path / "run")
    (mine,) = [row for row in rows if row["scorer"] == "typicality"]
    assert mine.keys() == measured.keys()
    again, _ = judge(given(files, ref=files / "ref.npz"), ABOUT, tmp_path / "out")
    assert again == rows


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_other_kinds_of_files_hold_the_same(files, columns, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    for name, own in columns.items():
        frame = pd.DataFrame(own)
        path = files / f"{name}.{kind}"
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    pair = Given(("fashion", files / f"in.{kind}"), [("digits", files / f"ood.{kind}")])
    one, other = (rows_of(judgement(asked, ABOUT))["likelihood"] for asked in (pair, given(files)))
    assert (one["auroc"], one["scores"]) == (other["auroc"], other["scores"])


def test_finished_scores_point_where_they_are_said_to(files, columns):
    for name in ("in", "ood"):
        rewrite(files, name, energy=columns[name]["log_prob"])
    larger = judgement(given(files, larger=["energy"]), ABOUT)
    smaller = judgement(given(files, smaller=["energy"]), ABOUT)
    auroc = rows_of(larger)["energy"]["auroc"]
    assert rows_of(smaller)["minus-energy"]["auroc"] == pytest.approx(1 - auroc)
    wrong = larger if auroc < 0.5 else smaller
    assert any("worse than chance as declared" in one for one in wrong.remarks)
    assert not any(
        "worse than chance" in one for one in (smaller if wrong is larger else larger).remarks
    )
    undeclared = judgement(given(files), ABOUT)
    assert "energy" not in rows_of(undeclared)
    assert any("say which way it points: --larger-ood energy" in one for one in undeclared.remarks)


TOLD = [
    ("NaN", {"log_prob": lambda x: np.where(np.arange(len(x)) < 3, np.nan, x)}, "3 NaN among 80 values of log_prob on fashion"),
    ("−inf",
     {"log_prob": lambda x: np.where(np.arange(len(x)) < 2, -np.inf, x)},
     "2 −inf among 80 values of log_prob on fashion; −inf is"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"), [one[1:] for one in TOLD], ids=[one[0] for one in TOLD]
)
def test_numbers_that_are_not_finite_fail_with_their_count(files, columns, change, sentence):
    rewrite(files, "in", **{name: f(columns["in"][name]) for name, f in change.items()})
    rows = rows_of(judgement(given(files), ABOUT))
    assert rows["likelihood"]["status"] == "failed"
    assert sentence in rows["likelihood"]["reason"]
    assert rows["code-length-png"]["status"] == "ok"


def test_quantised_halved_and_positive_numbers_are_told(files, columns):
    rewrite(files, "in", log_prob=columns["in"]["log_prob"].round(-2))
    rewrite(
        files,
        "ood",
        log_prob=columns["ood"]["log_prob"].round(-2),
        code_length_png=columns["ood"]["code_length_png"].astype(np.float16),
    )
    told = " ".join(judgement(given(files), ABOUT).remarks)
    assert "likelihood on digits:" in told
    assert "have the same score" in told
    assert "code_length_png is stored in half precision" in told
    rewrite(files, "in", log_prob=-columns["in"]["log_prob"])
    assert "log_prob is above 0 on average" in " ".join(judgement(given(files), ABOUT).remarks)


def test_a_column_that_one_file_lacks_is_told(files):
    rewrite(files, "ood", code_length_png=None)
    found = judgement(given(files), ABOUT)
    assert rows_of(found).keys() == {"likelihood"}
    told = " ".join(found.remarks)
    assert "ood.npz lacks code_length_png, which in.npz has" in told
    assert "with --ref FILE" in told


def hashes(start, n=80):
    return np.array([f"{number:064x}" for number in range(start, start + n)])


REFUSED = [
    (lambda f: rewrite(f, "in", log_prob=np.zeros(79)), "columns of unequal lengths \\(log_prob 79, code_length_png 80\\)"),
    (lambda f: rewrite(f, "in", log_prob=np.zeros((80, 2)), code_length_png=None),
     "'log_prob' has shape \\(80, 2\\); give one number an image"),
    (lambda f: rewrite(f, "in", log_prob=np.array(["x"] * 80), code_length_png=None), "holds <U1 values, not numbers"),
    (lambda f: rewrite(f, "in", log_prob=None, code_length_png=None, logprob=np.zeros(80)),
     "'logprob' is no statistic; did you mean 'log_prob'"),
    (lambda f: rewrite(f, "in", image_sha256=np.array(["abc"] * 80)), "no SHA-256 in 64 hexadecimal digits"),
    (lambda f: np.savez(f / "in.npz", log_prob=np.array([{}], dtype=object)),
     "it holds Python objects, which are never unpickled"),
    (lambda f: np.savez(f / "in.npz", log_prob=np.zeros(0)), "holds no numbers"),
    (lambda f: (f / "in.npz").write_bytes(b"PK"), "in.npz cannot be read"),
    (lambda f: (f / "in.npz").unlink(), "there is no file"),
    (lambda f: (f / "in.npz").write_bytes((f / "ood.npz").read_bytes()), "holds the same numbers as the in-dist file"),
    (lambda f: (f / "ref.npz").write_bytes((f / "in.npz").read_bytes()), "may not be fitted on images that it judges"),
    (lambda f: [rewrite(f, name, image_sha256=hashes(0)) for name in ("in", "ref")], "80 images of"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "sentence"), REFUSED, ids=[one[1] for one in REFUSED])
def test_files_that_cannot_be_judged_are_refused(files, spoil, sentence):
    spoil(files)
    with pytest.raises(DataError, match=sentence):
        judgement(given(files, ref=files / "ref.npz"), ABOUT)


def test_other_files_are_named(files):
    (files / "x.json").write_text("{}")
    with pytest.raises(DataError, match=r"x\.json is no \.npz, \.csv or \.parquet"):
        read_numbers(files / "x.json")


def test_without_pyarrow_the_remedy_is_said(files, monkeypatch):
    (files / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="pip install pyarrow"):
        read_numbers(files / "x.parquet")


@pytest.fixture
def measured(tmp_path):
    """A run, and the same model's numbers in files, in another order and with some images more."""
    suite = Suite(name="run", title="t", models=["glow-small-fashionmnist-1"], limit=30, bootstrap=0,
                  scorers=["likelihood", "pixel-mean"], pairs=[{"in_dist": "fashionmnist", "ood": ["mnist"]}])  # fmt: skip
    run_suite(suite, Options(), tmp_path / "run")
    glow = ob.load_model("glow-small-fashionmnist-1")
    for name, reference in (("in", "fashionmnist/test[:40]"), ("ood", "mnist/test[:40]")):
        images = ob.load_images(reference)
        own = ob.measure(glow, images, "log_prob")["log_prob"][::-1]
        known = np.array([one.hex() for one in image_digests(images.images)])[::-1]
        np.savez(tmp_path / f"{name}.npz", log_prob=own, image_sha256=known)
    return tmp_path


def test_scorers_of_a_run_are_judged_on_the_same_images(measured):
    found = judgement(given(measured, against=measured / "run"), ABOUT)
    stored = {row["scorer"]: row for row in read_rows(measured / "run" / "rows.jsonl")}
    shared = "fashion[30 shared]"
    again = {
        (one.row["model"], one.row["scorer"]): one.row
        for one in found.judged
        if one.row["in_dist"] == shared
    }
    for scorer in ("likelihood", "pixel-mean"):
        assert again["glow-small-fashionmnist-1", scorer]["auroc"] == pytest.approx(
            stored[scorer]["auroc"]
        )
    mine = again["mine", "likelihood"]
    assert mine["auroc"] == pytest.approx(stored["likelihood"]["auroc"])
    (comparison,) = [one for one in found.comparisons if one["in_dist"] == shared]
    assert comparison["scorers"] == [
        "likelihood",
        "likelihood (glow-small-fashionmnist-1)",
        "pixel-mean",
    ]
    assert comparison["baselines"] == ["pixel-mean"]
    assert any("the best baseline of the run" in line for line in found.against)
    rewrite(measured, "ood", image_sha256=None)
    with pytest.raises(DataError, match=r"ood\.npz: without a column image_sha256"):
        judgement(given(measured, against=measured / "run"), ABOUT)


def test_images_that_no_run_judged_are_told(measured):
    for name, start in (("in", 0), ("ood", 100)):
        rewrite(measured, name, image_sha256=hashes(start, 40))
    told = " ".join(judgement(given(measured, against=measured / "run"), ABOUT).remarks)
    assert "judged no pair that holds images of fashion and digits" in told


def command(*arguments):
    result = CliRunner().invoke(main, ["judge", *map(str, arguments)])
    assert "Traceback" not in result.output + result.stderr
    return result.exit_code, " ".join((result.output + result.stderr).split())


def test_the_command(files, monkeypatch):
    monkeypatch.chdir(files)
    code, said = command(
        "--in-dist",
        "fashion=in.npz",
        "--ood",
        "digits=ood.npz",
        "--shape",
        "1,28,28",
        "--model",
        "mine",
    )
    assert code == 0
    assert "→ digits" in said
    lines = (files / "runs" / "mine-judged" / "rows.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["dimensions"] == 784
    rewrite(files, "in", log_prob=np.full(80, np.nan))
    code, said = command("--in-dist", "in.npz", "--ood", "ood.npz", "--out", "nan")
    assert code == 1
    assert "80 NaN among 80 values of log_prob on in" in said
    for arguments, sentence in (
        (["--shape", "28"], "must be C,H,W"),
        (["--larger-ood", "a", "--smaller-ood", "a"], "cannot point both ways"),
        (["--ood", "in=ood.npz"], "two files are called 'in'"),
        (["--model", "a/b"], "the model name 'a/b' holds '/'"),
    ):
        code, said = command("--in-dist", "in.npz", "--ood", "ood.npz", *arguments)
        assert code in (1, 2)
        assert sentence in said
