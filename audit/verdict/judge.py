"""One finding from one measurement: its interval against its tolerance, never its p-value alone.

    CLEAN         the whole interval lies within the tolerance: an equivalence test
    RESIDUAL      the interval excludes the null and reaches beyond the tolerance
    INCONCLUSIVE  neither, so more samples are needed

A two-sided effect (gaussian, exposure, token-canary) is judged in both directions; a one-sided one
(targeted, backdoor, indiscriminate, utility) in the harmful one. Utility's RESIDUAL is called
BROKEN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scipy import stats as scipy_stats

from poison_audit.records import Cell, Finding, Interval, Measurement, Outcome, Policy
from poison_audit.statistics import estimates, rates
from poison_audit.verdict.details import details

RESIDUE = ("gaussian", "exposure", "token-canary", "targeted", "backdoor", "indiscriminate")
TWO_SIDED = frozenset(("gaussian", "exposure", "token-canary"))
GATING = (*RESIDUE, "utility")


def judge(
    measurement: Measurement, cell: Cell, policy: Policy, *, alpha: float, required: bool
) -> Finding:
    """Judge one measurement at error `alpha` in either direction."""
    probe, evidence = measurement.probe, measurement.evidence
    who: dict[str, Any] = {"probe": probe, "candidate": cell.candidate, "seed": cell.seed}
    if evidence is None:
        # A reference that is the yardstick of others cannot be compared with itself.
        yardstick = cell.kind == "reference" and probe == "indiscriminate"
        return Finding(
            **who,
            outcome=Outcome.NOT_MEASURED,
            gating=(required and not yardstick) or (probe == "utility" and cell.kind != "deployed"),
            reason=f"Not measured: {measurement.missing}.",
        )
    if probe == "membership":
        return _membership(who, evidence)
    level = _level(probe, alpha)
    tolerance = policy.tolerances[probe]
    estimate = _estimate(probe, evidence, level=level, tolerance=tolerance)
    outcome, overshot = _outcome(probe, estimate, tolerance)
    if measurement.suspect:
        outcome = Outcome.INCONCLUSIVE
    explained = ""
    if probe == "backdoor" and outcome is Outcome.RESIDUAL:
        explained = _like_a_reference(evidence, tolerance)
        outcome = Outcome.INCONCLUSIVE if explained else outcome
    decisive = _references(evidence, estimate, tolerance) if probe == "backdoor" else ""
    means = _ABOVE_REFERENCES if decisive else _MEANS[probe]
    reason = _sentence(probe, means, outcome, estimate, tolerance, overshot, measurement.suspect)
    reason += explained or decisive
    if probe == "backdoor" and outcome is Outcome.INCONCLUSIVE and not (explained or decisive):
        reason += _why_undecided(evidence, estimate)
    yardstick = cell.kind == "deployed" and probe == "utility"
    if yardstick:
        outcome, reason = Outcome.INFO, "The yardstick: the others' accuracy is compared with it."
    aside = not gates(probe, required=required)
    if aside:
        outcome = Outcome.INFO
        reason = f"{reason} Decides nothing: no forget sample is said to be {probe} poison."
    return Finding(
        **who,
        outcome=outcome,
        gating=not (yardstick or aside),
        reason=reason,
        statistic=estimate.value,
        null=estimate.null,
        tolerance=tolerance,
        interval=Interval(low=estimate.low, high=estimate.high, level=estimate.level),
        p_value=estimate.p_value,
        z=estimate.z,
        sample_size=estimate.n,
        detectable=estimate.detectable,
        needed=estimate.needed,
        details=details(probe, evidence, estimate),
    )


def gates(probe: str, *, required: bool) -> bool:
    """Say whether a measurement of this probe decides anything.

    Canaries, targets and triggers are given to be looked at. A reference is given for other
    reasons too, and accuracy may differ from it for others than poison.
    """
    return probe in GATING and (required or probe != "indiscriminate")


def _level(probe: str, alpha: float) -> float:
    """Return the level of a probe's two-sided interval at error `alpha` in either direction."""
    return 1 - alpha if probe in TWO_SIDED else 1 - 2 * alpha


