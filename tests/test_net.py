"""From formula to row: every number that a run publishes, computed again by plain numpy.

Two models whose log p has a closed form are run on sets of unequal sizes, with groups, reference
images and a clock that stands still but for what a model says it took. Each test names all fields
of what it reads, and fails on one that it does not name.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import math
import platform
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from matplotlib import pyplot as plt
from PIL import Image
from safetensors.torch import save_file

import oodbench as ob
from oodbench.models.glow import Glow
from oodbench.registry import models as user_models
from oodbench.registry import scorers as all_scorers

# --- what depends on the layout of files and rows ------------------------------------------------

ROWS, COMPARISONS, ANALYSIS, COSTS = "rows.jsonl", "contests.jsonl", "analysis.jsonl", "costs.jsonl"
SCHEMA = 2
HASHES = {"key"}
"""Fields of any row that are hexadecimal hashes."""
IN_DIST_BITS, OOD_BITS = "id_bits_per_dim", "ood_bits_per_dim"
ROUNDING = 1e-6
"""Numbers in rows have six decimals, correlations four, nats of the expansion three."""
ROUNDED_CORRELATION, ROUNDED_NATS = 1e-4, 1e-3


def read(folder, name):
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


def costs(folder):
    """Milliseconds an image of each pass, with the device that they were measured on."""
    rows = read(folder, COSTS)
    assert all(row.keys() == {"schema", "pass", "ms_per_image", "device"} for row in rows)
    return {row["pass"]: (row["ms_per_image"], row["device"]) for row in rows}


# --- the world -----------------------------------------------------------------------------------

SEED, BOOTSTRAP, D = 3, 40, 64
WEIGHT = 1 + np.arange(D) % 7
"""Of the stub, whose log p is ``−(40 + Σ w·x/64)``: exact in binary, so that ties are ties."""
SECONDS = 0.01
"""That the stub takes for each grey level of an image's first pixel."""
SCALES, MEANS, SPREADS = [0.1, 0.2, 0.4, 0.5], [0.05, -0.1, 0.2, 0.0], [-0.3, 0.1, -0.5, 0.2]
"""Of the four channels after squeezing: log-scales of ActNorm, means and log-stds of the prior."""
SHIFTS = {"net-glow": 0.0, "net-glow-b": 0.3, "net-background": -0.5}
"""What the means of each card are moved by."""
GRAY = (0, 50)

PLUGIN = """
import time

import torch

import oodbench as ob


@ob.register_model("net-stub")
class Stub:
    shape = (1, 8, 8)
    trained_on = "near"
    likelihood = "exact"

    def log_prob(self, images):
        pixels = images.flatten(1).double()
        getattr(time.perf_counter, "wait", lambda seconds: None)(0.01 * float(pixels[:, 0].sum()))
        weight = 1 + torch.arange(64, dtype=torch.float64) % 7
        return -(40 + pixels @ weight / 64)


@ob.register_scorer("net-boom", cite="nobody")
def boom(log_prob):
    raise ValueError("boom")
"""


