"""When memory gives out, work goes on in smaller parts, and the figures stay."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.cramped import cramped
from builders.small_case import FLAGS
from poison_audit.cli import invoke
from poison_audit.models.memory import in_parts, limited
from poison_audit.models.model import Batch, Model, blocks_of
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.training.scoring import input_gradients, logits, losses

pytestmark = pytest.mark.usefixtures("plain_page")

RNG = Rng(8)


def model_of(*, dropout: float = 0.5) -> Model:
    """A net with everything that a failed forward pass may change: statistics and draws."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
            nn.Linear(8 * 36, 3),
        )  # fmt: skip

    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = build()
    return Model(
        module=module.eval(),
        logits=lambda module, batch: module(batch.x),
        loss=lambda module, batch: F.cross_entropy(module(batch.x), batch.y, reduction="none"),
        blocks=blocks_of(module),
        build=build,
        arch="test",
        classes=3,
    )


DATA = Samples(
    ids=tuple(map(str, range(40))),
    x=torch.rand(40, 1, 6, 6, generator=RNG.torch()),
    y=torch.arange(40) % 3,
)


def trained(**settings) -> tuple[Model, Ledger]:
    model, ledger = model_of(), Ledger()
    cuts = (0, 10, 16) if settings.get("batch_norm") == "joint" else (0, 16)
    batches = (
        tuple(batch.part(slice(*ends)) for ends in pairwise(cuts))
        for batch in shuffled(DATA, 16, RNG.named("batches"), augment="flip")
    )
    settings = {"batch_norm": "train", **settings}
    descend(
        model, batches, lambda *losses: sum(losses), steps=6, lr=0.1, ledger=ledger, rng=RNG,
        momentum=0.9, noise=0.01, **settings,
    )  # fmt: skip
    return model, ledger


# in_parts


def batch_of(n: int) -> Batch:
    return Batch(x=torch.arange(n), y=torch.arange(n))


def fitting(most: int, asked: list[int]):
    def compute(batch: Batch) -> torch.Tensor:
        asked.append(len(batch))
        if len(batch) > most:
            raise torch.OutOfMemoryError("simulated")
        return batch.x * 2

    return compute


@pytest.mark.parametrize("most", [1, 2, 3, 10, 11, 64])
@pytest.mark.parametrize("n", [1, 2, 10, 11])
def test_parts_are_halved_until_they_fit_and_come_in_order(n, most, monkeypatch):
    monkeypatch.setattr("poison_audit.models.memory.release", lambda: None)  # slow, and not asked
    assert in_parts(fitting(most, []), batch_of(n)).tolist() == [2 * i for i in range(n)]


def test_what_did_not_fit_is_not_tried_again():
    asked: list[int] = []
    with limited() as limit:
        for _ in range(3):
            in_parts(fitting(3, asked), batch_of(10))
    assert limit.size == 3
    assert asked == [10, 5, 3, 3, 3, 1, *[3, 3, 3, 1] * 2]
    with limited() as limit:
        in_parts(fitting(30, asked), batch_of(10))
    assert limit.size is None


def test_one_sample_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        in_parts(fitting(0, []), batch_of(3))


def test_a_part_of_a_batch_of_texts_keeps_its_mask_and_its_noise():
    whole = Batch(
        x=torch.arange(12).reshape(4, 3), y=torch.arange(4),
        mask=torch.ones(4, 3), noise=torch.arange(24.0).reshape(4, 3, 2),
    )  # fmt: skip
    part = whole.part(slice(1, 3))
    assert part.x.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert part.y.tolist() == [1, 2]
    assert part.mask is not None
    assert part.mask.shape == (2, 3)
    assert part.noise is not None
    assert part.noise[0, 0].tolist() == [6.0, 7.0]


# a step


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "adamw"}, {"precision": "bfloat16"}, {"batch_norm": "joint"}],
)
def test_a_step_that_does_not_fit_gives_the_same_bits(settings):
    with cramped() as free:
        expected, spent = trained(**settings)
    assert not spent.offloaded
    # The bound is reached in the second half of the forward pass: statistics have moved by then.
    with cramped(kept=0.7 * free.most) as memory:
        found, ledger = trained(**settings)
    assert memory.gave_out == 1
    assert ledger.offloaded
    assert found.digest() == expected.digest()
    assert ledger.spent == spent.spent == 6 * 16
    assert ledger.curve() == spent.curve()


def test_a_step_that_does_not_fit_in_its_backward_pass_leaves_no_gradient_behind():
    def late(module, batch):
        loss = F.cross_entropy(module(batch.x), batch.y, reduction="none")
        return _Late.apply(loss)

    expected, _ = trained()
    _Late.left = 1
    found, ledger = model_of(), Ledger()
    batches = ((batch,) for batch in shuffled(DATA, 16, RNG.named("batches"), augment="flip"))
    descend(
        Model(**{**_fields(found), "loss": late}), batches, lambda loss: loss, steps=6, lr=0.1,
        ledger=ledger, rng=RNG, batch_norm="train", momentum=0.9, noise=0.01,
    )  # fmt: skip
    assert ledger.offloaded
    assert found.digest() == expected.digest()


class _Late(torch.autograd.Function):
    left = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if _Late.left:
            _Late.left -= 1
            raise torch.OutOfMemoryError("simulated")
        return gradient


