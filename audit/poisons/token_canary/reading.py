"""Token canaries: what the numbers of its probe mean. No torch."""

from __future__ import annotations

from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.statistics.reading import Reading

TOKEN_CANARY = Reading(
    name="token-canary",
    title="Token canaries",
    question="Does the model prefer the strings that were planted to fresh strings?",
    needs="strings.json",
    texts_only=True,
    tolerance=0.57,
    least=0.5,
)
POISON = Poison(
    name="token-canary",
    readings=(TOKEN_CANARY,),
    files=(EvidenceFile(name="strings", help="Key of token canaries in texts (strings.json)."),),
    keyed=True,
)
