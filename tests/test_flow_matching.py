"""Flow matching: against densities in closed form, Jacobians of the solver's own map, and what its card tells."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import oodbench as ob
from oodbench.contract import bits_per_dim
from oodbench.errors import ModelError
from oodbench.models.flow_matching import FlowMatching, share_of_time, time_of_share
from oodbench.models.flow_of_noise import VelocityFlow
from oodbench.models.flows import gaussian_log_prob
from oodbench.plan import make_plan
from oodbench.suite import Suite
from oodbench.trials.rows import trial_tasks
from oodbench.zoo.cards import load_card, zoo
from oodbench.zoo.families import family
from oodbench.zoo.train import train

CARDS = [name for name in zoo() if load_card(name).family == "flow-matching"]


def small_model(shape=(1, 8, 8), **options):
    """A small flow in float64 whose field is not that of its first initialisation, which is zero."""
    torch.manual_seed(0)
    model = FlowMatching(shape, **{"width": 8, "steps": 12, **options}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def images_of(shape, n=4):
    drawn = np.random.default_rng(0).integers(0, 256, (n, *shape))
    return torch.from_numpy(drawn.astype(np.uint8))


class Linear(nn.Module):
    """``dx/dt = A x + b``."""

    def __init__(self, dims):
        super().__init__()
        torch.manual_seed(2)
        self.matrix = nn.Parameter(torch.randn(dims, dims, dtype=torch.float64) / dims)
        self.shift = nn.Parameter(torch.randn(dims, dtype=torch.float64))

    def forward(self, x, t):
        return (x.flatten(1) @ self.matrix.T + self.shift).reshape(x.shape)


@pytest.mark.parametrize(("solver", "steps"), [("heun", 100), ("rk4", 20)])
def test_a_linear_field_has_its_density_in_closed_form(solver, steps):
    """``x(0) = e^{−A}·x(1) − ∫₀¹ e^{−As} ds·b``, so that log p(y) = log N(x(0); 0, I) − tr A."""
    shape, images = (1, 3, 3), images_of((1, 3, 3))
    net = Linear(9)
    model = VelocityFlow(
        noise_time=0.0, data_time=1.0, network=net, shape=shape, trained_on="", low=-1.0, high=1.0, solver=solver,
        steps=steps, probes=None, seed=0,
    )  # fmt: skip
    with torch.no_grad():
        z, log_prob_z, log_det = model.encode(images)
        y = model.dequantised(images, model._drawn(images, 0)[0]).flatten(1)
        back = torch.matrix_exp(-net.matrix)
        moved = torch.linalg.solve(net.matrix, (torch.eye(9) - back) @ net.shift)
        expected = y @ back.T - moved
    tolerance = 1e-4 if solver == "heun" else 1e-6
    assert torch.allclose(z, expected, atol=tolerance)
    constant = 9 * math.log(2 / 256)
    assert torch.allclose(log_det, constant - net.matrix.trace().expand(4), atol=tolerance)
    assert torch.allclose(log_prob_z, gaussian_log_prob(expected), atol=10 * tolerance)
    assert torch.allclose(model.log_prob(images), log_prob_z + log_det, rtol=1e-12)


def test_terms_sum_to_log_p_and_images_are_judged_one_by_one():
    model, images = small_model(), images_of((1, 8, 8), 5)
    with torch.no_grad():
        terms = model.log_prob_terms(images)
        z, log_prob_z, log_det = model.encode(images)
        assert torch.allclose(model.log_prob(images[[3, 1]]), terms["log_prob"][[3, 1]], rtol=1e-9)
    constant = 32 * math.log(2 * math.pi)
    summed = terms["latent_term"] + terms["prior_volume"] + terms["log_det"] - constant
    assert torch.allclose(summed, terms["log_prob"], rtol=1e-12)
    assert torch.allclose(log_prob_z + log_det, terms["log_prob"], rtol=1e-9)
    assert torch.allclose(z.norm(dim=1), terms["latent_norm"], rtol=1e-9)
    assert z.shape == (5, 64)


def test_decoding_undoes_encoding_and_samples_follow_their_generator():
    model, images = small_model(steps=60), images_of((1, 8, 8))
    z, _, _ = model.encode(images)
    off = (
        model.decode(z).int() - images.int()
    )  # a value may stand so near a level's edge as the solver errs
    assert (off == 0).double().mean() > 0.98
    assert off.abs().max() <= 1
    drawn = [model.sample(2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert drawn[0].shape == (2, 1, 8, 8)
    assert drawn[0].dtype == torch.uint8
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.slow
def test_log_p_is_that_of_the_solver_s_map_with_its_exact_jacobian():
    model, images = small_model((1, 4, 4), steps=60, probes=None), images_of((1, 4, 4), 1)
    y = model.dequantised(images, model._drawn(images, 0)[0])
    for number, one in enumerate(y.split(1)):

        def carried(flat):
            x = flat.reshape(1, 1, 4, 4)
            times = model.times()
            for start, end in itertools.pairwise(times):
                v = model.velocity(x, start)
                x = x + (end - start) / 2 * (v + model.velocity(x + (end - start) * v, end))
            return x.flatten()

        jacobian = torch.autograd.functional.jacobian(carried, one.flatten())
        expected = (
            gaussian_log_prob(carried(one.flatten())[None]) + torch.linalg.slogdet(jacobian)[1]
        )
        found = model.log_prob(images)[number] - 16 * math.log(2 / 256)
        assert found.item() == pytest.approx(expected.item(), abs=1e-3)


def spread(differences):
    return differences.abs().median().item()  # of few images one may have most of the variance


def test_one_probe_estimates_the_exact_trace_and_its_error_is_told():
    images = images_of((1, 4, 4), 32)
    exact, one, many = (small_model((1, 4, 4), steps=3, probes=probes) for probes in (None, 1, 60))
    with torch.no_grad():
        truth = exact.log_prob(images)
        assert spread(many.log_prob(images) - truth) < 0.3 * spread(one.log_prob(images) - truth)
        off = one.log_prob(images) - truth
    nats = one.trace_error(images) * 16 * math.log(2)
    assert 0.3 < off.square().mean().sqrt().item() / nats < 3
    assert exact.trace_error(images) == 0


def test_steps_and_training_times_are_even_in_one_measure_and_denser_near_the_data():
    shares = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.allclose(share_of_time(time_of_share(shares)), shares, atol=1e-12)
    times = torch.tensor(FlowMatching((1, 8, 8), width=8, steps=10).times())
    assert times[0] == 1
    assert times[-1].item() == pytest.approx(0, abs=1e-7)
    steps = -times.diff()
    assert (steps.diff() > 0).all()
    assert steps[-1] > 30 * steps[0]


def test_the_loss_is_the_velocity_s_squared_error():
    model, images = FlowMatching((1, 8, 8), width=8), images_of((1, 8, 8), 64)
    torch.manual_seed(0)
    losses = torch.cat([model.loss(images) for _ in range(20)])  # of a network that says 0
    y = (images.double() + 0.5) / 128 - 1
    expected = 64 + (y**2).flatten(1).sum(1).mean().item()  # E‖y − ε‖²
    assert losses.mean().item() == pytest.approx(expected, rel=0.02)
    one, _ = images.split(32)
    assert torch.allclose(model.validation_loss(one), -model.log_prob(one))


def test_halving_the_steps_of_a_smooth_field_moves_little(capsys):
    model, images = small_model(steps=40), images_of((1, 8, 8), 16)
    with torch.no_grad():
        whole = model.log_prob(images)
        model.solver_steps = 20
        moves = bits_per_dim((whole - model.log_prob(images)).numpy(), model.shape)
    print(f"halving 40 steps moves log p by up to {np.abs(moves).max():.4f} bits/dim")
    assert np.abs(moves).max() < 0.02
    assert "moves log p" in capsys.readouterr().out


@pytest.mark.parametrize("name", CARDS)
def test_a_card_tells_what_its_model_says(name):
    card = load_card(name)
    model = family(card.family).build(**card.config)
    assert card.likelihood == model.likelihood
    told = (card.solver, card.solver_steps, card.trace_probes)
    assert told == (model.solver, model.solver_steps, model.trace_probes)


def test_there_are_two_cards():
    assert CARDS == ["flow-matching-cifar10", "flow-matching-fashionmnist"]
    assert load_card("diffusion-cifar10").solver is None


def test_what_cannot_be_solved_is_named():
    for change, said in (({"solver": "euler"}, "no solver"), ({"steps": 0}, "at least 1")):
        with pytest.raises(ModelError, match=said):
            FlowMatching((1, 8, 8), width=8, **change)


CARD = """\
name: tiny-flow
family: flow-matching
config: {shape: [1, 28, 28], width: 8, steps: 2, solver: heun, probes: 1}
trained_on: tiny
likelihood: uniform dequantisation, one draw; ODE in 2 steps of heun, trace of 1 probe
recipe: {seed: 3, steps: 2, batch_size: 4, learning_rate: 1e-3, validate_every: 2, validate_images: 3}
"""


def test_a_trained_flow_enters_suites_with_latent_scorers(tmp_path, home, monkeypatch):
    images = ob.load_images("mnist/test[:90]").images[:, 0]
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "tiny_train.npz", images=images[:60])
    np.savez(tmp_path / "data" / "tiny_test.npz", images=images[60:])
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "card.yaml").write_text(CARD)
    record = train(load_card(str(tmp_path / "card")), tmp_path / "out", "cpu", 1)
    assert record["ref"]["set"] == "tiny/ref[3 drawn]"
    assert record["ref_bits_per_dim"] > 4  # of log p, not of the loss
    assert record["trace_error_bits_per_dim"] >= 0
    suite = Suite(
        name="flow", title="t", models=[{"tiny-flow": str(tmp_path / "out")}], limit=4, bootstrap=0,
        limits={"tiny-flow": 3}, scorers=["likelihood", "ks", "chi2", "anderson-darling"],
        pairs=[{"in_dist": "tiny", "ood": ["fashionmnist"]}],
    )  # fmt: skip
    plan = make_plan(suite)
    assert [one.reason for one in plan.skips] == []
    assert {(one.test.n, one.ood.n) for one in plan.trials} == {(3, 3)}
    head = trial_tasks(plan)[0].head
    told = [head[name] for name in ("solver", "solver_steps", "trace_probes", "trace_error")]
    assert told == ["heun", 2, 1, record["trace_error_bits_per_dim"]]
    model = ob.load_model(str(tmp_path / "out"))
    found = ob.measure(model, ob.load_images("tiny/test[:2]", like=model), "log_prob", "ks")
    assert np.isfinite(found["log_prob"]).all()
    assert (found["ks"] > 0).all()
