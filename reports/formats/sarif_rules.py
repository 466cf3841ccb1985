"""The rules of the SARIF report: what each kind of alert means, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from poison_audit.statistics.reading import Reading
from poison_audit.verdict.readings import READINGS

_SECURITY = ("security", "data-poisoning", "machine-learning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One kind of alert."""

    name: str
    short: str
    """One sentence, of at most 1,024 characters as GitHub asks."""
    full: str
    help: str
    """What to do."""
    level: Literal["error", "note"] = "error"
    severity: str | None = None
    """GitHub's security-severity, "0.0" to "10.0": over 9.0 critical, from 7.0 high, from 0.1 low.
    None for what is no matter of security."""
    tags: tuple[str, ...] = _SECURITY


_DO_NOT_SHIP = (
    "Do not ship this checkpoint. Retrain it without the forget set, or repair it by another "
    "method, and audit the result. report.html shows the evidence and what else was tried."
)

_REPAIR_LESS = "Repair with a smaller budget or another method, or retrain without the forget set."


def _rule_of(reading: Reading[Any]) -> Rule:
    """Return the rule of what a probe found."""
    words = reading.words
    return Rule(
        name=words.alert,
        short=words.found,
        full=words.how,
        help=_REPAIR_LESS if reading.damage else _DO_NOT_SHIP,
        severity=None if reading.damage else "9.5",
        tags=("machine-learning",) if reading.damage else _SECURITY,
    )


RULES: Mapping[str, Rule] = {
    **{f"poison/{n}": _rule_of(r) for n, r in READINGS.items() if r.tolerance is not None},
    "poison/own": Rule(
        name="OwnProbe",
        short="A probe of your own found poison.",
        full="It is none of poison-audit's: whoever wrote it answers for the null that it states. "
        "In a model that never saw the poison its scores lie above their controls half of the "
        "time.",
        help=_DO_NOT_SHIP,
        severity="9.5",
    ),
    "poison/other": Rule(
        name="OtherPoison",
        short="A probe that this version does not know found poison.",
        full="The report was written by a version with more probes. The message names the probe.",
        help=_DO_NOT_SHIP,
        severity="9.5",
    ),
    "audit/undecided": Rule(
        name="NotDecided",
        short="It could not be decided whether the poison is gone.",
        full="A figure that decides about the model at the gate could not be measured, its control "
        "failed, or its interval reaches beyond the tolerance. What could not be measured never "
        "passes.",
        help="Give more evidence: the message says what is missing or how many samples would do.",
        severity="7.0",
    ),
    "audit/accepted": Rule(
        name="AcceptedRisk",
        short="Poison beyond the tolerance is accepted for a while.",
        full="The figure is not within the tolerance, but within a wider bound that somebody "
        "answers for in audit.toml until a day. The model is not clean.",
        help="Repair the model before the acceptance expires.",
        level="note",
        severity="3.0",
    ),
    "audit/other-candidate": Rule(
        name="NotAtTheGate",
        short="A model that was tried, but is not at the gate, did not pass.",
        full="Methods, candidates and references are audited beside the model at the gate. What is "
        "wrong with them does not change the exit code.",
        help="Do not ship this candidate. Nothing else has to be done.",
        level="note",
        tags=("machine-learning",),
    ),
    "audit/verdict": Rule(
        name="GateNotPassed",
        short="The audit did not pass, for a reason that is not one of its figures.",
        full="For example, the model does not work as loaded, the gate names a candidate that was "
        "not on trial, or no probe could look for the poison.",
        help="The message says why, and what to do next.",
        severity="7.0",
    ),
}
"""By rule id, which never changes; `poison/PROBE` for what a probe found."""
