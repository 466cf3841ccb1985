"""Which clause speaks to which finding: one table, each clause quoted word for word.

It stands in the page's appendix and decides nothing: that a finding speaks to a clause does not say
that anybody complies with it. A clause is here only if its words could be read; `read` says where
they were, which is a copy and not always the publisher's. NIST AI 100-2 E2025 is not here, since
its text could not be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from poison_audit.poisons.readings import POISONS
from poison_audit.reports.view.words import about
from poison_audit.verdict.readings import READINGS
from poison_audit.verdict.record import AuditRecord

RESIDUE = frozenset(name for name, reading in READINGS.items() if reading.residue)
"""The findings that say what is left of poison."""
TRIGGERED = frozenset(
    reading.name
    for poison in POISONS.values()
    if any(each.name == "trigger" for each in poison.files)
    for reading in poison.readings
)
"""Those of a trigger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """A clause of somebody's document."""

    document: str
    place: str
    """Where it stands in the document."""
    version: str
    """And its date."""
    quote: str
    """Word for word."""
    read: str
    """Where these words were read."""
    applies: str = ""
    """When it applies, where the document says so."""
    speaks: frozenset[str] = frozenset()
    """The probes whose findings it speaks to."""
    why: str
    """What such a finding is to it; or why it speaks to none."""


_ACT = "Regulation (EU) 2024/1689 (Artificial Intelligence Act)"
_AISVS: Mapping[str, Any] = {
    "document": "OWASP Artificial Intelligence Security Verification Standard (AISVS)",
    "version": "1.0, 2026",
    "read": "github.com/OWASP/AISVS, commit 06bf608f, "
    "1.0/en/0x10-C01-Training-Data-Integrity-and-Traceability.md",
}
CLAUSES: tuple[Clause, ...] = (
    Clause(
        document=_ACT,
        place="Article 15(5)",
        version="of 13 June 2024, published on 12 July 2024",
        quote="High-risk AI systems shall be resilient against attempts by unauthorised third "
        "parties to alter their use, outputs or performance by exploiting system vulnerabilities. "
        "The technical solutions aiming to ensure the cybersecurity of high-risk AI systems shall "
        "be appropriate to the relevant circumstances and the risks. The technical solutions to "
        "address AI specific vulnerabilities shall include, where appropriate, measures to "
        "prevent, detect, respond to, resolve and control for attacks trying to manipulate the "
        "training data set (data poisoning), or pre-trained components used in training (model "
        "poisoning), inputs designed to cause the AI model to make a mistake (adversarial examples "
        "or model evasion), confidentiality attacks or model flaws.",
        read="copies of the Act in public repositories, which agree",
        applies="To high-risk systems alone. Article 113: \u201cIt shall apply from 2 August "
        "2026.\u201d An amendment that the Council adopted on 29 June 2026 is reported to move "
        "high-risk systems to 2 December 2027 (Annex III) and 2 August 2028 (Annex I); its own "
        "words were not read.",
        speaks=RESIDUE,
        why="Such a finding is a result of one measure to detect data poisoning in a trained "
        "model. The clause names no measure, no tolerance and no error rate.",
    ),
    Clause(
        document="NIST AI 100-1, Artificial Intelligence Risk Management Framework (AI RMF)",
        place="MEASURE 2.7",
        version="1.0, January 2023",
        quote="AI system security and resilience \u2013 as identified in the MAP function "
        "\u2013 are evaluated and documented.",
        read="texts extracted from nist.ai.100-1.pdf in public repositories",
        speaks=RESIDUE,
        why="Such a finding evaluates and documents one risk to security, if the MAP function "
        "identified poison.",
    ),
    Clause(
        **_AISVS,
        place="C1.3.1",
        quote="Verify that labeling interfaces and platforms enforce access controls that restrict "
        "who can create, modify, or approve annotations.",
        why="It is about who can change labels. What a model learned from them is no evidence of "
        "that.",
    ),
    Clause(
        **_AISVS,
        place="C1.3.5",
        quote="Verify that sensitive information in labels is redacted, anonymized, or encrypted "
        "both at rest and in transit before being used in any labeling artifact.",
        why="It is about what labels give away, which nothing here looks at.",
    ),
    Clause(
        **_AISVS,
        place="C1.4.2",
        quote="Verify that training and fine-tuning pipelines implement data integrity validation "
        "and poisoning detection techniques (e.g., statistical analysis, outlier detection, "
        "embedding analysis) to identify potential data poisoning or unintentional corruption in "
        "training data.",
        why="It is about training data. poison-audit's \u201cinvestigate\u201d looks at a forget "
        "set that is known; findings are of models.",
    ),
    Clause(
        document="MITRE ATLAS",
        place="AML.T0020 Poison Training Data",
        version="as last modified on 9 April 2025; renamed since, in release 2026.07",
        quote="Adversaries may attempt to poison datasets used by an AI model by modifying the "
        "underlying data or its labels. This allows the adversary to embed vulnerabilities in AI "
        "models trained on the data that may not be easily detectable.",
        read="copies of the technique in public repositories",
        speaks=RESIDUE,
        why="Such a finding says how much of the technique's effect is in a model, of the samples "
        "that are named.",
    ),
    Clause(
        document="MITRE ATLAS",
        place="AML.T0018 Manipulate AI Model",
        version="as last modified on 14 April 2025",
        quote="Adversaries may directly manipulate an AI model to change its behavior or introduce "
        "malicious code. Manipulating a model gives the adversary a persistent change in the "
        "system. This can include poisoning the model by changing its weights, modifying the model "
        "architecture to change its behavior, and embedding malware which may be executed when the "
        "model is loaded.",
        read="copies of the technique in public repositories",
        speaks=TRIGGERED,
        why="A trigger that is known is asked for whoever put it there, by data or by hand. "
        "Weights that were changed otherwise, architectures and malware are not looked for.",
    ),
)
"""In the order in which they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cited:
    """A clause, and the findings of a report that it speaks to."""

    clause: Clause
    speaks: str
    """Titles of the probes that measured something which it speaks to; empty: of none."""
    silent: str
    """Those of the others."""


def cited(record: AuditRecord) -> tuple[Cited, ...]:
    """Return every clause, with the findings of a report that it speaks to or does not."""
    # Nobody here can say what a probe of the user's own speaks to.
    seen = dict.fromkeys(
        f.probe for f in record.findings if f.statistic is not None and f.probe in READINGS
    )

    def titles(spoken: bool, clause: Clause) -> str:
        # Two probes of one kind may share a title.
        named = (about(name).title for name in seen if (name in clause.speaks) is spoken)
        return ", ".join(dict.fromkeys(named))

    return tuple(
        Cited(clause=each, speaks=titles(True, each), silent=titles(False, each))
        for each in CLAUSES
    )
