"""An audit record as display strings: templates and the terminal only arrange what stands here.

Every string that came from a user's files has gone through `printable`, so it can neither break a
line nor reorder the text beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from audit.records import WORST_FIRST, AuditRecord, CandidateVerdict, Cell, Cost, Finding, Outcome
from reports.facts import Facts, facts
from reports.figure import TONES, About, Figure, about, absent, figure
from reports.words import duration, memory, percent, printable, value

COLUMNS = ("gaussian", "exposure", "membership", "utility")
"""The probes that every table has a column for, measured or not."""

_UNDECIDED = (Outcome.NOT_MEASURED, Outcome.FAILED, Outcome.INCONCLUSIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One candidate."""

    name: str
    kind: str
    outcome: str
    tone: str
    reason: str
    figures: tuple[Figure, ...]
    """One a probe, in the order of `View.probes`; of several seeds the worst."""
    every: tuple[tuple[str, Figure], ...]
    """(seed, figure) of every finding."""
    budget: str
    """Gradient evaluations, spent / allowed; of several seeds the dearest."""
    time: str
    """What the repair and the probes took, all seeds together."""
    seeds: str
    """`worst of 3 seeds`; empty for one."""

    @property
    def restates(self) -> bool:
        """Whether the reason is that of a finding, word for word."""
        return any(shown.reason == self.reason for _, shown in self.every)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a method: what it was given and what it spent."""

    name: str
    seed: str
    params: str
    steps: str
    spent: str
    allowed: str
    time: str
    memory: str
    losses: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something undecided, and what would decide it."""

    title: str
    who: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything a renderer shows, in words."""

    tool: str
    model: str
    outcome: str
    tone: str
    exit_code: str
    exit_line: str
    """`exit N: OUTCOME. Reason`: the same in every renderer."""
    sentence: str
    next_step: str
    gate: str
    alpha: str
    sanity: str
    """Whether the model works as loaded."""
    probes: tuple[About, ...]
    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...]
    limits: tuple[str, ...]
    runs: tuple[Run, ...]
    facts: tuple[Facts, ...]


def view(record: AuditRecord) -> View:
    """Return everything a renderer shows, in words."""
    verdict = record.verdict
    probes = _probes(record)
    rows = tuple(_row(record, candidate, probes) for candidate in verdict.candidates)
    sentence = printable(verdict.sentence)
    return View(
        tool=f"poison-audit {printable(record.tool_version)}",
        model=value(record.subject.get("model")),
        outcome=verdict.outcome.value,
        tone=TONES[verdict.outcome],
        exit_code=str(verdict.exit_code),
        exit_line=f"exit {verdict.exit_code}: {verdict.outcome.value}. {sentence}",
        sentence=sentence,
        next_step=printable(verdict.next_step),
        gate=printable(verdict.gate),
        alpha=value(record.plan.policy.alpha),
        sanity=_sanity(record),
        probes=tuple(about(probe) for probe in probes),
        rows=rows,
        gaps=_gaps(record, rows),
        limits=tuple(printable(limit) for limit in record.limits),
        runs=tuple(_run(cell) for cell in record.cells if cell.kind == "method" or cell.cost),
        facts=facts(record),
    )


def worst(findings: Iterable[Finding]) -> Finding | None:
    """Return the finding that a candidate is judged by: of one outcome the farthest from null."""

    def badness(finding: Finding) -> tuple[int, float]:
        distance = (finding.statistic or 0.0) - (finding.null or 0.0)
        size = distance if finding.probe == "utility" else abs(distance)
        return WORST_FIRST.index(finding.outcome), -size

    return min(findings, key=badness, default=None)


def _probes(record: AuditRecord) -> tuple[str, ...]:
    planned = [step.name for step in record.plan.probes]
    return tuple(dict.fromkeys([*COLUMNS, *planned, *(f.probe for f in record.findings)]))


def _row(record: AuditRecord, verdict: CandidateVerdict, probes: Sequence[str]) -> Row:
    name = verdict.candidate
    cells = [cell for cell in record.cells if cell.candidate == name]
    findings = [f for f in record.findings if f.candidate == name]
    planned = {step.name for step in record.plan.probes}
    figures = []
    for probe in probes:
        found = worst(f for f in findings if f.probe == probe)
        lack = "Planned, but it did not run." if probe in planned else "Not part of the plan."
        figures.append(figure(found) if found else absent(probe, lack))
    costs = [cell.cost for cell in cells if cell.cost]
    seconds = sum(c.seconds for c in costs) + sum(cell.probe_seconds for cell in cells)
    return Row(
        name=printable(name),
        kind=verdict.kind,
        outcome=verdict.outcome.value,
        tone=TONES[verdict.outcome],
        reason=printable(verdict.reason),
        figures=tuple(figures),
        every=tuple((str(f.seed), figure(f)) for f in findings),
        budget=_budget(costs, verdict.kind),
        time=duration(seconds) if seconds else "not recorded",
        seeds=f"worst of {len(cells)} seeds" if len(cells) > 1 else "",
    )


def _budget(costs: list[Cost], kind: str) -> str:
    if not costs:
        return "not recorded" if kind == "method" else "given as is"
    dearest = max(costs, key=lambda cost: cost.gradients)
    return f"{dearest.gradients:,.0f} / {_allowed(dearest)}"


def _allowed(cost: Cost) -> str:
    return "no bound" if cost.allowed is None else f"{cost.allowed:,.0f}"


def _run(cell: Cell) -> Run:
    cost, unknown = cell.cost, "not recorded"
    params = cell.method.params if cell.method else {}
    curve = cost.losses if cost else ()
    share = f" ({cost.gradients / cost.allowed:.0%})" if cost and cost.allowed else ""
    return Run(
        name=printable(cell.candidate),
        seed=str(cell.seed),
        params=", ".join(f"{printable(k)} = {value(v)}" for k, v in params.items()) or "none",
        steps=f"{cost.steps:,}" if cost else unknown,
        spent=f"{cost.gradients:,.0f}{share}" if cost else unknown,
        allowed=_allowed(cost) if cost else unknown,
        time=duration(cost.seconds) if cost else unknown,
        memory=memory(cost.peak_bytes) if cost and cost.peak_bytes is not None else unknown,
        losses=f"{curve[0]:.3g} to {curve[-1]:.3g}" if curve else "no curve",
        status="finished" if cell.error is None else f"failed: {printable(cell.error)}",
    )


def _sanity(record: AuditRecord) -> str:
    sanity = record.sanity
    if not sanity.total:
        return "not measured: there are no clean test samples"
    return (
        f"{sanity.correct:,} of {sanity.total:,} clean test samples answered correctly "
        f"({percent(sanity.accuracy)}, surely more than {percent(sanity.low)}; "
        f"naming the commonest class always: {percent(sanity.chance)})"
    )


def _gaps(record: AuditRecord, rows: Iterable[Row]) -> tuple[Gap, ...]:
    asked: dict[tuple[str, str, str], list[str]] = {}
    if not record.sanity.works:
        remedy = "A model that beats chance: check architecture, normalisation and label order."
        reason = "The model does not work as loaded, so nothing else was measured."
        asked["Does it work at all?", reason, remedy] = ["deployed"]
    for row in rows:
        measured = {shown.probe for _, shown in row.every}
        missing = [shown for shown in row.figures if shown.probe not in measured]
        for shown in (*(shown for _, shown in row.every), *missing):
            if shown.outcome in _UNDECIDED:
                key = (shown.title, shown.reason, shown.remedy)
                asked.setdefault(key, []).append(row.name)
    # Of one reason: first the candidates of each probe, then the probes with the same candidates.
    merged: dict[tuple[str, str, str], list[str]] = {}
    for (title, reason, remedy), who in asked.items():
        merged.setdefault((", ".join(dict.fromkeys(who)), reason, remedy), []).append(title)
    return tuple(
        Gap(title=", ".join(titles), who=who, reason=reason, remedy=remedy)
        for (who, reason, remedy), titles in merged.items()
    )
