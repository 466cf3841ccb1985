"""An audit record as display strings: templates and the terminal only arrange what stands here.

Every string that came from a user's files has gone through `printable`, so it can neither break a
line nor reorder the text beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from poison_audit.checks.own import is_own
from poison_audit.records import Cell, Finding, Outcome, Sanity
from poison_audit.reports.view.accepted import Accepted, accepted
from poison_audit.reports.view.answer import answer, how_sure, tested, untested
from poison_audit.reports.view.evidence import Evidence, evidence
from poison_audit.reports.view.exhibits import Wall, walls
from poison_audit.reports.view.facts import Facts, facts
from poison_audit.reports.view.figure import TONES, Figure, figure
from poison_audit.reports.view.harmed import harm_told, harmed
from poison_audit.reports.view.machine import exit_line
from poison_audit.reports.view.own import OwnProbe, own_probes
from poison_audit.reports.view.reading import of_texts
from poison_audit.reports.view.rehearsed import Rehearsed, rehearsed
from poison_audit.reports.view.rows import Row, allowed, make_row
from poison_audit.reports.view.settings import settings_from
from poison_audit.reports.view.tuned import Tuned, tuned
from poison_audit.reports.view.why import HYPOTHESES, Why, why
from poison_audit.reports.view.words import about, duration, memory, percent, printable, value
from poison_audit.statistics.reading import Words
from poison_audit.statistics.rounding import points
from poison_audit.verdict.readings import READINGS
from poison_audit.verdict.record import AuditRecord

COLUMNS = tuple(name for name, reading in READINGS.items() if reading.always)
"""The probes that every table has a column for, measured or not."""
_LATER = tuple(name for name in READINGS if name not in COLUMNS)

_JUDGED = {
    "deployed": "the deployed model, as it was given",
    "any-method": "whether any repaired model is clean",
}
_UNDECIDED = (Outcome.NOT_MEASURED, Outcome.FAILED, Outcome.INCONCLUSIVE)


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
    answer: str
    """The verdict in a few plain words."""
    how_sure: str
    sentence: str
    next_step: str
    tested: str
    """What was looked for and measured, in the model that was judged."""
    untested: str
    """What was not; empty where all was."""
    file: str
    """The model's file, its digest, the day and the tool."""
    gate: str
    judged: str
    """The gate in words."""
    sanity: str
    """Whether the model works as loaded."""
    settings: str
    """Where they come from; empty where that is not recorded."""
    doubts: tuple[str, ...]
    """Why the gate may not open, whatever was measured, but for what the verdict says."""
    probes: tuple[Words, ...]
    rows: tuple[Row, ...]
    harm: str
    """What the column of harm shows; empty where there is none."""
    found: tuple[str, ...]
    """What has to be known before any figure; that the methods knew only a part of the forget
    set, where they did."""
    accepted: tuple[Accepted, ...]
    walls: tuple[Wall, ...]
    """Samples to look at."""
    evidence: Evidence
    why: Why | None
    rehearsed: Rehearsed | None
    own: tuple[OwnProbe, ...]
    """Probes of the user's own, apart from all others."""
    texts: bool
    """Whether the model reads texts; otherwise it takes pictures."""
    gaps: tuple[Gap, ...]
    limits: tuple[str, ...]
    runs: tuple[Run, ...]
    tuned: tuple[Tuned, ...]
    facts: tuple[Facts, ...]


