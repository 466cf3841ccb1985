"""One finding from one measurement: its interval against its tolerance, never its p-value alone.

    CLEAN         the whole interval lies within the tolerance: an equivalence test
    RESIDUAL      the interval excludes the null and reaches beyond the tolerance
    INCONCLUSIVE  neither, so more samples are needed

A two-sided effect (gaussian, exposure) is judged in both directions; a one-sided one (utility) in
the harmful one, as BROKEN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scipy import stats as scipy_stats

from audit import stats
from audit.records import Cell, Finding, Interval, Measurement, Outcome, Policy

RESIDUE = ("gaussian", "exposure")
TWO_SIDED = frozenset(RESIDUE)
GATING = (*RESIDUE, "utility")


def judge(
    measurement: Measurement, cell: Cell, policy: Policy, *, alpha: float, required: bool
) -> Finding:
    """Judge one measurement at error `alpha` in either direction."""
    probe, evidence = measurement.probe, measurement.evidence
    who: dict[str, Any] = {"probe": probe, "candidate": cell.candidate, "seed": cell.seed}
    if evidence is None:
        return Finding(
            **who,
            outcome=Outcome.NOT_MEASURED,
            gating=required or (probe == "utility" and cell.kind != "deployed"),
            reason=f"Not measured: {measurement.missing}.",
        )
    if probe == "membership":
        return _membership(who, evidence)
    level = 1 - alpha if probe in TWO_SIDED else 1 - 2 * alpha
    tolerance = policy.tolerances[probe]
    estimate = _estimate(probe, evidence, level=level, tolerance=tolerance)
    outcome, overshot = _outcome(probe, estimate, tolerance)
    if measurement.suspect:
        outcome = Outcome.INCONCLUSIVE
    reason = _sentence(probe, outcome, estimate, tolerance, overshot, measurement.suspect)
    yardstick = cell.kind == "deployed" and probe == "utility"
    if yardstick:
        outcome, reason = Outcome.INFO, "The yardstick: the others' accuracy is compared with it."
    return Finding(
        **who,
        outcome=outcome,
        gating=not yardstick,
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
        details=_details(probe, evidence, estimate),
    )


def _estimate(
    probe: str, evidence: Mapping[str, Any], *, level: float, tolerance: float
) -> stats.Estimate:
    if probe == "gaussian":
        return stats.mean_score(evidence["scores"], level=level, tolerance=tolerance)
    if probe == "exposure":
        return stats.mean_rank(
            evidence["wins"], evidence["draws"], level=level, tolerance=tolerance
        )
    return stats.paired_loss(
        only_before=evidence["only_deployed"],
        only_after=evidence["only_candidate"],
        n=evidence["n"],
        level=level,
        tolerance=tolerance,
    )


def _outcome(probe: str, estimate: stats.Estimate, tolerance: float) -> tuple[Outcome, bool]:
    """Return the outcome, and whether it is on the far side of the null (overshot)."""
    low, high = estimate.low - estimate.null, estimate.high - estimate.null
    width = tolerance - estimate.null
    if probe not in TWO_SIDED:
        if high <= width:
            return Outcome.CLEAN, False
        return (Outcome.BROKEN if low > 0 else Outcome.INCONCLUSIVE), False
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
    "utility": "The accuracy lost against the deployed model",
}
_POINTS = {"utility": " points"}
_UNITS = {"gaussian": "canaries", "exposure": "canaries", "utility": "test samples"}


def _sentence(
    probe: str,
    outcome: Outcome,
    estimate: stats.Estimate,
    tolerance: float,
    overshot: bool,
    suspect: str | None,
) -> str:
    low, high = (_told(probe, end) for end in (estimate.low, estimate.high))
    figure = f"{_told(probe, estimate.value)}{_POINTS.get(probe, '')} [{low}, {high}]"
    if suspect:
        return f"A control failed: {suspect}. The figure, {figure}, cannot be trusted."
    band = (
        f"{_told(probe, 2 * estimate.null - tolerance)} to {_told(probe, tolerance)}"
        if probe in TWO_SIDED
        else f"at most {_told(probe, tolerance)}{_POINTS[probe]}"
    )
    what = f"{_MEANS[probe]} is {figure}"
    if outcome is Outcome.CLEAN:
        return f"{what}, within tolerance ({band})."
    if outcome is Outcome.INCONCLUSIVE:
        more = (
            f"About {estimate.needed} {_UNITS[probe]} would decide it for a clean model"
            if estimate.needed > estimate.n
            else f"The {estimate.n} {_UNITS[probe]} suffice for most clean models, not for this one"
        )
        return f"{what}, neither within tolerance ({band}) nor surely beyond it. {more}."
    if overshot:
        return (
            f"{what}: overshot. The model was pushed against the canaries, beyond tolerance "
            f"({band}), so it differs from one that never saw them."
        )
    if outcome is Outcome.BROKEN:
        return f"{what}: surely some, and not within tolerance ({band})."
    return (
        f"{what}: surely above {estimate.null:g}, which a model that never saw them has, and not "
        f"within tolerance ({band})."
    )


def _told(probe: str, value: float) -> str:
    return f"{100 * value:.2f}" if probe in _POINTS else f"{value:.3f}"


def _details(probe: str, evidence: Mapping[str, Any], estimate: stats.Estimate) -> dict[str, Any]:
    if probe == "exposure":
        return {"draws": evidence["draws"], "spread": estimate.spread}
    if probe == "utility":
        n, before = evidence["n"], evidence["both"] + evidence["only_deployed"]
        after = evidence["both"] + evidence["only_candidate"]
        low, high = stats.clopper_pearson(after, n)
        return {
            "accuracy": after / n,
            "accuracy_low": low,
            "accuracy_high": high,
            "deployed_accuracy": before / n,
        }
    scores, fpr = evidence["scores"], 0.01
    threshold = float(scipy_stats.norm.isf(fpr))
    hits = sum(score > threshold for score in scores)
    low, high = stats.clopper_pearson(hits, len(scores))
    held_out = evidence["held_out"]
    return {
        "tpr": hits / len(scores),
        "tpr_low": low,
        "tpr_high": high,
        "fpr": fpr,
        "held_out_mean": math.fsum(held_out) / len(held_out) if held_out else None,
        "held_out_p": float(scipy_stats.kstest(held_out, "norm").pvalue) if held_out else None,
        "dropped": evidence["dropped"],
        "spread": estimate.spread,
    }


def _membership(who: dict[str, Any], evidence: Mapping[str, Any]) -> Finding:
    level = 0.95
    half = float(scipy_stats.norm.ppf(0.5 + level / 2)) * evidence["auc_se"]
    value, hits, n = evidence["auc"], evidence["hits"], evidence["forget"]
    low, high = stats.clopper_pearson(hits, n)
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
