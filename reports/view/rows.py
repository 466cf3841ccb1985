"""A candidate in words: one row of a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from poison_audit.records import WORST_FIRST, CandidateVerdict, Cell, Cost, Finding, Plan
from poison_audit.reports.view.figure import TONES, Figure, absent, figure
from poison_audit.reports.view.harmed import Harmed
from poison_audit.reports.view.words import duration, printable
from poison_audit.verdict.readings import reading_of


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
    harm: Harmed | None = None
    """What its method does to a clean model; None: there is no such column."""

    @property
    def restates(self) -> bool:
        """Whether the reason is that of a finding, word for word."""
        return any(shown.reason == self.reason for _, shown in self.every)


def worst(findings: Iterable[Finding]) -> Finding | None:
    """Return the finding that a candidate is judged by: of one outcome the farthest from null.

    Of one outcome, one of the model as it stands goes before those of the woken model.
    """

    def badness(finding: Finding) -> tuple[int, bool, float]:
        distance = (finding.statistic or 0.0) - (finding.null or 0.0)
        size = distance if reading_of(finding.probe).damage else abs(distance)
        return WORST_FIRST.index(finding.outcome), bool(finding.way), -size

    return min(findings, key=badness, default=None)


def make_row(
    verdict: CandidateVerdict,
    cells: Iterable[Cell],
    findings: Iterable[Finding],
    *,
    plan: Plan,
    probes: Sequence[str],
) -> Row:
    """Return one candidate's row, its columns `probes`, from the cells and findings of all."""
    name = verdict.candidate
    cells = [cell for cell in cells if cell.candidate == name]
    findings = [f for f in findings if f.candidate == name]
    planned = {step.name for step in plan.probes}
    figures = []
    for probe in probes:
        found = worst(f for f in findings if f.probe == probe)
        lack = "Planned, but it did not run." if probe in planned else "Not part of the plan."
        figures.append(figure(found) if found else absent(probe, lack))
    costs = [cell.cost for cell in cells if cell.cost]
    seconds = sum(c.seconds for c in costs) + sum(cell.probe_seconds for cell in cells)
    more = " more" if any(c.reused for c in costs) else ""  # than its smaller budget
    return Row(
        name=printable(name),
        kind=verdict.kind,
        outcome=verdict.outcome.value,
        tone=TONES[verdict.outcome],
        reason=printable(verdict.reason),
        figures=tuple(figures),
        every=tuple((str(f.seed), figure(f)) for f in findings),
        budget=_budget(costs, verdict.kind),
        time=f"{duration(seconds)}{more}" if seconds else "not recorded",
        seeds=f"worst of {len(cells)} seeds" if len(cells) > 1 else "",
    )


def _budget(costs: list[Cost], kind: str) -> str:
    if not costs:
        return "not recorded" if kind == "method" else "given as is"
    dearest = max(costs, key=lambda cost: cost.gradients)
    return f"{dearest.gradients:,.0f} / {allowed(dearest)}"


def allowed(cost: Cost) -> str:
    """Return a budget in words."""
    return "no bound" if cost.allowed is None else f"{cost.allowed:,.0f}"