def view(record: AuditRecord) -> View:
    """Return everything a renderer shows, in words."""
    verdict = record.verdict
    findings = tuple(f for f in record.findings if not apart(f.probe))
    probes = _probes(record, findings)
    shown = [f for f in findings if f.probe in probes]
    rows = tuple(
        replace(
            make_row(candidate, record.cells, shown, plan=record.plan, probes=probes),
            harm=harmed(candidate.candidate, record.harm),
        )
        for candidate in verdict.candidates
    )
    # What is asked of texts alone is not missing where there are pictures.
    absent = (n for n, reading in READINGS.items() if reading.texts_only)
    other = probes if of_texts(record) else (*probes, *absent)
    return View(
        tool=_tool(record),
        model=value(record.subject.get("model")),
        outcome=verdict.outcome.value,
        tone=TONES[verdict.outcome],
        exit_code=str(verdict.exit_code),
        exit_line=exit_line(verdict),
        answer=answer(record),
        how_sure=how_sure(record),
        sentence=printable(verdict.sentence),
        next_step=" ".join(filter(None, [printable(verdict.next_step), _which_file(record)])),
        tested=tested(record),
        untested=untested(record),
        file=_file(record),
        gate=printable(verdict.gate),
        judged=_JUDGED.get(verdict.gate, f"candidate {printable(verdict.gate)}"),
        sanity=_sanity(record),
        settings=settings_from(record),
        doubts=_doubts(record),
        probes=tuple(about(probe) for probe in probes),
        rows=rows,
        harm=harm_told(record.harm),
        found=(*map(printable, record.notices), *_found(record)),
        accepted=accepted(record),
        walls=walls(record),
        evidence=evidence(record),
        why=why(record),
        rehearsed=rehearsed(record),
        own=own_probes(record),
        texts=of_texts(record),
        gaps=_gaps(record, rows, [f for f in findings if f.probe not in other]),
        limits=tuple(printable(told) for told in record.limits if told not in record.notices),
        runs=tuple(_run(cell) for cell in record.cells if cell.kind == "method" or cell.cost),
        tuned=tuned(record),
        facts=facts(record),
    )


def apart(probe: str) -> bool:
    """Return whether a finding of it stands in a section of its own, and in no table."""
    return probe in HYPOTHESES or is_own(probe)


def _probes(record: AuditRecord, findings: Iterable[Finding]) -> tuple[str, ...]:
    """Return the columns: a probe of `_LATER` has one only where it measured or is required."""
    # A run that failed has a finding of every probe, whatever was looked for.
    found = [f for f in findings if f.outcome is not Outcome.FAILED]
    weighty = {f.probe for f in found if f.gating or f.statistic is not None}
    named = [*(step.name for step in record.plan.probes), *(f.probe for f in findings)]
    asked = weighty & {*named}
    # Beside figures of other poison, a column of nothing but "not measured" only takes room.
    always = {name for name in COLUMNS if READINGS[name].damage or not asked & {*_LATER}}
    known = [name for name in READINGS if name in always or name in asked]
    others = (name for name in named if name not in READINGS)
    return tuple(dict.fromkeys([*known, *others]))


def _run(cell: Cell) -> Run:
    cost, unknown = cell.cost, "not recorded"
    params = cell.method.params if cell.method else {}
    curve = cost.losses if cost else ()
    share = f" ({cost.gradients / cost.allowed:.0%})" if cost and cost.allowed else ""
    taken = f", {cost.reused:,.0f} of them by the smaller budget" if cost and cost.reused else ""
    return Run(
        name=printable(cell.candidate),
        seed=str(cell.seed),
        params=", ".join(f"{printable(k)} = {value(v)}" for k, v in params.items()) or "none",
        steps=f"{cost.steps:,}" if cost else unknown,
        spent=f"{cost.gradients:,.0f}{share}{taken}" if cost else unknown,
        allowed=allowed(cost) if cost else unknown,
        time=duration(cost.seconds) if cost else unknown,
        memory=memory(cost.peak_bytes) if cost and cost.peak_bytes is not None else unknown,
        losses=f"{curve[0]:.3g} to {curve[-1]:.3g}" if curve else "no curve",
        status="finished" if cell.error is None else f"failed: {printable(cell.error)}",
    )


def _tool(record: AuditRecord) -> str:
    return f"poison-audit {printable(record.tool_version)}"


def _file(record: AuditRecord) -> str:
    """Return which file was judged, its digest, the day and the tool."""
    gate, files = record.verdict.gate, record.subject.get("candidates")
    given = files.get(gate) if isinstance(files, Mapping) else None
    model, digest = record.subject.get("model"), record.subject.get("model_sha256")
    kinds = {c.candidate: c.kind for c in record.verdict.candidates}
    if isinstance(given, Mapping):
        model, digest = given.get("path"), given.get("sha256")
    told = [value(model)]
    if kinds.get(gate) == "method":
        told = [f"what {printable(gate)} made of {value(model)}, which is in no file"]
    elif isinstance(digest, str):
        told.append(f"SHA-256 {printable(digest[:16])}\u2026")
    day = str(record.environment.get("started") or "").partition("T")[0]
    told.append(f"audited{' on ' * bool(day)}{printable(day)} by {_tool(record)}")
    return ", ".join(told)


