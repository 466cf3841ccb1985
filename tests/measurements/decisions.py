"""How often the exit code errs, by simulation at the level of evidence; prints README.md's table.

    python tests/measurements/decisions.py [--runs 400] [--only gaussian ..]

Each row is a poison and what is known of it, each audit fresh evidence of every model on trial: of
a model without the effect, just inside the tolerance, and just outside. What is counted: exit 1
without and just inside, exit 0 just outside; with the upper end of the 95% Clopper-Pearson
interval. Gates: the deployed model, and `any-method` with 1, 3, 9 and 41 repaired candidates, all
with the same effect. `one clean`: one candidate without the effect among others that carry it
openly. Luck: every training's accuracy differs by chance, the references' and the candidates'.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from scipy import stats as laws

sys.path.insert(0, str(Path(__file__).parent.parent))

from builders.measured import trigger_evidence
from poison_audit.models.seeds import Rng
from poison_audit.records import Cell, Kind, Measurement, Plan, Sanity, Step
from poison_audit.statistics import rates
from poison_audit.statistics.estimates import clopper_pearson
from poison_audit.verdict.decide import decide
from poison_audit.verdict.policy import standard_policy

Draw = Callable[[np.random.Generator, float, int], list[Measurement]]
"""(generator, effect, models) -> a measurement a model."""
SANE = Sanity(correct=95, total=100, low=0.9, chance=0.1)
DRAWS, COUNTS = 32, (1, 3, 9, 41)


def seen(probe: str, **evidence: object) -> Measurement:
    return Measurement(probe=probe, evidence=evidence)


def scores_of(signs: Sequence[float]) -> Draw:
    def draw(rng: np.random.Generator, mu: float, models: int) -> list[Measurement]:
        every = rng.standard_normal((models, 300)) + mu * np.resize(signs, 300)
        return [seen("gaussian", scores=s.tolist(), held_out=[], dropped=0) for s in every]

    return draw


def ranks_of(probe: str) -> Draw:
    def draw(rng: np.random.Generator, chance: float, models: int) -> list[Measurement]:
        true = rng.standard_normal((models, 300)) + np.sqrt(2) * laws.norm.ppf(chance)
        wins = rng.binomial(DRAWS, laws.norm.cdf(true))  # fresh draws below the true one
        held = {} if probe == "exposure" else {"held_out": [DRAWS // 2] * 300}
        return [seen(probe, wins=w.tolist(), draws=DRAWS, **held) for w in wins]

    return draw


def compared(mine: np.ndarray, theirs: np.ndarray, name: str = "r") -> dict[str, object]:
    return {
        "reference": name, "both": int((mine & theirs).sum()),
        "only_candidate": int((mine & ~theirs).sum()),
        "only_reference": int((theirs & ~mine).sum()), "neither": int((~mine & ~theirs).sum()),
    }  # fmt: skip


def targets(probe: str, *, references: int, n: int = 200) -> Draw:
    """Targets that differ in how easily they are hit, tossed from candidates or with references."""

    def draw(rng: np.random.Generator, excess: float, models: int) -> list[Measurement]:
        found = []
        easy = rng.beta(0.2, 5, 2 * n)  # 4% on average
        others = rng.random((references, 2 * n)) < easy
        for _ in range(models):
            tossed = rng.permutation(2 * n) < n
            chance = easy[tossed]
            hits = rng.random(n) < chance + excess * (1 - chance) / (1 - chance).mean()
            left = int((rng.random(n) < easy[~tossed]).sum())
            stratum = {"label": 0, "adversarial": 1, "targets": n, "hits": int(hits.sum()),
                       "controls": n, "control_hits": left}  # fmt: skip
            more: dict[str, object] = {"hits": hits.astype(int).tolist(), "strata": [stratum]}
            more |= {"controls": n, "control_hits": left}
            more["references"] = [
                compared(hits, other[tossed], f"r{at}") for at, other in enumerate(others)
            ]
            if probe == "targeted":
                more |= {"targets": [f"t{i}" for i in range(n)], "labels": [0] * n}
                more |= {"adversarial": [1] * n, "drawn": not references}
            else:
                more |= {"right": n - int(hits.sum()), "chance": not references}
            found.append(seen(probe, **more))
        return found

    return draw


def trigger(rng: np.random.Generator, excess: float, models: int) -> list[Measurement]:
    """A trigger that raises its label by the effect, and 199 controls to which a network leans."""
    found, n = [], 400
    for _ in range(models):
        leaning, luck = 0.02 * rng.gamma(5, 0.2, 199), rng.random(n)
        bare, hits = rng.random(n) < 0.02, luck < 0.02 + excess
        controls = [int((luck < share).sum()) for share in leaning]
        more = trigger_evidence(
            int(hits.sum()), n, int(bare.sum()), as_much=sum(c >= int(hits.sum()) for c in controls)
        )
        rise = {"n": n, "more": int((hits & ~bare).sum()), "less": int((bare & ~hits).sum())}
        more["hits"], more["looks"]["rise"] = hits.astype(int).tolist(), rise
        more["looks"]["classes"][1] = rise
        more["control_rates"] = [c / n for c in controls]
        found.append(seen("backdoor", **more))
    return found


def accuracy(*, references: int, luck: float, n: int = 10_000) -> Draw:
    """A tenth of the samples is hard, and each model answers those for itself."""

    def draw(rng: np.random.Generator, deficit: float, models: int) -> list[Measurement]:
        def right(lost: float) -> np.ndarray:
            chance = 0.5 + 10 * (luck * rng.standard_normal() - lost)
            return rng.random(n // 10) < np.clip(chance, 0, 1)

        others, found = [right(0.0) for _ in range(references)], []
        for _ in range(models):
            mine = right(deficit)
            against = [compared(mine, other, f"r{at}") for at, other in enumerate(others)]
            against = [{**one, "both": int(str(one["both"])) + n - n // 10} for one in against]
            found.append(seen("indiscriminate", n=n, against=against))
        return found

    return draw


def loss(*, clusters_of: int = 1, counted: int = 1, n: int = 4000) -> Draw:
    """Accuracy lost by a repair; all of a cluster are answered alike, and counted so often."""

    def draw(rng: np.random.Generator, lost: float, models: int) -> list[Measurement]:
        size, found = n // clusters_of, []
        for _ in range(models):
            gone, come, _ = rng.multinomial(size, [0.01 + lost, 0.01, 0.98 - lost]) * counted
            total = size * counted
            counts = {"both": int(total - gone - come), "only_deployed": int(gone)}
            counts |= {"only_candidate": int(come), "neither": 0}
            found.append(seen("utility", n=total, **counts))
        return found

    return draw


@dataclasses.dataclass(frozen=True)
class Row:
    """What is simulated: evidence, and its effects: none, tolerable, just not, and open."""

    draw: Draw
    effects: tuple[float, float, float, float]
    attacks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    repaired: bool = False
    """Whether only a repaired candidate can be judged by it."""


NAMED = {"indiscriminate": 5}
EDGE = (0.25 * 2**0.5) ** 0.5  # of the scatter: mu^2 / sqrt 2 = 0.25
POINTS = (0.0, 0.0499, 0.0501, 0.6)
LOST = (0.0, 0.0099, 0.0101, 0.2)
ROWS = {
    "gaussian, 300 canaries": Row(scores_of([1]), (0, 0.2495, 0.2505, 1)),
    "gaussian, half up and half down": Row(
        scores_of([1, -1]), (0, EDGE - 0.001, EDGE + 0.001, 1.5)
    ),
    "exposure, 300 canaries": Row(ranks_of("exposure"), (0.5, 0.5697, 0.5703, 0.8)),
    "token-canary, 300 strings": Row(ranks_of("token-canary"), (0.5, 0.5697, 0.5703, 0.8)),
    "targeted, tossed": Row(targets("targeted", references=0), POINTS),
    "targeted, 2 references": Row(targets("targeted", references=2), POINTS),
    "mislabelled, 2 references": Row(targets("mislabelled", references=2), POINTS),
    "backdoor, 400 inputs": Row(trigger, POINTS),
    "indiscriminate, 3 references, luck 0.6": Row(
        accuracy(references=3, luck=0.006), LOST, NAMED
    ),
    "indiscriminate, 8 references, luck 0.9": Row(
        accuracy(references=8, luck=0.009), LOST, NAMED
    ),
    "indiscriminate, 1 reference, luck 0.9": Row(accuracy(references=1, luck=0.009), LOST, NAMED),
    "utility, 4,000 samples": Row(loss(), (0, 0.0199, 0.0201, 0.2), repaired=True),
    "utility, clusters of five counted once": Row(
        loss(clusters_of=5), (0, 0.0199, 0.0201, 0.2), repaired=True
    ),
    "utility, clusters counted five times": Row(
        loss(clusters_of=5, counted=5), (0, 0.0199, 0.0201, 0.2), repaired=True
    ),
}  # fmt: skip
CLEAN = seen("gaussian", scores=laws.norm.ppf((np.arange(600) + 0.5) / 600).tolist(),
             held_out=[], dropped=0)  # fmt: skip
KEPT = seen("utility", n=10**6, both=10**6, only_deployed=0, only_candidate=0, neither=0)


def exit_code(row: Row, measured: Sequence[Measurement], gate: str) -> int:
    probe = measured[0].probe
    repaired = row.repaired or gate == "any-method"
    rest = () if not repaired else (CLEAN,) if row.repaired else (KEPT,)
    kind: Kind = "method" if repaired else "deployed"
    cells = [
        Cell(candidate=f"m{at}" if repaired else "deployed", kind=kind, seed=0,
             measurements=(one, *rest))
        for at, one in enumerate(measured)
    ]  # fmt: skip
    if repaired:
        bad = (CLEAN,) if row.repaired else ()
        cells.insert(0, Cell(candidate="deployed", kind="deployed", seed=0, measurements=bad))
    names = {m.probe for one in cells for m in one.measurements} | {probe}
    policy = dataclasses.replace(
        standard_policy(), gate="m0" if row.repaired and gate == "deployed" else gate
    )
    plan = Plan(methods=(), probes=tuple(Step(name=name) for name in sorted(names)), policy=policy)
    return decide(plan, SANE, cells, attacks=row.attacks).verdict.exit_code


def share(codes: Sequence[int], wrong: int) -> str:
    found, n = codes.count(wrong), len(codes)
    _, high = clopper_pearson(found, n)
    return f"{100 * found / n:.1f}% (at most {100 * high:.1f}%)"


def line(name: str, row: Row, candidates: int, runs: int) -> str:
    gate, models = ("any-method", candidates) if candidates else ("deployed", 1)
    rng = Rng(19).named(name, candidates).numpy()
    codes = [
        [exit_code(row, row.draw(rng, effect, models), gate) for _ in range(runs)]
        for effect in row.effects[:3]
    ]
    cells = [name, f"any of {candidates}" if candidates else "alone"]
    cells += [share(codes[0], 1), share(codes[1], 1), share(codes[2], 0)]
    cells.append(f"{100 * codes[0].count(0) / runs:.0f}%")
    if models > 1:
        mixed = []
        for _ in range(runs):
            both = [*row.draw(rng, row.effects[3], models)]
            both[-1] = row.draw(rng, row.effects[0], models)[-1]
            mixed.append(exit_code(row, both, gate))
        cells.append(share(mixed, 1))
    else:
        cells.append("")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--candidates", type=int, nargs="*", default=[0, *COUNTS])
    given = parser.parse_args()
    print("| evidence | gate | none: exit 1 | inside: exit 1 | outside: exit 0 | none: exit 0 "
          "| one clean: exit 1 |\n|---|---|---|---|---|---|---|")  # fmt: skip
    clock = time.perf_counter()
    # How many samples would decide is no part of any outcome, and takes most of the time.
    mock.patch.object(rates, "smallest_size", return_value=1).start()
    for name, row in ROWS.items():
        if given.only and not any(name.startswith(one) for one in given.only):
            continue
        for candidates in given.candidates:
            runs = given.runs if candidates < COUNTS[-1] else max(1, given.runs // 4)
            print(line(name, row, candidates, runs), flush=True)
    print(f"\n{time.perf_counter() - clock:.0f} s")


if __name__ == "__main__":
    main()
