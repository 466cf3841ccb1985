"""The answer for somebody who knows neither the paper nor the tool: is it poisoned, how sure."""

from __future__ import annotations

from poison_audit.records import WORST_FIRST, Finding, Outcome
from poison_audit.reports.view.evidence import is_suspect
from poison_audit.reports.view.figure import figure
from poison_audit.reports.view.machine import acceptance, at_gate
from poison_audit.reports.view.words import about, printable, value
from poison_audit.verdict.readings import reading_of
from poison_audit.verdict.record import AuditRecord

_DEPLOYED = {
    Outcome.CLEAN: "No poison found",
    Outcome.ACCEPTED: "Not clean, but let through as an accepted risk",
    Outcome.RESIDUAL: "Still poisoned",
    Outcome.ASLEEP: "Still poisoned: the poison is only asleep",
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
    Outcome.ASLEEP: "Still poisoned: a repair only put the poison to sleep",
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
    if verdict.outcome is Outcome.RESIDUAL and _overshot(record):
        said = "Not clean: pushed too far away from the poison"
    if verdict.gate == "deployed":
        return said
    return f"{said} (candidate {printable(verdict.gate)})"


def how_sure(record: AuditRecord) -> str:
    """Return how sure the answer is: the error rate, and the figure that decided."""
    verdict, rate = record.verdict, f"at most {100 * record.plan.policy.alpha:g} in 100"
    if not record.sanity.works:
        return "Nothing was measured in it, so this says nothing about poison, either way."
    poisoned = f"Of clean models, {rate} would be called poisoned."
    sure = {
        Outcome.CLEAN: f"Of models with more poison left than is tolerated, {rate} would pass. "
        f"This holds for what was looked for: {_probed(record)}.",
        Outcome.ACCEPTED: f"Of models with more left than was accepted, {rate} would be let "
        "through.",
        Outcome.RESIDUAL: poisoned,
        Outcome.ACTIVATED: poisoned,
        Outcome.ASLEEP: poisoned,
        Outcome.BROKEN: f"Of models that work as well as before, {rate} would be called broken. A "
        "broken model can look clean to every other probe, so that says little about the poison.",
    }
    unsure = "Not at all: neither the poison nor its absence could be shown. What could not be "
    told = sure.get(verdict.outcome, f"{unsure}measured never passes.")
    decisive = _decisive(record)
    if decisive is None:
        return told
    if is_suspect(record, decisive):
        return f"{told} A control failed, so what was measured cannot be trusted."
    return f"{told} {_figure(decisive, record)}"


def _at_gate(record: AuditRecord) -> list[Finding]:
    names = at_gate(record.verdict)
    return [f for f in record.findings if f.candidate in names and f.gating]


def _probed(record: AuditRecord) -> str:
    looked = dict[str, list[str]]()
    for words in (about(f.probe) for f in _at_gate(record) if f.statistic is not None):
        looked.setdefault(words.looks, []).append(words.title.lower())
    told = [f"{what} ({', '.join(dict.fromkeys(who))})" for what, who in looked.items()]
    return "; ".join(told) or "nothing"


def _overshot(record: AuditRecord) -> bool:
    """Say whether all that was found lies on the far side of a model that never saw the poison."""
    found = [f for f in _at_gate(record) if f.outcome is Outcome.RESIDUAL]
    return bool(found) and all(
        reading_of(f.probe).two_sided
        and f.interval is not None
        and f.null is not None
        and f.interval.high < f.null
        for f in found
    )


def _decisive(record: AuditRecord) -> Finding | None:
    """Return the measured finding at the gate that the verdict rests on."""
    found = [f for f in _at_gate(record) if f.statistic is not None and f.interval is not None]
    worst = min(found, key=lambda f: WORST_FIRST.index(f.outcome), default=None)
    return None if worst is None or worst.outcome in (Outcome.CLEAN, Outcome.INFO) else worst


def _figure(finding: Finding, record: AuditRecord) -> str:
    shown, words, reading = figure(finding), about(finding.probe), reading_of(finding.probe)
    whose = f" of {printable(finding.candidate)}" * (record.verdict.gate == "any-method")
    decided = finding.outcome not in (Outcome.INCONCLUSIVE, Outcome.FAILED)
    told = f"What {'decided' if decided else 'was measured'}: "
    if reading.damage:
        told += f"accuracy{whose}, {shown.text}, {shown.note} points"
    else:
        told += f"{words.looks}{whose} ({shown.title}, {words.unit}): {shown.text}"
    if finding.null is None or finding.tolerance is None:
        return f"{told}."
    scale = 100 if reading.points else 1
    null, most = (value(round(scale * x, 6)) for x in (finding.null, finding.tolerance))
    least = value(round(scale * (2 * finding.null - finding.tolerance), 6))
    allowed = f"{least} to {most}" if reading.two_sided else f"up to {most}"
    allowed += " is tolerated"
    number = acceptance(finding, record.plan.policy)
    if finding.outcome is Outcome.ACCEPTED and number is not None:
        accepted = record.plan.policy.accepted[number]
        bound = value(round(scale * accepted.bound, 6))
        allowed += f", and up to {bound} is accepted until {printable(accepted.expires)}"
    if not reading.damage:
        told += f", where a model that never saw the poison has {null}"
    return f"{told}; {allowed}."
