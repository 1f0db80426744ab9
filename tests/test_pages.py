"""Pages that answer: a cell's command gives the cell, links lead somewhere, six questions are answered on the first screen."""

from __future__ import annotations

import html
import json
import random
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt
from test_report import pages, row, skip

from oodbench.cli import main
from oodbench.report.again import command_of
from oodbench.report.collection import check_pages, collection_page, write_pages
from oodbench.report.duels import against_bar, duel
from oodbench.report.links import READING
from oodbench.report.order import in_dist_names, oods_in_order
from oodbench.report.overall import Standings, milliseconds
from oodbench.report.reasons import skip_list
from oodbench.report.results import read_results
from oodbench.report.tables import short
from oodbench.store import read_rows, write_rows

REPOSITORY = Path(__file__).parents[1]
LEADERBOARDS = REPOSITORY / "leaderboards"


# order, words and links


def test_the_paper_s_pairs_stand_first(tmp_path):
    sets = ["svhn10k", "a", "cifar10", "fashionmnist"]
    rows = [row("x", 0.5, in_dist=f"{name}/test", in_dist_name=name, key=name) for name in sets]
    rows += [row("x", 0.5, ood=f"{name}/test", in_dist="cifar10/test", in_dist_name="cifar10", key=name)
             for name in ("celeba5k", "svhn", "imagenet7k")]  # fmt: skip
    pages(tmp_path, rows)
    results = read_results(tmp_path)
    assert in_dist_names(results) == ["fashionmnist", "cifar10", "svhn10k", "a"]
    own = [one for one in rows if one["in_dist_name"] == "cifar10"]
    assert oods_in_order(own) == ["svhn/test", "imagenet7k/test", "celeba5k/test", "b/test"]


def test_a_skip_is_told_once_in_scorers_words():
    reason = "{} has no `posterior`, which reconstruction asks for"
    names = ("glow-cifar10", "glow-fashionmnist", "pixelcnn-cifar10")
    skips = [skip(scorer, model=name, reason=reason.format(name), ood=ood)
             for scorer in ("vae-kl", "vae-reconstruction") for name in names for ood in "bc"]  # fmt: skip
    skips.append(skip("", model="", reason="c is not on this machine", ood="c"))
    tried = [row(model=name) for name in (*names, "pixelcnn-fashionmnist")]
    assert skip_list(skips, tried) == [
        "- **vae-kl, vae-reconstruction**: all glow models, pixelcnn-cifar10: has no `posterior`",
        "- a → c: c is not on this machine",
    ]


def test_the_command_of_a_cell_names_what_the_suite_does_not():
    own = {"suite": "quick", "model": "glow-fashionmnist", "ood": "mnist/test[first 2000][500 drawn]",
           "in_dist": "fashionmnist/test[first 2000][500 drawn]", "scorer": "typicality", "seed": 0}  # fmt: skip
    whole = "oodbench run --suite quick --only glow-fashionmnist --only mnist --only typicality"
    assert command_of(own) == whole
    other = {**own, "ood": "mnist/test[first 2000][60 drawn]", "in_dist": "fashionmnist/test[60 drawn]", "seed": 3}  # fmt: skip
    assert command_of(other) == f"{whole} --limit 60 --seed 3"
    assert command_of({**own, "model": "mine"}).startswith(
        "oodbench run --model mine --in-dist fashionmnist --ood mnist --scorer typicality"
    )


def test_a_family_is_stood_for_by_its_best_fit_in_dist(tmp_path):
    glows = {"glow-cifar10": 3.6, "glow-additive-cifar10": 3.5, "pixelcnn-cifar10": 3.7}
    rows = [row("x", 0.5, model=name, in_dist_bits_per_dim=bits, in_dist="cifar10/test",
                in_dist_name="cifar10", key=name) for name, bits in glows.items()]  # fmt: skip
    pages(tmp_path, rows)
    standings = Standings(read_results(tmp_path))
    assert {one["model"] for one in standings.rows} == {"glow-additive-cifar10", "pixelcnn-cifar10"}


def test_tallies_are_those_of_the_paired_test():
    cells = {"in_dist": "a/test", "model": "glow", "seed": 0, "schema": 3, "baselines": ["base"]}
    variance = [[1e-4 * (i == j) for j in range(3)] for i in range(3)]
    aurocs = {"b/test": [0.9, 0.5, 0.6], "c/test": [0.2, 0.5, 0.6], "d/test": [0.601, 0.5, 0.6]}
    comparisons = [
        {**cells, "ood": ood, "scorers": ["x", "likelihood", "base"], "auroc": values, "covariance": variance}
        for ood, values in aurocs.items()
    ]  # fmt: skip
    assert duel(comparisons, "x", "likelihood") == (2, 1, 0)
    assert against_bar(comparisons, "x") == (1, 1, 1)
    fitted = [{**one, "look_at_ref": ["base"]} for one in comparisons]
    assert against_bar(fitted, "x") == (0, 0, 0)  # it sees more data


