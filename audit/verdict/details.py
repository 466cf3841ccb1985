"""What else a finding says besides its estimate: the rates, accuracies and controls behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scipy import stats as scipy_stats

from poison_audit.statistics import estimates, rates


def details(
    probe: str, evidence: Mapping[str, Any], estimate: estimates.Estimate
) -> dict[str, Any]:
    """Return the further numbers of a finding.

    Args:
        probe: any but membership.
        evidence: what it saw.
        estimate: what was made of it.
    """
    return {
        "gaussian": _details_of_gaussian,
        "exposure": lambda seen, now: {"draws": seen["draws"], "spread": now.spread},
        "token-canary": _details_of_strings,
        "targeted": _details_of_targeted,
        "backdoor": _details_of_backdoor,
        "indiscriminate": _details_of_indiscriminate,
        "utility": _details_of_utility,
    }[probe](evidence, estimate)


def _rate(name: str, hits: int, n: int) -> dict[str, float]:
    low, high = estimates.clopper_pearson(hits, n)
    return {name: hits / n, f"{name}_low": low, f"{name}_high": high}


def _details_of_utility(evidence: Mapping[str, Any], _: estimates.Estimate) -> dict[str, Any]:
    n, both = evidence["n"], evidence["both"]
    return {
        **_rate("accuracy", both + evidence["only_candidate"], n),
        "deployed_accuracy": (both + evidence["only_deployed"]) / n,
    }


def _details_of_targeted(
    evidence: Mapping[str, Any], estimate: estimates.Estimate
) -> dict[str, Any]:
    hits = sum(evidence["hits"])
    return {
        **_rate("rate", hits, estimate.n),
        **_rate("control_rate", evidence["control_hits"], evidence["controls"]),
        "hits": hits,
        "targets": estimate.n,
        "control_hits": evidence["control_hits"],
        "controls": evidence["controls"],
        "strata": evidence["strata"],
    }


def _details_of_backdoor(
    evidence: Mapping[str, Any], estimate: estimates.Estimate
) -> dict[str, Any]:
    hits, controls = sum(evidence["hits"]), evidence["control_rates"]
    references = evidence.get("references", [])
    mean = math.fsum(controls) / len(controls)
    squares = math.fsum((rate - mean) ** 2 for rate in controls)
    return {
        **_rate("rate", hits, estimate.n),
        **_rate("clean_rate", evidence["clean_hits"], estimate.n),
        "hits": hits,
        "label": evidence["label"],
        "draws": len(controls),
        "control_inputs": len(evidence["hits"][:: evidence.get("control_every", 1)]),
        "draws_needed": rates.draws_needed(estimate.level, references=bool(references)),
        "control_mean": mean,
        "control_sd": math.sqrt(squares / (len(controls) - 1)),
        "control_max": max(controls),
        "controls": evidence.get("controls"),
        "references": [
            {
                "reference": one["reference"],
                "rate": (one["both"] + one["only_reference"]) / estimate.n,
                "excess": (one["only_candidate"] - one["only_reference"]) / estimate.n,
                "low": rates.lead(one, n=estimate.n, level=estimate.level),
            }
            for one in references
        ],
    }


def _details_of_strings(
    evidence: Mapping[str, Any], estimate: estimates.Estimate
) -> dict[str, Any]:
    draws, held_out = evidence["draws"], evidence["held_out"]
    return {
        "draws": draws,
        "spread": estimate.spread,
        "held_out_mean": sum(held_out) / draws / len(held_out) if held_out else None,
    }


def _details_of_indiscriminate(
    evidence: Mapping[str, Any], estimate: estimates.Estimate
) -> dict[str, Any]:
    n, references = evidence["n"], []
    for counts in evidence["against"]:
        one = rates.deficit([counts], n=n, level=estimate.level, tolerance=1.0)
        references.append(
            {
                "reference": counts["reference"],
                "accuracy": (counts["both"] + counts["only_reference"]) / n,
                "deficit": one.value,
                "low": one.low,
                "high": one.high,
            }
        )
    first = evidence["against"][0]
    return {
        **_rate("accuracy", first["both"] + first["only_candidate"], n),
        "references": references,
    }


def _details_of_gaussian(
    evidence: Mapping[str, Any], estimate: estimates.Estimate
) -> dict[str, Any]:
    scores, fpr = evidence["scores"], 0.01
    threshold = float(scipy_stats.norm.isf(fpr))
    held_out = evidence["held_out"]
    return {
        **_rate("tpr", sum(score > threshold for score in scores), len(scores)),
        "fpr": fpr,
        "held_out_mean": math.fsum(held_out) / len(held_out) if held_out else None,
        "held_out_p": float(scipy_stats.kstest(held_out, "norm").pvalue) if held_out else None,
        "dropped": evidence["dropped"],
        "spread": estimate.spread,
    }
