"""Gaussian canaries: what the numbers of its probes mean. No torch."""

from __future__ import annotations

import math

from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.statistics.reading import Reading

GAUSSIAN = Reading(
    name="gaussian",
    title="Gaussian correlation",
    question="Does the loss still fall along the noise the canaries were planted with?",
    needs="canaries.json",
    tolerance=0.25,
    most=math.inf,
)
EXPOSURE = Reading(
    name="exposure",
    title="Exposure",
    question="Does the model prefer the planted noise to fresh noise?",
    needs="canaries.json",
    tolerance=0.57,
    least=0.5,
)
POISON = Poison(
    name="gaussian",
    readings=(GAUSSIAN, EXPOSURE),
    files=(
        EvidenceFile(name="canaries", help="Key of a Gaussian planting (canaries.json)."),
        EvidenceFile(name="bases", help="Table of the clean samples canaries were made from."),
    ),
    keyed=True,
)
