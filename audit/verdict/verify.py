"""Verify: everything in a report that follows from its raw scores and its files, computed again.

From the measurements: every finding with its statistic, interval, figures, outcome and sentence,
every candidate's verdict, the audit's, the exit code, the rehearsal's, and the sentences about
movement and hypotheses. From the files: their SHA-256. What this cannot show is that the scores
came from the model; only running the audit again can. No torch.

Statistics must agree to 12 digits, what scipy makes of them to 6, since its last digits differ
from version to version; words, counts, outcomes and codes exactly.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from poison_audit.case.provenance import digest_of
from poison_audit.case.shown import InputFile
from poison_audit.errors import InputError
from poison_audit.records import Finding
from poison_audit.statistics import estimates
from poison_audit.verdict.compare import comparability
from poison_audit.verdict.diagnosis import diagnosis, method_diagnosis
from poison_audit.verdict.record import SCHEMA_VERSION, AuditRecord
from poison_audit.verdict.redecide import redecide
from poison_audit.verdict.rehearsal import decide_rehearsal, rehearsal_sentence

_SHORT = 60
_BROKEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What judging raises at evidence that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that `verify` looked at."""

    what: str
    """Where it stands: `findings[3].interval.low`, `files: model`."""
    state: Literal["agrees", "differs", "not checked", "on trust"]
    """On trust is what nothing here can check, whoever looks."""
    told: str
    """One sentence: what is recorded and what was found, or why it was not checked."""


def verify(
    record: AuditRecord, *, root: Path | None, folder: Path, look_at_files: bool
) -> tuple[Check, ...]:
    """Compute a report again and compare.

    Args:
        record: the report.
        root: where its files are now; None: in the working folder, else in `folder`. With a root
            no file outside of it is looked at.
        folder: where the report lies.
        look_at_files: whether the files' digests are compared.
    """
    checks = [
        *_verdict(record),
        *_sanity(record),
        *_explanations(record),
        *_rehearsal(record),
        *stated_digests(record),
    ]
    if look_at_files:
        checks += [_file(each, root=root, folder=folder) for each in record.files]
        if not record.files:
            told = "The report names no file, so none was compared."
            checks.append(Check(what="files", state="not checked", told=told))
    return tuple(checks)


def verify_exit_code(checks: Sequence[Check]) -> int:
    """Return 0 if all agrees, 1 if anything differs, 3 if nothing does but some was not checked."""
    states = {check.state for check in checks}
    return 1 if "differs" in states else 3 if "not checked" in states else 0


def summary(checks: Sequence[Check]) -> str:
    """Return what was found, a line each, the exit code last."""
    agree = sum(check.state == "agrees" for check in checks)
    trusted = [check for check in checks if check.state == "on trust"]
    lines = [f"{agree} of {len(checks) - len(trusted)} checks agree."]
    for state in ("differs", "not checked"):
        here = (check for check in checks if check.state == state)
        lines += (f"{state.upper()}: {check.what}: {check.told}" for check in here)
    if trusted:
        lines.append(f"TAKEN ON TRUST: {'; '.join(c.what for c in trusted)}. {trusted[0].told}")
    code = verify_exit_code(checks)
    words = {
        0: "all agrees",
        1: "the report does not follow from what it holds, or a file is another",
        3: "nothing differs, but not everything could be checked",
    }
    lines.append(f"exit {code}: {words[code]}.")
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines) + "\n"


def _verdict(record: AuditRecord) -> Iterator[Check]:
    if record.schema_version < SCHEMA_VERSION:
        told = (
            f"The report was decided by the rules of format {record.schema_version}; "
            "`poison-audit decide` decides it by today's."
        )
        yield Check(what="findings, verdict", state="not checked", told=told)
        return
    try:
        again = redecide(record, record.plan.policy)
    except InputError as error:
        yield Check(what="cells", state="differs", told=str(error))
        return
    yield from _compared("findings", record.findings, again.findings)
    yield from _compared("verdict", record.verdict, again.verdict)
    hashed = comparability(record)
    if record.comparability is not None:
        yield from _compared("comparability", record.comparability, hashed)
    else:
        told = f"The report has none; it would be {hashed}."
        yield Check(what="comparability", state="not checked", told=told)


