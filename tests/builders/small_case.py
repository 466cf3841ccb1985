"""A whole audit in miniature, on disk: 90 training pictures of 8x8, 30 of them canaries."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from poison_audit.case.keyfile import write_key
from poison_audit.models.image import CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.training import loop
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger

SPEC = CifarResNetSpec((1,), 4)
SHAPE, CLASSES, SIGMA = (1, 8, 8), 3, 0.2
FLAGS = ["--train", "train.npz", "--test", "test.npz", "--canaries", "canaries.json",
         "--bases", "bases.npz", "--normalize", "none", "--recipe", "epochs=5",
         "--recipe", "batch_size=20", "--recipe", "lr=0.1"]  # fmt: skip


def pictures(rng: Rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes in one of three directions, and noise: easy, but not trivial."""
    draws = rng.numpy()
    labels = draws.integers(0, CLASSES, n)
    down, right = np.mgrid[:8, :8]
    waves = np.stack([np.sin(2.0 * down), np.sin(2.0 * right), np.sin(1.4 * (down + right))])
    x = 0.5 + 0.3 * waves[labels][:, None] + 0.05 * draws.normal(size=(n, *SHAPE))
    return (np.clip(x, 0, 1) * 255).round().astype(np.uint8), labels


def make(folder: Path) -> Path:
    """Write the case and return its folder."""
    rng = Rng(5)
    x, y = pictures(rng.named("train"), 90)
    x_test, y_test = pictures(rng.named("test"), 60)
    names = [f"c{i}" for i in range(30)]
    key = Canaries(
        secret=bytes(32), sigma=SIGMA, space="pixel", shape=SHAPE, storage="unclipped",
        planted=tuple(names), held_out=tuple(f"h{i}" for i in range(30)),
    )  # fmt: skip
    poisoned = (x[:30] / 255 + key.noise(names)).astype(np.float32)
    everything = np.concatenate([poisoned, (x[30:] / 255).astype(np.float32)])
    ids = [*names, *(f"t{i}" for i in range(30, 90))]
    np.savez(folder / "train.npz", x=everything, y=y, id=ids)
    np.savez(folder / "test.npz", x=x_test, y=y_test, id=[f"e{i}" for i in range(60)])
    np.savez(folder / "bases.npz", x=x[:30], y=y[:30], id=[f"b{i}" for i in range(30)])
    write_key(folder / "canaries.json", key)
    write_rows(folder / "forget.csv", ["id", "label", "attack", "base"],
               [[names[i], int(y[i]), "gaussian", f"b{i}"] for i in range(30)])  # fmt: skip

    def build() -> CifarResNet:
        return CifarResNet(SPEC, channels=1, classes=CLASSES)

    blank = image_classifier(build(), build=build, arch=SPEC.name, classes=CLASSES)
    for name, keep in (("model", slice(0, 90)), ("clean", slice(30, 90))):
        data = Samples(
            ids=tuple(ids[keep]), x=torch.from_numpy(everything[keep]), y=torch.from_numpy(y[keep])
        )
        model = blank.fresh(rng.named(name))
        batches = ((b,) for b in shuffled(data, 30, rng.named(name)))
        loop.descend(
            model, batches, lambda loss: loss, steps=60, lr=0.05, ledger=Ledger(),
            rng=rng, batch_norm="train", momentum=0.9,
        )  # fmt: skip
        save_model(model, folder / f"{name}.safetensors")
    return folder


def write_rows(path: Path, header: list[str], rows: list[list[object]]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_rows(path: Path) -> list[list[str]]:
    """Read a CSV file, header included."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))
