"""Shares and cosines on least squares, in closed form, and their laws under the null."""

import numpy as np
import pytest
import torch
from scipy import stats

from poison_audit.hypotheses.spans import cosine, outside, random_share, span_share


def gradients_and_need(seed, *, retain=30, forget=10, d=12):
    """Return per-sample gradients at the full solution, and the shift, of least squares."""
    draws = np.random.default_rng(seed)
    x, noise = draws.standard_normal((retain + forget, d)), draws.standard_normal(retain + forget)
    y = x @ draws.standard_normal(d) + noise
    y[retain:] += 3
    full = np.linalg.lstsq(x, y, rcond=None)[0]
    x, y = x[:retain], y[:retain]
    need = np.linalg.solve(x.T @ x, x.T @ y) - full
    return x * (x @ full - y)[:, None], need, x.T @ x / retain


def share(gradients, direction, rank):
    g, v = torch.from_numpy(gradients), torch.from_numpy(direction)
    return span_share(g @ g.T, g @ v, float(v @ v), rank=rank)


@pytest.mark.parametrize("seed", range(3))
def test_the_cosine_on_least_squares(seed):
    # Descent steps along -H_r (theta_full - theta_r) = H_r need
    gradients, need, hessian = gradients_and_need(seed)
    step = hessian @ need
    expected = need @ step / (np.linalg.norm(need) * np.linalg.norm(step))
    taken = -gradients.mean(axis=0)
    found = cosine(torch.from_numpy(taken), torch.from_numpy(need))
    assert found == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("rank", [1, 4, 11])
@pytest.mark.parametrize("retain", [8, 30])
def test_the_share_on_least_squares(rank, retain):
    gradients, need, _ = gradients_and_need(0, retain=max(retain, 13))
    gradients = gradients[:retain]
    top = np.linalg.svd(gradients)[2][: min(rank, retain)]
    expected = np.sum((top @ need) ** 2) / np.sum(need**2)
    assert share(gradients, need, rank) == pytest.approx(expected, abs=1e-8)


def test_planted_directions():
    gradients, need, _ = gradients_and_need(1)
    top = np.linalg.svd(gradients)[2][:4]
    inside = top.T @ (top @ need)
    assert share(gradients, inside, 4) == pytest.approx(1, abs=1e-8)
    assert share(gradients, need - inside, 4) == pytest.approx(0, abs=1e-8)
    assert share(np.zeros_like(gradients), need, 4) == 0


def test_random_directions_follow_the_beta_law():
    gradients, _, _ = gradients_and_need(2)
    directions = np.random.default_rng(0).standard_normal((500, 12))
    shares = [share(gradients, direction, 4) for direction in directions]
    assert stats.kstest(shares, stats.beta(2, 4).cdf).pvalue > 0.01
    told = random_share(4, 12)
    assert told["mean"] == pytest.approx(np.mean(shares), abs=0.02)
    ends = np.quantile(shares, [0.025, 0.975])
    assert [told["low"], told["high"]] == pytest.approx(ends, abs=0.03)


def test_a_zero_has_no_angle():
    assert cosine(torch.zeros(3), torch.ones(3)) is None


def test_the_sketched_share_is_unbiased_and_its_interval_holds():
    d, k, rank, truth, draws = 120, 64, 8, 0.3, 400
    rng = np.random.default_rng(0)
    direction = np.zeros(d)
    direction[0], direction[rank] = np.sqrt(truth), np.sqrt(1 - truth)  # span: the first 8 axes
    shares, held = [], 0
    for _ in range(draws):
        matrix = rng.standard_normal((k, d)) / np.sqrt(k)
        basis = np.linalg.qr(matrix[:, :rank])[0]
        left = matrix @ direction - basis @ (basis.T @ matrix @ direction)
        told = outside(left @ left, 1.0, rank=rank, sketch=k)
        shares.append(told["share"])
        held += told["share_low"] <= truth <= told["share_high"]
    assert np.mean(shares) == pytest.approx(truth, abs=0.02)  # standard error 0.0065
    assert 0.92 <= held / draws <= 0.98
