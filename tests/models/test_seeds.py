import torch

from poison_audit.models.seeds import Rng


def test_a_stream_depends_on_its_name_only():
    one, other = Rng(0).named("gd", 1), Rng(0).named("ga", 1)
    assert one.numpy().random(3).tolist() == Rng(0).named("gd").named(1).numpy().random(3).tolist()
    assert one.seed() != other.seed()
    assert one.seed() != Rng(1).named("gd", 1).seed()
    assert Rng(0).named("a", "b").seed() != Rng(0).named("ab").seed()


def test_torch_streams_start_anew_and_leave_the_global_one_alone():
    before = torch.random.get_rng_state()
    rng = Rng(3).named("x")
    first = torch.rand(4, generator=rng.torch())
    assert torch.equal(first, torch.rand(4, generator=rng.torch()))
    assert torch.equal(before, torch.random.get_rng_state())


def test_seeds_fit_every_generator():
    seeds = [Rng(7).named(i).seed() for i in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 200
