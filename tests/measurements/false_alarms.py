"""Ask checks/adapter about networks that are read rightly, and count whom it doubts.

    python tests/measurements/false_alarms.py NETS --data DATA [--only PREFIX ..]

NETS is the folder that honest_nets.py filled; DATA holds backdoored/ and cifar10/. The forget set
is the network's own poison, or 60 clean rows where it has none. Prints each network that is
doubted, with the doubt, and the count with its one-sided 95% Clopper-Pearson bound.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

import honest_nets
from honest_nets import NORMALIZED

from poison_audit.case.case import Case
from poison_audit.checks.adapter import doubts_of_adapter
from poison_audit.checks.sanity import check_sanity
from poison_audit.models.image import image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe
from poison_audit.statistics.estimates import clopper_pearson

if TYPE_CHECKING:
    from wrong_readings import Subject


KINDS = ("small", "fresh", "large")
"""Of honest_nets.py; what others trained, and the fixtures, is a kind of its own."""


def case_of(
    module: nn.Module, normalize: str, arch: str, parts: dict[str, tuple[Tensor, Tensor]]
) -> Case:
    """Return a case of pictures in memory; `parts` are forget, retain and test."""
    model = image_classifier(
        module, build=lambda: module, arch=arch, classes=10, normalize=NORMALIZED[normalize]
    )
    told = {
        name: Samples(ids=tuple(f"{name}-{i}" for i in range(len(y))), x=x, y=y)
        for name, (x, y) in parts.items()
    }
    return Case(model=model, recipe=Recipe(epochs=8, lr=0.1, batch_size=64), **told)


def trained(kept: Path, cifar: dict[str, object]) -> tuple[str, Case]:
    """Return a network of honest_nets.py, what it is, and its case."""
    file = torch.load(kept, weights_only=True)
    recipe = honest_nets.Recipe(**file["recipe"])
    module = honest_nets.build(recipe)
    module.load_state_dict(file["state"])
    data = honest_nets.data(recipe, cifar)  # type: ignore[arg-type]
    bad = data.bad.clone()
    if not bool(bad.any()):
        bad[:60] = True
    x = (data.train_x * 255).round().to(torch.uint8)
    parts = {
        "forget": (x[bad], data.train_y[bad]),
        "retain": (x[~bad], data.train_y[~bad]),
        "test": ((data.test_x * 255).round().to(torch.uint8), data.test_y),
    }
    what = (
        f"{recipe.data} {recipe.net} {recipe.normalize} {recipe.augment} {recipe.poison} "
        f"{recipe.share:g}, {recipe.epochs} epochs of {recipe.size}"
    )
    arch = recipe.net if recipe.name.startswith("large-") else "factory:own"
    return what, case_of(module.eval(), recipe.normalize, arch, parts)


def cases(nets: Path, data: Path) -> Iterator[tuple[str, Callable[[], tuple[str, Case]]]]:
    """Yield what makes each network's case, by name."""
    cifar = honest_nets.pictures(data / "cifar10", nets)
    for kept in sorted(file for kind in KINDS for file in nets.glob(f"{kind}-*.pt")):
        yield kept.stem, lambda kept=kept: trained(kept, cifar)  # type: ignore[misc]
    import wrong_readings

    told = wrong_readings.subjects(nets, data)
    for name in ("digits", *wrong_readings.BACKDOORED):
        yield name, lambda make=told[name]: published(make())  # type: ignore[misc]
    for name in ("model", "retrained_b"):
        yield (
            f"digits-{name}",
            lambda name=name: published(  # type: ignore[misc]
                replace(told["digits"](), file=honest_nets.DIGITS / f"{name}.safetensors")
            ),
        )


def published(subject: Subject) -> tuple[str, Case]:
    """Return a network that somebody else trained, or a fixture, and its case."""
    module = subject.build()
    module.load_state_dict(load_file(subject.file))
    x, y = subject.train_x, subject.train_y
    parts = {
        "forget": (x[:60], y[:60]),
        "retain": (x[60:], y[60:]),
        "test": (subject.test_x, subject.test_y),
    }
    return subject.normalize, case_of(module.eval(), subject.normalize, "factory:own", parts)


def summary(done: dict[str, dict[str, Any]]) -> str:
    """Return, for each kind of network, how many are doubted and how many at most would be."""
    lines = [
        "| networks | read rightly | doubted | at most | no better than chance |",
        "|---" * 5 + "|",
    ]
    of: dict[str, list[dict[str, Any]]] = {}
    for name, one in sorted(done.items()):
        kind = name.split("-")[0]
        of.setdefault(kind if kind in KINDS else "others", []).append(one)
    for kind, some in of.items():
        doubted = sum(bool(one["doubts"]) for one in some)
        _, high = clopper_pearson(doubted, len(some), level=0.95, sides=1)
        dull = sum(not one["works"] for one in some)
        lines.append(f"| {kind} | {len(some)} | {doubted} | {high:.1%} | {dull} |")
    said = [
        f"{name}: {one['what']}; {one['accuracy']:.1%}: {' '.join(one['doubts'])}"
        for name, one in sorted(done.items())
        if one["doubts"]
    ]
    return "\n".join([*lines, "", *said])


def main() -> int:
    """Ask, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[""])
    given = parser.parse_args()
    sys.path.insert(0, str(given.data.resolve() / "backdoored"))
    kept = given.nets / "alarms.json"
    done: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    for name, make in cases(given.nets.resolve(), given.data.resolve()):
        if not name.startswith(tuple(given.only)) or name in done:
            continue
        what, case = make()
        clock = time.perf_counter()
        case, sanity = check_sanity(case, alpha=0.05)
        found = doubts_of_adapter(case, sanity, alpha=0.05, rng=Rng(0))
        done[name] = {
            "what": what,
            "accuracy": sanity.accuracy,
            "works": sanity.works,
            "doubts": [f"{doubt.about}: {doubt.sentence}" for doubt in found],
        }
        print(f"{name} | {time.perf_counter() - clock:.1f} s | {done[name]}", flush=True)
        # Another process may have added to it.
        others = json.loads(kept.read_text()) if kept.exists() else {}
        kept.write_text(json.dumps({**others, **done}, indent=1))
    print(summary({name: one for name, one in done.items() if name.startswith(tuple(given.only))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
