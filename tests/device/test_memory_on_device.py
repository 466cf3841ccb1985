"""A pretend CUDA device whose memory gives out: wherever in a step that is, no bit changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from builders.pretend_cuda import pretend_cuda
from builders.small_case import FLAGS
from poison_audit.cli import invoke
from poison_audit.models.image import image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("float32")]

RNG = Rng(8)
DATA = Samples(
    ids=tuple(map(str, range(12))), x=torch.rand(12, 1, 6, 6, generator=RNG.torch()),
    y=torch.arange(12) % 3,
)  # fmt: skip
LACKS = (
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
)


def build() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(32, 3)
    )


def trained(settings, fails=None, *, streamed=False):
    """Return weights, and the operations with which the first step began and the second ended."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = build()
    with pretend_cuda() as device:
        model = image_classifier(
            module, build=build, arch="", classes=3, normalize=((0.5,), (0.2,))
        )
        model.module.to("cuda")
        data, ledger = DATA.to("cuda", streamed=streamed), Ledger()
        device.forget()
        device.fails = dict(fails or {})
        began: list[int] = []

        def batches():
            for batch in shuffled(data, 5, RNG.named("batches"), augment="crop-flip"):
                yield (batch,)

        def drawn():
            began.append(device.made)
            yield from batches()

        ended: list[int] = []
        descend(
            model, drawn(), lambda loss: loss, steps=2, lr=0.1, ledger=ledger, rng=RNG,
            noise=0.01, batch_norm="train", watch=lambda step, take: ended.append(device.made),
            **settings,
        )  # fmt: skip
        assert not device.fails
        return model.digest(), (began[0], ended[-1])


@pytest.mark.parametrize(
    "settings",
    [{"momentum": 0.9, "weight_decay": 0.01}, {"optimizer": "adamw"}],
    ids=["sgd", "adamw"],
)
def test_memory_that_gives_out_anywhere_in_a_step_changes_no_bit(settings, monkeypatch):
    monkeypatch.setattr("poison_audit.models.memory.release", lambda: None)  # slow, and not asked
    monkeypatch.setattr("poison_audit.training.loop.release", lambda: None)
    expected, (first, last) = trained(settings)
    places = range(first + 1, last + 1)
    assert len(places) > 60
    # Every part of both steps: each allocation would take ten times as long.
    for number, place in enumerate(places[::5]):
        found, _ = trained(settings, {place: LACKS[number % len(LACKS)]})
        assert found == expected, f"operation {place} of {first} to {last}"


def test_another_error_is_no_want_of_memory():
    with pytest.raises(RuntimeError, match="illegal"):
        trained({}, {20: RuntimeError("CUDA error: an illegal memory access was encountered")})


def test_pictures_without_room_are_sent_a_batch_at_a_time():
    assert trained({}, streamed=True)[0] == trained({})[0]


def test_train_moves_no_test_set_that_has_no_room(case, monkeypatch):
    moved: list[str] = []
    plain = Samples.to

    def to(self, device, *, streamed=False):
        moved.append("streamed" if streamed else "whole")
        return plain(self, device, streamed=streamed)

    monkeypatch.setattr(Samples, "to", to)
    command = ["train", "train.npz", "--test", "test.npz", "--arch", "cifar-resnet:1:w4",
               "--normalize", "none", *FLAGS[-6:], "--recipe", "epochs=1", "-q"]  # fmt: skip
    with pretend_cuda(free=100):
        assert invoke([*command, "-o", "m", "--device", "cuda"]) == 0
    assert moved == ["streamed", "streamed"]
