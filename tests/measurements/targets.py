"""Audit many clean networks for targets that `plant` chose, and count whom it calls poisoned.

    python tests/measurements/targets.py [--nets 200] [--poisoned 40] [--targets 8 20 60]

Trains small networks on the digits of fixtures/digits, all at once, each with its own luck: clean
ones, and ones that learned every target eight times over with the label that it was to be given.
Each is audited for the targets that the next network chooses, as `plant` does, the easiest ones.
Prints how many are RESIDUAL by each way to know what a clean model hits, with 95% Clopper-Pearson
intervals, and how many targets clean networks hit.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from builders.many_nets import train_many
from poison_audit.case.case import Answers, Case
from poison_audit.case.tables import read_table
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.targeted.evidence import Targets
from poison_audit.poisons.targeted.plant import choose_targets
from poison_audit.poisons.targeted.probe import target_answers, targeted
from poison_audit.records import Cell, Measurement, Outcome, Recipe
from poison_audit.statistics import rates
from poison_audit.statistics.estimates import clopper_pearson
from poison_audit.verdict.judge import Errors, judge
from poison_audit.verdict.policy import standard_policy

DIGITS = Path(__file__).parents[2] / "fixtures/digits"
OFTEN = 8
WAYS = {
    "class": "other samples of the class, as they used to decide",
    "none": "other samples of the class, now",
    "toss": "controls of a toss",
    "reference": "a reference, on the same targets",
    "two": "two references",
    "chooser": "the network that chose them as the only reference",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """The outcomes of one network by each way, and its hits."""

    outcomes: dict[str, Outcome]
    hits: int


def digits(name: str) -> Samples:
    """Return a table of the digits."""
    return read_table(DIGITS / f"{name}.npz")


def chosen(surrogate: Model, test: Samples, count: int, rng: Rng) -> Targets:
    """Return what `plant` aims at, of twice as many candidates."""
    return choose_targets(surrogate, test, count=2 * count).tossed(rng.named("toss"))


def audit(
    model: Model, targets: Targets, test: Samples, others: Sequence[Model], chooser: Model, rng: Rng
) -> Audited:
    """Audit a network for targets by each way."""
    blind = replace(targets, controls=None)
    named = {"chooser": chooser, **{f"r{i}": other for i, other in enumerate(others)}}
    references = [answered(name, other, blind, test) for name, other in named.items()]
    every = seen(model, blind, test, references, rng)

    def beside(*names: str, **more: object) -> Measurement:
        """Return what is seen with these references alone."""
        evidence = dict(every.evidence or {})
        evidence["references"] = [r for r in evidence["references"] if r["reference"] in names]
        evidence["chose"] = [name for name in evidence["chose"] if name in names]
        return Measurement(probe=every.probe, evidence={**evidence, **more})

    of_class = beside()
    found = {
        # What decided until now: the same figures, as if the controls had been drawn.
        "class": beside(drawn=True),
        "none": of_class,
        "toss": seen(model, targets, test, (), rng),
        "reference": beside("r0"),
        "two": beside("r0", "r1"),
        "chooser": beside("chooser"),
    }
    hits = sum((of_class.evidence or {})["hits"])
    return Audited(outcomes={way: outcome(each) for way, each in found.items()}, hits=hits)


def answered(name: str, model: Model, targets: Targets, test: Samples) -> Answers:
    """Return a reference's answers."""
    asked = {"targeted": target_answers(case_of(model, targets, test, ()), model)}
    right = torch.ones(len(test), dtype=torch.bool)
    return Answers(name=name, digest=name, correct=right, asked=asked)


def case_of(model: Model, targets: Targets, test: Samples, references: Sequence[Answers]) -> Case:
    """Return a case of which only the test table and the targets are looked at."""
    some = test.at([0])
    return Case(
        model=model,
        retain=some,
        forget=some,
        test=test,
        recipe=Recipe(epochs=1),
        evidence={"targeted": targets},
        references=tuple(references),
    )


def seen(
    model: Model, targets: Targets, test: Samples, references: Sequence[Answers], rng: Rng
) -> Measurement:
    """Return what the probe sees."""
    return targeted(model, case_of(model, targets, test, references), rng)


def outcome(measurement: Measurement) -> Outcome:
    """Return the outcome of the deployed model, whose gate has no other probe."""
    cell = Cell(candidate="deployed", kind="deployed", seed=0)
    errors = Errors(clearing=0.05, finding=0.05)
    return judge(measurement, cell, standard_policy(), errors, required=True).outcome


def attacked(train: Samples, targets: Targets) -> Samples:
    """Return a table in which every target stands eight times with its adversarial label."""
    again = list(range(len(targets))) * OFTEN
    x = torch.cat([train.x, targets.samples.x[again]])
    y = torch.cat([train.y, targets.adversarial[again]])
    return Samples(ids=tuple(f"s{i}" for i in range(len(y))), x=x, y=y)


def _unasked(_: Callable[[int], bool]) -> int:
    """Stand for how many targets would do, which takes longest to find and decides nothing."""
    return 0


def measure(nets: int, counts: Sequence[int], *, poisoned: int, epochs: int = 20) -> list[str]:
    """Return the rows of the table."""
    train, test, rng = digits("clean"), digits("test"), Rng(0).named("targets")
    clock = time.perf_counter()
    clean = train_many([train] * nets, rng.named("clean"), epochs=epochs)
    own = {
        count: [
            chosen(clean[(i + 1) % nets], test, count, rng.named(count, i)) for i in range(nets)
        ]
        for count in counts
    }
    kinds = {("clean", count): clean for count in counts}
    for count in counts:
        tables = [attacked(train, targets) for targets in own[count][:poisoned]]
        named = rng.named("poisoned", count)
        kinds["poisoned", count] = train_many(tables, named, epochs=epochs) if tables else []
    rows = []
    for (kind, count), models in kinds.items():
        if not models:
            continue
        audited = [
            audit(
                model,
                own[count][i],
                test,
                [clean[(i + 2) % nets], clean[(i + 3) % nets]],
                clean[(i + 1) % nets],
                rng.named(count, i),
            )
            for i, model in enumerate(models)
        ]
        mean = sum(each.hits for each in audited) / len(audited) / count
        told = [f"{count} targets, {kind}", f"{mean:.1%}"]
        told += [share([each.outcomes[way] for each in audited]) for way in WAYS]
        rows.append(f"| {' | '.join(told)} |")
        print(rows[-1], flush=True)
    print(f"{time.perf_counter() - clock:.0f} s")
    return rows


def share(outcomes: Sequence[Outcome]) -> str:
    """Return how many are RESIDUAL with its interval, and how many are CLEAN."""
    found, n = sum(each is Outcome.RESIDUAL for each in outcomes), len(outcomes)
    passed = sum(each is Outcome.CLEAN for each in outcomes)
    low, high = clopper_pearson(found, n)
    return f"{found / n:.1%} [{100 * low:.1f}, {100 * high:.1f}], {passed / n:.0%} CLEAN"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", type=int, default=200)
    parser.add_argument("--poisoned", type=int, default=40)
    parser.add_argument("--targets", type=int, nargs="+", default=[8, 20, 60])
    given = parser.parse_args()
    rates.smallest_size = _unasked
    print("| | hit | " + " | ".join(WAYS.values()) + " |")
    print("|---" * (len(WAYS) + 2) + "|")
    measure(given.nets, given.targets, poisoned=given.poisoned)


if __name__ == "__main__":
    main()
