"""Targeted poison: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.statistics.reading import Reading

TARGETED = Reading(
    name="targeted",
    title="Targeted misclassification",
    question="Are the targets still given the attacker's label, more often than their like?",
    needs="targets.csv",
    tolerance=0.05,
)
POISON = Poison(
    name="targeted",
    readings=(TARGETED,),
    files=(EvidenceFile(name="targets", help="Test samples a targeted attack aimed at, as CSV."),),
)