def _fields(model: Model) -> dict[str, object]:
    return {name: getattr(model, name) for name in Model.__dataclass_fields__}


def test_memory_that_gives_out_in_main_memory_as_well_is_an_error():
    model = model_of()

    def never(module, batch):
        raise torch.OutOfMemoryError("simulated")

    with pytest.raises(torch.OutOfMemoryError):
        descend(
            Model(**{**_fields(model), "loss": never}), [(DATA.batch(),)], lambda loss: loss,
            steps=1, lr=0.1, ledger=Ledger(), rng=RNG,
        )  # fmt: skip


# passes over data


def test_passes_over_data_give_the_same_in_parts():
    model = model_of()
    free = [f(model, DATA) for f in (logits, losses, input_gradients)]
    with cramped() as memory:
        input_gradients(model, DATA)
    with cramped(rows=7, kept=memory.most / 3), limited() as limit:
        tight = [f(model, DATA) for f in (logits, losses, input_gradients)]
    assert limit.size is not None
    assert limit.size <= 7
    for a, b in zip(free, tight, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)


# the whole audit


TIMINGS = {"seconds", "probe_seconds", "peak_bytes", "started", "command"}


def check(*arguments: str) -> int:
    return invoke(["check", "model.safetensors", "--forget", "forget.csv", *FLAGS,
                   "--reference", "clean.safetensors", "--quiet", *arguments])  # fmt: skip


def report(folder: str) -> dict:
    return json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))


def differences(a, b, where=""):
    """Yield where two reports differ by more than rounding, timings aside."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in (a.keys() | b.keys()) - TIMINGS:
            yield from differences(a.get(key), b.get(key), f"{where}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from differences(one, other, f"{where}[{i}]")
    elif isinstance(a, float) and isinstance(b, float):
        if abs(a - b) > 1e-4 * max(1, abs(a)):
            yield where
    elif a != b:
        yield where


METHODS = ["--methods", "gd,cf_k,scrub,ssd"]


@pytest.mark.long
def test_an_audit_with_too_little_memory_comes_to_the_same_and_says_so(case, capsys):
    with cramped() as free:
        expected = check(*METHODS, "--out", "free")
    with cramped(rows=7, kept=free.most / 4) as memory:
        assert check(*METHODS, "--out", "tight") == expected
    assert memory.gave_out > 0
    a, b = report("free"), report("tight")
    assert [cell["digest"] for cell in a["cells"]] == [cell["digest"] for cell in b["cells"]]
    told = [limit for limit in b["limits"] if "gave out" in limit]
    assert len(told) == 2
    assert "deployed at most " in told[0]
    assert "gd, cf_k, " in told[1]
    assert "gave out in steps of gd" in " ".join(capsys.readouterr().out.split())
    # Recalibration normalises by the batch, which is smaller where memory gives out.
    roused = tuple(f".findings[{i}]." for i, f in enumerate(a["findings"]) if f.get("way"))
    other = {
        place
        for place in differences(a, b)
        if not place.startswith((".limits", ".seal", *roused))
        and not place.endswith((".batch", ".offloaded"))
        and ".woken[" not in place
    }
    assert not other


def test_what_does_not_fit_at_all_never_passes_and_is_tried_again(case, capsys):
    arguments = ["--methods", "none", "--out", "out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poison_audit.training.scoring._input_gradient", _never)
        assert check(*arguments) == 3
    record = report("out")
    (reason,) = {
        f["reason"] for f in record["findings"]
        if f["probe"] == "gaussian" and f["candidate"] == "deployed"
    }  # fmt: skip
    assert "ran out of memory on cpu" in reason
    assert record["verdict"]["outcome"] == "INCONCLUSIVE"
    assert check(*arguments) == 3  # the same directory, with memory: measured now
    assert not any("ran out" in f["reason"] for f in report("out")["findings"])


@pytest.mark.slow
def test_a_method_that_does_not_fit_has_failed(case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "poison_audit.training.loop.kept_in_main_memory", lambda device: _never(None, None)
        )
        with cramped(kept=1):
            assert check("--methods", "gd", "--out", "out") == 3
    failed = [c for c in report("out")["cells"] if c["candidate"] == "gd"]
    assert failed[0]["error"] == "gd ran out of memory on cpu"


def test_a_model_that_does_not_fit_ends_in_words(case, capsys, monkeypatch):
    monkeypatch.setattr("poison_audit.commands.check.check_sanity", _never)
    assert check("--out", "out") == 4
    told = capsys.readouterr().err
    assert "out of memory" in told
    assert "Traceback" not in told


def _never(*_args, **_kwargs):
    raise torch.OutOfMemoryError("simulated")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_that_does_not_fit_on_a_card(monkeypatch):
    card = torch.device("cuda", 0)
    model = model_of(dropout=0.0).clone()
    model.module.to(card)
    data = Samples(ids=tuple(map(str, range(4096))), x=torch.rand(4096, 1, 6, 6),
                   y=torch.arange(4096) % 3).to(card)  # fmt: skip
    free, _ = torch.cuda.mem_get_info(card)
    ballast = torch.empty(max(0, free - 48 * 2**20), dtype=torch.uint8, device=card)
    ledger = Ledger()
    descend(model, [(data.batch(),)] * 2, lambda loss: loss, steps=2, lr=0.1, ledger=ledger,
            rng=RNG, batch_norm="train")  # fmt: skip
    del ballast
    assert ledger.offloaded
