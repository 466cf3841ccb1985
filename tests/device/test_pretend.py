"""The pretend device itself: it refuses what CUDA would, and counts what CUDA would wait for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.pretend_cuda import pretend_cuda
from builders.pretend_tensor import MixedError
from poison_audit.models.samples import sent

pytestmark = pytest.mark.device


@pytest.fixture
def device():
    with pretend_cuda() as device:
        yield device


def on_card(*size):
    return torch.ones(*size).to("cuda")


REFUSED = {
    "a sum": lambda x: x + torch.ones(2, 2),
    "a list": lambda x: torch.cat([x, torch.ones(2, 2)]),
    "scalars in a list": lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
    "a CPU tensor changed in place": lambda x: torch.tensor(1.0).add_(x.sum()),
    "an index on the card": lambda x: torch.ones(2, 2)[torch.zeros(1, dtype=torch.int64).cuda()],
    "values put into it": lambda x: x.__setitem__(torch.tensor([0]), torch.ones(1, 2)),
    "a CPU generator": lambda x: torch.randn(2, generator=torch.Generator(), device="cuda"),
    "a CPU generator in place": lambda x: x.normal_(generator=torch.Generator()),
    "its generator on the CPU": lambda x: torch.randperm(3, generator=torch.Generator("cuda")),
    "a layer": lambda x: nn.Linear(2, 2)(x),
    "NumPy": lambda x: x.numpy(),
    "pinning": lambda x: x.pin_memory(),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cuda_refuses_is_refused(device, case):
    with pytest.raises((MixedError, TypeError, RuntimeError)):
        REFUSED[case](on_card(2, 2))


ALLOWED = {
    "a CPU scalar": lambda x: x + torch.tensor(1.0),
    "a CPU index": lambda x: x[torch.tensor([0])],
    "a mask": lambda x: torch.where(x > 0, x, 0.0),
    "what C++ makes": lambda x: F.one_hot(x[0].long(), 3).to(x) @ x.new_ones(3, 1),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_cuda_takes_is_computed_there(device, case):
    assert ALLOWED[case](on_card(2, 2)).device == torch.device("cuda", 0)


WAITS = {
    "a number": (lambda x: float(x.sum()), 1),
    "a list": (lambda x: x.tolist(), 1),
    "a comparison": (lambda x: bool((x > 0).all()), 1),
    "the CPU": (lambda x: x.cpu(), 1),
    "a mask as index": (lambda x: x[x > 0], 1),
    "a CPU index": (lambda x: x[torch.tensor([0])], 1),
    "where from": (lambda x: x.nonzero(), 1),
    "numbers as a tensor": (lambda x: x.new_tensor([1.0]), 1),
    "pageable memory": (lambda x: torch.ones(3).to("cuda", non_blocking=True), 1),
    "a copy": (lambda x: x.copy_(torch.ones(2, 2)), 1),
    "the whole card": (lambda x: torch.cuda.synchronize(), 1),
    "pinned memory": (lambda x: sent(torch.ones(3), x.device), 0),
    "a sum": (lambda x: (x + 1).sum().backward, 0),
}


@pytest.mark.parametrize("case", WAITS)
def test_waits_are_counted(device, case):
    compute, expected = WAITS[case]
    x = on_card(2, 2)
    device.forget()
    compute(x)
    assert sum(device.waits.values()) == expected


def test_gradients_and_dropout_are_those_of_the_cpu():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    x = torch.ones(4, 3)

    def gradient(module, x):
        (slope,) = torch.autograd.grad(module(x).square().sum(), module[0].weight)
        return slope

    torch.manual_seed(7)
    expected = gradient(net, x)
    with pretend_cuda() as device:
        there = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2)).to("cuda")
        there.load_state_dict(net.state_dict())
        device.generator.manual_seed(7)
        before = torch.default_generator.get_state()
        found = gradient(there, x.to("cuda")).cpu()
        assert torch.equal(torch.default_generator.get_state(), before)
    assert torch.equal(found, expected)


def test_tied_weights_stay_tied(device):
    net = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    net[1].weight = net[0].weight
    net.to("cuda")
    assert net[0].weight is net[1].weight
    assert net[0].weight.is_cuda
    assert not net.to("cpu")[1].weight.is_cuda


def test_memory_gives_out_when_it_is_told_to(device):
    x = on_card(2)
    device.forget()
    device.fails[2] = torch.OutOfMemoryError("simulated")
    y = x + 1
    y.add_(1)  # takes none
    with pytest.raises(torch.OutOfMemoryError):
        y + 1
    assert (y + 1).tolist() == [4.0, 4.0]


def test_convolutions_out_of_order_and_in_tf32_are_counted(device):
    net, x = nn.Conv2d(1, 1, 1).to("cuda"), on_card(1, 1, 2, 2)
    net(x)
    assert (sum(device.loose.values()), sum(device.tf32.values())) == (1, 1)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        net(x)
    assert (sum(device.loose.values()), sum(device.tf32.values())) == (1, 1)


def test_what_adds_in_no_order_comes_out_otherwise(device):
    x, place = on_card(2), torch.zeros(2, dtype=torch.int64).to("cuda")

    def added():
        return torch.zeros(1, device="cuda").index_add_(0, place, x).tolist()

    assert added() == added()
    device.scatters = True
    assert added() != added()