def _sanity(record: AuditRecord) -> Iterator[Check]:
    sanity = record.sanity
    low = None
    if 0 <= sanity.correct <= sanity.total and sanity.total:
        level = 1 - record.plan.policy.alpha
        low, _ = estimates.clopper_pearson(sanity.correct, sanity.total, level=level, sides=1)
    # Decided again at another alpha, a model still works or not by the bound taken at first.
    if "decided_again" in record.environment and low is not None and sanity.low != low:
        told = "Taken at the alpha of the audit, which was decided again at another."
        yield Check(what="sanity.low", state="agrees", told=told)
        return
    yield from _compared("sanity.low", sanity.low, low)


def _explanations(record: AuditRecord) -> Iterator[Check]:
    """Compare what explains and is no judgement: its figures with its details, its words."""
    why = {f.probe: f for f in record.findings if f.probe in ("shift", "orthogonality")}
    try:
        for name, finding in why.items():
            if finding.statistic is not None:
                told = {"statistic": finding.statistic, "interval": finding.interval}
                yield from _compared(f"findings: {name}", told, _of_details(name, finding))
        both = len(why) == 2
        told_by = diagnosis(why["shift"], why["orthogonality"]) if both else None
        yield from _compared("diagnosis", record.diagnosis, told_by)
        for number, cell in enumerate(record.cells):
            if cell.movement is not None:
                moved = {key: value for key, value in cell.movement.items() if key != "sentence"}
                what = f"cells[{number}].movement.sentence"
                yield from _compared(what, cell.movement["sentence"], method_diagnosis(moved))
    except _BROKEN as error:
        told_wrong = f"What explains the verdict has no such form ({error!r:.80})."
        yield Check(what="findings", state="differs", told=told_wrong)


def _of_details(name: str, finding: Finding) -> dict[str, Any]:
    details, ends = finding.details, ("mean", "low", "high")
    if name == "shift":
        at = details["fractions"].index(details["ratio_fraction"])
        own, *random = (details[k][at] for k in ("poison_l1", *(f"random_l1_{e}" for e in ends)))
    else:
        own, *random = (details[k] for k in ("share", *(f"random_share_{e}" for e in ends)))
    mean, low, high = random
    interval = {"low": own / high, "high": own / low, "level": 0.95}
    return {"statistic": own / mean, "interval": interval}


def _rehearsal(record: AuditRecord) -> Iterator[Check]:
    rehearsal = record.rehearsal
    if rehearsal is None or "decided_again" in record.environment:
        return
    tried = {cell.candidate for cell in rehearsal.cells}
    kept = tuple(c for c in rehearsal.candidates if c.candidate in tried)
    try:
        findings, candidates = decide_rehearsal(
            record.plan, rehearsal.cells, planted=rehearsal.planted, held=rehearsal.held
        )
        yield from _compared("rehearsal.findings", rehearsal.findings, findings)
        yield from _compared("rehearsal.candidates", kept, candidates)
        if kept == rehearsal.candidates and kept:
            how = {key: getattr(rehearsal, key) for key in ("epochs", "held", "planted", "sigma")}
            sentence = rehearsal_sentence(findings, candidates, useless=None, **how)
            yield from _compared("rehearsal.sentence", rehearsal.sentence, sentence)
    except _BROKEN as error:
        told = f"Its measurements cannot be judged ({error!r:.80})."
        yield Check(what="rehearsal", state="differs", told=told)


def stated_digests(record: AuditRecord) -> Iterator[Check]:
    """Compare the digests that a report states twice: of what was loaded, and of its file."""
    subject = record.subject
    held: dict[str, list[InputFile]] = {}
    for each in record.files:
        held.setdefault(each.role, []).append(each)
    for what, role, stated in _stated(subject):
        files = held.get(role, [])
        if not files and record.files:
            told = f"The digest of a file is stated, and no file is listed as {role!r:.80}."
            yield Check(what=what, state="differs", told=told)
        elif len(files) == 1 and not files[0].folder:
            yield from _compared(what, stated, files[0].sha256)
        elif role in ("weights", "base") and files:
            yield from _compared(what, stated, _over_shards(files))
    deployed = next((c.digest for c in record.cells if c.kind == "deployed"), None)
    for number, cell in enumerate(record.cells):
        if cell.kind == "candidate" and cell.digest is not None and cell.digest == deployed:
            told = "It is bit for bit the deployed model, so nothing was unlearned."
            yield Check(what=f"cells[{number}].digest", state="differs", told=told)


