"""From formula to row: every number that a run publishes, computed again by plain numpy.

Two models whose log p has a closed form are run on sets of unequal sizes, with groups, reference
images and a clock that stands still but for what a model says it took. Each test names all fields
of what it reads, and fails on one that it does not name.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import platform
import re
import time
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import PIL
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
from oodbench.zoo.families import FAMILIES, SCORING

# --- what depends on the layout of files and rows ------------------------------------------------

ROWS, COMPARISONS, ANALYSIS, CURVES = (
    f"{table}.jsonl" for table in ("rows", "comparisons", "analysis", "curves")
)
SCHEMA = 3
EXACT = {"rel": 1e-12, "abs": 1e-12}
"""Of the stub, whose numbers are doubles."""
FLOAT32 = {"rel": 2e-6, "abs": 1e-9}
"""Of the Glow, whose network is of single precision."""
NATS = 1e-3
"""What a difference of two of the Glow's log p may be off by: some 400 nats, in single precision."""


def read(folder, name):
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


def hash_of(*parts):
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def is_hash(text):
    return re.fullmatch("[0-9a-f]{64}", text) is not None


# --- the world -----------------------------------------------------------------------------------

SEED, BOOTSTRAP, D = 3, 40, 64
WEIGHT = 1 + np.arange(D) % 7
"""Of the stub, whose log p is ``−(40 + Σ w·x/64)``: exact in binary, so that ties are ties."""
SECONDS, CPU_SHARE = 0.01, 0.25
"""That the stub takes for each grey level of an image's first pixel; how much of it is the CPU's."""
TRAINING_SEED = 11
SCALES, MEANS, SPREADS = [0.1, 0.2, 0.4, 0.5], [0.05, -0.1, 0.2, 0.0], [-0.3, 0.1, -0.5, 0.2]
"""Of the four channels after squeezing: log-scales of ActNorm, means and log-stds of the prior."""
SHIFTS = {"net-glow": 0.0, "net-glow-b": 0.3, "net-background": -0.5}
"""What the means of each card are moved by."""
GRAY = (0, 50)
TEMPERATURES = (0.3, 0.5, 0.7, 0.85, 1.0)

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


"""
BOOM = """
import oodbench as ob


@ob.register_scorer("net-boom", cite="nobody")
def boom(log_prob):
    raise ValueError("boom")
"""


class Clock:
    """A clock that stands still unless it is told to go on, and one of CPU time beside it."""

    def __init__(self):
        self.now, self.of_cpu = 100.0, 30.0

    def __call__(self):
        return self.now

    def cpu(self):
        return self.of_cpu

    def wait(self, seconds):
        self.now += seconds
        self.of_cpu += CPU_SHARE * seconds


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
        "recipe": {"seed": TRAINING_SEED},
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
IN_FOLDS = "all of ref fits and scores the test images, 5 folds calibrate, each scored by a fit on the others"
GROUPS = {"typicality": [3, 5], "likelihood": [3]}


def suite(glow):
    return {
        "name": "net",
        "title": "Net",
        "models": [glow],
        "seed": SEED,
        "bootstrap": BOOTSTRAP,
        "pairs": [{"in_dist": "near", "ood": ["far", "constant", "celeba"], "far": ["far"]}],
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
    (folder / "boom.py").write_text(BOOM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_HOME", str(folder / "home"))
        patch.setenv("OODBENCH_DATA", str(folder / "data"))
        clock = Clock()
        patch.setattr(time, "perf_counter", clock)
        patch.setattr(time, "process_time", clock.cpu)
        patch.setenv("COLUMNS", "160")

        figures = []

        def note(figure, file, **_):
            """What a test looks at in a figure, in place of its drawing, which takes a second."""
            spans = {axes.get_xlabel(): axes.get_xlim() for axes in figure.axes}
            pictures = [len(axes.images) for axes in figure.axes]
            figures.append((figure.get_size_inches(), spans, sum(pictures)))
            file.write(b"<svg><defs></defs></svg>")

        patch.setattr(plt.Figure, "savefig", note)

        def run(out, changes=None, **options):
            (folder / "net.yaml").write_text(yaml.safe_dump(suite(glow) | (changes or {})))
            plugins = [folder / "stub.py", folder / "boom.py"]
            given = {"plugins": plugins, "workers": 1, **options}
            ob.run(str(folder / "net.yaml"), folder / out, **given)
            return folder / out

        run("out")
        model = ob.load_model(glow, SEED)
        drawn = {
            at: model.sample(4, at, torch.Generator().manual_seed(SEED)).numpy()
            for at in TEMPERATURES
        }
        images |= {"samples": drawn[1.0], "constant": constants()}
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
            glow=glow,
            alone=alone,
            figures=figures,
            drawn=drawn,
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
    squares = (standard**2).sum((1, 2, 3))
    return {
        "log_prob": log_prob_z + log_det,
        "latent_term": -0.5 * squares,
        "prior_volume": np.full(len(images), -place(SPREADS).sum()),
        "log_det": log_det,
        "latent_norm": np.sqrt(squares),
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
        "pixel-mean": (images.reshape(len(images), D) / 255).mean(1),
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
    """The largest score of 15 images, each judged by what four fifths of the others give, or the 991st of 1,000 groups'."""
    if scorer == "lid":
        return -32.0
    of_ref, found = log_prob(model, world.images["ref"]), []
    for fold in range(5):
        own, others = of_ref[fold::5], np.delete(of_ref, np.s_[fold::5])
        drawn = np.random.RandomState(SEED).randint(0, 3, (200, size))
        groups = own if size == 1 else own[drawn].mean(1)
        found += np.abs(groups - FITTED[scorer](others)).tolist()
    return sorted(found)[-1 if size == 1 else 990]


