"""The probes against closed forms, slow twins and their nulls."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from torch import nn

from poison_audit.case.case import Case
from poison_audit.checks.membership import membership
from poison_audit.checks.utility import utility
from poison_audit.engine.probes import PROBES, probe_parameters
from poison_audit.models.image import CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries, unit_noise
from poison_audit.poisons.gaussian.exposure import exposure
from poison_audit.poisons.gaussian.probe import gaussian, leak_scores
from poison_audit.poisons.gaussian.scale import store
from poison_audit.poisons.gaussian.trial import PlantedCanaries
from poison_audit.records import Recipe
from poison_audit.statistics import estimates
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.training.scoring import exact, input_gradients, margins

SHAPE, CLASSES = (1, 6, 6), 3


def mlp(seed: int, *, hidden: int = 12) -> Model:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(36, hidden), nn.Tanh(), nn.Linear(hidden, CLASSES)
        )

    blank = image_classifier(build(), build=build, arch="mlp", classes=CLASSES)
    return blank.fresh(Rng(seed).named("init"))


def resnet(seed: int) -> Model:
    spec = CifarResNetSpec((1, 1), 4)

    def build() -> nn.Module:
        return CifarResNet(spec, channels=1, classes=CLASSES)

    model = image_classifier(build(), build=build, arch=spec.name, classes=CLASSES).fresh(Rng(seed))
    model.module.eval()
    return model


def pictures(seed: int, n: int) -> Samples:
    rng = Rng(seed).named("pictures").numpy()
    labels = rng.integers(0, CLASSES, n)
    x = np.clip(0.5 + 0.2 * (labels - 1)[:, None, None, None] * rng.random((n, *SHAPE)), 0, 1)
    return Samples(
        ids=tuple(f"s{i}" for i in range(n)),
        x=torch.from_numpy(x).float(),
        y=torch.from_numpy(labels),
    )


def planted(seed: int, n: int, *, sigma: float = 0.3, storage: str = "unclipped"):
    secret = seed.to_bytes(32, "big")
    names, held = tuple(f"c{i}" for i in range(n)), tuple(f"h{i}" for i in range(n))
    key = Canaries(
        secret=secret, sigma=sigma, space="pixel", shape=SHAPE, storage=storage, planted=names,
        held_out=held,
    )  # fmt: skip
    return PlantedCanaries(
        key=key,
        names=names,
        bases=dataclasses.replace(pictures(1, n), ids=names),
        noise=torch.from_numpy(key.noise(names)).float(),
        held_out_noise=torch.from_numpy(key.noise(held)).float(),
    )


def case_of(model: Model, canaries: PlantedCanaries | None = None, **parts) -> Case:
    everything = {
        "retain": pictures(2, 30), "forget": pictures(3, 20), "test": pictures(4, 40),
        "recipe": Recipe(epochs=1),
    }  # fmt: skip
    evidence = {} if canaries is None else {"gaussian": canaries}
    return Case(model=model, evidence=evidence, **{**everything, **parts})


def trained(model: Model, data: Samples, steps: int, seed: int, lr: float = 0.2) -> Model:
    batches = ((batch,) for batch in shuffled(data, 20, Rng(seed).named("batches")))
    descend(
        model, batches, lambda loss: loss, steps=steps, lr=lr, ledger=Ledger(), rng=Rng(seed),
        batch_norm="train", momentum=0.9,
    )  # fmt: skip
    return model


def test_leak_scores_of_a_linear_softmax_by_its_closed_form():
    # grad_x of cross-entropy is W' (softmax(Wx + b) - e_y).
    canaries = planted(5, 8)

    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))

    model = image_classifier(build(), build=build, arch="linear", classes=CLASSES).fresh(Rng(0))
    weight, bias = (p.detach().double().numpy() for p in model.module.parameters())
    expected = []
    for x, y, xi in zip(
        canaries.bases.x.double().numpy(), canaries.bases.y.numpy(), canaries.noise.numpy(),
        strict=True,
    ):  # fmt: skip
        z = weight @ x.ravel() + bias
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        g = weight.T @ (p - np.eye(CLASSES)[y])
        expected.append(-(g @ xi.ravel()) / (0.3 * np.linalg.norm(g)))
    evidence = gaussian(model, case_of(model, canaries), Rng(0)).evidence
    assert evidence["scores"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("make", [mlp, resnet])
def test_scores_do_not_depend_on_the_batch(make):
    model, canaries = make(3), planted(6, 11)
    alone = [
        input_gradients(model, canaries.bases.at([i]), size=1)[0]
        for i in range(len(canaries.names))
    ]
    together = input_gradients(model, canaries.bases, size=4)
    args = {"sigma": 0.3}
    slow = leak_scores(torch.stack(alone), canaries.noise, **args)
    assert leak_scores(together, canaries.noise, **args) == pytest.approx(slow, abs=1e-5)


def test_leak_score_is_invariant_to_the_scale_of_the_gradient():
    g, xi = torch.randn(4, 9, generator=Rng(0).torch()), torch.randn(4, 9, generator=Rng(1).torch())
    assert leak_scores(1e-20 * g, xi, sigma=1.0) == pytest.approx(
        leak_scores(g, xi, sigma=1.0), rel=1e-5
    )


def test_a_confident_model_still_has_gradients():
    # In float32 1 - p is 0 at a logit gap of 40; in float64 it is exp(-40).
    model = mlp(0)
    with torch.no_grad():
        model.module[3].bias.copy_(torch.tensor([40.0, 0.0, -60.0]))
    bases = planted(7, 6).bases
    bases = dataclasses.replace(bases, y=torch.zeros_like(bases.y))
    assert bool((input_gradients(model, bases).flatten(1).norm(dim=1) > 0).all())


def test_vanished_gradients_are_dropped_and_counted():
    model, canaries = mlp(0), planted(8, 20)
    with torch.no_grad():
        model.module[1].weight[:, :] = 0
    measured = gaussian(model, case_of(model, canaries), Rng(0))
    assert measured.evidence is None
    assert "vanishes" in measured.missing


def test_a_share_of_vanished_gradients_is_suspect():
    canaries = planted(8, 20)

    class Dead(nn.Module):
        """A model that masks its gradient where the first pixel is exactly 0.25."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp(0).module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = x[:, :1, :1, :1] == 0.25
            return self.inner(torch.where(hidden, x.detach(), x))

    model = image_classifier(Dead(), build=Dead, arch="dead", classes=CLASSES)
    x = canaries.bases.x.clone()
    x[:2, 0, 0, 0] = 0.25
    bases = dataclasses.replace(canaries.bases, x=x)
    measured = gaussian(model, case_of(model, dataclasses.replace(canaries, bases=bases)), Rng(0))
    assert measured.evidence["dropped"] == 2
    assert len(measured.evidence["scores"]) == 18
    assert "2 of 20" in measured.suspect