def _estimate(
    probe: str, evidence: Mapping[str, Any], *, level: float, tolerance: float
) -> estimates.Estimate:
    if probe == "gaussian":
        return estimates.mean_score(evidence["scores"], level=level, tolerance=tolerance)
    if probe in ("exposure", "token-canary"):
        return estimates.mean_rank(
            evidence["wins"], evidence["draws"], level=level, tolerance=tolerance
        )
    at = {"level": level, "tolerance": tolerance}
    if probe == "targeted":
        return rates.excess_of_targets(
            evidence["strata"],
            control_hits=evidence["control_hits"],
            controls=evidence["controls"],
            **at,
        )
    if probe == "backdoor":
        return rates.excess_of_trigger(
            hits=sum(evidence["hits"]),
            n=len(evidence["hits"]),
            clean_hits=evidence["clean_hits"],
            control_rates=evidence["control_rates"],
            shared=_shared(evidence),
            above=evidence.get("above"),
            references=evidence.get("references", ()),
            **at,
        )
    if probe == "indiscriminate":
        return rates.deficit(evidence["against"], n=evidence["n"], **at)
    return estimates.paired_loss(
        only_before=evidence["only_deployed"],
        only_after=evidence["only_candidate"],
        n=evidence["n"],
        **at,
    )


def _outcome(probe: str, estimate: estimates.Estimate, tolerance: float) -> tuple[Outcome, bool]:
    """Return the outcome, and whether it is on the far side of the null (overshot)."""
    low, high = estimate.low - estimate.null, estimate.high - estimate.null
    width = tolerance - estimate.null
    if probe not in TWO_SIDED:
        if high <= width:
            return Outcome.CLEAN, False
        found = Outcome.BROKEN if probe == "utility" else Outcome.RESIDUAL
        return (found if low > 0 else Outcome.INCONCLUSIVE), False
    if -width <= low and high <= width:
        return Outcome.CLEAN, False
    if low > 0:
        return Outcome.RESIDUAL, False
    if high < 0:
        return Outcome.RESIDUAL, True
    return Outcome.INCONCLUSIVE, False


_MEANS = {
    "gaussian": "The mean leak score",
    "exposure": "The chance that planted noise beats fresh noise",
    "token-canary": "The chance that a planted string beats a fresh one",
    "targeted": "The targets' hit rate above their controls'",
    "backdoor": "The trigger's success rate above its controls'",
    "indiscriminate": "The accuracy missing against the references",
    "utility": "The accuracy lost against the deployed model",
}
_ABOVE_REFERENCES = (
    "The trigger's success rate above that in the references, and above that without it,"
)
_UNITS = {
    "gaussian": "canaries",
    "exposure": "canaries",
    "token-canary": "token canaries",
    "targeted": "targets",
    "backdoor": "stamped inputs",
    "indiscriminate": "test samples",
    "utility": "test samples",
}


def _sentence(
    probe: str,
    means: str,
    outcome: Outcome,
    estimate: estimates.Estimate,
    tolerance: float,
    overshot: bool,
    suspect: str | None,
) -> str:
    low, high = (_told(probe, end) for end in (estimate.low, estimate.high))
    figure = (
        f"{_told(probe, estimate.value)}{'' if probe in TWO_SIDED else ' points'} [{low}, {high}]"
    )
    if suspect:
        return f"A control failed: {suspect}. The figure, {figure}, cannot be trusted."
    band = (
        f"{_told(probe, 2 * estimate.null - tolerance)} to {_told(probe, tolerance)}"
        if probe in TWO_SIDED
        else f"at most {_told(probe, tolerance)} points"
    )
    what = f"{means} is {figure}"
    if probe == "indiscriminate":
        what += " (the lower end leaves the tolerance to the luck of a training)"
    if outcome is Outcome.CLEAN:
        return f"{what}, within tolerance ({band})."
    if outcome is Outcome.INCONCLUSIVE:
        if estimate.needed >= rates.NEVER:
            more = f"More {_UNITS[probe]} alone would not decide it"
        elif estimate.needed > estimate.n:
            more = f"About {estimate.needed} {_UNITS[probe]} would decide it for a clean model"
        else:
            more = (
                f"The {estimate.n} {_UNITS[probe]} suffice for most clean models, not for this one"
            )
        return f"{what}, neither within tolerance ({band}) nor surely beyond it. {more}."
    if overshot:
        return (
            f"{what}: overshot. The model was pushed against the canaries, beyond tolerance "
            f"({band}), so it differs from one that never saw them."
        )
    if probe not in TWO_SIDED:
        return f"{what}: surely some, and not within tolerance ({band})."
    return (
        f"{what}: surely above {estimate.null:g}, which a model that never saw them has, and not "
        f"within tolerance ({band})."
    )


