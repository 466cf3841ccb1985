"""Gaussian, trigger and targeted planting: what stands in the table afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from poison_audit.case.poisoned import append, substitute
from poison_audit.errors import PlanError
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.plant import checkerboard, harden, plant_trigger
from poison_audit.poisons.gaussian.evidence import unit_noise
from poison_audit.poisons.gaussian.plant import plant_gaussian
from poison_audit.poisons.targeted.evidence import Targets
from poison_audit.poisons.targeted.plant import choose_targets, ensemble, plant_targeted

SHAPE, CLASSES = (1, 6, 6), 3


def table(n: int = 60, dtype: torch.dtype = torch.uint8) -> Samples:
    draws = np.random.default_rng(0)
    x = torch.from_numpy(draws.integers(0, 256, (n, *SHAPE), dtype=np.uint8))
    y = torch.from_numpy(np.arange(n) % CLASSES)
    x = x if dtype == torch.uint8 else x.float() / 255
    return Samples(ids=tuple(f"s{i}" for i in range(n)), x=x, y=y)


def linear() -> Model:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))

    module = build()
    return image_classifier(module, build=build, arch="linear", classes=CLASSES).fresh(Rng(1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_gaussian_noise_comes_from_the_secret_alone(dtype):
    train = table(dtype=dtype)
    secret = bytes(range(32))
    planted = plant_gaussian(train, Rng(3), count=20, secret=secret, sigma=0.3)
    made = planted.poisoned
    assert len(made.ids) == 20
    assert len(made.table) == len(train)
    for name, base in zip(made.ids, made.bases, strict=True):
        poison = made.table.x[made.table.ids.index(name)]
        clean = train.x[train.ids.index(base)].numpy()
        if dtype == torch.uint8:
            clean = clean.astype(np.float32) / np.float32(255)
        expected = clean.astype(np.float64) + 0.3 * unit_noise(secret, name, SHAPE)
        np.testing.assert_array_equal(poison.numpy(), expected.astype(np.float32))
        assert base not in made.table.ids
        assert made.table.y[made.table.ids.index(name)] == train.y[train.ids.index(base)]
    untouched = [name for name in made.table.ids if name in train.ids]
    assert len(untouched) == 40
    for name in untouched:
        mine, theirs = made.table.x[made.table.ids.index(name)], train.x[train.ids.index(name)]
        assert torch.equal(mine, theirs.float() / 255 if dtype == torch.uint8 else theirs)
    assert planted.attenuation == pytest.approx(1, abs=1e-6)
    assert planted.key.planted == made.ids
    assert len(planted.key.held_out) == 20


def test_another_seed_chooses_other_samples_but_noise_is_the_secrets():
    one, two = (
        plant_gaussian(table(), Rng(s), count=20, secret=bytes(32), sigma=0.3) for s in (0, 1)
    )
    assert one.poisoned.bases != two.poisoned.bases
    assert np.array_equal(one.key.noise(one.key.planted), two.key.noise(two.key.planted))


def test_eight_bit_storage_clips_and_its_attenuation_is_that_of_a_clipped_normal():
    # Mid-grey pictures and sigma 0.5: xi is clipped at +-1 sd. E[clip(z, -1, 1) z] / E[z^2] for a
    # standard normal z is P(|z| < 1) = 0.6827, by Stein's lemma.
    grey = Samples(
        ids=tuple(f"s{i}" for i in range(100)),
        x=torch.full((100, 1, 40, 40), 0.5),
        y=torch.zeros(100, dtype=torch.int64),
    )
    planted = plant_gaussian(grey, Rng(0), count=40, secret=bytes(32), sigma=0.5, storage="uint8")
    assert planted.poisoned.table.x.dtype == torch.uint8
    assert planted.attenuation == pytest.approx(0.6827, abs=0.01)


@pytest.mark.parametrize(("count", "sigma"), [(0, 0.1), (31, 0.1), (5, 0.0), (5, 11.0)])
def test_impossible_canaries_are_refused(count, sigma):
    with pytest.raises(PlanError):
        plant_gaussian(table(), Rng(0), count=count, secret=bytes(32), sigma=sigma)


def test_a_poisoned_table_is_not_poisoned_again():
    once = plant_gaussian(table(), Rng(0), count=5, secret=bytes(32)).poisoned.table
    with pytest.raises(PlanError, match="poisoned already"):
        plant_gaussian(once, Rng(0), count=5, secret=bytes(32))


def test_the_checkerboard_by_hand():
    trigger = checkerboard((1, 6, 6), size=3, label=2)
    expected = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    assert torch.equal(trigger.add[0, 3:, 3:], expected)
    assert trigger.box == (3, 3, 3, 3)
    with pytest.raises(PlanError, match="does not fit"):
        checkerboard((1, 6, 6), size=7, label=2)


def test_dirty_labels_stamp_and_relabel_samples_of_other_classes():
    train, trigger = table(), checkerboard(SHAPE, size=2, label=1)
    made = plant_trigger(train, trigger, Rng(0), count=12, storage="uint8")
    for name, base in zip(made.ids, made.bases, strict=True):
        place, origin = made.table.ids.index(name), train.ids.index(base)
        assert made.table.y[place] == 1 != train.y[origin]
        expected = train.x[origin].clone()
        expected[0, 4:, 4:] = torch.tensor([[255, 0], [0, 255]], dtype=torch.uint8)
        assert torch.equal(made.table.x[place], expected)
    assert torch.equal(
        made.table.y != train.y, torch.tensor([n in made.ids for n in made.table.ids])
    )


def test_clean_labels_are_kept_and_the_change_stays_within_epsilon():
    train, trigger, model = table(), checkerboard(SHAPE, size=2, label=1), linear()
    made = plant_trigger(
        train, trigger, Rng(0), count=10, clean_label=True, surrogate=model, epsilon=0.1
    )
    assert torch.equal(made.table.y, train.y)
    for name, base in zip(made.ids, made.bases, strict=True):
        change = made.table.x[made.table.ids.index(name)] - train.x[train.ids.index(base)] / 255
        outside = change.clone()
        outside[0, 4:, 4:] = 0
        assert 0 < outside.abs().max() <= 0.1 + 1e-6
    with pytest.raises(PlanError, match="of that label"):
        plant_trigger(train, trigger, Rng(0), count=21, clean_label=True)


def test_hardening_a_linear_model_ends_in_the_corner_of_the_ball():
    # The loss of a softmax regression with two classes grows along one direction of x only, so the
    # worst point of the ball is x + epsilon * sign of it.
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 2))

    model = image_classifier(build(), build=build, arch="linear", classes=2).fresh(Rng(2))
    x = torch.full((2, *SHAPE), 0.5)
    y = torch.tensor([0, 1])
    weight = model.module[1].weight.detach()
    away = (weight[1 - y] - weight[y]).sign().view(2, *SHAPE)
    worst = harden(model, Batch(x=x, y=y), epsilon=0.2)
    torch.testing.assert_close(worst, x + 0.2 * away)


def test_substitution_and_addition_say_what_changed():
    train = table(dtype=torch.float32)
    x = train.x[[4, 7]].clone()
    x[0, 0, 0, 0] += 0.5
    made = substitute(train, [4, 7], x, train.y[[4, 7]], prefix="p", storage="unclipped")
    assert made.largest == pytest.approx(0.5)
    assert made.rms == pytest.approx(0.5 / np.sqrt(72))
    assert made.table.ids[4] == "p-0000"
    assert made.bases == ("s4", "s7")
    more = append(train, x, train.y[[4, 7]], prefix="p", storage="unclipped")
    assert len(more.table) == 62
    assert more.table.ids[60:] == ("p-0000", "p-0001")
    assert torch.equal(more.table.x[:60], train.x)
    assert torch.equal(more.table.x[60:], x)
    assert more.bases == (None, None)
    assert more.largest is None


def test_an_ensembles_gradient_holds_each_members_own():
    one, two = linear(), linear()
    with torch.no_grad():
        two.module[1].weight.mul_(2)
    batch = Batch(x=table(9).x.float() / 255, y=table(9).y)
    both = ensemble([one, two])
    both.loss(both.module, batch).mean().backward()
    for member in (one, two):
        alone = linear()
        alone.module.load_state_dict(member.module.state_dict())
        alone.loss(alone.module, batch).mean().backward()
        mine, own = member.module[1].weight.grad, alone.module[1].weight.grad
        torch.testing.assert_close(mine, own / 2)
    assert ensemble([one]) is one


def test_targets_lie_nearest_to_a_boundary_and_poisons_nearest_to_them():
    model, train, test = linear(), table(), table(300)
    chosen = choose_targets(model, test, count=5)
    with torch.no_grad():
        out = model.module(test.x.float() / 255).numpy()
    ranked = np.sort(out, axis=1)
    margin = np.where(out.argmax(1) == test.y.numpy(), ranked[:, -1] - ranked[:, -2], np.inf)
    assert chosen.samples.ids == tuple(test.ids[i] for i in np.argsort(margin)[:5])
    # Of a softmax regression the penultimate features are the pixels.
    one = Targets(samples=chosen.samples.at([0]), adversarial=chosen.adversarial[:1])
    aimed = plant_targeted([model], train, one, Rng(0), count=4, epsilon=0.1, steps=1)
    away = (train.x.float() - one.samples.x.float()).flatten(1).norm(dim=1)
    away[train.y != one.adversarial] = torch.inf
    nearest = {train.ids[i] for i in away.argsort()[:4]}
    assert set(aimed.poisoned.bases) == nearest


def test_targets_are_answered_correctly_and_aimed_at_the_runner_up():
    model, test = linear(), table(300)
    targets = choose_targets(model, test, count=10)
    assert len(set(targets.samples.ids)) == 10
    with torch.no_grad():
        out = model.module(targets.samples.x.float() / 255)
    ranked = out.argsort(1, descending=True)
    assert torch.equal(ranked[:, 0], targets.samples.y)
    assert torch.equal(ranked[:, 1], targets.adversarial)
    with pytest.raises(PlanError, match="answers"):
        choose_targets(model, test, count=301)


def test_each_target_has_poisons_of_its_label_and_none_is_shared():
    model, train, test = linear(), table(), table(30)
    targets = Targets(samples=test.at([0, 1, 3]), adversarial=torch.tensor([1, 2, 1]))
    aimed = plant_targeted(
        [model], train, targets, Rng(0), count=6, epsilon=0.1, steps=3, restarts=1
    )
    assert len(set(aimed.poisoned.bases)) == 18
    assert aimed.campaigns == ("s0",) * 6 + ("s1",) * 6 + ("s3",) * 6
    wanted = [1] * 6 + [2] * 6 + [1] * 6
    for name, base, label in zip(aimed.poisoned.ids, aimed.poisoned.bases, wanted, strict=True):
        assert train.y[train.ids.index(base)] == label
        assert aimed.poisoned.table.y[aimed.poisoned.table.ids.index(name)] == label
    assert 0 < aimed.poisoned.largest <= 0.1
    with pytest.raises(PlanError, match="samples left"):
        plant_targeted([model], train, targets, Rng(0), count=11, steps=1, restarts=1)
