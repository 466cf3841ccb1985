"""The seal of a report: a digest over all of it, and the signature of who wrote it. No torch.

What `verify` computes again needs no seal. All else (how many samples there were, what was read,
what an audit cannot show) could be edited and nobody would know. So a report holds the SHA-256 of
everything in it but the seal itself, and its signature with the key of the user who ran the audit
(`case.signing`). The digest shows every careless edit to anybody. Who edits with care computes it
again: that only the signature shows, and only to its user. Everybody else is told what is taken on
trust.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from poison_audit.atomic import digest_of, to_json
from poison_audit.case.signing import is_ours, signature, signer
from poison_audit.errors import InputError, Problem
from poison_audit.records import Json
from poison_audit.verdict.record import AuditRecord, Seal
from poison_audit.verdict.verify import Check

ON_TRUST = (
    "the raw scores, what was remarked on them, and the counts of right answers",
    "how models were made: weights, plan, recipe, tuning, cost, movement, the hypotheses' figures",
    "names, paths, sizes, samples that are shown, the notices and the limits",
    "versions, times, command and settings",
)
"""What nothing in a report shows to be right."""
_WHAT = "report"


def sealed(record: AuditRecord, *, sign: bool = True) -> AuditRecord:
    """Return a report with its seal; `sign`: whether this user vouches for what it holds."""
    tree = _unsealed(json.loads(to_json(record)))
    digest = digest_of(tree)
    own = signature(_WHAT, digest) if sign else None
    seal = Seal(digest=digest, signature=own, signer=signer() if own else None)
    return replace(record, seal=seal)


def seal_checks(record: AuditRecord, tree: Mapping[str, Json]) -> list[Check]:
    """Compare a report with its seal.

    Args:
        record: the report.
        tree: the JSON that it was read from: another version may know more fields.
    """
    seal = record.seal
    if seal is None:
        told = (
            "The report has no digest over all of it: an earlier version wrote it, or somebody "
            f"took it out. So {'; '.join(ON_TRUST)}: none of this was checked."
        )
        return [Check(what="seal", state="not checked", told=told)]
    if digest_of(_unsealed(tree)) != seal.digest:
        told = "The digest over all of it is another: the report was edited after it was written."
        return [Check(what="seal.digest", state="differs", told=told)]
    whole = Check(what="seal.digest", state="agrees", told="All of it is as it was written.")
    if seal.signer is not None and seal.signer == signer():
        ours = is_ours(_WHAT, seal.digest, seal.signature)
        told = "It is signed with your key." if ours else "It is not what your key signed."
        signed = Check(what="seal.signature", state="agrees" if ours else "differs", told=told)
        return [whole, signed]
    by = f"with another key ({seal.signer})" if seal.signer else "by nobody"
    return [
        whole,
        *(
            Check(what=each, state="on trust", told=f"The report is signed {by}.")
            for each in ON_TRUST
        ),
    ]


def is_signed_here(record: AuditRecord, tree: Mapping[str, Json]) -> bool:
    """Return whether a report is as this user's own audit wrote it."""
    return [check.what for check in seal_checks(record, tree) if check.state == "agrees"] == [
        "seal.digest",
        "seal.signature",
    ]


def refuse_edited(record: AuditRecord, tree: Mapping[str, Json], where: str) -> None:
    """Refuse a report that is not what its seal says, by InputError."""
    wrong = [check for check in seal_checks(record, tree) if check.state == "differs"]
    if wrong:
        fix = "`poison-audit verify` says what differs; take the report that the audit wrote"
        raise InputError([Problem(check.told.removesuffix("."), where, fix) for check in wrong])


def _unsealed(tree: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in tree.items() if key != "seal"}