# --- metrics, by counting ------------------------------------------------------------------------

Z = 1.959963984540054


def wins(of_in, of_ood):
    return (of_ood[:, None] > of_in) + 0.5 * (of_ood[:, None] == of_in)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def auroc(of_in, of_ood):
    table = wins(of_in, of_ood)
    value, (n, m) = table.mean(), table.shape
    variance = table.mean(1).var(ddof=1) / len(of_ood) + table.mean(0).var(ddof=1) / len(of_in)
    low = high = value
    if variance:
        half = Z * math.sqrt(variance) / (value * (1 - value))
        centre = math.log(value / (1 - value))
        low, high = sigmoid(centre - half), sigmoid(centre + half)
    if near_an_end(value, min(n, m)) or not variance:
        ends = score_interval(value, n, m)
        low, high = min(low, ends[0]), max(high, ends[1])
    return [value, low, high]


def near_an_end(value, smaller):
    return smaller * min(value, 1 - value) < 10


def score_interval(value, n, m):
    """Where the distance is Z of Newcombe's errors, searched on a fine grid and then between two of its points."""

    def too_far(theta):
        shape = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) / (n * m) * (1 + ((n + m) / 2 - 1) * shape)
        return abs(value - theta) > Z * math.sqrt(variance)

    ends = []
    for far in (0.0, 1.0):
        near = value
        for _ in range(80):
            middle = (far + near) / 2
            far, near = (middle, near) if too_far(middle) else (far, middle)
        ends.append(near)
    return ends


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


def bootstrapped(of_in, of_ood):
    """AUPR and FPR of resampled scores; each class has its own stream, of bytes while it has at most 256 images."""
    streams = [np.random.RandomState([SEED, which]) for which in (0, 1)]
    replicates = []
    for _ in range(BOOTSTRAP):
        drawn = [
            scores[stream.randint(0, len(scores), len(scores), np.uint8)]
            for scores, stream in zip((of_in, of_ood), streams, strict=True)
        ]
        replicates.append(both_curves(*drawn))
    return {name: np.array([one[name] for one in replicates]) for name in replicates[0]}


def detection(of_in, of_ood):
    replicates = bootstrapped(of_in, of_ood)
    found = {"auroc": auroc(of_in, of_ood)}
    near = near_an_end(found["auroc"][0], min(len(of_in), len(of_ood)))
    for name, value in both_curves(of_in, of_ood).items():
        ends = np.quantile(replicates[name], [0.025, 0.975])
        sides = (of_in, of_ood) if name.endswith("ood") else (-of_ood, -of_in)
        if name.startswith("aupr"):
            second = beside_average_precision(value, ends, near, min(map(len, sides)))
        else:
            second = beside_rate(value, int(name[3:5]) / 100, *sides)
        found[name] = [value, min(ends[0], second[0]), max(ends[1], second[1])]
    return found


def beside_average_precision(value, ends, near, smaller):
    """Wilson's interval near the ends and where replicates agree, else the percentiles' reflection in odds."""
    if near or ends[0] == ends[1] or ends[0] == 0 or 1 in (ends[1], value):
        return wilson(value * smaller, smaller)[1:]
    odds = (value / (1 - value)) ** 2
    reflected = [odds * (1 - end) / end for end in (ends[1], ends[0])]
    return [one / (1 + one) for one in reflected]


def beside_rate(value, share, negative, positive):
    """Wilson's interval and that of the threshold, from their distances to the value, squared and added."""
    n, falling = len(positive), np.sort(positive)[::-1]
    law = [math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
    few, many = (int(np.argmax(np.cumsum(law) >= p - 1e-12)) for p in (0.025, 0.975))
    least = (negative >= falling[few - 1]).mean() if few else 0.0
    most = (negative >= falling[many]).mean() if many < n else 1.0
    own = wilson(value * len(negative), len(negative))[1:]
    low, high = math.hypot(value - own[0], value - least), math.hypot(own[1] - value, most - value)
    return max(0.0, value - low), min(1.0, value + high)


def wilson(hits, n):
    rate, z2 = hits / n, Z**2
    half = Z * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    return [rate, max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))]


def flat(metrics):
    ends = ("", "_low", "_high")
    return {
        name + end: value
        for name, own in metrics.items()
        for end, value in zip(ends, own, strict=True)
    }


def bits(nats):
    return -nats / (D * math.log(2))


