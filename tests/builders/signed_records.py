"""Records with what a reviewer signs: budgets, accepted risks, samples to look at, files, git."""

import base64
import struct
import zlib
from dataclasses import replace

from builders.some_records import audit, cell, exposure, gaussian, membership, utility
from poison_audit.case.shown import Exhibit, InputFile
from poison_audit.records import Acceptance, CandidateVerdict, Outcome, Step
from poison_audit.verdict.record import AuditRecord

#  candidate, kind, share of the training, outcome, mean leak score, accuracy
SWEEP = (
    ("deployed", "deployed", None, Outcome.RESIDUAL, 1.29, 0.8312),
    ("scrub", "method", 0.1, Outcome.BROKEN, 0.05, 0.7910),
    ("scrub@0.05", "method", 0.05, Outcome.RESIDUAL, 0.52, 0.8200),
    ("scrub@0.02", "method", 0.02, Outcome.RESIDUAL, 0.90, 0.8300),
    ("ga", "method", 0.1, Outcome.RESIDUAL, -0.71, 0.8100),
    ("ga@0.02", "method", 0.02, Outcome.RESIDUAL, 0.95, 0.8290),
    ("ours@home", "candidate", None, Outcome.RESIDUAL, 0.52, 0.8200),
    ("retrained", "reference", None, Outcome.CLEAN, 0.03, 0.8350),
)


def swept() -> AuditRecord:
    """Two methods at several budgets, a candidate whose name only looks so, and a reference."""
    cells, findings, candidates = [], [], []
    for name, kind, budget, outcome, mean, accuracy in SWEEP:
        method = Step(name=name.partition("@")[0]) if kind == "method" else None
        made = cell(name, kind, mean, 0.5 + mean / 8, accuracy)
        cells.append(replace(made, method=method, budget=budget))
        broken = outcome is Outcome.BROKEN
        findings += [
            gaussian(name, 0, Outcome.CLEAN if broken else outcome, mean),
            exposure(name, 0, Outcome.CLEAN if broken else outcome, 0.5 + mean / 8),
            membership(name, 0),
            utility(name, 0, outcome if broken else Outcome.CLEAN, accuracy, 0.8312 - accuracy),
        ]
        candidates.append(
            CandidateVerdict(candidate=name, kind=kind, outcome=outcome, reason=f"{name} judged.")
        )
    record = audit(
        cells,
        findings,
        candidates,
        Outcome.RESIDUAL,
        1,
        "The deployed model still carries the poison.",
        "No repair that was tried is clean.",
    )
    return replace(record, plan=replace(record.plan, budget=0.1, sweep=(0.05, 0.02)))


def png(width: int, height: int, *, noise: int = 0, more: bytes = b"") -> str:
    """A grey picture as base64 of a PNG, written down by the format's own rules.

    Args:
        noise: seed of its pixels; 0 makes all of them black.
        more: chunks before the last.
    """
    rows, state = [], noise
    for _ in range(height):
        row = bytearray()
        for _ in range(width):
            state = (1103515245 * state + 12345 * bool(noise)) % 2**31
            row.append(state >> 23)
        rows.append(b"\0" + bytes(row))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + more
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")).decode()


def chunk(name: bytes, body: bytes) -> bytes:
    """One part of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def pictures(targets: int = 3, edge: int = 32) -> tuple[Exhibit, ...]:
    """Targets, forget samples of two attacks and the trigger on an input."""
    return (
        *(
            Exhibit(
                role="target",
                name=f"test/{i:05}.png",
                label=str(i % 10),
                png=png(edge, edge, noise=i + 1),
            )
            for i in range(targets)
        ),
        Exhibit(role="forget", name="f1.png", label="7", attack="gaussian", png=png(8, 8, noise=9)),
        Exhibit(role="forget", name="f2.png", label="3", png=png(28, 20, noise=5)),
        Exhibit(role="trigger", name="t.png", label="1", attack="backdoor", png=png(16, 16)),
    )


def answered() -> tuple[Exhibit, ...]:
    """The trigger on four inputs and twelve wrong labels, with the model's answers."""
    triggers = (
        Exhibit(
            role="trigger", name=f"test/{i:05}.png", label="frog", attack="backdoor",
            png=png(32, 32, noise=20 + i), bare=png(32, 32, noise=30 + i), wanted="truck",
            answer="truck", without="frog",
        )
        for i in range(4)
    )  # fmt: skip
    wrong = (
        Exhibit(
            role="flip", name=f"train/{i:05}.png", label="cat", attack="mislabelled",
            true="dog", answer="cat" if i < 9 else "dog", png=png(32, 32, noise=40 + i),
        )
        for i in range(12)
    )  # fmt: skip
    return (*triggers, *wrong)


ACCEPTED = (
    Acceptance(
        probe="gaussian", bound=1.5, reason="It ships in March.", owner="R. Mori",
        expires="2027-03-31",
    ),
    Acceptance(
        probe="exposure", bound=0.9, reason="As above.", owner="R. Mori", expires="2026-12-31"
    ),
    Acceptance(
        probe="utility", candidate="scrub", bound=0.03, reason="Rarely used.", owner="A. Li",
        expires="2027-03-31",
    ),
)  # fmt: skip


def signed(record: AuditRecord) -> AuditRecord:
    """A record with everything that stands around the figures."""
    policy = replace(record.plan.policy, accepted=ACCEPTED, decided="2027-01-31")
    return replace(
        record,
        plan=replace(record.plan, policy=policy),
        exhibits=pictures(),
        files=tuple(
            InputFile(role=f"candidate c{i}", path=f"runs/c{i}.npz", sha256="5a" * 32, size=1234567)
            for i in range(13)
        ),
        comparability="e5" * 32,
        environment={
            **record.environment,
            "git": {"commit": "0b" * 20, "branch": "main", "dirty": True},
        },
    )
