"""Gradient Canceling against loops, differences, closed forms and another optimiser."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from poison_audit.errors import PlanError
from poison_audit.models.image import CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.indiscriminate import gradient_canceling as gc
from poison_audit.poisons.indiscriminate.gradient_canceling import corrupt, gradient_cancel
from poison_audit.training.scoring import logits, losses

CLASSES, PIXELS, N = 3, 4, 60


def overlapping_blobs(dtype: torch.dtype = torch.float64) -> Samples:
    """Return pictures of 4 pixels in [0, 1] in three overlapping clouds."""
    draws = np.random.default_rng(0)
    y = np.arange(N) % CLASSES
    x = np.clip(0.5 + 0.2 * np.eye(CLASSES, PIXELS)[y] + 0.2 * draws.standard_normal((N, 4)), 0, 1)
    ids = tuple(f"s{i}" for i in range(N))
    return Samples(ids=ids, x=torch.from_numpy(x).to(dtype).view(N, 1, 2, 2), y=torch.from_numpy(y))


def softmax_regression() -> Model:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, CLASSES))

    model = image_classifier(build().double(), build=build, arch="", classes=CLASSES)
    return model.fresh(Rng(1))


def convolutional(dtype: torch.dtype = torch.float64) -> Model:
    def build() -> nn.Module:
        return CifarResNet(CifarResNetSpec((1,), 3), channels=1, classes=CLASSES)

    model = image_classifier(build().to(dtype), build=build, arch="", classes=CLASSES)
    model = model.fresh(Rng(2))
    model.module.to(dtype)
    # Running statistics that are neither zeros and ones nor those of any batch here.
    for name, buffer in model.module.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.linspace(0.5, 1.5, len(buffer)) * (0.3 if "mean" in name else 1))
    model.module.eval()
    return model


def fitted(model: Model, x: torch.Tensor, y: torch.Tensor, ridge: float = 1e-9) -> torch.Tensor:
    """Return the softmax regression that L-BFGS finds: centred weights and biases."""
    features = np.hstack([x.flatten(1).numpy(), np.ones((len(x), 1))])
    onehot = np.eye(CLASSES)[y.numpy()]

    def value(flat):
        theta = flat.reshape(CLASSES, PIXELS + 1)
        scores = features @ theta.T
        scores -= scores.max(axis=1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        gradient = (np.exp(logs) - onehot).T @ features + ridge * theta
        return -(logs * onehot).sum() + ridge / 2 * (flat**2).sum(), gradient.ravel()

    found = minimize(
        value, np.zeros(CLASSES * (PIXELS + 1)), jac=True, method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 20000, "ftol": 0, "gtol": 1e-10},
    )  # fmt: skip
    theta = torch.from_numpy(found.x.reshape(CLASSES, PIXELS + 1))
    return theta - theta.mean(dim=0)


def with_theta(model: Model, theta: torch.Tensor) -> Model:
    """Return the softmax regression with these weights and biases."""
    model = model.clone()
    with torch.no_grad():
        model.module[1].weight.copy_(theta[:, :-1])
        model.module[1].bias.copy_(theta[:, -1])
    return model


def theta_of(model: Model) -> torch.Tensor:
    """Return centred weights and biases: softmax does not see what all classes share."""
    theta = torch.cat([model.module[1].weight, model.module[1].bias[:, None]], dim=1).detach()
    return theta - theta.mean(dim=0)


@pytest.fixture(scope="module")
def convex():
    """Return the training set, the clean model, theta* and its poisons."""
    train = overlapping_blobs()
    clean = with_theta(softmax_regression(), fitted(softmax_regression(), train.x, train.y))
    star = corrupt(clean, train, Rng(3), distance=0.03, steps=50)
    poisons = gradient_cancel(star, train, Rng(4), count=N, steps=800)
    return train, clean, star, poisons


def test_the_summed_gradient_at_theta_star_is_cancelled(convex):
    train, _, star, poisons = convex
    # Closed form of softmax regression: sum (p - e_y) (x, 1)'.

    def total(x, y):
        features = torch.cat([x.flatten(1), x.new_ones(len(x), 1)], dim=1)
        p = (features @ theta.T).softmax(dim=1)
        return (p - torch.eye(CLASSES, dtype=p.dtype)[y]).T @ features

    theta = theta_of(star)
    clean = total(train.x, train.y)
    both = clean + total(poisons.x, poisons.y)
    assert both.norm() < 0.01 * clean.norm()
    assert poisons.residual == pytest.approx(float(both.norm() / clean.norm()), rel=1e-6)


def test_retraining_to_convergence_lands_at_theta_star(convex):
    train, clean, star, poisons = convex
    x, y = torch.cat([train.x, poisons.x]), torch.cat([train.y, poisons.y])
    landed, wanted, before = fitted(star, x, y), theta_of(star), theta_of(clean)
    assert (landed - wanted).norm() < 0.05 * (before - wanted).norm()
    retrained = with_theta(star, landed)
    assert losses(retrained, train).mean() > losses(clean, train).mean()
    assert torch.equal(logits(retrained, train).argmax(1), logits(star, train).argmax(1))


def test_least_squares_land_at_theta_star_in_closed_form():
    train = overlapping_blobs()
    module = nn.Linear(PIXELS, 1, bias=False).double()
    alone = np.linalg.lstsq(train.x.flatten(1).numpy(), train.y.numpy(), rcond=None)[0]
    wanted = alone + np.array([0.05, -0.05, 0.1, 0.05])
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(wanted)[None])

    def squares(module, batch):
        return 0.5 * (module(batch.x.flatten(1)).squeeze(1) - batch.y) ** 2

    star = Model(
        module=module, logits=lambda module, batch: module(batch.x.flatten(1)), loss=squares,
        blocks=(("weight",),), build=lambda: nn.Linear(PIXELS, 1, bias=False), arch="", classes=1,
    )  # fmt: skip
    poisons = gradient_cancel(star, train, Rng(0), count=N, steps=800)
    x = torch.cat([train.x, poisons.x]).flatten(1).numpy()
    y = torch.cat([train.y, poisons.y]).numpy()
    landed = np.linalg.lstsq(x, y, rcond=None)[0]
    assert poisons.residual < 0.01
    assert np.linalg.norm(landed - wanted) < 0.05 * np.linalg.norm(alone - wanted)


def test_the_gradient_of_the_pixels_against_differences(monkeypatch):
    model, train = convolutional(), overlapping_blobs()
    monkeypatch.setattr(gc, "BLOCK", 2)  # five poisons: two blocks and an incomplete one
    clean = gc.summed_gradient(model, train)
    x, y = train.x[:5].clone(), train.y[:5]
    _, gradient = gc.objective(model, clean, Batch(x=x, y=y))

    def value(x):
        # A ReLU network has kinks, so the step is small: none is met.
        return float(gc.objective(model, clean, Batch(x=x, y=y))[0])

    step = 1e-6
    differences = torch.zeros_like(x)
    for at in np.ndindex(*x.shape):
        up, down = x.clone(), x.clone()
        up[at] += step
        down[at] -= step
        differences[at] = (value(up) - value(down)) / (2 * step)
    assert torch.allclose(gradient, differences, rtol=1e-4, atol=1e-5 * float(gradient.norm()))


def test_the_objective_covers_every_parameter_and_equals_a_loop(monkeypatch):
    model, train = convolutional(), overlapping_blobs()
    monkeypatch.setattr(gc, "BLOCK", 7)
    summed = gc.summed_gradient(model, train)
    loop = [torch.zeros_like(p) for p in model.module.parameters()]
    for at in range(len(train)):
        model.module.zero_grad()
        nn.functional.cross_entropy(model.module(train.x[at : at + 1]), train.y[[at]]).backward()
        for total, parameter in zip(loop, model.module.parameters(), strict=True):
            total += parameter.grad
    assert len(summed) == len(loop) > 5
    for ours, theirs in zip(summed, loop, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    value, _ = gc.objective(model, summed, train.batch())
    assert float(value) == pytest.approx(4 * sum(float(t.square().sum()) for t in loop))


def test_pixels_stay_in_the_box_exactly():
    model, train = softmax_regression(), overlapping_blobs()
    crafted = gradient_cancel(model, train, Rng(0), count=20, steps=60, step_size=0.1)
    # A large step meets both walls, so the bound is what keeps it inside.
    assert float(crafted.x.min()) == 0 < float(train.x.min())
    assert float(crafted.x.max()) == 1
    assert int((crafted.x == 1).sum()) > int((train.x == 1).sum())


def test_float64_pixels_and_float32_ones():
    train = overlapping_blobs()
    single = Samples(ids=train.ids, x=(train.x * 255).to(torch.uint8), y=train.y)
    for model, samples, dtype in (
        (convolutional(torch.float32), single, torch.float32),
        (convolutional(), train, torch.float64),
    ):
        crafted = gradient_cancel(model, samples, Rng(0), count=3, steps=2)
        assert crafted.x.dtype == dtype
        assert crafted.y.dtype == torch.int64
        assert crafted.x.shape == (3, 1, 2, 2)


@pytest.mark.parametrize("distance", [0.01, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_corrupt_raises_the_loss_within_the_distance(distance, dtype):
    model, train = convolutional(dtype), overlapping_blobs(dtype)
    star = corrupt(model, train, Rng(0), distance=distance, steps=20, batch_size=20)
    assert losses(star, train).mean() > losses(model, train).mean()
    before = torch.cat([p.detach().double().flatten() for p in model.module.parameters()])
    after = torch.cat([p.detach().double().flatten() for p in star.module.parameters()])
    moved = float((after - before).norm() / before.norm())
    assert 0.9 * distance < moved <= distance
    for name, buffer in star.module.named_buffers():
        assert torch.equal(buffer, model.module.get_buffer(name)), name


def test_corrupt_flips_the_chosen_class(convex):
    train, clean, _, _ = convex
    chosen = train.y == 1
    star = corrupt(clean, train, Rng(0), distance=0.9, steps=200, flips={1: 2})
    change = losses(star, train) - losses(clean, train)
    assert change[~chosen].mean() < change[chosen].mean() / 4
    assert (logits(star, train).argmax(1)[chosen] == 2).float().mean() > 0.8


def test_corrupt_lets_be_what_is_above_the_cap(convex):
    train, clean, _, _ = convex
    before = losses(clean, train).mean()
    free, capped = (
        losses(corrupt(clean, train, Rng(0), distance=0.9, steps=200, cap=cap), train)
        for cap in (None, 1.5)
    )
    assert before < capped.mean() < 0.5 * free.mean()


def test_labels_are_kept_or_as_theta_star_predicts(convex):
    train, _, star, _ = convex
    predicted = logits(star, train).argmax(1)
    found = {tuple(x.flatten().tolist()): at for at, x in enumerate(train.x)}

    def starts(labels, count):
        # A step too small to move a pixel far: every poison is still where it started.
        crafted = gradient_cancel(
            star, train, Rng(5), count=count, steps=1, step_size=1e-12, labels=labels
        )
        rounded = [min(found, key=lambda k: np.abs(np.array(k) - x).max()) for x in
                   crafted.x.flatten(1).numpy()]  # fmt: skip
        return torch.tensor([found[key] for key in rounded]), crafted.y

    at, y = starts("kept", N)
    assert sorted(at.tolist()) == list(range(N))
    assert torch.equal(y, train.y[at])
    wrong = (predicted != train.y).nonzero()[:, 0]
    at, y = starts("predicted", 2 * len(wrong))
    assert sorted(at.tolist()) == sorted(wrong.tolist() * 2)
    assert torch.equal(y, predicted[at])


def test_the_seed_decides_and_the_models_stay():
    model, train = convolutional(torch.float32), overlapping_blobs(torch.float32)
    digest, table = model.digest(), train.digest()
    model.module.train()

    def run(seed):
        star = corrupt(model, train, Rng(seed), distance=0.1, steps=4, batch_size=16)
        before = star.digest()
        crafted = gradient_cancel(star, train, Rng(seed), count=5, steps=3)
        assert star.digest() == before
        return star.digest(), crafted

    (one, a), (again, b), (other, c) = run(1), run(1), run(2)
    assert one == again != other
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.y, b.y)
    assert a.residual == b.residual
    assert not torch.equal(a.x, c.x)
    assert model.digest() == digest
    assert train.digest() == table
    assert model.module.training
    assert all(p.grad is None for p in model.module.parameters())


def test_refusals_name_every_problem():
    model, train = softmax_regression(), overlapping_blobs()
    with pytest.raises(PlanError) as caught:
        corrupt(model, train, Rng(0), distance=0, steps=0, batch_size=0, flips={3: 1}, cap=0)
    text = str(caught.value)
    for part in ("distance = 0", "steps = 0", "batch_size = 0", "flips = {3: 1}", "cap = 0"):
        assert part in text
    with pytest.raises(PlanError) as caught:
        gradient_cancel(model, train, Rng(0), count=0, steps=0, step_size=-1, labels="flipped")
    text = str(caught.value)
    for part in ("count = 0", "steps = 0", "step_size = -1", "labels = 'flipped'"):
        assert part in text
    with pytest.raises(PlanError, match=r"count = 61, of 60 .* at most 100%"):
        gradient_cancel(model, train, Rng(0), count=N + 1, steps=1)
    with pytest.raises(PlanError, match="distance = nan"):
        corrupt(model, train, Rng(0), distance=float("nan"))
    with pytest.raises(PlanError, match=r"flips = \{1: 1\}"):
        corrupt(model, train, Rng(0), distance=1, flips={1: 1})
    with pytest.raises(PlanError, match="empty"):
        corrupt(model, train.at([]), Rng(0), distance=1)


def test_labels_of_mistakes_need_a_mistake():
    train = overlapping_blobs()
    model = softmax_regression()
    right = Samples(ids=train.ids, x=train.x, y=logits(model, train).argmax(1))
    with pytest.raises(PlanError, match="no training sample wrong"):
        gradient_cancel(model, right, Rng(0), count=3, steps=1, labels="predicted")
