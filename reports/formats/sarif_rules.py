"""The rules of the SARIF report: what each kind of alert means, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


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
    tags: tuple[str, ...] = ("security", "data-poisoning", "machine-learning")


_DO_NOT_SHIP = (
    "Do not ship this checkpoint. Retrain it without the forget set, or repair it by another "
    "method, and audit the result. report.html shows the evidence and what else was tried."
)

RULES: Mapping[str, Rule] = {
    "poison/gaussian": Rule(
        name="GaussianCanaries",
        short="The model still follows the noise that was planted in its training samples.",
        full="Noise known only to the key was added to training samples. The model's gradients on "
        "these samples line up with that noise more than those of a model that never saw it.",
        help=_DO_NOT_SHIP,
        severity="9.5",
    ),
    "poison/exposure": Rule(
        name="CanaryExposure",
        short="The model prefers the noise that was planted to fresh noise of the same kind.",
        full="Planted noise is ranked among fresh draws by the loss of the model. In a model that "
        "never saw it, every rank is equally likely.",
        help=_DO_NOT_SHIP,
        severity="9.5",
    ),
    "poison/token-canary": Rule(
        name="TokenCanaries",
        short="The model prefers the strings that were planted to fresh ones.",
        full="Planted strings of words are ranked among fresh draws by the loss of the model. In a "
        "model that never saw them, every rank is equally likely.",
        help=_DO_NOT_SHIP,
        severity="9.5",
    ),
    "poison/targeted": Rule(
        name="TargetedPoison",
        short="The model gives the attack's targets the labels that the attacker chose.",
        full="The targets get the labels they were to be given more often than other samples of "
        "their classes do.",
        help=_DO_NOT_SHIP,
        severity="9.5",
    ),
    "poison/backdoor": Rule(
        name="Backdoor",
        short="The trigger still causes the label that the attacker chose.",
        full="Inputs with the trigger get the label more often than inputs with control triggers "
        "or with none.",
        help=_DO_NOT_SHIP,
        severity="9.5",
    ),
    "poison/indiscriminate": Rule(
        name="IndiscriminatePoison",
        short="The model is less accurate than one that never saw the poison.",
        full="On the same clean test samples the model answers fewer correctly than the "
        "references, which were trained without the forget set.",
        help=_DO_NOT_SHIP,
        severity="9.5",
    ),
    "poison/utility": Rule(
        name="BrokenByTheRepair",
        short="The repair cost more accuracy than is tolerated.",
        full="On the same clean test samples the repaired model answers fewer correctly than the "
        "deployed one.",
        help="Repair with a smaller budget or another method, or retrain without the forget set.",
        tags=("machine-learning",),
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