def _stated(subject: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield where the subject states a file's digest, the file's role, and the digest."""
    for role, keys in (
        ("forget", ("forget_sha256",)),
        ("canaries", ("canaries", "commitment")),
        ("strings", ("strings", "commitment")),
        ("targets", ("targets", "sha256")),
        ("trigger", ("trigger", "sha256")),
        ("weights", ("model_sha256",)),
        ("adapter config", ("adapter", "config_sha256")),
        ("base", ("adapter", "base_sha256")),
    ):
        stated: Any = subject
        for key in keys:
            stated = stated.get(key) if isinstance(stated, Mapping) else None
        if stated is not None:
            yield f"subject.{'.'.join(keys)}", role, stated
    given = subject.get("candidates")
    for name, each in (given if isinstance(given, Mapping) else {}).items():
        if isinstance(each, Mapping) and each.get("sha256") is not None:
            yield f"subject.candidates.{name}.sha256", f"{each.get('kind')} {name}", each["sha256"]


def _over_shards(files: Sequence[InputFile]) -> str:
    """Return the digest of a sharded checkpoint: over the lines `name sha256` of its shards."""
    shards = sorted((PurePosixPath(f.path).name, f.sha256) for f in files[1:])
    return hashlib.sha256("".join(f"{n} {d}\n" for n, d in shards).encode()).hexdigest()


def _file(each: InputFile, *, root: Path | None, folder: Path) -> Check:
    what = f"file: {each.role} ({each.path:.200})"
    path = _located(each, root=root, folder=folder)
    if path is None:
        told = "It is not there; --root says where files are now, --no-files leaves them out."
        return Check(what=what, state="not checked", told=told)
    try:
        digest, _ = digest_of(path, folder=each.folder)
    except OSError as error:
        return Check(what=what, state="not checked", told=f"It cannot be read ({error.strerror}).")
    if digest == each.sha256:
        return Check(what=what, state="agrees", told=f"Its SHA-256 is {digest}.")
    told = f"Its SHA-256 is {digest}, recorded is {each.sha256}."
    return Check(what=what, state="differs", told=told)


def _located(each: InputFile, *, root: Path | None, folder: Path) -> Path | None:
    try:
        if root is not None:
            parts = PureWindowsPath(each.path), PurePosixPath(each.path)
            if any(p.anchor or ".." in p.parts for p in parts):
                return None
            path = (root / each.path).resolve()
            return path if path.is_relative_to(root.resolve()) and _fits(path, each) else None
        places = (Path(each.path), folder / each.path)
        return next((path for path in places if _fits(path, each)), None)
    except (OSError, ValueError):
        return None


def _fits(path: Path, each: InputFile) -> bool:
    # A pipe or a device has no end that hashing it would come to.
    return path.is_dir() if each.folder else path.is_file()


def _compared(what: str, recorded: Any, found: Any) -> Iterator[Check]:
    """Compare two values leaf by leaf; one check if they agree, one for each difference else."""
    wrong = list(_differences(what, _plain(recorded), _plain(found)))
    if wrong:
        yield from wrong
    else:
        yield Check(what=what, state="agrees", told="Computed again, it is the same.")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _differences(what: str, recorded: Any, found: Any) -> Iterator[Check]:
    if isinstance(recorded, dict) and isinstance(found, dict):
        for key in dict.fromkeys((*recorded, *found)):
            here, again = recorded.get(key, "absent"), found.get(key, "absent")
            if key not in recorded or key not in found:
                yield _differs(f"{what}.{key}", here, again)
            else:
                yield from _differences(f"{what}.{key}", here, again)
    elif isinstance(recorded, list) and isinstance(found, list):
        if len(recorded) != len(found):
            yield _differs(f"the number of {what}", len(recorded), len(found))
        for number, pair in enumerate(zip(recorded, found, strict=False)):
            yield from _differences(f"{what}[{number}]", *pair)
    elif not _same(what, recorded, found):
        yield _differs(what, recorded, found)


def _same(what: str, recorded: Any, found: Any) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (recorded, found))
    # Counts are exact, however large: a tolerance would let a million stand for a million and one.
    if not numbers or (isinstance(recorded, int) and isinstance(found, int)):
        return type(recorded) is type(found) and bool(recorded == found)
    if what.endswith((".statistic", ".tolerance", ".null", ".level")):
        return math.isclose(recorded, found, rel_tol=1e-12, abs_tol=1e-15)
    return math.isclose(recorded, found, rel_tol=1e-6, abs_tol=1e-9)


def _differs(what: str, recorded: Any, found: Any) -> Check:
    told = f"recorded {_short(recorded)}, computed {_short(found)}."
    return Check(what=what, state="differs", told=told)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 2 * _SHORT else f"{text[:_SHORT]} ... {text[-_SHORT:]}"
