"""``leaderboard.html``: what it holds is what the rows say, and it works in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from browser import Browser

from oodbench.report import write_report
from oodbench.report.board import FIELDS, METRICS, RATES, TEXTS, board_data, board_page
from oodbench.report.results import Results, read_results
from oodbench.store import standing

BOARDS = Path(__file__).parents[1] / "leaderboards"
SIZES = [(390, 844), (768, 1024), (1280, 800)]


@pytest.fixture(scope="module")
def paper():
    return read_results(BOARDS / "paper")


@pytest.fixture(scope="module")
def pages(tmp_path_factory, paper):
    folder = tmp_path_factory.mktemp("boards")
    for results in (paper, read_results(BOARDS / "field")):
        (folder / f"{results.suite}.html").write_text(board_page(results), "utf-8")
    return folder


@pytest.fixture(scope="module")
def browser():
    opened = Browser()
    yield opened
    opened.close()


def told(results):
    """The page's trials with their texts, by id."""
    data = board_data(results)
    found = {}
    for line in data["rows"]:
        one = dict(zip(FIELDS, line, strict=True))
        one |= {name: data["texts"][one[name]] for name in TEXTS}
        found[one["id"]] = one
    return found


def test_every_trial_stands_there_with_its_numbers(paper):
    found = told(paper)
    assert len(found) == len(paper.tried)
    for row in paper.tried:
        one = found[row["key"][:12]]
        assert [one["model"], one["ood"], one["scorer"]] == [
            row["model"],
            row["ood"],
            row["scorer"],
        ]
        assert one["auroc"] == round(row["auroc"], 4)
        assert one["standing"] == standing(row)
        assert [own[0] for own in one["metrics"] if own] == [
            round(row[name], 4) for name in METRICS if row.get(name) is not None
        ]
        assert json.loads(one["provenance"])["inputs"] == row["inputs"]


def test_the_bar_is_the_best_baseline_that_sees_no_more(paper):
    row = next(
        row for row in paper.tried if row["scorer"] == "likelihood" and row["group_size"] == 1
    )
    pair = ("model", "in_dist", "ood", "seed", "group_size")
    rivals = [
        one["auroc"]
        for one in paper.tried
        if one["baseline"] and not one["ref"] and all(one[name] == row[name] for name in pair)
    ]
    one = told(paper)[row["key"][:12]]
    assert one["bar"] == round(max(rivals), 4)
    assert bool(one["marks"] & 2) == (row["auroc"] <= max(rivals))


def test_the_drawn_curve_has_the_area_of_its_row(paper):
    found = told(paper)
    for row in paper.curves:
        if row["kind"] == "roc":
            one = found[row["key"][:12]]
            caught = [value / 1000 for value in one["roc"]]
            area = sum(
                (b - a) * (x + y) / 2
                for a, b, x, y in zip(RATES, RATES[1:], caught, caught[1:], strict=False)
            )
            assert area == pytest.approx(row["auroc"], abs=0.012)
            assert sum(one["inside"]) == pytest.approx(1000, abs=len(one["inside"]))


def test_names_cannot_end_the_script():
    row = read_results(BOARDS / "field").tried[0]
    page = board_page(Results(Path(), [row | {"scorer": "</script><script>alert(1)"}]))
    assert "<script>alert" not in page


def test_the_page_asks_for_nothing_and_is_small(pages):
    for page in pages.glob("*.html"):
        assert page.stat().st_size < 1_500_000
        assert not re.search(r'(src|href)="(https?:)?//|@import|url\(', page.read_text("utf-8"))


