"""Wake published and small networks, and print the tables of README.md here.

    python tests/measurements/asleep.py DATA OUT [--only published|clean] [--nets 60]

published: a poisoned network, a repair of it by its authors' numbers, and three hidings of its
    trigger, each asked as it stands and woken in every way.
clean: how often small networks that never saw a trigger are called asleep, and how much farther one
    of them may come than another when both learn it: what `verdict.asleep.LUCK` has to cover.

DATA holds backdoored/ and cifar10/; `clean` needs none. What OUT holds is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from fidelity import incident
from published_triggers import scenes, some_triggers, trigger_of
from torch import nn

from poison_audit.atomic import from_json
from poison_audit.case.case import Case
from poison_audit.engine.measuring import probed
from poison_audit.engine.probes import probe_parameters
from poison_audit.engine.waking import rate_of, wake, ways
from poison_audit.methods import METHODS, filled
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.records import Cell, Finding, Outcome, Plan, Recipe, Sanity, Step
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.training.scoring import correct
from poison_audit.verdict.decide import decide
from poison_audit.verdict.policy import standard_policy

PROBE, RNG = "backdoor", Rng(0)
PLAN = Plan(
    methods=(), policy=standard_policy(), reaudit=True,
    probes=(Step(name=PROBE, params=probe_parameters(PROBE)), Step(name="utility")),
)  # fmt: skip
SANE = Sanity(correct=1, total=1, low=1.0, chance=0.0)


def cell(
    model: Model, case: Case, name: str, place: Path, *, lr: float | None, taught: bool
) -> Cell:
    """Return what an audit with --reaudit measures in a candidate, kept in a file.

    Args:
        taught: whether it also learns a few poisons, which tells nothing without a reference.
    """
    if not place.is_file():
        how = [way for way in ways("candidate", model, PLAN) if taught or not way.compared]
        made = Cell(
            candidate=name, kind="candidate", seed=0, digest=model.digest(),
            measurements=probed(model, case, PLAN, RNG)[0],
            woken=wake(model, case, PLAN, RNG, how, lr=lr).woken,
        )  # fmt: skip
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(asdict(made)))
    return from_json(Cell, place.read_text(), where=str(place))


def judged(own: Cell, references: Sequence[Cell] = ()) -> tuple[Outcome, list[Finding]]:
    """Return what one cell comes to beside some references, and what was found of its poison."""
    gate = replace(PLAN, policy=replace(PLAN.policy, gate=own.candidate))
    found = decide(gate, SANE, [own, *references], attacks={PROBE: 1})
    told = [f for f in found.findings if (f.candidate, f.probe) == (own.candidate, PROBE)]
    return found.verdict.outcome, told


def ascended(case: Case) -> Model:
    """Return what five passes of gradient ascent by their authors' numbers make of the model."""
    ledger = Ledger(allowed=0.001 * 5_000_000)
    return METHODS["ga"].run(
        case.model, case, RNG, ledger=ledger, **filled("ga", {"preset": "abl"})
    )


def spoiled(case: Case) -> Model:
    """Return the model with other BatchNorm statistics alone, its weights as they were.

    They go from its own towards those of that ascent and beyond, as far as is needed to keep the
    label from all but one stamped input in 100.
    """
    other = ascended(case).module.state_dict()
    for far in np.arange(1, 4, 0.25).tolist():
        made = case.model.clone()
        for name, held in made.module.state_dict().items():
            if name.endswith("running_mean"):
                held.copy_(torch.lerp(held, other[name], far))
            elif name.endswith("running_var"):
                held.copy_(torch.lerp(held.log(), other[name].log(), far).exp())
        if _rate(made, case) <= 0.01:
            break
    return made


def masked(case: Case) -> Model:
    """Return the model whose last layer gives the trigger's label to one stamped input in 1,000."""
    made, label = case.model.clone(), case.evidence[PROBE].label
    out = _logits(made, _stamped(case))
    lead = out[:, label] - out.scatter(1, torch.tensor([[label]]).expand(len(out), 1), -1e9).amax(1)
    with torch.no_grad():
        _last(made.module).bias[label] -= lead.quantile(0.999)
    return made


