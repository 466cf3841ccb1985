"""Our loops against those that tutorials write: training, and the Fisher information of SSD.

    python tests/benchmarks/loops.py [--samples 2000] [--width 16] [--runs 5] [--device cpu]

Training: one epoch of `descend`, with crops and flips, against a DataLoader over a TensorDataset
with torchvision's transforms picture by picture, and `loss.backward(); optimizer.step()`. Fisher:
`ssd.fisher_diagonal` against a loop that squares `.grad` after `backward()` of each sample, and
against torch.func's `vmap(grad)` in chunks of 32. Prints the fastest of the runs, interleaved in
one process, and ratios.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from poison_audit.methods.ssd import fisher_diagonal
from poison_audit.models.image import NORMALIZE, CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend

BATCH = 128


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Pictures as a tutorial holds them: changed one by one when they are asked for."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.change = v2.Compose([
            v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(*NORMALIZE["cifar10"]),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return self.change(self.samples.x[place]), int(self.samples.y[place])


def fastest(ways: dict[str, Callable[[], object]], runs: int, device: str) -> dict[str, float]:
    """Return the least seconds of each way, run in turn."""
    found = dict.fromkeys(ways, float("inf"))
    for number in range(runs + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if device != "cpu":
                torch.cuda.synchronize()
            if number:  # the first warms up
                found[name] = min(found[name], time.perf_counter() - start)
    return found


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()

    def build() -> CifarResNet:
        return CifarResNet(CifarResNetSpec((1, 1, 1, 1), given.width), channels=3, classes=10)

    blank = image_classifier(
        build(), build=build, arch="", classes=10, normalize=NORMALIZE["cifar10"],
        channels_last=True,
    ).fresh(Rng(0))  # fmt: skip
    model = replace(blank, module=blank.module.to(given.device).eval())
    draws, n = Rng(0).named("pictures").torch(), given.samples
    samples = Samples(
        ids=tuple(map(str, range(n))),
        x=torch.randint(256, (n, 3, 32, 32), generator=draws, dtype=torch.uint8),
        y=torch.randint(10, (n,), generator=draws),
    )
    here, few = samples.to(given.device), samples.at(range(min(n, 256))).to(given.device)

    def ours() -> None:
        batches = ((b,) for b in shuffled(here, BATCH, Rng(0), augment="crop-flip"))
        descend(
            model.clone(), batches, lambda mean: mean, steps=n // BATCH, lr=0.1, ledger=Ledger(),
            rng=Rng(0), batch_norm="train", momentum=0.9,
        )  # fmt: skip

    def tutorial() -> None:
        net = model.clone().module.train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for x, y in DataLoader(Pictures(samples), batch_size=BATCH, shuffle=True, drop_last=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x.to(given.device)), y.to(given.device))
            loss.backward()
            optimizer.step()

    def naive() -> None:
        net = model.clone().module
        sums = [torch.zeros_like(p) for p in net.parameters()]
        for batch in few.in_order(1):
            net.zero_grad()
            model.loss(net, batch).sum().backward()
            for total, parameter in zip(sums, net.parameters(), strict=True):
                total += parameter.grad**2

    def mapped() -> None:
        net = model.clone().module
        named = {name: p.detach() for name, p in net.named_parameters()}
        sums = {name: torch.zeros_like(p) for name, p in named.items()}

        def loss(params: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(functional_call(net, params, (x[None],)), y[None])

        for batch in few.in_order(32):
            each = vmap(grad(loss), in_dims=(None, 0, 0))(named, batch.x, batch.y)
            for name, total in sums.items():
                total += each[name].square().sum(0)

    where = f"width {given.width}, on {given.device}, {torch.get_num_threads()} threads"
    print(f"{n} pictures a training epoch, {len(few)} for the Fisher information, {where}")
    for ways in (
        {"descend": ours, "a tutorial's loop": tutorial},
        {"fisher_diagonal": lambda: fisher_diagonal(model, few), "a naive loop": naive,
         "vmap(grad)": mapped},
    ):  # fmt: skip
        found = fastest(ways, given.runs, given.device)
        own = next(iter(found.values()))
        for name, seconds in found.items():
            print(f"{name:<24}{seconds:8.3f} s {seconds / own:8.2f}")


if __name__ == "__main__":
    main()