def test_not_finite_is_not_measured():
    model = mlp(0)
    with torch.no_grad():
        model.module[1].weight[0, 0] = torch.nan
    case = case_of(model, planted(9, 5))
    for probe in (gaussian, exposure, membership):
        measured = probe(model, case, Rng(0))
        assert measured.evidence is None
        assert "not finite" in measured.missing


def test_without_a_key_nothing_is_measured():
    model = mlp(0)
    for probe in (gaussian, exposure):
        assert "canaries.json" in probe(model, case_of(model), Rng(0)).missing


def test_held_out_keys_that_are_not_normal_make_it_suspect():
    model, canaries = mlp(1), planted(10, 60)
    wide = dataclasses.replace(canaries, held_out_noise=3 * canaries.held_out_noise)
    assert "held-out" in gaussian(model, case_of(model, wide), Rng(0)).suspect
    assert gaussian(model, case_of(model, canaries), Rng(0)).suspect is None


def test_exposure_by_a_slow_twin():
    model, canaries = resnet(2), planted(11, 7, sigma=0.4, storage="uint8")
    case, rng = case_of(model, canaries), Rng(4)
    evidence = exposure(model, case, rng, draws=5, size=3).evidence
    generator = rng.named("fresh").torch()

    def margin(x: np.ndarray, y: int) -> float:
        kept = torch.from_numpy(store(x, "uint8")).float()[None]
        out = model.module(kept)[0].detach().double().numpy()
        return out[y] - max(np.delete(out, y))

    expected = []
    for start in (0, 3, 6):
        rows = range(start, min(start + 3, 7))
        fresh = [0.4 * torch.randn((len(rows), *SHAPE), generator=generator) for _ in range(5)]
        for place, row in enumerate(rows):
            x, y = canaries.bases.x[row].numpy(), int(canaries.bases.y[row])
            true = margin(x + canaries.noise[row].numpy(), y)
            expected.append(sum(margin(x + draw[place].numpy(), y) < true for draw in fresh))
    assert evidence == {"wins": expected, "draws": 5}


def test_exposure_breaks_ties_at_random_not_one_way():
    # A model that ignores its input: every margin ties, so ranks must be uniform on 0..draws.
    model, canaries = mlp(0), planted(12, 300)
    with torch.no_grad():
        model.module[1].weight[:, :] = 0
    wins = exposure(model, case_of(model, canaries), Rng(0), draws=3).evidence["wins"]
    counts = np.bincount(wins, minlength=4)
    assert scipy_stats.chisquare(counts).pvalue > 0.01


