"""What each probe may have seen, of an effect of a given size, and the cells that hold it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from poison_audit.records import Cell, Finding, Measurement, Outcome, Plan, Sanity, Step
from poison_audit.verdict.decide import decide
from poison_audit.verdict.judge import Errors, judge
from poison_audit.verdict.policy import standard_policy

SANE = Sanity(correct=95, total=100, low=0.9, chance=0.1)
PROBES = tuple(Step(name=name) for name in ("gaussian", "exposure", "membership", "utility"))
N, DRAWS = 400, 16


def plan(**policy) -> Plan:
    return Plan(methods=(), probes=PROBES, policy=dataclasses.replace(standard_policy(), **policy))


def gaussian(mean: float, n: int = N, suspect: str | None = None) -> Measurement:
    # Quantiles of N(mean, 1): a sample with exactly this mean and almost unit spread.
    from scipy.stats import norm

    scores = (mean + norm.ppf((np.arange(n) + 0.5) / n)).tolist()
    evidence = {"scores": scores, "held_out": [], "dropped": 0}
    return Measurement(probe="gaussian", evidence=evidence, suspect=suspect)


def exposure(chance: float, n: int = N) -> Measurement:
    # Ranks spread evenly over 0..DRAWS, then shifted to the chance asked for.
    wins = [round(i % (DRAWS + 1)) for i in range(n)]
    extra = round(chance * n * DRAWS) - sum(wins)
    step = 1 if extra > 0 else -1
    place = 0
    while extra:
        if 0 <= wins[place % n] + step <= DRAWS:
            wins[place % n] += step
            extra -= step
        place += 1
    return Measurement(probe="exposure", evidence={"wins": wins, "draws": DRAWS})


def utility(lost: int = 0, gained: int = 0, n: int = 4000) -> Measurement:
    both = n - lost - gained
    counts = {"n": n, "both": both, "only_deployed": lost, "only_candidate": gained, "neither": 0}
    return Measurement(probe="utility", evidence=counts)


def targeted(
    hits: int,
    n: int = 200,
    control_hits: int = 10,
    controls: int = 1000,
    *,
    drawn: bool = True,
    references: Sequence[int] = (),
    chose: Sequence[str] = (),
) -> Measurement:
    """Hits of targets and of controls, and how many each of some references has of the targets."""
    against = [
        {
            "reference": f"r{i}", "both": min(hits, theirs), "neither": n - max(hits, theirs),
            "only_candidate": max(0, hits - theirs), "only_reference": max(0, theirs - hits),
        }
        for i, theirs in enumerate(references)
    ]  # fmt: skip
    stratum = {
        "label": 0, "adversarial": 1, "targets": n, "hits": hits, "controls": controls,
        "control_hits": control_hits,
    }  # fmt: skip
    evidence = {
        "targets": [f"t{i}" for i in range(n)], "labels": [0] * n, "adversarial": [1] * n,
        "hits": [1] * hits + [0] * (n - hits), "strata": [stratum], "controls": controls,
        "control_hits": control_hits, "drawn": drawn, "references": against, "chose": list(chose),
    }  # fmt: skip
    return Measurement(probe="targeted", evidence=evidence)


def trigger_evidence(
    hits: int,
    n: int = 250,
    clean: int = 2,
    *,
    draws=199,
    as_much=0,
    lost=0,
    moved=0,
    frail=0.0,
    references=(),
    theirs_as_much=0,
) -> dict:
    """What the probe may see of a trigger for class 1 of three.

    `as_much` of `draws` controls raise the label as much. Beside typical controls it costs `lost`
    right answers, and class 2 gets `moved` inputs more. `references`: hits of each.
    """
    against = [
        {
            "reference": f"r{i}", "both": min(hits, theirs), "neither": n - max(hits, theirs),
            "only_candidate": max(0, hits - theirs), "only_reference": max(0, theirs - hits),
        }
        for i, theirs in enumerate(references)
    ]  # fmt: skip
    rise = {"n": n, "more": max(0, hits - clean), "less": max(0, clean - hits)}
    beside = [
        {
            "reference": f"r{i}", "rate": theirs / n, "lost": 0.0, "classes": [0, theirs / n, 0],
            "rise": {"n": n, "more": theirs, "less": 0},
        }
        for i, theirs in enumerate(references)
    ]  # fmt: skip
    family = {
        "name": "far", "patterns": draws, "rises": as_much, "pairs": as_much,
        "losses": 0 if lost else draws, "largest": 0 if moved else as_much,
    }  # fmt: skip
    looks = {
        "rise": rise, "lost": {"n": n, "more": lost, "less": 0}, "frail": frail, "own": 1,
        "classes": [{"n": n, "more": more, "less": 0} for more in (0, rise["more"], moved)],
        "families": [family], "beside": beside, "reference_pairs": 600 * len(beside),
        "reference_rises": theirs_as_much,
    }  # fmt: skip
    return {
        "label": 1, "hits": [1] * hits + [0] * (n - hits), "clean_hits": clean,
        "control_rates": [0.008] * draws, "references": against, "looks": looks,
    }  # fmt: skip


def backdoor(hits: int, n: int = 250, clean: int = 2, **more) -> Measurement:
    return Measurement(probe="backdoor", evidence=trigger_evidence(hits, n, clean, **more))


def finding(measurement: Measurement, *, alpha: float = 0.05, kind: Any = "deployed") -> Finding:
    """What is found of a model, each end at this error."""
    deployed = Cell(candidate="deployed", kind=kind, seed=0)
    errors = Errors(clearing=alpha, finding=alpha)
    return judge(measurement, deployed, standard_policy(), errors, required=True)


def indiscriminate(*pairs: tuple[int, int], n: int = 4000) -> Measurement:
    against = [
        {
            "reference": f"r{i}", "both": n - lost - gained, "only_reference": lost,
            "only_candidate": gained, "neither": 0,
        }
        for i, (lost, gained) in enumerate(pairs)
    ]  # fmt: skip
    return Measurement(probe="indiscriminate", evidence={"n": n, "against": against})


def missing(probe: str) -> Measurement:
    return Measurement(probe=probe, evidence=None, missing="needs a key")


def cell(*measurements: Measurement, candidate="deployed", kind="deployed", seed=0, **more):
    return Cell(candidate=candidate, kind=kind, seed=seed, measurements=measurements, **more)


def outcome_of(*measurements: Measurement, attacks=None, **policy) -> tuple[Outcome, int]:
    decision = decide(plan(**policy), SANE, [cell(*measurements)], attacks=attacks or {})
    return decision.verdict.outcome, decision.verdict.exit_code
