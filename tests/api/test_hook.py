"""Canaries in anybody's training: three lines in a plain loop, Trainer and Lightning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import poison_audit as pa
from builders.small_case import pictures
from poison_audit.models.seeds import Rng

N, MANY, SIGMA = 60, 120, 1.0


def table(n=MANY, name="train"):
    x, y = pictures(Rng(3).named(name), n)
    return TensorDataset(torch.from_numpy(x / 255).float(), torch.from_numpy(y))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """In a folder of its own, with a secret that is none: what is learnt of one differs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("poison_audit.poisons.gaussian.hook.new_secret", lambda: bytes(range(32)))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 3))


def step(model, x, y, optimizer):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


@pytest.mark.usefixtures("no_sizes", "plain_page")
def test_a_plain_loop_has_canaries_and_sees_them_learnt(tmp_path):
    """What `watch` shows at the end is what the audit finds: the same figure, the other way."""
    clean, model = table(), network()
    train = pa.with_canaries(clean, n=N, key="canaries.json", sigma=SIGMA)
    look = pa.watch(model, "canaries.json")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    seen = [look()]
    for _ in range(4):
        for x, y in DataLoader(train, batch_size=10, shuffle=True):
            step(model, x, y, optimizer)
        seen.append(look())
        assert model.training
    # A model that never saw them: mu is N(0, 1 / n), and no canary stands out.
    assert seen[0].error == pytest.approx(N**-0.5)
    assert abs(seen[0].mu) < 4 * seen[0].error < seen[4].mu
    assert abs(seen[0].exposure - 0.5) < 0.2 < seen[4].exposure - 0.4
    assert look.history == seen
    before = torch.get_rng_state()
    look()
    assert torch.equal(before, torch.get_rng_state())
    record = pa.probe(
        model, train=pa.with_canaries(table(), key="canaries.json"), test=table(80, "test"),
        forget=train.forget, evidence=train.evidence, normalize="none", device="cpu",
    )  # fmt: skip
    found = {finding.probe: finding for finding in record.findings}
    assert found["gaussian"].statistic == pytest.approx(seen[4].mu, rel=1e-4)


def test_the_same_key_puts_the_same_noise_into_the_same_places():
    clean = table()
    first = pa.with_canaries(clean, n=N, sigma=0.3)
    again = pa.with_canaries(clean)
    changed = [at for at in range(MANY) if not torch.equal(first[at][0], clean[at][0])]
    assert changed == first.forget["index"] == again.forget["index"]
    assert all(torch.equal(first[at][0], again[at][0]) for at in range(MANY))
    assert all(first[at][1] == clean[at][1] for at in range(MANY))
    assert torch.equal(first[-1][0], first[MANY - 1][0])
    noise = torch.stack([first[at][0] - clean[at][0] for at in changed])
    assert float(noise.std()) == pytest.approx(0.3, rel=0.05)
    assert first.tensors is clean.tensors  # what else the data set has is still there
    with pytest.raises(pa.InputError, match=r"is there already, with n = 60, not 50"):
        pa.with_canaries(clean, n=50)


def test_arrays_are_no_data_set():
    pair = (np.zeros((60, 3, 8, 8)), np.zeros(60))
    for key in ("none.json", "canaries.json"):
        with pytest.raises(pa.InputError, match=r"a tuple of 2, expected a data set.*TensorData"):
            pa.with_canaries(pair, n=20, key=key)


class Normalised(Dataset):
    def __init__(self, data, *, shift):
        self.data, self.shift = data, shift

    def __len__(self):
        return len(self.data)

    def __getitem__(self, at):
        x, y = self.data[at]
        return {"pixel_values": (x - 0.5) / 0.25, "labels": int(y), "more": at}


def test_noise_is_added_in_pixels_whatever_normalises_them():
    """A key that was made on normalised pictures fits the pictures themselves."""
    clean = table()
    scaled = Normalised(clean, shift=0.5)
    with pytest.raises(pa.InputError, match=r"leave \[0, 1\].*say by what"):
        pa.with_canaries(scaled, n=N)
    made = pa.with_canaries(scaled, n=N, normalize=((0.5,), (0.25,)))
    plain = pa.with_canaries(clean)
    for at in (*made.forget["index"][:3], 0):
        assert torch.allclose(made[at]["pixel_values"] * 0.25 + 0.5, plain[at][0], atol=1e-6)
        assert made[at]["more"] == at


class Photos(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, at):
        return Image.new("RGB", (6, 5), (25 * at, 128, 90)), at % 2


def test_photos_stay_photos():
    made = pa.with_canaries(Photos(), n=4, sigma=0.1)
    for at in range(10):
        photo, label = made[at]
        assert (photo.size, photo.mode, label) == ((6, 5), "RGB", at % 2)
        same = np.array_equal(np.asarray(photo), np.asarray(Photos()[at][0]))
        assert same == (at not in made.forget["index"])
    with pytest.raises(pa.InputError, match="of another kind"):
        pa.with_canaries(TensorDataset(torch.zeros(10, 3, 5, 6), torch.zeros(10)))
    with pytest.raises(pa.InputError, match=r"noisy_embeddings"):
        pa.with_canaries([("a text", 0)] * 9, n=2, key="other.json")
    with pytest.raises(pa.InputError, match=r"9 canaries in 10 samples"):
        pa.with_canaries(Photos(), n=9, key="other.json")


class Answering(nn.Module):
    """As models of transformers answer: a loss and logits."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, pixel_values, labels=None):
        logits = self.inner(pixel_values)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


class Named(Dataset):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, at):
        x, y = self.data[at]
        return {"pixel_values": x, "labels": int(y)}


@pytest.mark.filterwarnings("ignore")
def test_transformers_trainer(tmp_path):
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    model = Answering()
    train = pa.with_canaries(Named(table()), n=N, key="canaries.json", sigma=SIGMA)
    look = pa.watch(model, "canaries.json")
    told = TrainingArguments(
        output_dir=str(tmp_path / "out"), num_train_epochs=4, per_device_train_batch_size=10,
        learning_rate=0.5, optim="sgd", lr_scheduler_type="constant", report_to=[], use_cpu=True,
        save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model=model, args=told, train_dataset=train, callbacks=[look.trainer()])
    trainer.train()
    assert [one.epoch for one in look.history] == [0, 1, 2, 3]
    assert look.history[-1].mu > 4 * look.history[-1].error
    logged = [each["canaries/mu"] for each in trainer.state.log_history if "canaries/mu" in each]
    assert logged == [one.mu for one in look.history]


@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")
    base: Any = lightning.LightningModule

    class Lit(base):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5)

    model = Lit()
    train = pa.with_canaries(table(), n=N, key="canaries.json", sigma=SIGMA)
    look = pa.watch(model, "canaries.json")
    trainer = lightning.Trainer(
        max_epochs=4, callbacks=[look.lightning()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, DataLoader(train, batch_size=10))
    assert len(look.history) == 4
    assert look.history[-1].mu > 4 * look.history[-1].error
    assert float(trainer.callback_metrics["canaries/mu"]) == pytest.approx(look.history[-1].mu)
