"""What scoring canaries costs: against one sample at a time, and against a bare forward+backward.

    python tests/benchmarks/scoring.py [--canaries 750] [--batch 250] [--device cpu]

Prints ratios of medians over interleaved runs in one process, and how far batched and one-by-one
scores differ. In float32 a few canaries in a thousand differ by more than 1e-5: an activation so
close to a ReLU's kink that two right ways to add the same numbers fall on either side. In float64
none does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from poison_audit.models.image import NORMALIZE, CifarResNet, CifarResNetSpec, image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.probe import leak_scores
from poison_audit.training.scoring import input_gradients


def seconds(work: Callable[[], object], device: str) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--canaries", type=int, default=750)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()

    def build() -> CifarResNet:
        return CifarResNet(CifarResNetSpec((1, 1, 1, 1), given.width), channels=3, classes=10)

    rng = Rng(0)
    model = image_classifier(
        build(), build=build, arch="", classes=10, normalize=NORMALIZE["cifar10"]
    ).fresh(rng)
    model = replace(model, module=model.module.to(given.device).eval())
    draws, n = rng.named("data").torch(), given.canaries
    bases = Samples(
        ids=tuple(map(str, range(n))),
        x=torch.rand(n, 3, 32, 32, generator=draws),
        y=torch.randint(10, (n,), generator=draws),
    ).to(given.device)
    noise = 0.14 * torch.randn(bases.x.shape, generator=draws).to(given.device)

    def batched() -> list[float]:
        return leak_scores(input_gradients(model, bases, size=given.batch), noise, sigma=0.14)

    def one_by_one() -> list[float]:
        return leak_scores(input_gradients(model, bases, size=1), noise, sigma=0.14)

    def bare() -> None:
        for batch in bases.in_order(given.batch):
            model.loss(model.module, batch).sum().backward()
            model.module.zero_grad(set_to_none=True)

    ways: dict[str, Callable[[], object]] = {
        "batched scoring": batched, "one by one": one_by_one, "bare forward+backward": bare,
    }  # fmt: skip
    for work in ways.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.runs):
        for name, work in ways.items():
            times[name].append(seconds(work, given.device))
    median = {name: statistics.median(values) for name, values in times.items()}
    gaps = [abs(a - b) for a, b in zip(batched(), one_by_one(), strict=True)]
    model = replace(model, module=model.module.double())
    bases = replace(bases, x=bases.x.double())
    exact = max(abs(a - b) for a, b in zip(batched(), one_by_one(), strict=True))
    threads = torch.get_num_threads()
    print(f"{n} canaries, batches of {given.batch}, on {given.device}, {threads} threads")
    for name, value in median.items():
        print(f"{name:<24}{value:8.3f} s")
    print(f"one by one / batched    {median['one by one'] / median['batched scoring']:8.2f}")
    ratio = median["batched scoring"] / median["bare forward+backward"]
    print(f"batched / bare          {ratio:8.2f}")
    far = sum(gap > 1e-5 for gap in gaps)
    print(f"difference of scores, float32: median {statistics.median(gaps):.0e}, {far} above 1e-5")
    print(f"difference of scores, float64: largest {exact:.0e}")


if __name__ == "__main__":
    main()
