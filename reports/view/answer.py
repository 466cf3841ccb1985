"""The answer for somebody who knows neither the paper nor the tool: is it poisoned, how sure."""

from __future__ import annotations

from collections.abc import Iterable

from poison_audit.checks.own import is_own
from poison_audit.records import WORST_FIRST, Finding, Outcome
from poison_audit.reports.view.evidence import is_suspect
from poison_audit.reports.view.figure import figure
from poison_audit.reports.view.machine import acceptance, at_gate
from poison_audit.reports.view.own import own_told
from poison_audit.reports.view.reading import of_texts
from poison_audit.reports.view.words import about, printable, value
from poison_audit.statistics.reading import Words
from poison_audit.verdict.readings import READINGS, reading_of
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
    if any(doubt.spoils and doubt.sentence in verdict.sentence for doubt in record.doubts):
        return "Cannot tell: the model is probably read wrongly"
    if verdict.gate == "any-method":
        return _ANY.get(verdict.outcome, _DEPLOYED[verdict.outcome])
    said = _DEPLOYED[verdict.outcome]
    if verdict.outcome is Outcome.CLEAN and untested(record):
        said = "No poison found in what was tested"
    if verdict.outcome is Outcome.RESIDUAL and _by_own_alone(record):
        said = "Called poisoned by a probe of your own, and by none of ours"
    if verdict.outcome is Outcome.RESIDUAL and _overshot(record):
        said = "Not clean: pushed too far away from the poison"
    if verdict.gate == "deployed":
        return said
    return f"{said} (candidate {printable(verdict.gate)})"


def how_sure(record: AuditRecord) -> str:
    """Return how sure the answer is: the error rate, and the figure that decided."""
    verdict, rate = record.verdict, f"At most {100 * record.plan.policy.alpha:g} in 100"
    if not record.sanity.works:
        return "Not at all. Nothing was measured, so this says nothing about poison, either way."
    poisoned = f"{rate} clean models would be called poisoned."
    sure = {
        Outcome.CLEAN: f"{rate} models with more poison than is tolerated would pass.",
        Outcome.ACCEPTED: f"{rate} models with more poison than was accepted would pass.",
        Outcome.RESIDUAL: poisoned,
        Outcome.ACTIVATED: poisoned,
        Outcome.ASLEEP: poisoned,
        Outcome.BROKEN: f"{rate} models that still work would be called broken. A broken model can "
        "look clean to every other probe, so this says little about the poison.",
    }
    unsure = "Not at all. Neither the poison nor its absence could be shown. What could not be "
    told = sure.get(verdict.outcome, f"{unsure}measured never passes.")
    if more := own_told(record) if verdict.outcome in sure else "":
        told = f"{told} {more}"
    decisive = _decisive(record)
    if decisive is None:
        return told
    if is_suspect(record, decisive):
        return f"{told} A control failed, so what was measured cannot be trusted."
    # Else the verdict's sentence has the figure.
    return f"{told} {_figure(decisive, record)}" if verdict.gate == "any-method" else told


def _at_gate(record: AuditRecord) -> list[Finding]:
    names = at_gate(record.verdict)
    return [f for f in record.findings if f.candidate in names and f.gating]


def tested(record: AuditRecord) -> str:
    """Return what was looked for in the model at the gate, and measured; `nothing` if so."""
    seen = [f.probe for f in _at_gate(record) if f.statistic is not None and not f.way]
    return _grouped(about(probe) for probe in seen if reading_of(probe).residue) or "nothing"


def untested(record: AuditRecord) -> str:
    """Return the kinds of poison that nothing was measured of at the gate; empty: there are none.

    They are those that this tool knows and the evidence at hand does not speak of.
    """
    names = at_gate(record.verdict)
    measured = {
        f.probe for f in record.findings if f.candidate in names and f.statistic is not None
    }
    texts = of_texts(record)
    lacking = [
        reading.words
        for name, reading in READINGS.items()
        if reading.residue
        and reading.tolerance is not None
        and name not in measured
        and (texts or not reading.texts_only)
    ]
    return _grouped(lacking)


def _grouped(kinds: Iterable[Words]) -> str:
    looked = dict[str, list[str]]()
    for words in kinds:
        looked.setdefault(words.looks, []).append(words.title.lower())
    told = [f"{what} ({', '.join(dict.fromkeys(who))})" for what, who in looked.items()]
    return "; ".join(told)


def _by_own_alone(record: AuditRecord) -> bool:
    """Say whether nothing but a user's own probes found anything at the gate."""
    found = [f for f in _at_gate(record) if f.outcome is Outcome.RESIDUAL]
    return bool(found) and all(is_own(f.probe) for f in found)


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