def test_times_are_of_all_passes_on_a_cpu():
    assert milliseconds([row(), row(passes=["a", "b"])]) == pytest.approx(3.75)
    assert milliseconds([row(cost={})]) is None


def test_a_collection_has_one_page_and_its_suites_link_to_it(tmp_path):
    folder = tmp_path / "all"
    for suite in ("one", "two"):
        write_rows(folder / suite / "rows.jsonl", [row("x", 0.9), row("likelihood", 0.2)])
    written = write_pages(folder)
    assert written[0] == folder / "README.md"
    assert "[all suites](../README.md)" in (folder / "one/README.md").read_text("utf-8")
    assert check_pages(folder) == []
    page = (folder / "README.md").read_text("utf-8")
    assert "**Best over all: x**, mean AUROC .900" in page
    write_rows(folder / "two" / "rows.jsonl", [row("x", 0.7), row("likelihood", 0.2)])
    assert any(str(folder / "README.md") in fault for fault in check_pages(folder))


def test_every_link_of_the_published_pages_leads_somewhere():
    for page in LEADERBOARDS.glob("**/*.md"):
        found = re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", page.read_text("utf-8"))
        assert [target for target in found if not (page.parent / target).exists()] == [], page


def test_every_published_page_links_up_sideways_and_to_how_it_is_read():
    for folder in (path.parent for path in LEADERBOARDS.glob("*/rows.jsonl")):
        own = [path.name for path in folder.glob("*.md") if path.name != "report.md"]
        for name in own:
            page = (folder / name).read_text("utf-8")
            assert "(../README.md)" in page, name
            assert f"({'../../' + READING.as_posix()})" in page, name
            assert all(
                f"({other})" in page or other == name or "-details" in other for other in own
            )


def test_the_published_page_over_all_suites_is_what_the_rows_give():
    assert (LEADERBOARDS / "README.md").read_text("utf-8") == collection_page(LEADERBOARDS)


def test_no_published_page_has_a_number_of_twenty_digits():
    for page in LEADERBOARDS.glob("**/*.md"):
        shown = re.sub(r"\([^)]*\)", "", page.read_text("utf-8"))  # names of files are hashes
        assert not re.search(r"\d{12}", shown), page


# a cell again

CELL = re.compile(r"^- (\S+) → \S+, AUROC ([\d.]+): `(oodbench run [^`]+)`$", re.M)


@pytest.mark.slow
def test_ten_cells_of_the_sample_s_leaderboard_are_made_again_by_their_commands(home, tmp_path, monkeypatch):  # fmt: skip
    def run(folder, command):
        folder.mkdir()
        monkeypatch.chdir(folder)
        done = CliRunner().invoke(main, [*shlex.split(command)[1:], "--workers", "1", "--quiet"])
        assert done.exit_code == 0, done.output

    models = "--only glow-fashionmnist --only vae-fashionmnist"
    run(tmp_path / "whole", f"oodbench run --suite paper --limit 40 --only fashionmnist {models}")
    page = (tmp_path / "whole/runs/paper/fashionmnist-details.md").read_text("utf-8")
    cells = CELL.findall(page)
    assert len(cells) > 10
    for number, (scorer, auroc, command) in enumerate(random.Random(0).sample(cells, 10)):
        run(tmp_path / f"{number}", command)
        made = read_rows(tmp_path / f"{number}/runs/paper/rows.jsonl")
        single = [one for one in made if one["status"] == "ok" and one["group_size"] == 1]
        assert [(one["scorer"], short(one["auroc"])) for one in single] == [(scorer, auroc)], (
            command
        )


# the first screen

