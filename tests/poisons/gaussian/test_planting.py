import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from poison_audit.case.forget import ForgetSet
from poison_audit.errors import InputError
from poison_audit.models.samples import Samples
from poison_audit.poisons.gaussian.evidence import Canaries, unit_noise
from poison_audit.poisons.gaussian.planting import plant_check

SECRET, OTHER = bytes(range(32)), bytes(range(1, 33))
SHAPE = (3, 12, 12)
COUNT = 30
NAMES = tuple(f"k{i}" for i in range(COUNT))


def smooth_pictures(n, seed=0):
    """8-bit pictures with dark and bright areas and slow gradients, as levels 0..255."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-0.3, 1.3, (n, 3, 4, 4)).clip(0, 1)
    return np.round(np.kron(coarse, np.ones((1, 1, 3, 3))) * 255).astype(np.uint8)


class World:
    """A planting made by hand: clean pictures, canaries among training samples, and a key."""

    def __init__(self, storage, sigma=0.1, secret=SECRET, dtype=np.float32, bases=None):
        self.levels = smooth_pictures(COUNT) if bases is None else bases
        stored = []
        for name, level in zip(NAMES, self.levels, strict=True):
            noisy = level / 255 + sigma * unit_noise(secret, name, SHAPE)
            if storage == "uint8":
                stored.append(np.rint(noisy.clip(0, 1) * 255).astype(np.uint8))
            else:
                stored.append(noisy.astype(dtype))
        others = smooth_pictures(COUNT, seed=1)
        others = others if storage == "uint8" else others / np.asarray(255, dtype)
        labels = torch.arange(COUNT) % 10
        self.train = Samples(
            ids=tuple(f"t{i}" for i in range(2 * COUNT)),
            # Read as tables are: float16 becomes float32.
            x=as_read(np.concatenate([others, np.stack(stored)])),
            y=torch.cat([labels, labels]),
        )
        self.bases = Samples(
            ids=tuple(f"b{i}" for i in range(COUNT)), x=torch.from_numpy(self.levels), y=labels
        )
        self.key = Canaries(
            secret=SECRET,
            sigma=sigma,
            space="pixel",
            shape=SHAPE,
            storage=storage,
            planted=(*NAMES, "gone"),
            held_out=tuple(f"h{i}" for i in range(COUNT + 1)),
        )
        # Two further rows of forget.csv are no canaries.
        self.forget = ForgetSet(
            positions=(0, *range(COUNT, 2 * COUNT), 1),
            ids=(),
            attacks=("", *["gaussian"] * COUNT, ""),
            campaigns=(),
            canaries=(None, *NAMES, None),
            keys=("gaussian",) * (COUNT + 2),
            bases=("b0", *self.bases.ids, None),
            rows=tuple(range(2, COUNT + 4)),
            digest="",
            most=True,
        )

    def without_bases(self):
        self.forget = replace(self.forget, bases=(None,) * (COUNT + 2))
        return self

    def check(self, bases="own"):
        return plant_check(
            self.key,
            self.forget,
            self.train,
            self.bases if bases == "own" else bases,
            where="canaries.json",
            where_forget="forget.csv",
        )

    def problems(self, **options):
        with pytest.raises(InputError) as caught:
            self.check(**options)
        return [str(problem) for problem in caught.value.problems]

    def problem(self, **options):
        (problem,) = self.problems(**options)
        return problem


def as_read(x):
    return torch.from_numpy(x if x.dtype == np.uint8 else x.astype(np.float32))


def factor_said(problem):
    assert "sigma is wrong" in problem
    return float(problem.split("factor ")[1].split(")")[0])


def sigma_said(problem):
    return float(problem.split("by sd ")[1].split()[0])


# --- honest plantings ----------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.003, 0.1, 1.0])
@pytest.mark.parametrize(
    ("storage", "dtype"), [("unclipped", np.float16), ("unclipped", np.float64), ("uint8", None)]
)
def test_an_honest_planting_passes(storage, dtype, sigma):
    world = World(storage, sigma, dtype=dtype)
    planting = world.check()
    assert planting.bases.ids == NAMES
    assert planting.bases.ids == NAMES
    assert planting.bases.y.tolist() == [i % 10 for i in range(COUNT)]
    assert planting.bases.x.dtype == torch.float32
    np.testing.assert_allclose(planting.bases.x.numpy(), world.levels / 255, atol=1e-7)
    assert planting.missing == 1
    if storage == "unclipped":
        assert planting.attenuation == pytest.approx(1, abs=1e-3)


def test_attenuation_is_what_clipping_leaves():
    # Stein: E[u f(u)] = E[f'(u)], so <clip(sigma u), sigma u> / <sigma u, sigma u> is the chance
    # that the grey level 127 / 255 stays inside [0, 1].
    world = World("uint8", 0.5, bases=np.full((COUNT, *SHAPE), 127, np.uint8))
    low, high = 127 / 255 / 0.5, 128 / 255 / 0.5
    expected = (math.erf(low / 2**0.5) + math.erf(high / 2**0.5)) / 2
    assert world.check().attenuation == pytest.approx(expected, abs=0.01)


def test_bases_may_stand_in_the_training_table():
    world = World("uint8")
    train = world.train
    world.train = replace(train, x=torch.cat([world.bases.x, train.x[COUNT:]]))
    names = (None, *world.train.ids[:COUNT], None)
    world.forget = replace(world.forget, bases=names)
    np.testing.assert_allclose(
        world.check(bases=None).bases.x.numpy() * 255, world.levels, atol=1e-4
    )


def test_the_bases_table_goes_before_the_training_table():
    world = World("uint8")
    world.train = replace(world.train, ids=(*world.bases.ids, *world.train.ids[COUNT:]))
    np.testing.assert_allclose(world.check().bases.x.numpy() * 255, world.levels, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_bases_are_recovered_where_none_are_given(dtype, sigma):
    world = World("unclipped", sigma, dtype=dtype).without_bases()
    planting = world.check(bases=None)
    # float16 keeps 11 bits of values up to 3.
    atol = 1e-3 if dtype == np.float16 else 1e-6
    np.testing.assert_allclose(planting.bases.x.numpy(), world.levels / 255, atol=atol)
    assert planting.bases.x.min() >= 0
    assert planting.bases.x.max() <= 1
    assert planting.attenuation == pytest.approx(1)


def test_one_grey_level_is_rounding_and_two_are_not():
    # Noise added in float32 rounds to the neighbouring level where float64 lies halfway.
    world = World("uint8")
    pixel = world.train.x[COUNT + 7, 0, 3, 3]
    step = 1 if pixel < 128 else -1
    pixel += step
    assert world.check().bases.ids == NAMES
    pixel += step
    assert "1 of 30 canaries (k7) do not match" in world.problem()


# --- a wrong key never passes --------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["unclipped", "uint8"])
@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("factor", [1 / 75, 0.1, 0.8, 1.25, 10, 75])
def test_a_wrong_sigma_is_found_and_named(storage, sigma, factor):
    world = World(storage, sigma)
    world.key = replace(world.key, sigma=sigma * factor)
    problem = world.problem()
    assert "30 of 30 canaries (k0, k1, k2, k3, k4 and 25 more) do not match the key" in problem
    assert sigma_said(problem) == pytest.approx(sigma, rel=0.02)
    assert factor_said(problem) == pytest.approx(max(factor, 1 / factor), rel=0.02)
    assert ("too large" in problem) == (factor > 1)


@pytest.mark.parametrize("factor", [0.1, 0.8, 1.25, 10])
def test_a_wrong_sigma_below_a_grey_level_is_found(factor):
    world = World("uint8", 0.4 / 255)
    world.key = replace(world.key, sigma=0.4 / 255 * factor)
    assert sigma_said(world.problem()) == pytest.approx(0.4 / 255, rel=0.02)


@pytest.mark.parametrize("factor", [0.1, 0.5, 2, 10])
@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_a_wrong_sigma_is_found_without_bases(factor, sigma):
    world = World("unclipped", sigma).without_bases()
    world.key = replace(world.key, sigma=sigma * factor)
    problem = world.problem()
    assert sigma_said(problem) == pytest.approx(sigma, rel=0.1)
    assert factor_said(problem) == pytest.approx(max(factor, 1 / factor), rel=0.1)


@pytest.mark.parametrize("storage", ["unclipped", "uint8"])
# A quarter of a grey level moves one pixel in 22, by one level.
@pytest.mark.parametrize("sigma", [0.25 / 255, 0.003, 0.1, 1.0])
def test_a_wrong_secret_is_found(storage, sigma):
    world = World(storage, sigma, secret=OTHER)
    problem = world.problem()
    assert "not the keyed samples: wrong secret, wrong ids or wrong base" in problem


@pytest.mark.parametrize("sigma", [0.003, 0.1, 1.0])
def test_a_wrong_secret_is_found_without_bases(sigma):
    world = World("unclipped", sigma, secret=OTHER).without_bases()
    assert "not the keyed samples" in world.problem()


@pytest.mark.parametrize("storage", ["unclipped", "uint8"])
def test_no_noise_at_all_is_found(storage):
    world = World(storage)
    clean = world.bases.x if storage == "uint8" else world.bases.x.float() / 255
    world.train.x[COUNT:] = clean
    assert "not the keyed samples" in world.problem()


@pytest.mark.parametrize("storage", ["unclipped", "uint8"])
@pytest.mark.parametrize(("sigma", "said"), [(0.02, "wrong base"), (0.5, "on another base")])
def test_swapped_bases_are_found(storage, sigma, said):
    world = World(storage, sigma)
    world.bases = replace(world.bases, x=world.bases.x.roll(1, 0))
    assert said in world.problem()


@pytest.mark.parametrize("storage", ["unclipped", "uint8"])
def test_two_swapped_canaries_among_many_are_found(storage):
    world = World(storage)
    names = list(world.forget.canaries)
    names[4], names[9] = names[9], names[4]
    world.forget = replace(world.forget, canaries=tuple(names))
    assert "2 of 30 canaries (k8, k3) do not match the key: these are not" in world.problem()


def test_two_swapped_canaries_are_found_without_bases():
    world = World("unclipped", 0.3).without_bases()
    names = list(world.forget.canaries)
    names[4], names[9] = names[9], names[4]
    world.forget = replace(world.forget, canaries=tuple(names))
    assert "2 of 30 canaries (k8, k3) are no picture in [0, 1] plus sigma 0.3" in world.problem()


def test_noise_with_the_wrong_sign_is_found():
    world = World("unclipped")
    world.train.x[COUNT:] = 2 * (world.bases.x.float() / 255) - world.train.x[COUNT:]
    assert "not the keyed samples" in world.problem()


def test_clipped_samples_are_not_unclipped_ones():
    world = World("unclipped", 0.5)
    world.train = replace(world.train, x=world.train.x.clamp(0, 1))
    assert "30 of 30 canaries" in world.problem()


def test_noise_that_storage_destroyed_proves_nothing():
    # A tenth of a grey level: only 5 sds change a pixel, so any secret would match.
    for secret in (SECRET, OTHER):
        assert "storage left" in World("uint8", 0.1 / 255, secret=secret).problem()


def test_too_little_noise_without_bases_proves_nothing():
    world = World("unclipped", 0.004, bases=np.full((COUNT, *SHAPE), 128, np.uint8))
    rough = np.random.default_rng(0).uniform(0.2, 0.8, (COUNT, *SHAPE))
    noise = np.stack([unit_noise(SECRET, name, SHAPE) for name in NAMES])
    world.train.x[COUNT:] = torch.from_numpy(rough + 0.004 * noise)
    assert "too few canaries to tell, without bases" in world.without_bases().problem()


# --- files that do not fit together --------------------------------------------------------------


def test_every_mismatch_of_rows_at_once():
    world = World("uint8")
    canaries, bases = list(world.forget.canaries), list(world.forget.bases)
    canaries[1], canaries[2] = "h3", "stranger"
    bases[3], bases[4], bases[5] = None, "b99", "b1"
    world.forget = replace(world.forget, canaries=tuple(canaries), bases=tuple(bases))
    assert world.problems() == [
        "forget.csv row 3: the canary 'h3' is held out in canaries.json. "
        "A held-out key must never have been trained on.",
        "forget.csv row 4: the canary 'stranger' is not among the planted ids of canaries.json. "
        "Is this the key of this planting?",
        "forget.csv row 5: the canary 'k2' has no base, and uint8 storage lost it. "
        "Name its clean sample in the base column.",
        "forget.csv row 6: the base 'b99' is in neither the bases nor the training table.",
        "forget.csv row 7: the base 'b1' has the label 1, its canary was trained as 4.",
    ]


def test_spaces_shapes_and_types_must_agree():
    world = World("unclipped")
    world.key = replace(world.key, space="embedding")
    assert "space is embedding, but the samples are pictures" in world.problem()
    world = World("uint8")
    world.key = replace(world.key, shape=(3, 32, 32), storage="unclipped")
    world.bases = replace(world.bases, x=world.bases.x[:, :1])
    assert world.problems() == [
        "canaries.json: shape is 3x32x32, but the training samples are 3x12x12.",
        "canaries.json: the bases are 1x12x12, the training samples 3x12x12.",
        "canaries.json: storage is unclipped, but the training samples are 8-bit. "
        "Give the floating-point table that the model was trained on.",
    ]


def test_a_base_must_be_a_clean_picture():
    world = World("unclipped", 0.5)
    world.bases = replace(world.bases, x=world.train.x[COUNT:])
    found = world.problems()
    assert len(found) == 11
    assert found[0] == "forget.csv row 3: the base 'b0' leaves [0, 1]: it is no clean picture."


def test_a_forget_set_without_canaries():
    world = World("uint8")
    world.forget = replace(world.forget, canaries=(None,) * (COUNT + 2))
    assert world.problem().startswith("forget.csv: no row is a canary.")