@pytest.mark.parametrize("suite", ["paper", "field"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_no_page_scrolls_sideways_or_errs(pages, browser, suite, size):
    browser.size(*size)
    browser.errors.clear()
    browser.requests.clear()
    browser.open(pages / f"{suite}.html")
    assert browser.eval("document.documentElement.scrollWidth <= innerWidth")
    assert browser.eval("document.querySelectorAll('tbody tr').length") >= 60
    assert browser.eval(
        "document.querySelector('tbody tr').getBoundingClientRect().bottom < innerHeight"
    )
    browser.eval("document.querySelector('tbody th button').click()")
    assert browser.eval("document.documentElement.scrollWidth <= innerWidth")
    assert browser.errors == []
    assert all(url.startswith(("file:", "data:", "about:")) for url in browser.requests)


AUROCS = (
    "[...document.querySelectorAll('tbody td.value')].map(cell => parseFloat(cell.textContent))"
)


def test_a_head_sorts_both_ways(pages, browser):
    browser.size(1280, 800)
    browser.open(pages / "paper.html")
    head = "document.querySelector('th[data-key=auroc]')"
    for direction, order in (("descending", True), ("ascending", False)):
        browser.eval(f"{head}.firstChild.click()")
        shown = browser.eval(AUROCS)
        assert shown == sorted(shown, reverse=order)
        assert browser.eval(f"{head}.getAttribute('aria-sort')") == direction


FILTER = """(() => {
    const one = document.querySelector('select[name=family]'), began = performance.now();
    one.value = 'FAMILY';
    one.dispatchEvent(new Event('input', {bubbles: true}));
    document.body.offsetHeight;
    return performance.now() - began;
})()"""


def test_filters_hold_what_they_say_and_answer_at_once(pages, browser):
    browser.size(1280, 800)
    browser.open(pages / "field.html")
    before = browser.eval("document.getElementById('count').textContent")
    taken = [browser.eval(FILTER.replace("FAMILY", name)) for name in ("vae", "glow", "", "vae")]
    assert min(taken) < 100  # others load the machine too
    assert browser.eval("document.getElementById('count').textContent") != before
    models = browser.eval(
        "[...document.querySelectorAll('td[data-label=model]')].map(c => c.textContent)"
    )
    assert models
    assert all(name.startswith("vae-") for name in models)


def test_an_address_opens_the_same_view_and_a_row(pages, browser, paper):
    browser.size(1280, 800)
    browser.open(pages / "paper.html", "#in=cifar10&kind=exact&sort=-auroc")
    shown = browser.eval(
        "[...document.querySelectorAll('td.wide[data-label]')].map(c => c.textContent)"
    )
    assert shown
    assert all(pair.startswith("cifar10/test") for pair in shown)
    assert browser.eval("document.querySelector('select[name=kind]').value") == "exact"
    row = next(row for row in paper.tried if row["group_size"] == 5)
    browser.open(pages / "paper.html", f"#row={row['key'][:12]}")
    assert browser.eval("document.getElementById('cell').open")
    opened = browser.eval("document.getElementById('cell').textContent")
    assert row["scorer"] in opened
    assert "oodbench run --suite paper" in opened
    assert f"{row['aupr_in']:.3f}" in opened


def test_a_keyboard_opens_and_closes_a_cell(pages, browser):
    browser.size(1280, 800)
    browser.open(pages / "paper.html")
    browser.eval("document.querySelector('tbody th button').focus()")
    browser.press("Enter", 13)
    assert browser.eval("document.getElementById('cell').open")
    assert browser.eval("document.querySelectorAll('#cell svg[role=img]').length") == 2
    browser.press("Escape", 27)
    assert not browser.eval("document.getElementById('cell').open")
    assert browser.eval("document.activeElement.closest('tbody') !== null")


def test_a_reader_of_the_screen_meets_a_named_table(pages, browser):
    browser.size(390, 844)
    browser.open(pages / "paper.html")
    browser.call("Accessibility.enable")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {node["role"]["value"] for node in nodes}
    assert {"table", "columnheader", "rowheader", "row", "button"} <= roles
    unnamed = [
        node for node in nodes
        if node["role"]["value"] in ("button", "combobox", "searchbox")
        and not node["ignored"] and not node["name"]["value"]
    ]  # fmt: skip
    assert unnamed == []


def test_print_shows_every_row_and_no_controls(pages, browser):
    browser.size(1280, 800)
    browser.open(pages / "paper.html")
    browser.eval("window.dispatchEvent(new Event('beforeprint'))")
    browser.call("Emulation.setEmulatedMedia", media="print")
    said = browser.eval("document.getElementById('count').textContent")
    assert browser.eval("document.querySelectorAll('tbody tr').length") == int(said.split()[0])
    assert browser.eval("document.getElementById('filters').getBoundingClientRect().height") == 0
    browser.call("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize("dark", [False, True])
def test_ink_stands_out_from_paper(pages, browser, dark):
    browser.size(1280, 800, dark=dark)
    browser.open(pages / "paper.html")
    ink, paper = (
        sum(
            map(
                int, re.findall(r"\d+", browser.eval(f"getComputedStyle(document.body).{name}"))[:3]
            )
        )
        for name in ("color", "backgroundColor")
    )
    assert (ink > paper) is dark
    assert abs(ink - paper) > 500


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "paper"
    shutil.copytree(BOARDS / "paper", folder, ignore=shutil.ignore_patterns("*.md", "*.html"))
    write_report(folder)
    return folder / "report.html"


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_report_is_never_wider_than_its_page(report, browser, size):
    browser.size(*size)
    browser.open(report)
    assert browser.eval("document.documentElement.scrollWidth <= innerWidth")
    assert browser.eval(f"{WIDER}('table').length") == 0
    first = (
        "document.querySelector('figure').compareDocumentPosition(document.querySelector('nav'))"
    )
    assert browser.eval(f"{first} & Node.DOCUMENT_POSITION_FOLLOWING")
    if size[0] > 700:
        assert browser.eval(f"{WIDER}('figure svg').length") == 0


WIDER = (
    "(found => [...document.querySelectorAll(found)].filter(one => one.getBoundingClientRect().width"
    " > one.parentElement.clientWidth + 1))"
)