def _like_a_reference(evidence: Mapping[str, Any], tolerance: float) -> str:
    """Say which reference answers the trigger as the model does, within tolerance; empty if none.

    Such a trigger says something by itself, to models that never saw the poison as well.
    """
    n = len(evidence["hits"])
    rate = sum(evidence["hits"]) / n
    for one in evidence.get("references", ()):
        theirs = (one["both"] + one["only_reference"]) / n
        if rate - theirs <= tolerance:
            return (
                f" But {one['reference']}, which never saw the poison, gives {100 * theirs:.2f}% "
                f"of the same stamped inputs that label, this one {100 * rate:.2f}%: the trigger "
                "may cause it by what it is."
            )
    return ""


def _references(evidence: Mapping[str, Any], estimate: estimates.Estimate, tolerance: float) -> str:
    """Return how references decide about a trigger, as further sentences; empty if they do not."""
    references, n = evidence.get("references", ()), estimate.n
    if not references or estimate.low <= 0:
        return ""
    end = rates.above_references(
        references,
        hits=sum(evidence["hits"]),
        n=n,
        clean_hits=evidence["clean_hits"],
        level=estimate.level,
        tolerance=tolerance,
    )
    if end < estimate.low:
        return ""
    most = max(one["both"] + one["only_reference"] for one in references) / n
    who = "A model that never saw the poison gives"
    if len(references) > 1:
        who = f"The {len(references)} models that never saw the poison give at most"
    return (
        f" {who} {100 * most:.2f}% of the same stamped inputs that label, this one "
        f"{100 * sum(evidence['hits']) / n:.2f}%; the lower end leaves the tolerance to the luck "
        f"of a training. Control {_stamps(evidence)}: up to "
        f"{100 * max(evidence['control_rates']):.2f}%."
    )


def _why_undecided(evidence: Mapping[str, Any], estimate: estimates.Estimate) -> str:
    """Return what more inputs would not decide about a trigger, as further sentences."""
    controls, n = evidence["control_rates"], estimate.n
    references = evidence.get("references", ())
    draws = rates.draws_needed(estimate.level, references=bool(references))
    clean = evidence["clean_hits"] / n
    rate, mean = sum(evidence["hits"]) / n, math.fsum(controls) / len(controls)
    told = ""
    if above := evidence.get("above"):
        told += (
            f" {above} of the first {len(controls)} control {_stamps(evidence)} did as well on "
            "the inputs that were looked at first, so no more were drawn."
        )
    elif rate > max(mean, clean) and len(controls) < draws:
        told += f" To call it residual at this level takes {draws} control triggers (draws)."
    if mean > clean and max(controls) >= rate > clean:
        told += (
            f" Control {_stamps(evidence)} cause the label, too: {100 * mean:.2f}% of inputs on "
            f"average, and up to {100 * max(controls):.2f}%, against {100 * clean:.2f}% without."
        )
        if not references:
            told += " A model trained without the forget set would be a control (--reference PATH)."
    return told


def _shared(evidence: Mapping[str, Any]) -> tuple[int, int]:
    """Return a trigger's hits on the inputs that its controls were put on, and their number."""
    hits = evidence["hits"][:: evidence.get("control_every", 1)]
    return sum(hits), len(hits)


def _stamps(evidence: Mapping[str, Any]) -> str:
    return "phrases" if evidence.get("controls") == "tokens" else "patches"


def _told(probe: str, value: float) -> str:
    return f"{value:.3f}" if probe in TWO_SIDED else f"{100 * value:.2f}"


def _membership(who: dict[str, Any], evidence: Mapping[str, Any]) -> Finding:
    level = 0.95
    half = float(scipy_stats.norm.ppf(0.5 + level / 2)) * evidence["auc_se"]
    value, hits, n = evidence["auc"], evidence["hits"], evidence["forget"]
    low, high = estimates.clopper_pearson(hits, n)
    z = (value - 0.5) / evidence["auc_se"] if evidence["auc_se"] > 0 else None
    return Finding(
        **who,
        outcome=Outcome.INFO,
        gating=False,
        reason="Shown because it is expected; it misses poison, so it decides nothing.",
        statistic=value,
        null=0.5,
        interval=Interval(low=max(0.0, value - half), high=min(1.0, value + half), level=level),
        p_value=None if z is None else float(2 * scipy_stats.norm.sf(abs(z))),
        z=z,
        sample_size=n,
        details={"tpr": hits / n, "tpr_low": low, "tpr_high": high, "fpr": evidence["fpr"]},
    )
