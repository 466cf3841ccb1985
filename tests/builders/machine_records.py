"""Records for the formats that machines read: acceptances, places, whatever a field can hold."""

from dataclasses import replace

from hypothesis import strategies as st

from builders.some_records import HOSTILE, clean, exposure, gaussian, membership, utility
from poison_audit.case.shown import InputFile, Place
from poison_audit.records import Acceptance, CandidateVerdict, Finding, Interval, Outcome
from poison_audit.verdict.record import AuditRecord

ACCEPTANCE = Acceptance(
    probe="gaussian",
    bound=0.5,
    reason="retraining is booked",
    owner="ada@example.org",
    expires="2027-03-31",
)
PLACES = {
    "forget": Place(uri="data/forget.csv", line=1),
    "forget.gaussian": Place(uri="data/forget.csv", line=7),
    "config": Place(uri="audit.toml", line=1),
    "config.evidence.gaussian": Place(uri="audit.toml", line=12),
    "config.accept.0": Place(uri="audit.toml", line=30),
}


def accepted(*, decided="2027-03-31") -> AuditRecord:
    """Beyond the tolerance, and let through until the end of March 2027."""
    record = clean()
    policy = replace(record.plan.policy, accepted=(ACCEPTANCE,), decided=decided)
    verdict = CandidateVerdict(
        candidate="deployed", kind="deployed", outcome=Outcome.ACCEPTED, reason="Accepted."
    )
    return replace(
        record,
        plan=replace(record.plan, policy=policy),
        findings=(
            gaussian("deployed", 0, Outcome.ACCEPTED, 0.3),
            exposure("deployed", 0, Outcome.CLEAN, 0.504),
            membership("deployed", 0),
            utility("deployed", 0, Outcome.CLEAN, 0.8312, 0.0),
        ),
        places=PLACES,
        verdict=replace(
            record.verdict,
            outcome=Outcome.ACCEPTED,
            sentence="The deployed model is let through as an accepted risk.",
            candidates=(verdict,),
        ),
    )


def one(*findings: Finding, outcome: Outcome, exit_code: int, gate="deployed") -> AuditRecord:
    """A record of these findings, with a verdict as given."""
    record = clean()
    verdict = replace(record.verdict, outcome=outcome, exit_code=exit_code, gate=gate)
    return replace(record, findings=findings, verdict=verdict, places=PLACES)


WORDS = st.one_of(
    st.sampled_from(
        [
            "deployed", "gaussian", "utility", "verdict", "", ".", "..", "../../etc/passwd",
            "C:\\a b#c", "//evil.example/x", "javascript:alert(1)", "{0} {{1}}", "]]>",
            "[x](https://evil.example)", "\ud800", "\ufffe\uffff", "\x00\x1b[2J",
            "@team #1 :smile:", "%SRCROOT%", "n" * 10_000, HOSTILE,
        ]
    ),
    st.text(st.characters(exclude_categories=()), max_size=12),
)  # fmt: skip
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
SIZES = st.one_of(st.integers(-(10**30), 10**30), st.integers(-1, 50))
_names = st.one_of(st.sampled_from(["deployed", "a", "b"]), WORDS)
_probes = st.one_of(st.sampled_from(["gaussian", "targeted", "utility"]), WORDS)


@st.composite
def findings(draw) -> Finding:
    measured = draw(st.booleans())
    outcome = draw(st.sampled_from([o for o in Outcome if measured or o is not Outcome.CLEAN]))
    numbers = [draw(NUMBERS) for _ in range(4)]
    return Finding(
        probe=draw(_probes),
        candidate=draw(_names),
        seed=draw(SIZES),
        outcome=outcome,
        reason=draw(WORDS),
        gating=draw(st.booleans()),
        statistic=numbers[0] if measured else None,
        interval=Interval(low=numbers[1], high=numbers[2], level=0.95) if measured else None,
        tolerance=numbers[3],
        sample_size=draw(SIZES),
    )


@st.composite
def strange(draw) -> AuditRecord:
    """A record that nobody's audit wrote, and no report holds: renderers bear it all the same."""
    record = clean()
    kinds = st.sampled_from(["deployed", "method", "candidate", "reference"])
    outcomes = st.sampled_from(list(Outcome))
    candidates = draw(
        st.lists(
            st.builds(
                CandidateVerdict, candidate=_names, kind=kinds, outcome=outcomes, reason=WORDS
            ),
            max_size=3,
        )
    )
    acceptances = st.builds(
        Acceptance,
        probe=_probes, candidate=_names, bound=NUMBERS, reason=WORDS, owner=WORDS,
        expires=st.one_of(st.just("2027-01-31"), WORDS),
    )  # fmt: skip
    policy = replace(
        record.plan.policy,
        alpha=draw(NUMBERS),
        accepted=tuple(draw(st.lists(acceptances, max_size=2))),
        decided=draw(st.one_of(st.none(), st.just("2027-01-30"), WORDS)),
    )
    files = st.builds(
        InputFile, role=WORDS, path=WORDS, sha256=WORDS, size=SIZES, folder=st.booleans()
    )
    anything = st.one_of(WORDS, NUMBERS, SIZES, st.none(), st.lists(WORDS), st.booleans())
    return replace(
        record,
        tool_version=draw(WORDS),
        plan=replace(record.plan, policy=policy),
        subject=draw(
            st.dictionaries(
                st.sampled_from(["model", "forget", "forget_sha256", "canaries"]), anything
            )
        ),
        findings=tuple(draw(st.lists(findings(), max_size=4))),
        verdict=replace(
            record.verdict,
            outcome=draw(outcomes),
            exit_code=draw(st.sampled_from([0, 1, 3])),
            gate=draw(st.one_of(st.just("any-method"), _names)),
            sentence=draw(WORDS),
            next_step=draw(WORDS),
            candidates=tuple(candidates),
        ),
        cells=tuple(
            replace(cell, candidate=draw(_names), probe_seconds=draw(NUMBERS), digest=draw(WORDS))
            for cell in record.cells
        ),
        files=tuple(draw(st.lists(files, max_size=3))),
        places=draw(
            st.dictionaries(
                st.sampled_from(["forget", "forget.gaussian", "config.accept.0"]),
                st.builds(Place, uri=WORDS, line=SIZES),
            )
        ),
        comparability=draw(st.one_of(st.none(), WORDS)),
        environment=draw(
            st.dictionaries(
                st.sampled_from(["command", "started", "seconds"]),
                st.one_of(anything, st.just("0001-01-01T00:00:00+14:00")),
            )
        ),
    )
