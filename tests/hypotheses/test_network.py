"""Sketched gradients of a whole network against dense ones."""

import dataclasses

import pytest
import torch

from builders.heads import blobs, perceptron, pictures_of, wrap
from poison_audit.hypotheses.network import _lots, _sketched_gradients, network_share
from poison_audit.models.seeds import Rng


@pytest.fixture
def model():
    found = wrap(perceptron)
    return dataclasses.replace(found, module=found.module.double())


@pytest.fixture
def retain():
    samples = pictures_of(*blobs(0, n=12), name="r")
    return dataclasses.replace(samples, x=samples.x.double())


def dense(model, samples):
    """Return per-sample gradients, one at a time: (n, p)."""
    rows = []
    for at in range(len(samples)):
        model.module.zero_grad()
        torch.nn.functional.cross_entropy(
            model.module(samples.x[at : at + 1]), samples.y[at : at + 1]
        ).backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.module.parameters()]))
    model.module.zero_grad(set_to_none=True)
    return torch.stack(rows)


def shifted(model, by):
    """Return a model whose parameters are `by` further."""
    other = model.clone()
    flat = torch.nn.utils.parameters_to_vector(model.module.parameters()) + by
    torch.nn.utils.vector_to_parameters(flat.detach(), other.module.parameters())
    return other


def measure(model, reference, retain, seed=0, **changes):
    numbers = {"rank": 6, "sketch": 64, "gradients": 100} | changes
    return network_share(model, reference, retain, Rng(seed), **numbers)


def test_rows_are_signed_sums_of_the_gradients(model, retain):
    parameters = dict(model.module.named_parameters())
    lots = _lots(parameters, Rng(0), 16)
    rows, mean = _sketched_gradients(model, parameters, retain, lots, 16)
    true = dense(model, retain)
    projection = torch.zeros(true.shape[1], 16, dtype=torch.float64)
    for at, lot in enumerate(torch.cat(list(lots.values())).tolist()):
        projection[at, lot % 16] = 1.0 if lot < 16 else -1.0
    torch.testing.assert_close(rows, true @ projection)
    torch.testing.assert_close(torch.cat([m.flatten() for m in mean]), true.mean(dim=0))


def test_descent_has_cosine_one_and_share_one(model, retain):
    # The mean gradient is a combination of the 12 samples' gradients; a projection keeps that.
    reference = shifted(model, -0.1 * dense(model, retain).mean(dim=0))
    told = measure(model, reference, retain, rank=12)
    assert told["cosine"] == pytest.approx(1, abs=1e-9)
    assert told["share"] == pytest.approx(1, abs=1e-6)
    assert told["rank"] == 12


def test_a_wide_sketch_gives_the_true_share(model, retain):
    need = torch.randn(43, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    true = dense(model, retain)
    assert true.shape == (12, 43)
    top = torch.linalg.svd(true, full_matrices=False)[2][:6]
    share = float((top @ need).square().sum() / need.square().sum())
    told = measure(model, shifted(model, need), retain, sketch=200_000)  # no two weights collide
    assert told["share"] == pytest.approx(share, abs=1e-3)  # r / k is taken off: 3e-5
    assert told["cosine"] == pytest.approx(
        float(-true.mean(0) @ need / (true.mean(0).norm() * need.norm())), abs=1e-9
    )


def test_what_a_narrow_sketch_tells(model, retain):
    need = torch.randn(43, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    told = measure(model, shifted(model, need), retain)
    assert told["share_low"] <= told["share"] <= told["share_high"]
    assert told["random"]["mean"] == 6 / 64
    assert told["sketch_error"] == pytest.approx((2 / 64) ** 0.5)
    assert (told["parameters"], told["gradients"]) == (43, 12)
    assert told == measure(model, shifted(model, need), retain)
    assert told != measure(model, shifted(model, need), retain, seed=1)


def test_at_most_as_many_samples_as_asked_for(model, retain):
    told = measure(model, shifted(model, 1.0), retain, gradients=5)
    assert (told["gradients"], told["rank"]) == (5, 5)


def test_no_need_has_no_share(model, retain):
    told = measure(model, model, retain)
    assert told["share"] is None
    assert told["cosine"] is None