class Clock:
    """A clock that stands still unless it is told to go on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


def make_images():
    random = np.random.default_rng(7)
    near = random.integers(0, 170, (14, 1, 8, 8)).astype(np.uint8)
    far = random.integers(0, 230, (10, 1, 8, 8)).astype(np.uint8)
    far[:, :, 1:4, 2:7] //= 2
    far[3] = far[6] = near[5]
    return {
        "near": near,
        "far": far,
        "train": random.integers(0, 170, (150, 1, 8, 8)).astype(np.uint8),
    }


def write_card(folder, name, **fields):
    model = Glow((1, 8, 8), 1, 1, hidden=4, coupling="additive")
    state = model.state_dict()
    layers = "scales.0.0.layers."
    state[layers + "0.log_scale"] = torch.tensor(SCALES).reshape(1, 4, 1, 1)
    state[layers + "0.initialised"] = torch.ones((), dtype=torch.uint8)
    state[layers + "1.weight"] = torch.eye(4)
    means = [mean + SHIFTS[name] for mean in MEANS]
    state["top_prior"] = torch.tensor([*means, *SPREADS]).reshape(1, 8, 1, 1)
    (folder / name).mkdir()
    save_file(state, folder / name / "weights.safetensors")
    weights = (folder / name / "weights.safetensors").read_bytes()
    config = {"shape": [1, 8, 8], "scales": 1, "steps": 1, "hidden": 4, "coupling": "additive"}
    card = {
        "name": name,
        "family": "glow",
        "config": config,
        "trained_on": "near",
        "likelihood": "one draw",
        **fields,
    }
    (folder / name / "card.yaml").write_text(yaml.safe_dump(card))
    record = {
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "parameters": 1,
        "ref_bits_per_dim": 8.0,
    }
    (folder / name / "trained.json").write_text(json.dumps(record))
    log = "step,epoch,ref_bits_per_dim,auroc_far\n9,0,,\n19,0,7.5,0.25\n39,0,7.25,\n"
    (folder / name / "log.csv").write_text(log)
    return str(folder / name)


PAIRS = (
    "likelihood",
    "typicality",
    "likelihood-two-sided",
    "pixel-mean",
    "code-length-png",
    "input-complexity-png",
    "likelihood-ratio",
    "waic",
    "ensemble-likelihood",
    "lid",
    "net-boom",
)
GROUPS = {"typicality": [3, 5], "likelihood": [3]}


def suite(glow):
    return {
        "name": "net",
        "title": "Net",
        "models": [glow],
        "seed": SEED,
        "bootstrap": BOOTSTRAP,
        "pairs": [{"in_dist": "near", "ood": ["far", "constant", "celeba"]}],
        "scorers": list(PAIRS[:-1]),
        "group_sizes": GROUPS,
        "analysis": {"images": 300, "gray": list(GRAY), "samples": 4, "probes": 300},
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run of both models under a clock that stands still, and what it was run on."""
    folder = tmp_path_factory.mktemp("net")
    images = make_images()
    (folder / "data").mkdir()
    for name, file in (("near", "near_test"), ("far", "far_test"), ("train", "near_train")):
        np.savez(folder / "data" / f"{file}.npz", images=images[name][:, 0])
    write_card(folder, "net-glow-b")
    alone = write_card(folder, "net-background", ensemble=["net-background"])
    glow = write_card(
        folder, "net-glow", background="net-background", ensemble=["net-glow", "net-glow-b"]
    )
    (folder / "stub.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_HOME", str(folder / "home"))
        patch.setenv("OODBENCH_DATA", str(folder / "data"))
        clock = Clock()
        patch.setattr(time, "perf_counter", clock)
        patch.setenv("COLUMNS", "160")

        figures = []

        def note(figure, file, **_):
            """What a test looks at in a figure, in place of its drawing, which takes a second."""
            spans = {axes.get_xlabel(): axes.get_xlim() for axes in figure.axes}
            pictures = [len(axes.images) for axes in figure.axes]
            figures.append((figure.get_size_inches(), spans, sum(pictures)))
            file.write(b"<svg></svg>")

        patch.setattr(plt.Figure, "savefig", note)

        def run(out, changes=None, **options):
            (folder / "net.yaml").write_text(yaml.safe_dump(suite(glow) | (changes or {})))
            given = {"plugins": [folder / "stub.py"], "workers": 1, **options}
            ob.run(str(folder / "net.yaml"), folder / out, **given)
            return folder / out

        run("out")
        samples = (
            ob.load_model(glow, SEED)
            .sample(4, generator=torch.Generator().manual_seed(SEED))
            .numpy()
        )
        images |= {"samples": samples, "constant": constants()}
        order = np.argsort(np.random.Philox(key=181009136).random_raw(150), kind="stable")
        images |= {
            "ref": images["train"][order[:15]],
            "train": images["train"][np.sort(order[15:])],
        }
        yield SimpleNamespace(
            folder=folder,
            out=folder / "out",
            images=images,
            run=run,
            clock=clock,
            alone=alone,
            figures=figures,
        )
    for kind, name in ((user_models, "net-stub"), (all_scorers, "net-boom")):
        kind._entries.pop(name, None)


def constants():
    grey = np.argsort(np.random.Philox(key=1).random_raw(256), kind="stable").astype(np.uint8)
    return np.broadcast_to(grey[:, None, None, None], (256, 1, 8, 8)).copy()


# --- densities and statistics, by themselves -----------------------------------------------------


def place(values):
    """A value for each channel after squeezing, spread over the pixels of an image: ``(8, 8)``."""
    return np.tile(np.reshape(values, (2, 2)), (4, 4))


