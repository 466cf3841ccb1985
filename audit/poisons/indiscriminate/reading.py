"""Indiscriminate poison: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from poison_audit.case.poison import Poison
from poison_audit.statistics.reading import Reading

INDISCRIMINATE = Reading(
    name="indiscriminate",
    title="Indiscriminate damage",
    question="How much accuracy is missing against a model that never saw the poison?",
    needs="a reference",
    tolerance=0.01,
)
POISON = Poison(name="indiscriminate", readings=(INDISCRIMINATE,))