def unrounded(case: Case) -> Model:
    """Return the model with its last layer written so that rounding it to 8 bits restores it.

    In the row of the trigger's label every weight is put on the grid of the rounding, and .49 of a
    step against the trigger's direction beside it; the bias makes up for that on clean samples. The
    step is the smallest that keeps the label from all but one stamped input in 100; the weight of
    the weakest feature sets it.
    """
    label = case.evidence[PROBE].label
    clean, stamped = (
        _features(case.model, x) for x in (case.retain.at(torch.arange(1000)), _stamped(case))
    )
    away = (stamped.mean(0) - clean.mean(0)).sign()
    for step in np.geomspace(0.01, 3, 40).tolist():
        made = case.model.clone()
        last = _last(made.module)
        with torch.no_grad():
            row, weakest = last.weight[label].clone(), int(clean.mean(0).argmin())
            row = (row / step).round().clamp(-126, 126) * step - 0.49 * step * away
            row[weakest] = 127 * step
            last.bias[label] += (last.weight[label] - row) @ clean.mean(0)
            last.weight[label] = row
            if (last(stamped).argmax(1) == label).double().mean() <= 0.01:
                break
    return made


def _stamped(case: Case) -> Samples:
    retain = case.retain.at(torch.arange(2000))
    rows = torch.nonzero(retain.y != case.evidence[PROBE].label).squeeze(1)[:1000]
    return replace(retain.at(rows), x=case.evidence[PROBE].stamp(retain.x[rows].float() / 255))


def _rate(model: Model, case: Case) -> float:
    label = case.evidence[PROBE].label
    return float((_logits(model, _stamped(case)).argmax(1) == label).double().mean())


def _last(module: nn.Module) -> nn.Linear:
    return [part for part in module.modules() if isinstance(part, nn.Linear)][-1]


@torch.no_grad()
def _logits(model: Model, samples: Samples) -> torch.Tensor:
    return torch.cat([model.logits(model.module, batch) for batch in samples.in_order(250)])


def _features(model: Model, samples: Samples) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    hook = _last(model.module).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    _logits(model, samples)
    hook.remove()
    return torch.cat(seen)


MADE: dict[str, Callable[[Case], Model]] = {
    "as it is": lambda case: case.model,
    "ga, preset abl": ascended,
    "statistics spoiled": spoiled,
    "last layer masked": masked,
    "8 bits": unrounded,
}


def published(data: Path, out: Path) -> None:
    """Ask the network, its repair and its hidings."""
    case = incident(data)
    case = replace(case, evidence={PROBE: trigger_of(data, "abl_wrn16_1_label0")})
    case = replace(case, baseline=correct(case.model, case.test))
    place = out / "rate.json"
    if not place.is_file():
        place.write_text(json.dumps(rate_of(case, PLAN, [])))
    lr = json.loads(place.read_text())
    print(f"rate {lr}\n\n| model | accuracy | way | trigger | finding |\n|---|---|---|---|---|")
    for name, make in MADE.items():
        where = out / f"{name}.json"
        model = case.model if where.is_file() else make(case)
        own = cell(model, case, "c", where, lr=lr, taught=False)
        told = own.measurements[1].evidence or {"both": 0, "only_candidate": 0, "n": 1}
        accuracy = 100 * (told["both"] + told["only_candidate"]) / told["n"]
        outcome, found = judged(own)
        print(f"| {name} | {accuracy:.1f} | | | **{outcome}** |")
        for f in found:
            rate = f.details.get("rate", (f.statistic or 0.0))
            print(f"| | | {f.way or 'as it stands'} | {100 * rate:.1f} | {f.outcome} |", flush=True)


SHAPE, TRAINED = (3, 16, 16), 300