def _which_file(record: AuditRecord) -> str:
    """Name the files of the candidates that are clean, where the gate is not passed."""
    verdict, files = record.verdict, record.subject.get("candidates")
    if verdict.exit_code == 0 or not isinstance(files, Mapping):
        return ""
    told = []
    for one in verdict.candidates:
        given = files.get(one.candidate)
        if one.outcome is Outcome.CLEAN and isinstance(given, Mapping) and "path" in given:
            kind = "reference" if one.kind == "reference" else "candidate"
            told.append(f"{kind} {printable(one.candidate)} ({value(given['path'])})")
    return f"Clean here: {', '.join(told)}." if told else ""


def _sanity(record: AuditRecord) -> str:
    sanity = record.sanity
    if not sanity.total:
        return "Not measured: there are no clean test samples."
    return (
        f"{percent(sanity.accuracy)} of clean test samples ({sanity.correct:,} of "
        f"{sanity.total:,}; surely more than {percent(sanity.low)}). Always guessing the most "
        f"common class would score {percent(sanity.chance)}. {_expected(sanity)}"
    )


def _expected(sanity: Sanity) -> str:
    if sanity.expected is None:
        return "Nobody said what it should be (--expect-accuracy)."
    most = points(sanity.tolerated)
    return f"Expected: {percent(sanity.expected)}; at most {most} less is tolerated."


def _doubts(record: AuditRecord) -> tuple[str, ...]:
    said = record.verdict.sentence
    return tuple(
        printable(f"{doubt.sentence} {doubt.step}")
        for doubt in record.doubts
        if doubt.sentence not in said
    )


def _found(record: AuditRecord) -> tuple[str, ...]:
    """Say that the methods were given a part of the forget set only."""
    if record.plan.found >= 1:
        return ()
    part, total = (record.subject.get(key) for key in ("found_size", "forget_size"))
    how_many = f"{percent(record.plan.found)} of the forget samples"
    if part is not None and total is not None:
        how_many = f"{value(part)} of {value(total)} forget samples"
    told = [f"The methods were given only {how_many}; the probes looked at all of them."]
    if any(c.kind == "method" and c.budget is None for c in record.cells):  # bounded by no budget
        told.append(
            "\u201cRetrained\u201d here means retrained on what was left after removing the found "
            "part only: it still saw the rest of the poison, so it is not clean by definition."
        )
    return tuple(told)


def _gaps(record: AuditRecord, rows: Sequence[Row], unshown: Iterable[Finding]) -> tuple[Gap, ...]:
    asked: dict[tuple[str, str, str], list[str]] = {}

    # What nobody named and nothing was known of stands on the first screen, as not tested.
    unnamed = {f.probe for f in record.findings if f.outcome is Outcome.NOT_MEASURED}
    unnamed -= {f.probe for f in record.findings if f.gating or f.statistic is not None}

    def ask(shown: Figure, who: str) -> None:
        if shown.probe not in unnamed:
            asked.setdefault((shown.title, shown.reason, shown.remedy), []).append(who)

    if not record.sanity.works:
        what = "tokenizer, prompt" if of_texts(record) else "architecture, normalisation"
        remedy = f"Needed: a model that beats chance. Check {what} and label order."
        reason = "The model does not work as loaded, so nothing else was measured."
        asked["Does it work at all?", reason, remedy] = ["deployed"]
    for row in rows:
        measured = {shown.probe for _, shown in row.every}
        missing = [shown for shown in row.figures if shown.probe not in measured]
        for shown in (*(shown for _, shown in row.every), *missing):
            if shown.outcome in _UNDECIDED:
                ask(shown, row.name)
    for finding in unshown:
        ask(figure(finding), printable(finding.candidate))
    everyone = list(dict.fromkeys(row.name for row in rows))
    # Of one reason: first the candidates of each probe, then the probes with the same candidates.
    merged: dict[tuple[str, str, str], list[str]] = {}
    for (title, reason, remedy), who in asked.items():
        names = list(dict.fromkeys(who))
        told = "every candidate" if len(names) > 3 and names == everyone else ", ".join(names)
        merged.setdefault((told, reason, remedy), []).append(title)
    return tuple(
        Gap(title=", ".join(titles), who=who, reason=reason, remedy=remedy)
        for (who, reason, remedy), titles in merged.items()
    )
