"""The answer for somebody who knows neither the paper nor the tool: is it poisoned, how sure."""

from __future__ import annotations

from audit.records import WORST_FIRST, AuditRecord, Finding, Outcome
from reports.about import POINTS, about
from reports.figure import figure
from reports.machine import at_gate
from reports.words import printable, value

_DEPLOYED = {
    Outcome.CLEAN: "No poison found",
    Outcome.ACCEPTED: "Not clean, but let through as an accepted risk",
    Outcome.RESIDUAL: "Still poisoned",
    Outcome.ACTIVATED: "Poisoned, and the repair made it worse",
    Outcome.BROKEN: "Not usable: it lost too much accuracy",
    Outcome.FAILED: "Cannot tell: it could not be measured",
    Outcome.INCONCLUSIVE: "Cannot tell whether it is poisoned",
    Outcome.NOT_MEASURED: "Cannot tell whether it is poisoned",
    Outcome.INFO: "Cannot tell whether it is poisoned",
}
_ANY = {
    Outcome.CLEAN: "A repaired model is clean",
    Outcome.ACCEPTED: "No repair is clean; one is let through as an accepted risk",
    Outcome.RESIDUAL: "Still poisoned: no repair removed it",
    Outcome.ACTIVATED: "Still poisoned, and a repair made it worse",
    Outcome.BROKEN: "No repair is usable: accuracy fell too far",
}


def answer(record: AuditRecord) -> str:
    """Return the verdict in a few plain words, without a full stop."""
    verdict = record.verdict
    if not record.sanity.works:
        return "Cannot tell: the model does not work as it was loaded"
    if verdict.gate == "any-method":
        return _ANY.get(verdict.outcome, _DEPLOYED[verdict.outcome])
    said = _DEPLOYED[verdict.outcome]
    if verdict.gate == "deployed":
        return said
    return f"{said} (candidate {printable(verdict.gate)})"


def how_sure(record: AuditRecord) -> str:
    """Return how sure the answer is: the error rate, and the figure that decided."""
    verdict, rate = record.verdict, f"at most {100 * record.plan.policy.alpha:g} in 100"
    if not record.sanity.works:
        return "Nothing was measured in it, so this says nothing about poison, either way."
    told = {
        Outcome.CLEAN: (
            f"Of models with more poison left than is tolerated, {rate} would pass. This holds for "
            f"what was looked for: {_probed(record)}."
        ),
        Outcome.ACCEPTED: (
            f"Of models with more left than was accepted, {rate} would be let through."
        ),
    }.get(verdict.outcome)
    if verdict.outcome in (Outcome.RESIDUAL, Outcome.ACTIVATED):
        told = f"Of clean models, {rate} would be called poisoned."
    elif verdict.outcome is Outcome.BROKEN:
        told = (
            f"Of models that work as well as before, {rate} would be called broken. A broken model "
            "can look clean to every other probe, so that says little about the poison."
        )
    if told is None:
        told = (
            "Not at all: neither the poison nor its absence could be shown. What could not be "
            "measured never passes."
        )
    decisive = _decisive(record)
    return f"{told} {_figure(decisive)}" if decisive is not None else told


def _probed(record: AuditRecord) -> str:
    names = at_gate(record.verdict)
    found = [
        about(f.probe).title.lower()
        for f in record.findings
        if f.candidate in names and f.gating and f.statistic is not None
    ]
    return ", ".join(dict.fromkeys(found)) or "nothing"


def _decisive(record: AuditRecord) -> Finding | None:
    """Return the measured finding at the gate that the verdict rests on."""
    names = at_gate(record.verdict)
    found = [
        f
        for f in record.findings
        if f.candidate in names and f.gating and f.statistic is not None and f.interval is not None
    ]
    worst = min((WORST_FIRST.index(f.outcome) for f in found), default=None)
    if worst is None or WORST_FIRST[worst] in (Outcome.CLEAN, Outcome.INFO):
        return None
    return next(f for f in found if WORST_FIRST.index(f.outcome) == worst)


def _figure(finding: Finding) -> str:
    shown = figure(finding)
    unit = about(finding.probe).unit
    if finding.null is None or finding.tolerance is None:
        return f"{shown.title}: {shown.text} ({unit})."
    scale = 100 if finding.probe in POINTS or finding.probe == "utility" else 1
    null, most = (value(round(scale * x, 6)) for x in (finding.null, finding.tolerance))
    if finding.probe == "utility":
        return f"Accuracy: {shown.text}, {shown.note} points; up to {most} is tolerated."
    return (
        f"{shown.title} ({unit}): {shown.text}, where a model that never saw the poison has {null} "
        f"and up to {most} is tolerated."
    )