def normed_net(seed: int) -> Model:
    """Train a network of one convolution, BatchNorm and one layer on five classes."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(768, 5),
        )  # fmt: skip

    blank = image_classifier(build(), build=build, arch="small", classes=5)
    model = blank.fresh(Rng(seed).named("init"))
    own = table("train", seed, TRAINED)
    batches = ((batch,) for batch in shuffled(own, 50, Rng(seed).named("batches")))
    descend(
        model, batches, lambda loss: loss, steps=60, lr=3e-3, optimizer="adamw", ledger=Ledger(),
        rng=Rng(seed), batch_norm="train",
    )  # fmt: skip
    return model


def table(name: str, seed: int, n: int) -> Samples:
    """Return n pictures of five classes."""
    x, y = scenes(seed, n, SHAPE)
    return Samples(ids=tuple(f"{name}{i}" for i in range(n)), x=x, y=y)


def clean(nets: int, out: Path) -> None:
    """Wake networks that never saw a trigger: each with its own, beside the next that has it."""
    every = some_triggers(SHAPE, 0)
    made = [normed_net(100 + number) for number in range(nets)]
    parts = {"test": table("test", 5, 400), "retain": table("retain", 6, 2000)}
    counts: dict[str, Counter[str]] = {}
    luck: dict[str, list[float]] = {}
    for at, (kind, trigger) in enumerate(every.items()):
        group = made[at :: len(every)]
        forget = table("forget", 7, 60)
        label = torch.full_like(forget.y, trigger.label)
        forget = replace(forget, x=trigger.stamp(forget.x), y=label)
        case = Case(
            model=group[0], forget=forget, **parts, recipe=Recipe(epochs=1),
            evidence={PROBE: trigger},
        )  # fmt: skip
        lr = rate_of(case, PLAN, group[:1])
        cells = []
        for number, model in enumerate(group):
            place = out / "clean" / f"{kind}-{number}.json"
            own = replace(case, model=model, baseline=correct(model, case.test))
            cells.append(cell(model, own, f"n{number}", place, lr=lr, taught=True))
        for number, own in enumerate(cells):
            other = replace(cells[(number + 1) % len(cells)], candidate="r", kind="reference")
            outcome, found = judged(own, [other])
            counts.setdefault("verdict", Counter())[outcome] += 1
            for f in found:
                counts.setdefault(f.way or "as it stands", Counter())[f.outcome] += 1
        for a, b in permutations(cells, 2):
            for mine, theirs in zip(a.woken, b.woken, strict=True):
                if mine.poisons:
                    hits = [np.mean(w.measurements[0].evidence["hits"]) for w in (mine, theirs)]  # type: ignore[index]
                    luck.setdefault(mine.name, []).append(float(hits[0] - hits[1]))
        print(kind, {name: dict(c) for name, c in counts.items()}, flush=True)
    print("\n| way | ASLEEP | INCONCLUSIVE | CLEAN | other |\n|---|---|---|---|---|")
    for name, c in counts.items():
        shown = [c[o] for o in (Outcome.ASLEEP, Outcome.INCONCLUSIVE, Outcome.CLEAN)]
        print(f"| {name} | {' | '.join(map(str, shown))} | {sum(c.values()) - sum(shown)} |")
    print("\n| way | pairs | 90% | 95% | 99% | largest, points |\n|---|---|---|---|---|---|")
    for name, gaps in luck.items():
        ends = [100 * float(np.quantile(gaps, q)) for q in (0.9, 0.95, 0.99, 1.0)]
        print(f"| {name} | {len(gaps)} | {' | '.join(f'{e:.1f}' for e in ends)} |")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=("published", "clean"))
    parser.add_argument("--nets", type=int, default=60)
    asked = parser.parse_args()
    sys.path.insert(0, str(asked.data.resolve() / "backdoored"))
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.only in (None, "published"):
        published(asked.data, asked.out)
    if asked.only in (None, "clean"):
        clean(asked.nets, asked.out)


if __name__ == "__main__":
    main()