def agree(found, expected, tolerance):
    """Compare nested lists and dictionaries, numbers up to the tolerance of their model."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            agree_named(name, found[name], value, tolerance)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            agree(one, other, tolerance)
    elif isinstance(expected, (float, np.floating)):
        assert isinstance(found, float)
        assert found == pytest.approx(expected, **tolerance)
    else:
        assert found == expected


def agree_named(name, found, expected, tolerance):
    try:
        agree(found, expected, tolerance)
    except AssertionError as error:
        raise AssertionError(f"{name}: {found} instead of {expected}") from error


def precision(model, **coarser):
    return EXACT if model == "net-stub" else FLOAT32 | coarser


def check_fields(row, expected, tolerance=EXACT):
    """A row has its hashes and just the fields expected, with their values."""
    row = dict(row)
    assert row.pop("schema") == SCHEMA
    measured = {name: row.get(name) for name in ("cost", "provenance")}
    assert row.pop("measured_sha256") == hash_of(measured)
    values = {name: value for name, value in row.items() if name not in measured}
    assert values.pop("values_sha256") == hash_of(
        {name: value for name, value in values.items() if name != "values_sha256"}
        | {"schema": SCHEMA}
    )
    del row["values_sha256"]
    assert is_hash(row.pop("key"))
    agree(row, expected, tolerance)


# --- rows ----------------------------------------------------------------------------------------

IDENTIFIER = {
    "near": "near/test",
    "far": "far/test",
    "constant": "constant/test",
    "ref": "near/ref",
    "train": "near/train",
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
    assert skipped == lacking | {("net-glow", "celeba", ""), ("net-stub", "celeba", "")}


def pass_name(name, model):
    return f"{name} of {model}" if name in ("density", "generative_jacobian") else name


def heading(world, row):
    """What a row says of its trial, and of what it was measured with."""
    model, ood, scorer, size = name_of(row)
    images, reads_ref = world.images, scorer in READS_REFERENCE
    passes = sorted(pass_name(name, model) for name in PASSES[scorer])
    return {
        "suite": "net",
        "model": model,
        "likelihood": LIKELIHOOD[model],
        "log_prob_of": "the discrete image",
        "uses_labels": False,
        "in_dist": "near/test",
        "ood": IDENTIFIER[ood],
        "ref": "near/ref" if reads_ref else None,
        "in_dist_name": "near",
        "ood_name": ood,
        "synthetic": ood == "constant",
        "nearness": "far" if ood == "far" else None,
        "scorer": scorer,
        "baseline": scorer in BASELINES,
        "tunes_on": "in-dist ref" if reads_ref else "none",
        "group_size": size,
        "seed": SEED,
        "bootstrap": BOOTSTRAP,
        "dimensions": D,
        "in_dist_bits_per_dim": bits(log_prob(model, images["near"])).mean(),
        "ood_bits_per_dim": bits(log_prob(model, images[ood])).mean(),
        "shared_images": 1 if ood == "far" else 0,
        "passes": passes,
        "training_seed": TRAINING_SEED if model == "net-glow" else None,
        "ref_division": IN_FOLDS if reads_ref else None,
        "ref_pool": len(images["ref"]) if reads_ref else None,
        "trained_on": {}
        if scorer in BASELINES
        else dict.fromkeys({model} | OTHERS.get(scorer, set()), "near"),
        "seen": [],
        "left_out": 0,
        "left_out_checked": {"near": "all"},
        **dict.fromkeys(
            (
                "tuned",
                "solver",
                "solver_steps",
                "trace_probes",
                "trace_error",
                "withdrawn",
                "replaces",
            )
        ),
        "cost": {name: cost(world, name) for name in passes},
    }


def cost(world, name, device="cpu"):
    """Of a pass over the in-dist test images, by the clocks that the test sets."""
    wall = 1000 * SECONDS * world.images["near"][:, 0, 0, 0].mean()
    wall = float(wall) if name == "density of net-stub" else 0.0
    return {"device": device, "ms_per_image": wall, "cpu_ms_per_image": CPU_SHARE * wall}


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
        own = {"in": digest(of_in), "ood": digest(of_ood)}
        if model != "net-stub":  # of single precision: see the scores' own test
            own = row["scores"]
        expected |= {"scores": own, "inputs": row["inputs"], "provenance": row["provenance"]}
        check_fields(row, expected, precision(model))
        check_inputs(world, row["inputs"], model, ood, scorer)
        check_provenance(row["provenance"])


def digest(values):
    return hashlib.sha256(np.asarray(values, "<f8").tobytes()).hexdigest()


def check_inputs(world, found, model, ood, scorer):
    assert found.keys() == {"images", "models", "statistics", "scorer"}
    used = {"in_dist": "near", "ood": ood} | ({"ref": "ref"} if scorer in READS_REFERENCE else {})
    assert found["images"] == {role: sha256(world.images[name]) for role, name in used.items()}
    assert found["models"].keys() == {model} | OTHERS.get(scorer, set())
    for name, identity in found["models"].items():
        assert is_hash(identity) if name == "net-stub" else identity == card_identity(world, name)
    names = {name.split(" of ")[0] for name in PASSES[scorer]} | {"density"}
    assert [one.split(":")[0] for one in found["statistics"]] == sorted(names)
    png = f"code_length_png:level 9, container 57 bytes:pillow {PIL.__version__}, zlib"
    assert all(one.startswith(png) or re.fullmatch(r"\w+:\d+", one) for one in found["statistics"])
    name, code = found["scorer"].split(":")
    assert name == scorer
    assert is_hash(code)


def card_identity(world, name):
    """Of the code's versions, the configuration and the weights."""
    config = yaml.safe_load((world.folder / name / "card.yaml").read_text())["config"]
    weights = (world.folder / name / "weights.safetensors").read_bytes()
    code = ["glow", FAMILIES["glow"].version, SCORING]
    content = [code, config, hashlib.sha256(weights).hexdigest()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_provenance(found, device="cpu"):
    """Each row rests on the model's density pass, so that all name torch, its threads and batches."""
    assert found == {
        "oodbench": ob.__version__,
        "machine": platform.machine(),
        "device": device,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "batch_size": "64",
    }


def file_of_scores(folder, row):
    groups = "" if row["group_size"] == 1 else f", groups of {row['group_size']}"
    return folder / "scores" / row["model"] / f"{row['scorer']}{groups}.npz"


def test_the_scores_beside_the_rows_are_those_of_each_image_in_the_order_of_its_set(world):
    named = {}
    for row in (row for row in read(world.out, ROWS) if row["status"] == "ok"):
        model, ood, scorer, size = name_of(row)
        file = file_of_scores(world.out, row)
        with np.load(file, allow_pickle=False) as columns:
            for side, name in (("in", "near"), ("ood", ood)):
                column = f"{IDENTIFIER[name]} {row['scores'][side][:16]}"
                named.setdefault(file, set()).add(column)
                assert columns[column].dtype == np.float64
                assert digest(columns[column]) == row["scores"][side]
                expected = scores(world, model, scorer, size, name)
                assert columns[column] == pytest.approx(expected, **precision(model, abs=NATS))
    assert set((world.out / "scores").rglob("*.*")) == set(named)
    for file, columns in named.items():
        assert set(np.load(file).files) == columns


def sha256(images):
    return hashlib.sha256(repr(("|u1", images.shape)).encode() + images.tobytes()).hexdigest()


def test_every_field_of_a_failed_row(world):
    failed = [row for row in read(world.out, ROWS) if row["status"] == "failed"]
    assert {row["scorer"] for row in failed} == {"net-boom"}
    for row in failed:
        model, ood, scorer, _ = name_of(row)
        expected = heading(world, row) | {
            "status": "failed",
            "reason": "net-boom failed: ValueError: boom",
            "inputs": row["inputs"],
            "provenance": row["provenance"],
        }
        check_fields(row, expected, precision(model))
        check_inputs(world, row["inputs"], model, ood, scorer)
        check_provenance(row["provenance"])


def test_every_field_of_a_skip(world):
    for row in (row for row in read(world.out, ROWS) if row["status"] == "skipped"):
        assert row["ood"] in ("celeba", "far", "constant")
        reason = row["reason"]
        what = {name: row[name] for name in ("model", "ood", "scorer", "reason")}
        check_fields(
            row,
            {
                "suite": "net",
                "status": "skipped",
                "in_dist_name": "near",
                "in_dist": "near",
                "group_size": None,
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


def single_scores(world, model):
    """Scorer → its scores of the single images of ``near`` and ``far``."""
    names = sorted(
        name
        for m, ood, name, size in trials()
        if (m, ood, size) == (model, "far", 1) and name != "net-boom"
    )
    return {
        name: [scores(world, model, name, 1, which) for which in ("near", "far")] for name in names
    }


def test_every_field_of_a_comparison(world):
    rows = read(world.out, COMPARISONS)
    assert {(row["model"], row["ood"]) for row in rows} == {
        (model, "far/test") for model in LIKELIHOOD
    }
    assert len(rows) == 2  # none of generated sets
    for row in rows:
        own = single_scores(world, row["model"])
        correlation = {
            name: [spearman(one, own[name]) for one in own.values()] for name in sorted(BASELINES)
        }
        expected = {
            "suite": "net",
            "status": "ok",
            "model": row["model"],
            "in_dist": "near/test",
            "ood": "far/test",
            "seed": SEED,
            "scorers": list(own),
            "baselines": sorted(BASELINES),
            "tuned": [],
            "n_in": len(own["likelihood"][0]),
            "n_ood": len(own["likelihood"][1]),
            "look_at_ref": [name for name in own if name in {*FITTED, "lid"}],
            "auroc": [wins(*one).mean() for one in own.values()],
            "covariance": covariance([wins(*one) for one in own.values()]).tolist(),
            "paired": paired(list(own.values())),
            "correlation": correlation,
            "oracle_dual_threshold": envelope(own["likelihood"], own["lid"])
            if "lid" in own
            else None,
        }
        check_fields(row, expected)


def paired(scorers):
    """Values, and lower ends of the intervals of all differences, from replicates that all scorers share."""
    values, replicates = ([f(*one) for one in scorers] for f in (both_curves, bootstrapped))
    found = {}
    for name in values[0]:
        draws = [one[name] for one in replicates]
        lows = [[np.quantile(one - other, 0.025) for other in draws] for one in draws]
        found[name] = {"value": [one[name] for one in values], "low": np.round(lows, 6).tolist()}
    return found


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


def shrunk(images, percent):
    """Towards the mean of these images, rounded half up, in exact fractions."""
    flat = images.reshape(len(images), -1).astype(int)
    means = [Fraction(int(total), len(images)) for total in flat.sum(0)]
    moved = [
        [
            math.floor(m + Fraction(percent, 100) * (int(x) - m) + Fraction(1, 2))
            for x, m in zip(one, means)
        ]
        for one in flat
    ]
    return np.reshape(moved, images.shape).astype(np.uint8)


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
    as_it_is, found = log_prob(model, images), {}
    for prefix, contract in (("", contracted), ("own_mean_", shrunk)):
        columns = {p: log_prob(model, contract(images, p)) for p in GRAY} | {100: as_it_is}
        found[f"{prefix}curve"] = [[p, *summary(bits(own))] for p, own in columns.items()]
        found[f"{prefix}change"] = [[p, *summary(columns[p] - as_it_is)[:2]] for p in GRAY]
    return found | {"in_dist_bits_per_dim": summary(bits(log_prob(model, world.images["near"])))}


def second_order_fields(world, model, role, name):
    """The density is Gaussian with a diagonal precision: the expansion is exact."""
    near, other = world.images["near"], world.images[name]
    precision = np.exp(2 * (place(SCALES) - place(SPREADS)))
    y_in, y_ood = ((images + 0.5) / 256 - 0.5 for images in (near, other))
    centre = y_in.mean(0)
    gradient = -(centre * np.exp(place(SCALES)) - place(MEANS)) * np.exp(
        place(SCALES) - 2 * place(SPREADS)
    )
    quadratics = [-0.5 * (precision * (y - centre) ** 2).sum((1, 2, 3)) for y in (y_ood, y_in)]
    quadratic = [summary(one)[:2] for one in quadratics]
    linear = [summary((gradient * y).sum((1, 2, 3))) for y in (y_ood, y_in)]
    measured = [summary(log_prob(model, images))[:2] for images in (other, near)]
    second, observed = (
        [one[0] - two[0], math.hypot(one[1], two[1])] for one, two in (quadratic, measured)
    )
    diagonal = float(-0.5 * (precision * (y_ood.var(0) - y_in.var(0))).sum())
    sums = [[float((images / 255).var(0).sum())] for images in (near, other)]
    return {
        "measured": observed,
        "first": [
            float((gradient * (y_ood.mean(0) - centre)).sum()),
            math.hypot(linear[0][1], linear[1][1]),
        ],
        "second": second,
        "diagonal": [diagonal, 0.0],
        "at_data": over_halves(*quadratics),
        "closed_form": diagonal,
        "variance_sums": sums,
        "means_apart": float(np.linalg.norm(y_ood.mean(0) - centre) / np.sqrt(y_in.var(0).sum())),
        "off_diagonal": [off_diagonal(near), off_diagonal(other)],
        "curvature_spread": [-float((precision * y_in.var(0)).sum()), 0.0],
        "prior_volume_spread": 0.0,
    }


def over_halves(of_ood, of_in):
    """Of a curvature that is the same everywhere: image i beside in-dist image i, half a set further on."""
    half = min(len(of_ood), len(of_in)) // 2
    pairs = [of_ood[i] + of_ood[i + half] - of_in[i] - of_in[i + half] for i in range(half)]
    return summary(np.array(pairs) / 2)[:2]


def off_diagonal(images):
    """From the products of unlike differences of disjoint pairs, one by one."""
    half = len(images) // 2
    differences = [images[i].astype(float).ravel() - images[i + half].ravel() for i in range(half)]
    whole = diagonal = 0.0
    for i, one in enumerate(differences):
        for other in differences[:i]:
            whole += (one @ other) ** 2
            diagonal += (one**2 * other**2).sum()
    return 1 - diagonal / whole


def samples_fields(world, model, role, name):
    """The flow is affine: the latents of a draw that was not rounded are its noise, times the temperature."""
    of_draws = log_prob(model, world.images["samples"])
    sets = [
        {
            "set": IDENTIFIER[one],
            "role": part,
            "pixel_variance": pixel_variance(world.images[one]),
            "draws_likelier": int((of_draws > np.median(log_prob(model, world.images[one]))).sum()),
        }
        for one, part in (("near", "test"), ("far", "ood"))
    ]
    noise = torch.randn(4, D, generator=torch.Generator().manual_seed(SEED)).double().numpy()
    norms = np.sqrt((noise**2).sum(1))
    temperatures = [
        {
            "temperature": at,
            "n": 4,
            "bits_per_dim": summary(bits(log_prob(model, world.drawn[at]))),
            "latent_norm": summary(glow_terms(world.drawn[at])["latent_norm"]),
            "latent_norm_unrounded": summary(at * norms),
            "overflowed": 0,
            "pixel_variance": pixel_variance(world.drawn[at]),
        }
        for at in TEMPERATURES
    ]
    return {"sets": sets, "temperatures": temperatures}


def pixel_variance(images):
    return float((images / 255).var(0).mean())


def members_fields(world, model, role, name):
    found = []
    for member in ("net-glow", "net-glow-b"):
        near, other = (log_prob(member, world.images[one]) for one in ("near", name))
        higher = (other[:, None] < near).mean() + (other[:, None] == near).mean() / 2
        found.append(float(higher))
    return {"aurocs": found}


def flow_fields(world, model, role, name):
    images = world.images[name]
    terms = glow_terms(images[drawn_order(len(images))[:64]])
    scale = {
        "shape": [4, 4, 4],
        "mean_square": summary(-2 * terms["latent_term"] / D)[:2],
        "prior_volume": terms["prior_volume"].mean(),
        "log_det": terms["log_det"].mean() + D * math.log(256),
    }
    return {"images_measured": len(terms["log_prob"]), "scales": [scale]}


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
    "flow": flow_fields,
    "samples": samples_fields,
    "members": members_fields,
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
    ("samples", "samples", "samples"),
    ("second-order", "ood", "far"),
    ("second-order", "ood", "constant"),
    ("flow", "test", "near"),
    ("flow", "ood", "far"),
    ("members", "ood", "far"),
    ("members", "ood", "constant"),
    ("training", "member", "near"),
}


def test_every_field_of_the_analysis(world):
    shown = {"samples": "samples", **IDENTIFIER}
    names = {identifier: name for name, identifier in shown.items()}
    rows = {
        (row["model"], row["kind"], row["role"], names[row["images"]]): row
        for row in read(world.out, ANALYSIS)
    }
    wanted = {("net-stub", *one) for one in ALL_OF} | {
        ("net-glow", *one) for one in ALL_OF | OF_GLOW
    }
    assert rows.keys() == wanted | {("net-glow-b", "training", "member", "near")}
    assert len(rows) == len(read(world.out, ANALYSIS))
    stub = world_identities(world)["net-stub"]
    for (model, kind, role, name), row in rows.items():
        identity = stub if model == "net-stub" else card_identity(world, model)
        head = {
            "status": "ok",
            "kind": kind,
            "suite": "net",
            "model": model,
            "likelihood": LIKELIHOOD.get(model, "one draw"),
            "role": role,
            "in_dist": "near/test",
            "images": shown[name],
            "synthetic": name == "constant",
            "n": len(world.images[name]),
            "dimensions": D,
            "seed": SEED,
            "inputs": {
                "model": identity,
                "in_dist": sha256(world.images["near"]),
                "images": drawing(world) if name == "samples" else sha256(world.images[name]),
            },
        }
        tolerance = precision(model, abs=NATS if kind == "second-order" else 2e-5)
        check_fields(row, head | RULES[kind](world, model, role, name), tolerance)


def world_identities(world):
    found = [row["inputs"]["models"] for row in read(world.out, ROWS) if row["status"] == "ok"]
    names = {name for one in found for name in one}
    identities = {name: {one[name] for one in found if name in one} for name in names}
    assert all(len(own) == 1 for own in identities.values())
    assert len(set.union(*identities.values())) == len(names)
    return {name: own.pop() for name, own in identities.items()}


def drawing(world):
    """The identity of the images that the Glow draws."""
    version = FAMILIES["glow"].sampler_version
    return hash_of("samples", card_identity(world, "net-glow"), version, 4, SEED, "cpu")


# --- what figures draw ----------------------------------------------------------------------------


def histograms(columns, slack):
    """Span, counts and medians; a value within ``slack`` (relative) of a bin's edge may stand on either side."""
    low = min(max(np.quantile(one, 0.005), quartiles(one)[0]) for one in columns)
    high = max(min(np.quantile(one, 0.995), quartiles(one)[1]) for one in columns)
    margin = max(0.05 * (high - low), 1e-9 * max(abs(low), abs(high)))
    edges = np.linspace(low - margin, high + margin, 61)
    return [low - margin, high + margin], [Bins(one, edges, slack) for one in columns]


def quartiles(column):
    """Eight interquartile ranges from the quartiles."""
    first, third = np.quantile(column, [0.25, 0.75])
    return first - 8 * (third - first), third + 8 * (third - first)


class Bins:
    """What 60 bins hold of a column: equal to any counts that differ by values at an edge alone."""

    def __init__(self, column, edges, slack):
        self.column = column
        near = slack * np.abs(column)[:, None]
        self.least = (column[:, None] < edges - near).sum(0)
        self.most = (column[:, None] < edges + near).sum(0)
        inside = (column >= edges[0]) & (column <= edges[-1])
        self.outside = int((~inside).sum())

    def __eq__(self, counts):
        assert len(counts) == 60
        assert sum(counts) + self.outside == len(self.column)
        below = self.least[0] + np.cumsum(counts)[:-1]
        inner = slice(1, -1)
        return bool((self.least[inner] <= below).all() and (below <= self.most[inner]).all())


def histogram_fields(world, columns, slack):
    """``columns`` : set → its values, by the world's names."""
    span, bins = histograms(list(columns.values()), slack)
    sets = [
        {
            "set": IDENTIFIER[name],
            "n": len(column),
            "not_finite": 0,
            "outside": own.outside,
            "counts": own,
            "median": float(np.median(column)),
        }
        for (name, column), own in zip(columns.items(), bins, strict=True)
    ]
    return {"span": span, "sets": sets}


def of_model(kind, model):
    head = {"kind": kind, "suite": "net", "model": model, "in_dist": "near/test", "seed": SEED}
    return head | {"status": "ok"}


def curves_of(world, kind):
    return [row for row in read(world.out, CURVES) if row["kind"] == kind]


def test_there_is_a_curve_for_each_figure(world):
    rows = read(world.out, CURVES)
    kinds = {"likelihoods": 4, "decomposition": 3, "latents": 1, "grid": 3, "data": 2, "roc": 16}
    kinds |= {"contracted": 2, "coupling": 1}
    assert {kind: len(curves_of(world, kind)) for kind in {row["kind"] for row in rows}} == kinds
    assert len({row["key"] for row in rows}) == len(rows)


def test_histograms_of_log_prob(world):
    rows = {(row["model"], row["ood"]): row for row in curves_of(world, "likelihoods")}
    for model in LIKELIHOOD:
        for ood in ("far", "constant"):
            roles = {"near": "test", ood: "ood", "train": "train"}
            columns = {name: log_prob(model, world.images[name]) for name in roles}
            expected = histogram_fields(world, columns, precision(model)["rel"])
            for one, (name, column) in zip(expected["sets"], columns.items(), strict=True):
                one["bits_per_dim_median"] = float(np.median(bits(column)))
                one["role"] = roles[name]
            head = of_model("likelihoods", model) | {"ood": IDENTIFIER[ood]}
            check_fields(rows[model, IDENTIFIER[ood]], head | expected, precision(model))


def test_histograms_of_the_terms_of_a_flow(world):
    rows = {row["column"]: row for row in curves_of(world, "decomposition")}
    for column in ("latent_term", "prior_volume", "log_det"):
        columns = {name: glow_terms(world.images[name])[column] for name in ("near", "far")}
        expected = histogram_fields(world, columns, FLOAT32["rel"])
        head = of_model("decomposition", "net-glow") | {"column": column}
        check_fields(rows[column], head | expected, FLOAT32)
    for one in (*rows["log_det"]["sets"], *rows["prior_volume"]["sets"]):
        assert max(one["counts"]) == one["n"]  # constant volume


def test_histograms_of_the_contracted_in_dist_set(world):
    rows, near = {row["model"]: row for row in curves_of(world, "contracted")}, world.images["near"]
    shown = {"": near, "contract50": contracted(near, 50), "shrink50": shrunk(near, 50)}
    for model in LIKELIHOOD:
        columns = {name: log_prob(model, images) for name, images in shown.items()}
        slack = precision(model)["rel"]
        span, bins = histograms(list(columns.values()), slack)
        sets = [
            {
                "set": "near/test" + f"@{name}" * bool(name),
                "contraction": name,
                "n": len(near),
                "not_finite": 0,
                "outside": own.outside,
                "counts": own,
                "median": float(np.median(columns[name])),
            }
            for name, own in zip(columns, bins, strict=True)
        ]
        expected = of_model("contracted", model) | {"span": span, "sets": sets}
        check_fields(rows[model], expected, precision(model))


def test_histograms_of_pixels(world):
    rows = {row["quantity"]: row for row in curves_of(world, "data")}
    shown = {name: world.images[name].reshape(-1, D) / 255 for name in ("near", "far")}
    for quantity, moment in (("mean", np.mean), ("variance", np.var)):
        expected = histogram_fields(
            world, {name: moment(own, 0) for name, own in shown.items()}, EXACT["rel"]
        )
        if quantity == "variance":
            for one, own in zip(expected["sets"], shown.values(), strict=True):
                one["variance_sums"] = [summary(((own - own.mean(0)) ** 2).sum(1))[:2]]
        head = of_model("data", "") | {"quantity": quantity}
        del head["model"], head["seed"]
        check_fields(rows[quantity], head | expected)


def test_points_of_the_latents(world):
    (row,) = curves_of(world, "latents")
    sets = []
    for name, role in (("near", "test"), ("far", "ood"), ("samples", "samples")):
        images = world.images[name]
        order = np.arange(len(images)) if name == "samples" else drawn_order(len(images))
        found = glow_terms(images[order])
        points = {"x": found["latent_norm"], "y": found["log_prob"]}
        ends = {f"{axis}_ends": list(ends_of(own)) for axis, own in points.items()}
        points = {axis: own.tolist() for axis, own in points.items()}
        shown = IDENTIFIER.get(name, name)
        sets.append({"set": shown, "role": role, "not_finite": 0, **points, **ends})
    check_fields(row, of_model("latents", "net-glow") | {"dimensions": D, "sets": sets}, FLOAT32)


def drawn_order(n):
    return np.argsort(np.random.Philox(key=181009136).random_raw(n), kind="stable")


def ends_of(column):
    low, high = np.quantile(column, [0.005, 0.995])
    return max(low, quartiles(column)[0]), min(high, quartiles(column)[1])


def test_grids_hold_the_images_that_are_drawn(world):
    rows = {row["role"]: row for row in curves_of(world, "grid")}
    assert rows.keys() == {"test", "ood", "samples"}
    for name, role in (("near", "test"), ("far", "ood"), ("samples", "samples")):
        row, images = rows[role], world.images[name]
        content = (world.out / row["file"]).read_bytes()
        expected = of_model("grid", "net-glow") | {
            "set": IDENTIFIER.get(name, name),
            "role": role,
            "n": 4,
            "file": row["file"],
            "sha256": hashlib.sha256(content).hexdigest(),
            "bits_per_dim_median": float(np.median(bits(log_prob("net-glow", images)))),
        }
        check_fields(row, expected, FLOAT32)
        assert re.fullmatch(r"grids/[0-9a-f]{24}\.png", row["file"])
        four = images[:4] if name == "samples" else images[drawn_order(len(images))[:4]]
        pixels = np.full((8, 64, 3), 255, np.uint8)
        for number, image in enumerate(four):
            pixels[:, 8 * number : 8 * number + 8] = image[0][..., None]
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
    pictured = [*rows.values(), *curves_of(world, "coupling")]
    assert {path.name for path in (world.out / "grids").iterdir()} == {
        row["file"].removeprefix("grids/") for row in pictured
    }


def as_levels(values, low=-3, high=3):
    return np.rint(255 * ((values - low) / (high - low)).clip(0, 1))


def test_a_coupling_is_taken_apart_on_an_image_of_each_set(world):
    """The net's coupling shifts by 0, so that it keeps everything; its latents are tiles of the four channels."""
    (row,) = curves_of(world, "coupling")
    content = (world.out / row["file"]).read_bytes()
    spans = {"into": 3, "kept": None, "shift": 0, "log scale": 0, "out": 3, "z 1": 3}
    panels = [
        {"name": name, "low": -span if span else 0, "high": 1 if span is None else span}
        for name, span in spans.items()
    ]
    sets = [
        {"set": IDENTIFIER[name], "role": role, "log_det": 0}
        for name, role in (("near", "test"), ("far", "ood"))
    ]
    digest = hashlib.sha256(content).hexdigest()
    found = {"sets": sets, "panels": panels, "file": row["file"], "sha256": digest}
    check_fields(row, of_model("coupling", "net-glow") | found)
    picture = np.asarray(Image.open(io.BytesIO(content))).astype(int)
    assert picture.shape == (16, 48)
    for line, name in zip(np.vsplit(picture, 2), ("near", "far"), strict=True):
        images = world.images[name]
        one = images[drawn_order(len(images))[:1]]
        into = ((one + noise(one)) / 256 - 0.5) * np.exp(place(SCALES))
        z = (into - place(MEANS)) / np.exp(place(SPREADS))
        tiles = z[0, 0].reshape(4, 2, 4, 2).transpose(1, 3, 0, 2).reshape(4, 4, 4)
        tiled = np.block([[tiles[0], tiles[1]], [tiles[2], tiles[3]]])
        shown = [as_levels(into[0, 0]), np.full((8, 8), 255), *[np.zeros((8, 8))] * 2]
        shown += [as_levels(into[0, 0]), as_levels(tiled)]
        assert np.abs(line - np.hstack(shown)).max() <= 1


def test_roc_curves(world):
    rows = {(row["model"], row["scorer"]): row for row in curves_of(world, "roc")}
    trial = {name_of(row): row for row in read(world.out, ROWS) if row["status"] != "skipped"}
    for model in LIKELIHOOD:
        for scorer, (of_in, of_ood) in single_scores(world, model).items():
            row = rows[model, scorer]
            cuts = np.unique(np.concatenate([of_in, of_ood]))[::-1]
            rates = [[0.0, *((one[:, None] >= cuts).mean(0))] for one in (of_in, of_ood)]
            expected = of_model("roc", model) | {
                "ood": "far/test",
                "scorer": scorer,
                "baseline": scorer in BASELINES,
                "auroc": wins(of_in, of_ood).mean(),
                "flagged": [round(rate, 4) for rate in rates[0]],
                "caught": [round(rate, 4) for rate in rates[1]],
            }
            check_fields(row, expected)
            assert row["key"] == trial[model, "far", scorer, 1]["key"]


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


# --- what is measured anew, and what is another row -----------------------------------------------


def keys_of(folder):
    rows = [row for row in read(folder, ROWS) if row["status"] != "skipped"]
    return {name_of(row): row["key"] for row in rows}


def test_other_replicates_are_other_rows_but_no_other_pass(world):
    """Another number of replicates moves the intervals of AUPR and FPR alone."""
    only = ["net-stub", "typicality", "far"]
    before = {name_of(row): row for row in read(world.out, ROWS) if row["status"] == "ok"}
    began = world.clock.now
    world.run("replicates", {"analysis": None}, only=only)
    first = keys_of(world.folder / "replicates")
    assert first == {name: key for name, key in keys_of(world.out).items() if name in first}
    again = world.run("replicates", {"bootstrap": 7, "analysis": None}, only=only)
    assert world.clock.now == began
    rows = [row for row in read(again, ROWS) if row["status"] == "ok"]
    assert [row["group_size"] for row in sorted(rows, key=name_of)] == [1, 3, 5]
    assert all(row["replaces"] == first[name_of(row)] for row in rows)
    changed = {name for row in rows for name in row if row[name] != before[name_of(row)][name]}
    assert changed > {"key", "values_sha256", "replaces", "bootstrap"}
    assert all(
        name.startswith(("aupr", "fpr")) and name.endswith(("_low", "_high"))
        for name in changed - {"key", "values_sha256", "replaces", "bootstrap"}
    )


def test_what_a_row_prints_is_in_its_key(world):
    """Seed, shown names and the scorer's code; the same run again has the same keys."""
    only, plain = ["likelihood", "net-boom", "far"], {"analysis": None}
    same = keys_of(world.run("keys", plain, only=only))
    known = keys_of(world.out)
    assert same == {name: known[name] for name in same}
    assert {name[0] for name in same} == {"net-stub", "net-glow"}
    seeded = keys_of(world.run("keys-seed", {"seed": SEED + 2, **plain}, only=only))
    assert seeded.keys() == same.keys()
    assert not set(seeded.values()) & set(same.values())
    renamed = world.run("keys-name", {"models": [{"shown": world.glow}], **plain}, only=only)
    assert {name[0] for name in keys_of(renamed)} == {"net-stub", "shown"}
    new = {key for name, key in keys_of(renamed).items() if name[0] == "shown"}
    assert not new & set(same.values())
    began, pairs = world.clock.now, [{"in_dist": "near", "ood": [{"other": "far"}]}]
    only[-1] = "other"
    named = keys_of(world.run("keys-set", {"pairs": pairs, **plain}, only=only))
    assert {name[1] for name in named} == {"other"}
    assert not set(named.values()) & set(same.values())
    assert world.clock.now == began  # two names for one content share its columns
    only[-1] = "far"
    boom = world.folder / "boom.py"
    boom.write_text(BOOM.replace('"boom"', '"bang"'))
    try:
        edited = keys_of(world.run("keys-code", plain, only=only))
        reasons = {row.get("reason") for row in read(world.folder / "keys-code", ROWS)}
    finally:
        boom.write_text(BOOM)
    assert {name[2] for name in same if edited[name] != same[name]} == {"net-boom"}
    assert all(edited[name] != key for name, key in same.items() if name[2] == "net-boom")
    assert "net-boom failed: ValueError: bang" in reasons


def test_another_device_is_another_measurement(world):
    """A column belongs to the kind of device that made it; one kind's devices share columns."""
    only, began = ["net-stub", "likelihood", "far"], world.clock.now
    cuda = world.run("cuda", {"analysis": None}, only=only, device="cuda:0")
    waited = world.clock.now - began
    assert waited == pytest.approx(
        SECONDS * sum(world.images[n][:, 0, 0, 0].sum() for n in ("near", "far"))
    )
    one = world.run("cuda-one", {"analysis": None}, only=only, device="cuda:1")
    assert world.clock.now - began == waited
    found, known = keys_of(cuda), keys_of(world.out)
    assert found == keys_of(one)
    assert all(key != known[name] for name, key in found.items())
    for row in read(one, ROWS):  # what measured, not what was asked for now
        name = "density of net-stub"
        agree(row["cost"], {name: cost(world, name, "cuda:0")}, EXACT)
        check_provenance(row["provenance"], "cuda:0")


def test_another_seed_is_another_measurement_and_its_progress_is_told(world, capfd):
    world.run(
        "seed",
        {"seed": SEED + 1, "scorers": ["likelihood", "pixel-mean"]},
        only=["net-stub", "far"],
    )
    told = capfd.readouterr().err
    both = 2 * len(GRAY)  # factors, towards grey and towards the mean
    anew = 14 + 10 + 15 + 135 + both * (14 + 10)  # of test, OOD, ref, train, and contracted
    assert f" passes over {anew} images, " in told
    assert ", 4 rows; " in told
    rows = [row for row in read(world.folder / "seed", ROWS) if row["status"] == "ok"]
    assert {row["seed"] for row in rows} == {SEED + 1}
    (row,) = read(world.folder / "seed", COMPARISONS)
    assert row["scorers"] == ["likelihood", "pixel-mean"]  # two are enough to compare


def test_an_ensemble_of_one_is_none(world):
    changes = {"models": [world.alone], "scorers": ["waic"], "analysis": None}
    world.run("alone", changes, only=["waic", "far"])
    reasons = {
        row.get("reason") for row in read(world.folder / "alone", ROWS) if row["scorer"] == "waic"
    }
    why = "has no ensemble of two or more models, which ensemble_log_prob asks for"
    assert reasons == {f"net-background {why}", f"net-stub {why}"}
