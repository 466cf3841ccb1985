"""The probes: what each measures, and what it needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from poison_audit.checks.membership import membership
from poison_audit.checks.utility import utility
from poison_audit.poisons.backdoor.probe import backdoor
from poison_audit.poisons.gaussian.exposure import exposure
from poison_audit.poisons.gaussian.probe import gaussian
from poison_audit.poisons.indiscriminate.probe import indiscriminate
from poison_audit.poisons.targeted.probe import targeted
from poison_audit.poisons.token_canary.probe import token_canary
from poison_audit.records import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One probe: its function, and what a reader is told about it."""

    run: Callable[..., Measurement]
    """(model, case, rng, *, params) -> Measurement."""
    title: str
    question: str
    needs: str
    texts_only: bool = False
    """Whether it is asked of language models alone."""


PROBES: dict[str, Probe] = {
    "gaussian": Probe(
        run=gaussian,
        title="Gaussian correlation",
        question="Does the loss still fall along the noise the canaries were planted with?",
        needs="canaries.json",
    ),
    "exposure": Probe(
        run=exposure,
        title="Exposure",
        question="Does the model prefer the planted noise to fresh noise?",
        needs="canaries.json",
    ),
    "token-canary": Probe(
        run=token_canary,
        title="Token canaries",
        question="Does the model prefer the strings that were planted to fresh strings?",
        needs="strings.json",
        texts_only=True,
    ),
    "targeted": Probe(
        run=targeted,
        title="Targeted misclassification",
        question="Are the targets still given the attacker's label, more often than their like?",
        needs="targets.csv",
    ),
    "backdoor": Probe(
        run=backdoor,
        title="Backdoor",
        question="Does the trigger still cause its label, more often than triggers like it?",
        needs="trigger.json",
    ),
    "indiscriminate": Probe(
        run=indiscriminate,
        title="Indiscriminate damage",
        question="How much accuracy is missing against a model that never saw the poison?",
        needs="a reference",
    ),
    "membership": Probe(
        run=membership,
        title="Membership",
        question="Does the model still fit the forget samples better than test samples? "
        "Decides nothing.",
        needs="forget and test samples",
    ),
    "utility": Probe(
        run=utility,
        title="Utility",
        question="How much accuracy was lost against the deployed model?",
        needs="test samples",
    ),
}


def probe_parameters(name: str) -> dict[str, int]:
    """Return the parameters of a probe and their defaults."""
    signature = inspect.signature(PROBES[name].run)
    return {
        key: parameter.default
        for key, parameter in signature.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
