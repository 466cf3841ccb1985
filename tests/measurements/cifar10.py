"""Train on real CIFAR-10 with canaries, audit, and print the table that stands in README.md here.

    python tests/measurements/cifar10.py CIFAR10_FOLDER [OUT]

CIFAR10_FOLDER holds cifar10-full.npz and load_cifar10.py. 2,000 training pictures, 200 of them
canaries (sigma^2 0.32 in normalised units, so sigma 0.566 * 0.25 = 0.1414 in pixels; unclipped), a
CIFAR-stem ResNet of width 16 with one block a stage, 15 epochs of SGD: the setting in which this
project's design was measured (Pawelczyk et al., arXiv 2406.17216, use ResNet-18, 50,000 pictures
and 100 epochs). Two references are trained on the 1,800 others; all 10,000 test pictures are used.
Then the command line does the rest. 200 canaries are too few for the default tolerances (mu 0.25
wants 300 to let clean models pass nine times in ten), so mu 0.4 is tolerated, and 0.61 for the
exposure, which is the same mu.
"""

from __future__ import annotations

import csv
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import torch

from poison_audit.case.keyfile import write_key
from poison_audit.cli import invoke
from poison_audit.models.image import NORMALIZE, CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.training import loop
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger

TRAIN, CANARIES, SIGMA = 2000, 200, 0.1414
EPOCHS, BATCH, LR = 15, 100, 0.1
SPEC = CifarResNetSpec((1, 1, 1, 1), 16)


def load(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the pictures, NCHW uint8, and labels of a split."""
    spec = importlib.util.spec_from_file_location("load_cifar10", folder / "load_cifar10.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"no load_cifar10.py in {folder}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x, y, _ = module.load(folder / "cifar10-full.npz", split)
    return x.transpose(0, 3, 1, 2), y


def train(data: Samples, rng: Rng) -> Model:
    """Train one model from scratch."""

    def build() -> CifarResNet:
        return CifarResNet(SPEC, channels=3, classes=10)

    blank = image_classifier(
        build(), build=build, arch=SPEC.name, classes=10, normalize=NORMALIZE["cifar10"]
    )
    model = blank.fresh(rng.named("init"))
    batches = ((batch,) for batch in shuffled(data, BATCH, rng.named("batches")))
    loop.descend(
        model, batches, lambda loss: loss, steps=EPOCHS * len(data) // BATCH, lr=LR,
        ledger=Ledger(), rng=rng, batch_norm="train", momentum=0.9,
        weight_decay=5e-4, schedule="onecycle",
    )  # fmt: skip
    return model


def make(source: Path, folder: Path) -> None:
    """Write the tables, the key and the three models."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = Rng(2406)
    x, y = load(source, "train")
    chosen = rng.named("train").numpy().permutation(len(y))[:TRAIN]
    x, y = x[chosen], y[chosen]
    names = [f"canary-{n:03d}" for n in range(CANARIES)]
    key = Canaries(
        secret=rng.named("secret").numpy().bytes(32), sigma=SIGMA, space="pixel",
        shape=(3, 32, 32), storage="unclipped", planted=tuple(names),
        held_out=tuple(f"held-out-{n:03d}" for n in range(CANARIES)),
    )  # fmt: skip
    table = (x / 255).astype(np.float32)
    table[:CANARIES] += key.noise(names).astype(np.float32)
    ids = [*names, *(f"cifar-{i}" for i in chosen[CANARIES:])]
    np.savez(folder / "train.npz", id=ids, x=table, y=y)
    bases = [f"cifar-{i}" for i in chosen[:CANARIES]]
    np.savez(folder / "bases.npz", id=bases, x=x[:CANARIES], y=y[:CANARIES])
    x_test, y_test = load(source, "test")
    np.savez(folder / "test.npz", x=x_test, y=y_test)
    print(f"commitment: {write_key(folder / 'canaries.json', key)}")
    with (folder / "forget.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "label", "attack", "base"])
        rows.writerows(
            [name, int(label), "gaussian", base]
            for name, label, base in zip(names, y, bases, strict=False)
        )
    whole = Samples(ids=tuple(ids), x=torch.from_numpy(table), y=torch.from_numpy(y))
    retain = whole.at(range(CANARIES, TRAIN))
    for name, data in (("model", whole), ("retrained_a", retain), ("retrained_b", retain)):
        clock = time.perf_counter()
        save_model(train(data, rng.named(name)), folder / f"{name}.safetensors")
        print(f"{name}: {time.perf_counter() - clock:.0f} s of training", flush=True)


def main(source: Path, folder: Path) -> int:
    """Make the case if it is not there, and audit it."""
    if not (folder / "retrained_b.safetensors").exists():
        make(source, folder)
    recipe = {
        "epochs": EPOCHS, "lr": LR, "batch_size": BATCH, "momentum": 0.9, "weight_decay": 5e-4,
        "schedule": "onecycle", "optimizer": "sgd", "augment": "none",
    }  # fmt: skip
    return invoke(
        [
            "check", str(folder / "model.safetensors"), "--forget", str(folder / "forget.csv"),
            "--train", str(folder / "train.npz"), "--test", str(folder / "test.npz"),
            "--canaries", str(folder / "canaries.json"), "--bases", str(folder / "bases.npz"),
            "--reference", str(folder / "retrained_a.safetensors"),
            "--reference", str(folder / "retrained_b.safetensors"),
            "--out", str(folder / "audit"),
            "--tolerance", "gaussian=0.4", "--tolerance", "exposure=0.61",
            *(part for key, value in recipe.items() for part in ("--recipe", f"{key}={value}")),
        ]
    )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("cifar10-audit")
    sys.exit(main(Path(sys.argv[1]), out))
