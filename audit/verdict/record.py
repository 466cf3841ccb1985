"""The report: everything that it is rendered from, as plain values.

No torch here: a reviewer reads, re-decides and re-renders a report on any laptop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from poison_audit.case.doubts import Doubt
from poison_audit.case.harm import Harm
from poison_audit.case.shown import Exhibit, InputFile, Place
from poison_audit.case.tuning import Tuning
from poison_audit.records import (
    Asked,
    CandidateVerdict,
    Cell,
    Digest,
    Finding,
    Json,
    Outcome,
    Plan,
    Recipe,
    Rehearsal,
    Sanity,
)

SCHEMA_VERSION: Final = 2
"""1: until RESIDUAL meant that the whole interval lies beyond the tolerance."""
ExitCode = Literal[0, 1, 3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the audit comes to."""

    outcome: Outcome
    exit_code: ExitCode
    """Codes 2 and 4 leave no report."""
    gate: str
    sentence: str
    next_step: str
    candidates: tuple[CandidateVerdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What shows that a report was not edited since it was written."""

    digest: Digest
    """SHA-256 over everything else in the report, as JSON with sorted keys."""
    signature: Digest | None = None
    """HMAC-SHA256 of it, with the key of the user who ran the audit; None where there is none."""
    signer: Annotated[str, Asked({"pattern": "^[0-9a-f]{16}$"})] | None = None
    """The public name of that key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """Everything a report is rendered from."""

    schema_version: Literal[1, 2]
    tool_version: str
    plan: Plan
    recipe: Recipe
    subject: Mapping[str, Json]
    """What was on trial: paths, digests, sizes, architecture, the canaries' commitment."""
    sanity: Sanity
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...]
    verdict: Verdict
    diagnosis: str | None = None
    """What the hypotheses come to, in words; None where they were not tested."""
    rehearsal: Rehearsal | None = None
    tuning: tuple[Tuning, ...] = ()
    harm: tuple[Harm, ...] = ()
    """What each method does to a clean model, where that was asked; it decides nothing."""
    doubts: tuple[Doubt, ...] = ()
    """Why the gate may not open, whatever was measured."""
    limits: tuple[str, ...] = ()
    """What this audit does not show, in sentences."""
    notices: tuple[str, ...] = ()
    """What a reader has to know before any figure, in sentences; it decides nothing."""
    files: tuple[InputFile, ...] = ()
    """Every file that was read."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """Lines to point at: `forget` and `forget.ATTACK` (its first row), `config` and
    `config.TABLE` (its header in audit.toml), `config.accept.N` (from 0)."""
    exhibits: tuple[Exhibit, ...] = ()
    comparability: Digest | None = None
    """SHA-256 of what two audits must share so that their figures can be compared."""
    environment: Mapping[str, Json] = field(default_factory=dict)
    """Versions, device, command and times: what may differ between two equal audits."""
    seal: Seal | None = None
    """None in reports of earlier versions."""