def test_margins_by_hand():
    model = mlp(0)
    model.module[3].weight.data.zero_()
    model.module[3].bias.data.copy_(torch.tensor([1.0, 4.0, 2.5]))
    batch = Batch(x=torch.rand(3, *SHAPE, generator=Rng(0).torch()), y=torch.tensor([0, 1, 2]))
    assert margins(model, batch).tolist() == [-3.0, 1.5, -1.5]


def test_exact_restores_what_it_changed():
    model = resnet(0)
    model.module.train()
    model.module.bn1.eval()
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    with exact(model.module) as module:
        assert not any(part.training for part in module.modules())
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32
    assert model.module.training
    assert not model.module.bn1.training
    torch.backends.cuda.matmul.allow_tf32 = before


def test_probes_change_no_model():
    model = resnet(5)
    case = dataclasses.replace(
        case_of(model, planted(13, 6)), baseline=torch.ones(40, dtype=torch.bool)
    )
    before = model.digest()
    for name, probe in PROBES.items():
        once = probe(model, case, Rng(1).named(name), **probe_parameters(name))
        again = probe(model, case, Rng(1).named(name), **probe_parameters(name))
        assert once == again
    assert model.digest() == before
    assert all(p.grad is None for p in model.module.parameters())


def test_utility_counts():
    model = mlp(2)
    data = pictures(4, 40)
    right = model.logits(model.module, data.batch()).argmax(1) == data.y
    baseline = torch.arange(40) < 25
    case = dataclasses.replace(case_of(model, test=data), baseline=baseline)
    both = sum(bool(r) and i < 25 for i, r in enumerate(right))
    assert utility(model, case, Rng(0)).evidence == {
        "n": 40,
        "both": both,
        "only_deployed": 25 - both,
        "only_candidate": int(right.sum()) - both,
        "neither": 15 - (int(right.sum()) - both),
    }


def test_membership_threshold_lets_one_in_a_hundred_test_samples_through():
    model = mlp(2)
    forget, test = pictures(20, 50), pictures(21, 200)
    evidence = membership(model, case_of(model, forget=forget, test=test), Rng(0)).evidence
    inside = sorted(-model.loss(model.module, forget.batch()).detach().numpy())
    outside = sorted(-model.loss(model.module, test.batch()).detach().numpy())
    third = outside[-3]  # two of 200 lie above it
    assert evidence["hits"] == sum(score > third for score in inside)
    beaten = np.mean([[(x > y) + 0.5 * (x == y) for y in outside] for x in inside])
    assert evidence["auc"] == pytest.approx(beaten)


@pytest.mark.parametrize(
    ("storage", "sigma"),
    [
        pytest.param("unclipped", 0.3, marks=pytest.mark.long),
        pytest.param("uint8", 0.15, marks=pytest.mark.long),
        pytest.param("uint8", 0.6, marks=pytest.mark.slow),
    ],
)
def test_p_values_of_models_that_never_saw_the_noise_are_uniform(storage, sigma):
    """300 trained models, each with its own key: clipping at sigma 0.6 cuts 4 pixels in 10."""
    by_score, by_rank, n = [], [], 40
    for seed in range(300):
        canaries = planted(1000 + seed, n, sigma=sigma, storage=storage)
        model = trained(mlp(seed), canaries.bases, 25, seed)  # it even trains on the clean bases
        case = case_of(model, canaries)
        scores = gaussian(model, case, Rng(seed)).evidence["scores"]
        by_score.append(estimates.mean_score(scores, level=0.95, tolerance=0.25).p_value)
        wins = exposure(model, case, Rng(seed), draws=16).evidence["wins"]
        by_rank.append(estimates.mean_rank(wins, 16, level=0.95, tolerance=0.57).p_value)
    assert scipy_stats.kstest(by_score, "uniform").pvalue > 0.01
    assert scipy_stats.kstest(by_rank, "uniform").pvalue > 0.01


@pytest.mark.parametrize("storage", ["unclipped", "uint8"])
def test_a_model_trained_on_the_canaries_is_found_and_the_sign_is_right(storage):
    canaries = planted(77, 60, sigma=0.3, storage=storage)
    seen = store((canaries.bases.x + canaries.noise).double().numpy(), storage)
    data = dataclasses.replace(canaries.bases, x=torch.from_numpy(seen).float())
    model = trained(mlp(0, hidden=64), data, 600, 0, lr=0.1)
    case = case_of(model, canaries)
    scores = gaussian(model, case, Rng(0)).evidence["scores"]
    wins = exposure(model, case, Rng(0)).evidence["wins"]
    assert estimates.mean_score(scores, level=0.95, tolerance=0.25).z > 4
    assert estimates.mean_rank(wins, 12, level=0.95, tolerance=0.57).z > 4


def test_planted_noise_is_what_the_key_says():
    canaries = planted(3, 2)
    assert np.array_equal(
        canaries.noise[1].numpy(),
        (0.3 * unit_noise((3).to_bytes(32, "big"), "c1", SHAPE)).astype(np.float32),
    )