def noise(images):
    """Uniform numbers keyed by (seed, image)."""
    found = []
    for image in images:
        digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=str(SEED).encode()).digest()
        bits = (
            np.random.Philox(key=int.from_bytes(digest, "little"))
            .random_raw(D // 2)
            .view(np.uint32)
        )
        found.append((bits >> 8) * 2.0**-24)
    return np.reshape(found, images.shape)


def glow_terms(images, name="net-glow"):
    y = (images + noise(images)) / 256 - 0.5
    standard = (y * np.exp(place(SCALES)) - place(MEANS) - SHIFTS[name]) / np.exp(place(SPREADS))
    log_prob_z = (-0.5 * standard**2 - place(SPREADS) - 0.5 * math.log(2 * math.pi)).sum((1, 2, 3))
    log_det = np.full(len(images), place(SCALES).sum() - D * math.log(256))
    norm = np.sqrt((standard**2).sum((1, 2, 3)))
    return {
        "log_prob": log_prob_z + log_det,
        "log_prob_z": log_prob_z,
        "log_det": log_det,
        "latent_norm": norm,
    }


def log_prob(model, images):
    if model == "net-stub":
        return -(40 + images.reshape(len(images), D) @ WEIGHT / 64)
    return glow_terms(images, model)["log_prob"]


def png_nats(images):
    found = []
    for image in images:
        Image.fromarray(image[0]).save(buffer := io.BytesIO(), format="PNG", compress_level=9)
        found.append(8 * len(buffer.getvalue()) * math.log(2))
    return np.array(found)


def statistics_of(model, images):
    found = {
        "likelihood": -log_prob(model, images),
        "pixel-mean": images.reshape(len(images), D).mean(1) / 255,
    }
    found["code-length-png"] = png_nats(images)
    found["input-complexity-png"] = found["likelihood"] - found["code-length-png"]
    if model == "net-glow":
        members = np.stack([log_prob(name, images) for name in ("net-glow", "net-glow-b")])
        found["likelihood-ratio"] = log_prob("net-background", images) - log_prob(
            "net-glow", images
        )
        found["waic"] = members.var(0) - members.mean(0)
        found["ensemble-likelihood"] = -np.log(
            np.exp(members - members.max(0)).mean(0)
        ) - members.max(0)
        found["lid"] = np.full(len(images), -32.0)  # half of the dimensions, of every image
    return found


def means_of_groups(values, size):
    """Means of disjoint groups in a frozen random order; images left over are dropped."""
    if size == 1:
        return values
    order = np.random.RandomState(SEED).permutation(len(values))
    return np.array(
        [values[order[k * size : (k + 1) * size]].mean() for k in range(len(values) // size)]
    )


FITTED = {"typicality": np.mean, "likelihood-two-sided": np.median}


def scores(world, model, scorer, size, name):
    if scorer not in FITTED:
        return means_of_groups(statistics_of(model, world.images[name])[scorer], size)
    centre = FITTED[scorer](log_prob(model, world.images["ref"]))
    return np.abs(means_of_groups(log_prob(model, world.images[name]), size) - centre)


def threshold(world, model, scorer, size):
    """The 99th percentile of reference images, or of a thousand groups of them."""
    if scorer == "lid":
        return -32.0
    of_ref = log_prob(model, world.images["ref"])
    drawn = np.random.RandomState(SEED).randint(0, 15, (1000, size))
    groups = of_ref if size == 1 else of_ref[drawn].mean(1)
    return np.quantile(np.abs(groups - FITTED[scorer](of_ref)), 0.99)


# --- metrics, by counting ------------------------------------------------------------------------

Z = 1.959963984540054


def wins(of_in, of_ood):
    return (of_ood[:, None] > of_in) + 0.5 * (of_ood[:, None] == of_in)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def auroc(of_in, of_ood):
    table = wins(of_in, of_ood)
    value, least = table.mean(), min(table.shape)
    if value in (0, 1):
        bound = least / (least + Z**2)
        return [value, bound, 1.0] if value else [value, 0.0, 1 - bound]
    variance = table.mean(1).var(ddof=1) / len(of_ood) + table.mean(0).var(ddof=1) / len(of_in)
    half = Z * math.sqrt(variance) / (value * (1 - value))
    centre = math.log(value / (1 - value))
    return [value, sigmoid(centre - half), sigmoid(centre + half)]


def curve(negative, positive):
    """AUPR and FPR at 95 and 80 % with ``positive`` scoring higher, by counting at each score."""
    cuts = np.unique(np.concatenate([negative, positive]))[::-1]
    caught, flagged = ((one[:, None] >= cuts).sum(0) for one in (positive, negative))
    precision, recall = caught / (caught + flagged), caught / len(positive)
    found = {"aupr": (np.diff(recall, prepend=0) * precision).sum()}
    for percent in (95, 80):
        enough = 100 * caught >= percent * len(positive)
        found[f"fpr{percent}"] = flagged[enough][0] / len(negative)
    return found


def both_curves(of_in, of_ood):
    found = {f"{name}_ood": value for name, value in curve(of_in, of_ood).items()}
    return found | {f"{name}_in": value for name, value in curve(-of_ood, -of_in).items()}


def detection(of_in, of_ood):
    stream = np.random.RandomState(SEED)
    replicates = []
    for _ in range(BOOTSTRAP):
        drawn_in = of_in[stream.randint(0, len(of_in), len(of_in))]
        replicates.append(
            both_curves(drawn_in, of_ood[stream.randint(0, len(of_ood), len(of_ood))])
        )
    found = {"auroc": auroc(of_in, of_ood)}
    for name, value in both_curves(of_in, of_ood).items():
        found[name] = [value, *np.quantile([one[name] for one in replicates], [0.025, 0.975])]
    return found


def wilson(hits, n):
    rate, z2 = hits / n, Z**2
    half = Z * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    return [rate, max(0.0, centre - half), min(1.0, centre + half)]


def flat(metrics):
    ends = ("", "_low", "_high")
    return {
        name + end: value
        for name, own in metrics.items()
        for end, value in zip(ends, own, strict=True)
    }


def bits(nats):
    return -nats / (D * math.log(2))


def agree(found, expected, tolerance=2 * ROUNDING):
    """Compare nested lists and dictionaries, numbers up to the precision of a float32 network."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            agree_named(name, found[name], value, tolerance)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            agree(one, other, tolerance)
    elif isinstance(expected, (float, np.floating)):
        assert found == pytest.approx(expected, rel=2e-6, abs=tolerance)
    else:
        assert found == expected


def agree_named(name, found, expected, tolerance):
    try:
        agree(found, expected, tolerance)
    except AssertionError as error:
        raise AssertionError(f"{name}: {found} instead of {expected}") from error


def check_fields(row, expected, tolerance=2 * ROUNDING):
    """A row has its hashes and just the fields expected, with their values."""
    assert row["schema"] == SCHEMA
    for name in HASHES:
        assert len(row[name]) == 64
        assert int(row[name], 16) >= 0
    agree(
        {name: value for name, value in row.items() if name not in {*HASHES, "schema"}},
        expected,
        tolerance,
    )


# --- rows ----------------------------------------------------------------------------------------

IDENTIFIER = {
    "near": "near/test",
    "far": "far/test",
    "constant": "constant/test",
    "ref": "near/ref",
}
DENSITY = "density of net-glow"
PASSES = {
    "likelihood": {"density"},
    "typicality": {"density"},
    "likelihood-two-sided": {"density"},
    "pixel-mean": {"moments"},
    "code-length-png": {"code_length_png"},
    "net-boom": {"density"},
    "input-complexity-png": {"density", "code_length_png"},
    "likelihood-ratio": {"density", "density of net-background"},
    "lid": {"generative_jacobian"},
    "waic": {"density", "density of net-glow-b"},
    "ensemble-likelihood": {"density", "density of net-glow-b"},
}
"""Those that a scorer reads of the images that it judges; ``density`` is the model's own."""
OTHERS = {
    "likelihood-ratio": {"net-background"},
    "waic": {"net-glow-b"},
    "ensemble-likelihood": {"net-glow-b"},
}
READS_REFERENCE = {"typicality", "likelihood-two-sided", "lid"}
BASELINES = {"pixel-mean", "code-length-png"}
LIKELIHOOD = {"net-stub": "exact", "net-glow": "one draw"}


def trials():
    for model in LIKELIHOOD:
        for ood in ("far", "constant"):
            for scorer in PAIRS:
                if model == "net-glow" or scorer not in {*OTHERS, "lid"}:
                    for size in (1, *GROUPS.get(scorer, [])):
                        yield model, ood, scorer, size


def name_of(row):
    return row["model"], row["ood"].split("/")[0], row["scorer"], row["group_size"]


def test_a_run_has_a_row_for_each_trial_and_skip(world):
    rows = read(world.out, ROWS)
    assert sorted(name_of(row) for row in rows if row["status"] != "skipped") == sorted(trials())
    assert len({row["key"] for row in rows}) == len(rows)
    skipped = {
        (row["model"], row["ood"], row["scorer"]) for row in rows if row["status"] == "skipped"
    }
    lacking = {
        ("net-stub", ood, scorer) for ood in ("far", "constant") for scorer in (*OTHERS, "lid")
    }
    assert skipped == lacking | {("", "celeba", "")} or skipped == lacking | {
        (str(world.folder / "net-glow"), "celeba", ""),
        ("net-stub", "celeba", ""),
    }


def pass_name(name, model):
    return f"{name} of {model}" if name in ("density", "generative_jacobian") else name


def heading(world, row):
    """What a row says of its trial."""
    model, ood, scorer, size = name_of(row)
    images = world.images
    return {
        "suite": "net",
        "model": model,
        "likelihood": LIKELIHOOD[model],
        "in_dist": "near/test",
        "ood": IDENTIFIER[ood],
        "in_dist_name": "near",
        "synthetic": ood == "constant",
        "scorer": scorer,
        "baseline": scorer in BASELINES,
        "tunes_on": "in-dist ref" if scorer in READS_REFERENCE else "none",
        "group_size": size,
        "seed": SEED,
        IN_DIST_BITS: bits(log_prob(model, images["near"])).mean(),
        OOD_BITS: bits(log_prob(model, images[ood])).mean(),
        "shared_images": 1 if ood == "far" else 0,
        "passes": sorted(pass_name(name, model) for name in PASSES[scorer]),
    }


def test_every_field_of_a_measured_row(world):
    for row in (row for row in read(world.out, ROWS) if row["status"] == "ok"):
        model, ood, scorer, size = name_of(row)
        of_in, of_ood = (scores(world, model, scorer, size, name) for name in ("near", ood))
        metrics = detection(of_in, of_ood)
        if scorer in READS_REFERENCE:
            cut = threshold(world, model, scorer, size)
            metrics["flagged_in"] = wilson((of_in > cut).sum(), len(of_in))
            metrics["flagged_ood"] = wilson((of_ood > cut).sum(), len(of_ood))
        counts = {"n_in": 14 // size, "n_ood": len(world.images[ood]) // size}
        counts["base_rate"] = counts["n_ood"] / (counts["n_in"] + counts["n_ood"])
        expected = {**heading(world, row), "status": "ok", **counts, **flat(metrics)}
        provenance = row.pop("provenance")
        check_fields(row, expected)
        check_provenance(world, provenance, model, ood, scorer)


def check_provenance(world, found, model, ood, scorer):
    assert found.keys() == {"images", "models", "statistics", "versions", "device", "machine"}
    used = {"in_dist": "near", "ood": ood} | ({"ref": "ref"} if scorer in READS_REFERENCE else {})
    assert found["images"] == {
        role: [IDENTIFIER[name], sha256(world.images[name])] for role, name in used.items()
    }
    assert found["models"].keys() == {model} | OTHERS.get(scorer, set())
    assert len(set(found["models"].values())) == len(found["models"])
    assert all(len(identity) == 64 for identity in found["models"].values())
    names = {name.split(" of ")[0] for name in PASSES[scorer]} | {"density"}
    assert [one.split(":")[0] for one in found["statistics"]] == sorted(names)
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "torch")}
    assert found["versions"] == versions | {"oodbench": ob.__version__}
    assert (found["device"], found["machine"]) == ("cpu", platform.machine())


def sha256(images):
    return hashlib.sha256(repr(("|u1", images.shape)).encode() + images.tobytes()).hexdigest()


def test_every_field_of_a_failed_row(world):
    failed = [row for row in read(world.out, ROWS) if row["status"] == "failed"]
    assert {row["scorer"] for row in failed} == {"net-boom"}
    for row in failed:
        provenance = row.pop("provenance")
        check_fields(
            row,
            heading(world, row)
            | {"status": "failed", "reason": "net-boom failed: ValueError: boom"},
        )
        model, ood, scorer, _ = name_of(row)
        check_provenance(world, provenance, model, ood, scorer)


def test_every_field_of_a_skip(world):
    for row in (row for row in read(world.out, ROWS) if row["status"] == "skipped"):
        assert row["ood"] in ("celeba", "far", "constant")
        reason = row.pop("reason")
        what = {name: row[name] for name in ("model", "ood", "scorer")}
        check_fields(
            row,
            {
                "suite": "net",
                "status": "skipped",
                "in_dist_name": "near",
                "in_dist": "near",
                **what,
            },
        )
        if row["ood"] == "celeba":
            assert reason.startswith("celeba/test is not on this machine; to get it: ")
        else:
            model = {"likelihood-ratio": "background model", "lid": "`latent_shapes`"}.get(
                row["scorer"], "ensemble"
            )
            assert reason.startswith("net-stub has no ")
            assert model in reason


# --- comparisons ---------------------------------------------------------------------------------


def ranks(values):
    return np.array([(values < one).sum() + ((values == one).sum() + 1) / 2 for one in values])


def spearman(one, other):
    a, b = (ranks(np.concatenate(values)) for values in (one, other))
    if not a.std() or not b.std():
        return None
    return ((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())


def covariance(tables):
    n_ood, n_in = tables[0].shape
    of_ood, of_in = (np.stack([table.mean(axis) for table in tables]) for axis in (1, 0))
    of_ood, of_in = (rows - rows.mean(1, keepdims=True) for rows in (of_ood, of_in))
    return of_ood @ of_ood.T / (n_ood - 1) / n_ood + of_in @ of_in.T / (n_in - 1) / n_in


def test_every_field_of_a_comparison(world):
    rows = read(world.out, COMPARISONS)
    assert {(row["model"], row["ood"]) for row in rows} == {
        (model, "far/test") for model in LIKELIHOOD
    }
    assert len(rows) == 2  # none of generated sets
    for row in rows:
        model = row["model"]
        names = sorted(
            name
            for m, ood, name, size in trials()
            if (m, ood, size) == (model, "far", 1) and name != "net-boom"
        )
        own = {
            name: [scores(world, model, name, 1, which) for which in ("near", "far")]
            for name in names
        }
        correlation = {
            name: [spearman(one, own[name]) for one in own.values()] for name in sorted(BASELINES)
        }
        expected = {
            "model": model,
            "in_dist": "near/test",
            "ood": "far/test",
            "scorers": names,
            "baselines": sorted(BASELINES),
            "auroc": [wins(*one).mean() for one in own.values()],
            "covariance": covariance([wins(*one) for one in own.values()]).tolist(),
            "oracle_dual_threshold": envelope(own["likelihood"], own["lid"])
            if "lid" in own
            else None,
        }
        agree(row.pop("correlation"), correlation, ROUNDED_CORRELATION)
        check_fields(row, expected)


def envelope(one, other):
    """Area below the best rates of any two thresholds, joined by straight lines."""
    best = {0.0: 0.0, 1.0: 1.0}
    for first in (*np.concatenate(one), np.inf):
        for second in (*np.concatenate(other), np.inf):
            flagged, caught = (
                ((a > first) | (b > second)).mean() for a, b in zip(one, other, strict=True)
            )
            best[flagged] = max(best.get(flagged, 0.0), caught)
    rates = sorted(best)
    heights = np.maximum.accumulate([best[rate] for rate in rates])
    return float(np.diff(rates) @ (heights[1:] + heights[:-1]) / 2)


# --- analysis ------------------------------------------------------------------------------------


def summary(values):
    return [
        float(values.mean()),
        float(values.std(ddof=1)) / math.sqrt(len(values)),
        float(np.median(values)),
    ]


def contracted(images, percent):
    """Towards mid-grey, rounded half up."""
    return np.floor(127.5 + percent / 100 * (images - 127.5) + 0.5).astype(np.uint8)


def terms(model, images):
    return glow_terms(images) if model == "net-glow" else {"log_prob": log_prob(model, images)}


def likelihood_fields(world, model, role, name):
    found = terms(model, world.images[name])
    typical = log_prob(model, world.images["ref"]).mean()
    found["typicality"] = np.abs(found["log_prob"] - typical)
    found["bits_per_dim"] = bits(found["log_prob"])
    return {key: summary(values) for key, values in found.items()}


def graying_fields(world, model, role, name):
    images = world.images[name]
    curve = [[p, *summary(bits(log_prob(model, contracted(images, p))))] for p in GRAY]
    curve.append([100, *summary(bits(log_prob(model, images)))])
    return {
        "curve": curve,
        "in_dist_bits_per_dim": summary(bits(log_prob(model, world.images["near"]))),
    }


def second_order_fields(world, model, role, name):
    """The density is Gaussian with a diagonal precision: the expansion is exact."""
    near, other = world.images["near"], world.images[name]
    precision = np.exp(2 * (place(SCALES) - place(SPREADS)))
    y_in, y_ood = ((images + 0.5) / 256 - 0.5 for images in (near, other))
    centre = y_in.mean(0)
    gradient = -(centre * np.exp(place(SCALES)) - place(MEANS)) * np.exp(
        place(SCALES) - 2 * place(SPREADS)
    )
    quadratic = [
        summary(-0.5 * (precision * (y - centre) ** 2).sum((1, 2, 3)))[:2] for y in (y_ood, y_in)
    ]
    measured = [summary(log_prob(model, images))[:2] for images in (other, near)]
    second, observed = (
        [one[0] - two[0], math.hypot(one[1], two[1])] for one, two in (quadratic, measured)
    )
    diagonal = float(-0.5 * (precision * (y_ood.var(0) - y_in.var(0))).sum())
    sums = [[float((images / 255).var(0).sum())] for images in (near, other)]
    return {
        "measured": observed,
        "first": [float((gradient * (y_ood.mean(0) - centre)).sum()), 0.0],
        "second": second,
        "diagonal": [diagonal, 0.0],
        "at_data": second,
        "closed_form": diagonal,
        "variance_sums": sums,
    }


def training_fields(world, model, role, name):
    log = [
        {"step": 19.0, "ref_bits_per_dim": 7.5, "auroc_far": 0.25},
        {"step": 39.0, "ref_bits_per_dim": 7.25},
    ]
    return {"log": [] if model == "net-stub" else log}


RULES = {
    "likelihood": likelihood_fields,
    "graying": graying_fields,
    "second-order": second_order_fields,
    "training": training_fields,
}
ALL_OF = {
    ("likelihood", "test", "near"),
    ("likelihood", "ood", "far"),
    ("likelihood", "ood", "constant"),
    ("likelihood", "train", "train"),
    ("graying", "test", "near"),
    ("graying", "ood", "far"),
    ("training", "test", "near"),
}
OF_GLOW = {
    ("likelihood", "samples", "samples"),
    ("second-order", "ood", "far"),
    ("second-order", "ood", "constant"),
    ("training", "member", "near"),
}


def test_every_field_of_the_analysis(world):
    shown = {"train": "near/train", "samples": "samples", **IDENTIFIER}
    names = {identifier: name for name, identifier in shown.items()} | {"near/train[:135]": "train"}
    rows = {
        (row["model"], row["kind"], row["role"], names[row["images"]]): row
        for row in read(world.out, ANALYSIS)
    }
    wanted = {("net-stub", *one) for one in ALL_OF} | {
        ("net-glow", *one) for one in ALL_OF | OF_GLOW
    }
    assert rows.keys() == wanted | {("net-glow-b", "training", "member", "near")}
    assert len(rows) == len(read(world.out, ANALYSIS))
    for (model, kind, role, name), row in rows.items():
        head = {
            "status": "ok",
            "kind": kind,
            "model": model,
            "likelihood": LIKELIHOOD.get(model, "one draw"),
            "role": role,
            "in_dist": "near/test",
            "images": row["images"],
            "synthetic": name == "constant",
            "n": len(world.images[name]),
            "dimensions": D,
            "seed": SEED,
        }
        tolerance = ROUNDED_NATS if kind == "second-order" else 2e-5
        check_fields(row, head | RULES[kind](world, model, role, name), tolerance)


# --- figures --------------------------------------------------------------------------------------


def test_figures_have_the_scale_of_their_data_and_the_height_of_their_rows(world):
    spans = next(spans for _, spans, _ in world.figures if "mean of a pixel" in spans)
    shown = [world.images[name] / 255 for name in ("near", "far")]
    for label, values in (
        ("mean of a pixel", [images.mean(0) for images in shown]),
        ("variance of a pixel", [images.var(0) for images in shown]),
    ):
        ends = np.array([np.quantile(one, [0.005, 0.995]) for one in values])
        low, high = ends.min(), ends.max()
        margin = 0.05 * (high - low)
        assert spans[label] == pytest.approx((low - margin, high + margin), rel=1e-5)
    (height,) = {size[1] for size, _, pictures in world.figures if pictures == 3}
    assert height == pytest.approx(
        1.1 + 0.15 * 4 / 8
    )  # samples, in-dist and OOD, eight images a row


# --- costs, and what is measured anew ------------------------------------------------------------


def test_costs_are_the_clock_s(world):
    found = costs(world.out)
    everything = {
        "density of net-stub",
        "density of net-glow",
        "density of net-glow-b",
        "density of net-background",
        "moments",
        "code_length_png",
        "generative_jacobian of net-glow",
    }
    assert found.keys() == everything
    assert {device for _, device in found.values()} == {"cpu"}
    measured = np.concatenate([world.images[name] for name in ("near", "far", "constant", "ref")])
    expected = 1000 * SECONDS * measured[:, 0, 0, 0].mean()
    assert found["density of net-stub"][0] == pytest.approx(expected, abs=1e-3)
    assert all(ms == 0 for name, (ms, _) in found.items() if name != "density of net-stub")


def test_other_replicates_are_other_rows_but_no_other_pass(world):
    """Another number of replicates moves the intervals of AUPR and FPR alone."""
    before = {name_of(row): row for row in read(world.out, ROWS) if row["status"] == "ok"}
    began = world.clock.now
    again = world.run(
        "out", {"bootstrap": 7, "analysis": None}, only=["net-stub", "typicality", "far"]
    )
    assert world.clock.now == began
    known = {row["key"] for row in before.values()}
    rows = [row for row in read(again, ROWS) if row["status"] == "ok" and row["key"] not in known]
    assert [row["group_size"] for row in sorted(rows, key=name_of)] == [1, 3, 5]
    changed = {
        name for row in rows for name in row if row[name] != before[name_of(row)][name]
    } - HASHES
    assert changed
    assert all(
        name.startswith(("aupr", "fpr")) and name.endswith(("_low", "_high")) for name in changed
    )


def test_another_device_is_another_measurement(world):
    """A column belongs to the kind of device that made it; one kind's devices share columns."""
    only, began = ["net-stub", "likelihood", "far"], world.clock.now
    world.run("cuda", {"analysis": None}, only=only, device="cuda:0")
    waited = world.clock.now - began
    assert waited == pytest.approx(
        SECONDS * sum(world.images[n][:, 0, 0, 0].sum() for n in ("near", "far"))
    )
    world.run("cuda-one", {"analysis": None}, only=only, device="cuda:1")
    assert world.clock.now - began == waited


def test_another_seed_is_another_measurement_and_its_progress_is_told(world, capfd):
    world.run(
        "seed",
        {"seed": SEED + 1, "scorers": ["likelihood", "pixel-mean"]},
        only=["net-stub", "far"],
    )
    told = capfd.readouterr().err
    for label, n in (("near/test", 14), ("far/test", 10), ("near/train", 135)):
        assert re.search(rf"density of net-stub on {label} .* {n}/{n}", told)
    for label, n in (("near/test", 2 * 14), ("far/test", 2 * 10)):
        assert re.search(rf"density of net-stub on {label}, contracted .* {n}/{n}", told)
    assert {row["seed"] for row in read(world.folder / "seed", ROWS) if row["status"] == "ok"} == {
        SEED + 1
    }
    (row,) = read(world.folder / "seed", COMPARISONS)
    assert row["scorers"] == ["likelihood", "pixel-mean"]  # two are enough to compare


def test_an_ensemble_of_one_is_none(world):
    changes = {"models": [world.alone], "scorers": ["waic"], "analysis": None}
    world.run("alone", changes, only=["waic", "far"])
    reasons = {
        row.get("reason") for row in read(world.folder / "alone", ROWS) if row["scorer"] == "waic"
    }
    why = "has no ensemble of two or more models, which ensemble_log_prob asks for"
    assert reasons == {f"{world.alone} {why}", f"net-stub {why}"}