SCREENS = {"phone": (390, 844), "desktop": (1280, 800)}
GITHUB = """
body{font:16px/1.5 -apple-system,"Segoe UI","Noto Sans",Helvetica,Arial,sans-serif;margin:0;word-wrap:break-word}
main{max-width:900px;margin:0 auto;padding:16px}h1{font-size:2em;line-height:1.25;margin:0 0 16px;padding-bottom:.3em}
h2{font-size:1.5em;line-height:1.25;margin:24px 0 16px}p,ul,table{margin:0 0 16px}ul{padding-left:2em}
table{display:block;width:max-content;max-width:100%;overflow:auto;border-spacing:0;border-collapse:collapse}
td,th{padding:6px 13px;border:1px solid #d1d9e0}code{font-size:85%;padding:.2em .4em;white-space:break-spaces}
img{max-width:100%}sub{font-size:75%;line-height:0}
"""
MEASURE = """
const found = {};
const put = (name, place) => { const r = place && place.getBoundingClientRect();
  found[name] = r ? [r.left, r.top, r.right, r.bottom] : null; };
onload = () => setTimeout(() => {
  for (const frame of document.querySelectorAll('iframe')) {
    const page = frame.contentDocument, need = JSON.parse(frame.dataset.need);
    const text = e => e.textContent.trim();
    const place = need.row === undefined
      ? [...page.querySelectorAll('p,li')].find(e => text(e).startsWith(need.starts))
      : (rows => { const r = rows.find(e => e.cells.length && text(e.cells[0]).startsWith(need.row));
          return r && [...r.cells].find((c, n) => n && text(c) === need.cell); })([...page.querySelectorAll('tr')]);
    put(frame.id, place);
    found[frame.id + ' wide'] = page.documentElement.scrollWidth;
  }
  document.body.innerHTML = ''; document.body.textContent = JSON.stringify(found); }, 0);
"""


def rendered(page):
    words = MarkdownIt("commonmark", {"html": True}).enable("table").render(page.read_text("utf-8"))
    return f"<!doctype html><meta charset=utf-8><style>{GITHUB}</style><main>{words}</main>"


@cache
def questions():
    """Question → page and what has to be seen of it, both from the rows."""
    own = Standings(read_results(LEADERBOARDS / "paper"))
    results, leader = own.results, own.leader()
    tally = duel(results.comparisons, "typicality", leader)
    first = (LEADERBOARDS / "paper/reproduction.md").read_text("utf-8").split("| 1. ")[1]
    verdict = first.split("\n")[0].split("|")[3].strip()
    best = max((name for kind, name in own.scorers() if kind == "scorer" and own.mean_in("cifar10", name)),
               key=lambda name: own.mean_in("cifar10", name).value)  # fmt: skip
    return {
        "who wins over all": ("README.md", {"starts": f"Best over all: {leader}"}),
        "which scorer for CIFAR-10": ("paper/cifar10.md", {"starts": f"Best mean: {best}"}),
        "is typicality better": ("paper/comparison.md", {"row": "typicality", "cell": str(tally)}),
        "what does it cost": ("paper/README.md", {"starts": "Cost an image"}),
        "how is a cell made again": ("paper/cifar10.md", {"starts": "A cell again: oodbench run "}),
        "published against ours": ("paper/reproduction.md", {"row": "1.", "cell": verdict}),
    }


def measured(tmp_path):
    """Where each answer lies on each screen, in one run of the browser."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)  # fmt: skip
    if chromium is None:
        pytest.skip("no Chromium on this machine, in which pages would be looked at")
    frames = []
    for question, (page, need) in questions().items():
        for screen, (width, height) in SCREENS.items():
            content, wanted = (
                html.escape(rendered(LEADERBOARDS / page)),
                html.escape(json.dumps(need)),
            )
            frames.append(f'<iframe id="{question}, {screen}" width={width} height={height} frameborder=0 '
                          f'data-need="{wanted}" srcdoc="{content}"></iframe>')  # fmt: skip
    shown = f"<body>{''.join(frames)}<script>{MEASURE}</script>"
    (tmp_path / "pages.html").write_text(f"<!doctype html><meta charset=utf-8>{shown}")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--virtual-time-budget=5000", "--dump-dom", f"file://{tmp_path / 'pages.html'}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    shown = re.search(r"\{.*\}", html.unescape(done.stdout))
    assert shown, done.stderr[-2000:]
    return json.loads(shown[0])


def test_the_six_questions_are_answered_on_the_first_screen(tmp_path):
    found = measured(tmp_path)
    for question in questions():
        for screen, (width, height) in SCREENS.items():
            place = found[f"{question}, {screen}"]
            assert place, f"{question}: not on its page"
            _, _, right, bottom = place
            assert right <= width, f"{question}, {screen}: ends at {right} px"
            assert bottom <= height, f"{question}, {screen}: ends {bottom} px down"
            assert found[f"{question}, {screen} wide"] <= width, (
                f"{question}: {screen} scrolls sideways"
            )
