"""What the numbers of the probes that hold whatever the poison mean. No torch."""

from __future__ import annotations

from poison_audit.statistics.reading import Reading

MEMBERSHIP = Reading(
    name="membership",
    title="Membership",
    question="Does the model still fit the forget samples better than test samples? "
    "Decides nothing.",
    needs="forget and test samples",
)
UTILITY = Reading(
    name="utility",
    title="Utility",
    question="How much accuracy was lost against the deployed model?",
    needs="test samples",
    tolerance=0.02,
)
READINGS = {reading.name: reading for reading in (MEMBERSHIP, UTILITY)}
"""By probe."""
