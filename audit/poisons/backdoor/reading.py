"""A backdoor: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.statistics.reading import Reading

BACKDOOR = Reading(
    name="backdoor",
    title="Backdoor",
    question="Does the trigger still cause its label, more often than triggers like it?",
    needs="trigger.json",
    tolerance=0.05,
)
POISON = Poison(
    name="backdoor",
    readings=(BACKDOOR,),
    files=(EvidenceFile(name="trigger", help="Patch or phrase of a backdoor (trigger.json)."),),
)
