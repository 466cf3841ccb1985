"""The forms of what is free JSON in a report, as far as anything reads it.

A report.json may be anybody's. Its details, movements, subject and environment may hold more than
stands here, and none of it has to be there; but what is there has the type that this tool writes,
or the report is refused before it is judged, compared or rendered in any format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any

from poison_audit.errors import Problem, Problems
from poison_audit.records import Asked, Digest, Share
from poison_audit.statistics.forms import read_form
from poison_audit.verdict.readings import reading_of
from poison_audit.verdict.record import AuditRecord

Number = Annotated[float, Asked({"ge": -1e9, "le": 1e9})]
"""A number that a probe could write, and that a chart can be drawn with."""
Size = Annotated[int, Asked({"ge": 0, "le": 2**63 - 1})]
Seconds = Annotated[float, Asked({"ge": 0, "le": 1e9})]
Ends = Annotated[tuple[float, ...], Asked({"min_length": 2, "max_length": 2})]
Curve = tuple[Number, ...]
Gaps = tuple[Number | None, ...]


def _form(
    name: str, *fields: tuple[Any, str], rule: Callable[[Any], None] = lambda _: None
) -> type[Any]:
    """Return a form by the names of its fields, type by type; none of them has to be there."""
    named = [(each, kind, None) for kind, names in fields for each in names.split()]
    return make_dataclass(name, named, namespace={"__post_init__": rule}, kw_only=True)


def _whole(seen: Any) -> None:
    """Refuse curves, and shares within reach, that a chart could not be drawn with."""
    band = (seen.random_l1_mean, seen.random_l1_low, seen.random_l1_high)
    curves = (seen.fractions, seen.poison_l1, *band)
    if any(curve is not None for curve in curves):
        if len({len(curve) if curve else 0 for curve in curves}) > 1 or not seen.fractions:
            raise ValueError("the curves of the shift differ in length")
        rows = list(zip(*(curve or () for curve in band), strict=True))
        known = [row for row in rows if None not in row]
        if not known or any(row != (None, None, None) for row in rows if row not in known):
            raise ValueError("the band of random shifts is not whole")
    ends = (seen.random_share_mean, seen.random_share_low, seen.random_share_high)
    if seen.share is not None and None in ends:
        raise ValueError("the share within reach comes with that of random subsets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A mean with its central 95%."""

    mean: Number
    low: Number
    high: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """One reference of a probe that compares with references."""

    reference: str
    rate: Number | None = None
    deficit: Number | None = None
    low: Number | None = None
    high: Number | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file of the subject: a key, targets, a trigger, a model that was given."""

    path: str | None = None
    kind: str = ""
    commitment: Digest | None = None
    sha256: Digest | None = None
    phrase: str = ""
    position: str = ""


Network = _form(
    "Network",
    (Number | None, "share sketched_share"),
    (Number, "share_low share_high"),
    (Size, "rank gradients"),
    (Band | None, "random"),
)
"""What was measured of the whole network; without a share nothing was."""
Details = _form(
    "Details",
    (Number, "tpr tpr_low tpr_high fpr rate rate_low rate_high clean_rate"),
    (Number, "control_rate control_rate_low control_rate_high"),
    (Number, "control_mean control_sd control_max"),
    (Number, "accuracy accuracy_low accuracy_high deployed_accuracy"),
    (Number | None, "held_out_mean spread"),
    (Share | None, "held_out_p"),
    (Size, "dropped draws control_inputs hits targets"),
    (tuple[Against, ...], "references"),
    (Curve | None, "fractions poison_l1"),
    (Gaps | None, "random_l1_mean random_l1_low random_l1_high"),
    (Number | None, "share random_share_mean random_share_low random_share_high"),
    (Band | None, "direction_share"),
    (Network | None, "network"),
    (str | None, "network_missing"),
    rule=_whole,
)
"""The details of a finding, of whatever probe or hypothesis."""
Movement = _form(
    "Movement",
    (float | None, "moved_l2 distance_l2 covered aligned apart"),
    (Ends | None, "distance_l2_range covered_range aligned_range"),
    (Size, "references"),
    (dict[str, str] | None, "missing"),
    (str, "sentence"),
)
"""How far a method moved the weights: one that nearly diverged, by any distance."""
TextReading = _form(
    "TextReading",
    (Size | None, "max_tokens"),
    (str | None, "prompt"),
    (dict[str, Size] | None, "cut"),
)
"""How a model reads texts."""
Subject = _form(
    "Subject",
    (str | None, "model arch train forget test"),
    (Size | None, "train_size forget_size found_size test_size"),
    (Digest | None, "model_sha256 train_sha256 forget_sha256 test_sha256 factory_sha256"),
    (Part | None, "adapter canaries strings targets trigger"),
    (TextReading | None, "reading"),
    (dict[str, Size] | None, "attacks"),
    (dict[str, Part] | None, "candidates"),
)
"""What was on trial."""
Environment = _form(
    "Environment",
    (str | None, "started command decided_again"),
    (Seconds | None, "seconds"),
    (Digest | None, "decided_from renderer"),
    (dict[str, str] | None, "settings"),
)
"""Where and when the audit ran."""


def wrong_evidence(record: AuditRecord) -> list[Problem]:
    """Return what is wrong with the form of a report's measurements, each with its place."""
    problems = Problems()
    for place, part in (("", record), ("rehearsal.", record.rehearsal)):
        for i, cell in enumerate(part.cells if part else ()):
            told = [("", cell.measurements)]
            told += [(f"woken[{n}].", each.measurements) for n, each in enumerate(cell.woken)]
            told += [("own.", cell.own)]
            for inner, measurements in told:
                for number, seen in enumerate(measurements):
                    if seen.evidence is not None:
                        where = f"{place}cells[{i}].{inner}measurements[{number}].evidence"
                        with problems.collecting():
                            reading_of(seen.probe).read(seen.evidence, f"{where}: {seen.probe}")
    return problems


def wrong_forms(record: AuditRecord) -> list[Problem]:
    """Return what is of another form than this tool writes, each with its place."""
    found = Problems()
    looked = [
        (Subject, record.subject, "subject"),
        (Environment, record.environment, "environment"),
    ]
    for place, part in (("", record), ("rehearsal.", record.rehearsal)):
        for number, cell in enumerate(part.cells if part else ()):
            looked.append((Movement, cell.movement or {}, f"{place}cells[{number}].movement"))
        for number, finding in enumerate(part.findings if part else ()):
            looked.append((Details, finding.details, f"{place}findings[{number}].details"))
    for form, plain, where in looked:
        with found.collecting():
            read_form(form, plain, where)
    return found
