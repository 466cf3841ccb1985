"""The forms of what is free JSON in a report, as far as anything reads it.

A report.json may be anybody's. Its details, movements, subject and environment may hold more than
stands here, and none of it has to be there; but what is there has the type that this tool writes,
or the report is refused before it is judged, compared or rendered in any format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from poison_audit.atomic import from_json
from poison_audit.errors import Problem, Problems
from poison_audit.records import Asked, Digest, Share
from poison_audit.verdict.record import AuditRecord

Number = Annotated[float, Asked({"ge": -1e9, "le": 1e9})]
"""A number that a probe could write, and that a chart can be drawn with."""
Size = Annotated[int, Asked({"ge": 0, "le": 2**63 - 1})]
Ends = Annotated[tuple[float, ...], Asked({"min_length": 2, "max_length": 2})]
Curve = tuple[Number, ...]
Gaps = tuple[Number | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A mean with its central 95%."""

    mean: Number
    low: Number
    high: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What was measured of the whole network; without a share nothing was."""

    share: Number | None = None
    share_low: Number = 0.0
    share_high: Number = 0.0
    sketched_share: Number | None = None
    rank: Size = 0
    gradients: Size = 0
    random: Band | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """One reference of a probe that compares with references."""

    reference: str
    rate: Number | None = None
    deficit: Number | None = None
    low: Number | None = None
    high: Number | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """The details of a finding, of whatever probe or hypothesis."""

    tpr: Number = 0.0
    tpr_low: Number = 0.0
    tpr_high: Number = 0.0
    fpr: Number = 0.0
    held_out_mean: Number | None = None
    held_out_p: Share | None = None
    spread: Number | None = None
    dropped: Size = 0
    draws: Size = 0
    rate: Number = 0.0
    rate_low: Number = 0.0
    rate_high: Number = 0.0
    clean_rate: Number = 0.0
    control_rate: Number = 0.0
    control_rate_low: Number = 0.0
    control_rate_high: Number = 0.0
    control_mean: Number = 0.0
    control_sd: Number = 0.0
    control_max: Number = 0.0
    control_inputs: Size = 0
    hits: Size = 0
    targets: Size = 0
    accuracy: Number = 0.0
    accuracy_low: Number = 0.0
    accuracy_high: Number = 0.0
    deployed_accuracy: Number = 0.0
    references: tuple[Against, ...] = ()
    fractions: Curve | None = None
    poison_l1: Curve | None = None
    random_l1_mean: Gaps | None = None
    random_l1_low: Gaps | None = None
    random_l1_high: Gaps | None = None
    share: Number | None = None
    random_share_mean: Number | None = None
    random_share_low: Number | None = None
    random_share_high: Number | None = None
    direction_share: Band | None = None
    network: Network | None = None
    network_missing: str | None = None

    def __post_init__(self) -> None:
        band = (self.random_l1_mean, self.random_l1_low, self.random_l1_high)
        curves = (self.fractions, self.poison_l1, *band)
        if any(curve is not None for curve in curves):
            if len({len(curve) if curve else 0 for curve in curves}) > 1 or not self.fractions:
                raise ValueError("the curves of the shift differ in length")
            rows = list(zip(*(curve or () for curve in band), strict=True))
            known = [row for row in rows if None not in row]
            if not known or any(row != (None, None, None) for row in rows if row not in known):
                raise ValueError("the band of random shifts is not whole")
        ends = (self.random_share_mean, self.random_share_low, self.random_share_high)
        if self.share is not None and None in ends:
            raise ValueError("the share within reach comes with that of random subsets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """How far a method moved the weights: one that nearly diverged, by any distance."""

    moved_l2: float | None = None
    distance_l2: float | None = None
    distance_l2_range: Ends | None = None
    covered: float | None = None
    covered_range: Ends | None = None
    aligned: float | None = None
    aligned_range: Ends | None = None
    apart: float | None = None
    references: Size = 0
    missing: Mapping[str, str] | None = None
    sentence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file of the subject: a key, targets, a trigger, a model that was given."""

    path: str | None = None
    kind: str = ""
    commitment: Digest | None = None
    sha256: Digest | None = None
    phrase: str = ""
    position: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReading:
    """How a model reads texts."""

    max_tokens: Size | None = None
    prompt: str | None = None
    cut: Mapping[str, Size] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was on trial."""

    model: str | None = None
    model_sha256: Digest | None = None
    arch: str | None = None
    train: str | None = None
    train_size: Size | None = None
    train_sha256: Digest | None = None
    forget: str | None = None
    forget_size: Size | None = None
    forget_sha256: Digest | None = None
    found_size: Size | None = None
    test: str | None = None
    test_size: Size | None = None
    test_sha256: Digest | None = None
    canaries: Part | None = None
    strings: Part | None = None
    targets: Part | None = None
    trigger: Part | None = None
    reading: TextReading | None = None
    attacks: Mapping[str, Size] | None = None
    candidates: Mapping[str, Part] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where and when the audit ran."""

    started: str | None = None
    seconds: Annotated[float, Asked({"ge": 0, "le": 1e9})] | None = None
    command: str | None = None
    decided_again: str | None = None
    decided_from: Digest | None = None


def wrong_forms(record: AuditRecord) -> list[Problem]:
    """Return what is of another form than this tool writes, each with its place."""
    found = Problems()

    def look(form: type[Any], plain: Mapping[str, Any], where: str) -> None:
        with found.collecting():
            from_json(form, json.dumps(plain), where=where, extra="ignore")

    look(Subject, record.subject, "subject")
    look(Environment, record.environment, "environment")
    for place, part in (("", record), ("rehearsal.", record.rehearsal)):
        for number, cell in enumerate(part.cells if part else ()):
            look(Movement, cell.movement or {}, f"{place}cells[{number}].movement")
        for number, finding in enumerate(part.findings if part else ()):
            look(Details, finding.details, f"{place}findings[{number}].details")
    return found
