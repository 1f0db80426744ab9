"""Sentences on results in README and docs, read and held to the rows, cards and pages that they speak of."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from oodbench.report import read_results
from oodbench.report.section import Analysis
from oodbench.report.sections.graying import moderate_changes
from oodbench.report.sections.statements import is_headline
from oodbench.suite import load_suite
from oodbench.zoo.cards import load_card, zoo

REPOSITORY = Path(__file__).parents[1]


def read(name):
    """A page as one line, without the marks of links."""
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", (REPOSITORY / name).read_text("utf-8"))
    return " ".join(shown.split())


def told(name, pattern):
    """What a sentence says; fails where the page does not hold it any more, so that the test goes with the sentence."""
    found = re.search(pattern, read(name))
    assert found, f"{name} does not say {pattern!r}"
    return found.groups()


@pytest.fixture(scope="module")
def paper():
    return read_results(REPOSITORY / "leaderboards" / "paper")


@pytest.fixture(scope="module")
def field():
    return read_results(REPOSITORY / "leaderboards" / "field")


@pytest.fixture(scope="module")
def models():
    """The records of the models of ``paper`` that the package ships."""
    return {name: load_card(name).record() for name in load_suite("paper").models}


def sound(results):
    return [row for row in results.tried if row["status"] == "ok" and row["group_size"] == 1]


NUMBERS = {"Twelve": 12, "Thirteen": 13, "Fourteen": 14, "Fifteen": 15, "Sixteen": 16}


def test_the_models_of_the_readme(models):
    number, low, high = told(
        "README.md", r"(\w+) models of the package \(.*? of ([\d.]+) to ([\d.]+) million parameters"
    )
    sizes = [record["parameters"] / 1e6 for record in models.values()]
    assert NUMBERS[number] == len(models)
    assert (low, high) == (f"{min(sizes):.2f}", f"{max(sizes):.2f}")


def test_every_model_of_the_readme_was_trained_on_one_core(models):
    told("README.md", r"each trained on one CPU core")
    assert {record["machine"] for record in models.values()} == {"x86_64 CPUAccelerator, 1 threads"}


def test_the_fits_of_the_readme(paper):
    fashion, cifar = told("README.md", r"the Glows reach ([\d.]+) bits/dim on FashionMNIST and ([\d.]+) on CIFAR-10")  # fmt: skip
    for name, said in (("glow-fashionmnist", fashion), ("glow-cifar10", cifar)):
        own = [row["in_dist_bits_per_dim"] for row in sound(paper) if row["model"] == name]
        assert {f"{value:.2f}" for value in own} == {said}


def test_the_inversions_of_the_readme(paper):
    told("README.md", r"On each inversion of the paper that could be measured they prefer the wrong images")  # fmt: skip
    analysis = Analysis(paper)
    pairs = [pair for pair in analysis.pairs(synthetic=False) if is_headline(pair)]
    rows = [analysis.auroc(ood) for _, ood in pairs]
    assert rows
    assert all(row["auroc_high"] < 0.5 for row in rows)


def test_the_other_directions_of_the_readme(paper):
    told("README.md", r"Glows trained on MNIST or SVHN know FashionMNIST or CIFAR-10 at once")
    for model, ood in (("glow-mnist", "fashionmnist"), ("glow-svhn", "cifar10")):
        own = [row for row in sound(paper) if (row["model"], row["scorer"]) == (model, "likelihood")]  # fmt: skip
        (row,) = (one for one in own if one["ood"].startswith(ood))
        assert row["auroc_low"] > 0.95


def test_the_numbers_of_images_of_the_readme(paper):
    whole, first, celeba, imagenet = told(
        "README.md",
        r"on the ([\d,]+) test images of FashionMNIST, MNIST and CIFAR-10, the first ([\d,]+) of SVHN, and parts of "
        r"CelebA \(([\d,]+) images\) and ImageNet \(([\d,]+)\)",
    )
    said = dict.fromkeys(("fashionmnist", "mnist", "cifar10"), whole)
    said |= {"svhn": first, "celeba5k": celeba, "imagenet7k": imagenet}
    sizes = {re.split(r"[/@\[]", row["ood"])[0]: row["n_ood"] for row in sound(paper)}
    for name, number in said.items():
        assert f"{sizes[name]:,}" == number, name


@pytest.mark.parametrize(
    ("page", "pattern"),
    [
        ("README.md", r"(\d+) scorers, gradients, .*? included, were run on the (first )?(\d+) images of each set"),
        ("leaderboards/README.md", r"field: (\d+) scorers, \d+ models, on (first )?(\d+) images of each set"),
    ],
)  # fmt: skip
def test_the_scorers_and_images_of_field(page, pattern, field):
    scorers, first, images = told(page, pattern)
    if page == "README.md":
        assert bool(first) is not any("drawn" in row["in_dist"] for row in sound(field))
    assert int(scorers) == len({row["scorer"] for row in sound(field)})
    sizes = {row[n] for row in sound(field) if not row["synthetic"] for n in ("n_in", "n_ood")}
    assert sizes == {int(images)}
    assert {"gradient-norm", "likelihood-regret", "diffpath-6d"} <= {row["scorer"] for row in sound(field)}  # fmt: skip


def test_how_many_images_field_draws():
    (images,) = told("configs/field.yaml", r"The scorers below on (\d+) images drawn of each set")
    assert int(images) == load_suite("field").limit


def test_not_every_set_gains_from_contraction(paper):
    told("docs/results.md", r"Not every set gains as the paper's CIFAR-10 does")
    rows = [row for row in Analysis(paper).of_kind("graying") if row["role"] == "test"]
    lowered = [row for row in rows if all(one.value < 0 for one in moderate_changes(row, "change").values())]  # fmt: skip
    assert lowered
    assert len(lowered) < len(rows)


def test_the_expansion_may_be_a_hundred_times_too_large(paper):
    told("docs/results.md", r"the expansion may be a hundred times too large")
    rows = [row for row in Analysis(paper).of_kind("second-order") if not row["synthetic"]]
    ratios = [abs(row["predicted"][0] / row["measured"][0]) for row in rows if row.get("predicted")]
    ratios += [abs((row["first"][0] + row["second"][0]) / row["measured"][0]) for row in rows]
    assert max(ratios) > 100


def test_report_html_is_one_file():
    told("README.md", r"twin in HTML is one file with its figures")
    page = (REPOSITORY / "leaderboards/paper/report.html").read_text("utf-8")
    assert not re.search(r"<(img|link|script|iframe)\b[^>]*\b(src|href)=[\"'](?!data:)", page)
    assert "<svg" in page


def test_ref_chose_each_checkpoint_and_trained_none():
    told("docs/data.md", r"no shipped model was trained on, though it chose which validation's weights each kept")  # fmt: skip
    trained = [load_card(name) for name in zoo() if (load_card(name).folder / "trained.json").exists()]  # fmt: skip
    for card in trained:
        record = card.record()
        assert record["train"]["set"].split("[")[0].endswith("/train"), card.name
        assert "/ref" in record["ref"]["set"], card.name


def test_words_that_rows_contradicted_are_gone():
    """Statements that were found to be false of rows, wherever they may come back."""
    gone = {
        "0.2 to 3 million": ["README.md"],
        "it decides alone": ["oodbench/scorers/ratio.py"],
        "it measures no more than they do": ["docs/results.md"],
        "is the likelier one under models of both": ["oodbench/report/sections/both_directions.py"],
        "cost a hundred passes": ["configs/field.yaml"],
        "each as its authors defined it": ["configs/field.yaml"],
        "Every scorer": ["README.md", "leaderboards/README.md", "configs/field.yaml"],
    }
    for words, files in gone.items():
        for name in files:
            assert words not in read(name), f"{name}: {words}"


def constants(path):
    """Texts that stand for all runs: those assigned to a name at the top of a module."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


def test_no_section_states_a_result_by_hand():
    """Texts of sections hold no AUROC and no count: those are made of rows."""
    found = [text for path in (REPOSITORY / "oodbench/report/sections").glob("*.py") for text in constants(path)]  # fmt: skip
    assert len(found) > 5
    for text in found:
        assert not re.search(r"\b0?\.\d{2,}\b|\b\d+ of \d+\b", text) or re.fullmatch(r"[\d.]+", text), text  # fmt: skip
