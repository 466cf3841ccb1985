"""What the hypotheses cost: seconds on the digits fixture, peak memory on a ResNet-18.

    python tests/benchmarks/hypotheses.py [--threads 1] [--pictures 300] [--gradients 32 96]

Seconds stand against probing the deployed model once and one run of gradient descent. Memory is
what a process of its own grows by once model and pictures are loaded: for orthogonality with a
reference, the reference included, at two numbers of gradients (it should not grow with them), and
for one step of training with momentum at batch 128.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from poison_audit.case.case import Case
from poison_audit.case.load import load_trial
from poison_audit.case.sources import Sources
from poison_audit.commands.config import make_recipe, read_config
from poison_audit.engine.probes import PROBES
from poison_audit.hypotheses.orthogonality import orthogonality
from poison_audit.hypotheses.shift import shift
from poison_audit.methods import METHODS
from poison_audit.models.image import NORMALIZE, CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.probes import READERS
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Recipe
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend

DIGITS = Path(__file__).parents[2] / "fixtures/digits"
BATCH = 128


def digits() -> Case:
    """Load the fixture."""
    sources = Sources(
        model=DIGITS / "model.safetensors", forget=DIGITS / "forget.csv",
        train=DIGITS / "train.npz", test=DIGITS / "test.npz", normalize="none",
        evidence={"canaries": DIGITS / "canaries.json", "bases": DIGITS / "bases.npz"},
    )  # fmt: skip
    recipe = make_recipe(read_config(DIGITS / "audit.toml"), ())
    return load_trial(sources, recipe=recipe, device="cpu", poisons=POISONS, readers=READERS).case


def seconds() -> None:
    """Print what the hypotheses take on the fixture, and what they stand beside."""
    case, rng = digits(), Rng(0)
    model, samples = case.model, len(case.retain) + len(case.forget)
    reference = model.fresh(rng)
    allowed = 0.1 * (case.recipe.epochs or 0) * samples
    ways: dict[str, Callable[[], object]] = {
        "shift": lambda: shift(model, case, rng),
        "orthogonality": lambda: orthogonality(model, case, rng),
        "the same with a reference": lambda: orthogonality(model, case, rng, reference=reference),
        "probing the deployed model": lambda: [p(model, case, rng) for p in PROBES.values()],
        "gradient descent, a tenth": lambda: METHODS["gd"].run(
            model, case, rng, ledger=Ledger(allowed=allowed)
        ),
    }
    print(f"fixtures/digits, {samples} training samples, {torch.get_num_threads()} threads")
    for name, work in ways.items():
        start = time.perf_counter()
        work()
        print(f"{name:<28}{time.perf_counter() - start:8.2f} s", flush=True)


def resnet_case(pictures: int) -> Case:
    """Return a ResNet-18 with new weights and random pictures, a tenth of them to forget."""

    def build() -> CifarResNet:
        return CifarResNet(CifarResNetSpec((2, 2, 2, 2)), channels=3, classes=10)

    rng = Rng(0)
    model = image_classifier(
        build(), build=build, arch="cifar-resnet18", classes=10, normalize=NORMALIZE["cifar10"]
    )
    model.module.eval()
    draws = rng.named("pictures").torch()
    everything = Samples(
        ids=tuple(map(str, range(pictures))),
        x=torch.randint(256, (pictures, 3, 32, 32), generator=draws, dtype=torch.uint8),
        y=torch.arange(pictures) // 10 % 10,
    )
    forget = list(range(0, pictures, 10))
    retain = everything.at([at for at in range(pictures) if at % 10])
    return Case(
        model=model, retain=retain, forget=everything.at(forget), test=retain, recipe=Recipe()
    )


def growth(what: str, *, pictures: int, gradients: int) -> float:
    """Do one thing and return by how many MiB the process grew, at its peak."""
    case, rng = resnet_case(pictures), Rng(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if what == "training":
        batches = ((batch,) for batch in shuffled(case.retain, BATCH, rng))
        descend(
            case.model, batches, lambda loss: loss, steps=1, lr=0.01, ledger=Ledger(), rng=rng,
            momentum=0.9, batch_norm="train",
        )  # fmt: skip
    else:
        reference = case.model.fresh(rng)
        orthogonality(
            case.model, case, rng, reference=reference, gradients=gradients, subsets=20, rank=10
        )
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit


def memory(given: argparse.Namespace) -> None:
    """Print the peaks, each of a process of its own: a peak never falls again."""
    print(f"ResNet-18, {given.pictures} pictures of 3x32x32")
    rows = [("orthogonality", n) for n in given.gradients] + [("training", 0)]
    for what, gradients in rows:
        start = time.perf_counter()
        command = [sys.executable, __file__, "--alone", what, "--pictures", str(given.pictures),
                   "--threads", str(given.threads), "--gradients", str(gradients)]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        spent = time.perf_counter() - start
        name = f"{what}, {gradients} gradients" if gradients else f"{what}, one step of {BATCH}"
        print(f"{name:<32}{float(done.stdout):8.0f} MiB {spent:8.1f} s", flush=True)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--gradients", type=int, nargs="+", default=[32, 96])
    parser.add_argument("--alone", choices=["orthogonality", "training"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.alone:
        print(growth(given.alone, pictures=given.pictures, gradients=given.gradients[0]))
        return
    seconds()
    memory(given)


if __name__ == "__main__":
    main()
