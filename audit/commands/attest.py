"""`attest`: a statement of the report, signed for strangers, and what `verify --key` finds.

The seal in a report (`verdict.seal`) is for its own user: a secret proves it, which nobody else
has. This is for everybody: an Ed25519 key signs, and its public half verifies, with our command or
with any other that knows DSSE. The statement names the SHA-256 of the report's file, so that a
signature is of that report and of no other.

What a signature says: who holds the key vouches for this report. It does not say when, and it is no
measurement: who can use the key can sign anything.

Source: RFC 8032 (Ed25519), by the library `cryptography`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from poison_audit.atomic import write_atomically
from poison_audit.commands.own_settings import Attesting
from poison_audit.commands.rendering import print_whole
from poison_audit.commands.reviewing import Report, read_whole
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.reports.formats import envelope as dsse
from poison_audit.reports.formats.attestation import render_attestation
from poison_audit.verdict.seal import refuse_edited
from poison_audit.verdict.verify import Check, verify_exit_code
from poison_audit.verdict.verify import verify as compute_again

_MOST_BYTES = 1 << 16
"""Of a file that holds a key."""
_MADE = "openssl genpkey -algorithm ed25519 -out ed25519.pem"
_PUBLIC = "openssl pkey -in ed25519.pem -pubout -out public.pem"
_DECIDED = ("result", "outcome", "exitCode", "gate", "alpha", "comparability", "report")
"""Of the predicate: what no version may word otherwise."""


def attest(settings: Attesting) -> int:
    """Sign a report's statement and write the envelope beside it; return the report's exit code.

    The signatures of others stay where they are of the same statement.

    Raises:
        InputError: the report or the key cannot be used, the report does not follow from what it
            holds, or an envelope of another statement is there.
    """
    problems = Problems()
    with problems.collecting():
        found = read_whole(settings.report)
        file = found.file.parent / dsse.FILE
        payload = _to_be_signed(found)
        others = _signed_by_others(file, payload)
    with problems.collecting():
        key = read_private(settings.key)
    problems.raise_any()
    own = dsse.Signature(
        sig=dsse.to_base64(key.sign(dsse.encoded(dsse.PAYLOAD_TYPE, payload))),
        keyid=name_of(key.public_key()),
    )
    signatures = (*(each for each in others if each.keyid != own.keyid), own)
    whole = dsse.Envelope(
        payload=dsse.to_base64(payload), payloadType=dsse.PAYLOAD_TYPE, signatures=signatures
    )
    write_atomically(file, dsse.write_envelope(whole))
    verdict, many = found.record.verdict, len(signatures)
    print_whole(
        f"{file}: signed by the key {own.keyid}"
        f"{f', the last of {many} signatures' if many > 1 else ''}.\n"
        f"exit {verdict.exit_code}: that of the report, which is {verdict.outcome.value}.\n"
    )
    return verdict.exit_code


def signed_checks(found: Report, key: Path) -> Iterator[Check]:
    """Compare the envelope beside a report with a public key, and with the report.

    Raises:
        InputError: the key cannot be used.
    """
    public = read_public(key)
    file, what = found.file.parent / dsse.FILE, "attestation"
    if not os.path.lexists(file):
        told = f"{dsse.FILE} is not there, so nobody signed this; `poison-audit attest` does."
        yield Check(what=what, state="not checked", told=told)
        return
    try:
        whole, payload = dsse.read_envelope(file)
    except InputError as error:
        told = f"It is no envelope that can be read: {error.problems[0].without(f'{file}: ')}"
        yield Check(what=what, state="differs", told=told)
        return
    yield _signature(whole, payload, public)
    yield from _statement(whole, payload, found)


def _signature(whole: dsse.Envelope, payload: bytes, public: Ed25519PublicKey) -> Check:
    what, name = "attestation: signature", name_of(public)
    count = sum(_is_by(each, whole.payloadType, payload, public) for each in whole.signatures)
    if count:
        return Check(what=what, state="agrees", told=f"It is signed by this key ({name}).")
    named = any(each.keyid == name for each in whole.signatures)
    told = (
        f"What this key ({name}) signed is something else: the statement or the signature was "
        "changed."
        if named
        else f"None of its {len(whole.signatures)} signatures is by this key ({name})."
    )
    return Check(what=what, state="differs", told=told)


def _statement(whole: dsse.Envelope, payload: bytes, found: Report) -> Iterator[Check]:
    kind = "attestation: payload type"
    if whole.payloadType != dsse.PAYLOAD_TYPE:
        told = f"It is {whole.payloadType!r:.80}, and that of a statement is {dsse.PAYLOAD_TYPE}."
        yield Check(what=kind, state="differs", told=told)
    else:
        yield Check(what=kind, state="agrees", told=f"It is {dsse.PAYLOAD_TYPE}.")
    what, expected = "attestation: statement", _statement_of(found)
    if payload == expected.encode("utf-8"):
        told = f"It is that of this report, whose SHA-256 is {found.digest}."
        yield Check(what=what, state="agrees", told=told)
        return
    try:
        there, here = _decided(json.loads(payload)), _decided(json.loads(expected))
        wrong = {
            name: f"Signed is {_short(there[name])}, and of this report it is {_short(here[name])}."
            for name in here
            if there[name] != here[name]
        }
    except (ValueError, RecursionError, AttributeError) as error:
        told = f"Its payload is no statement ({error!r:.80})."
        yield Check(what=what, state="differs", told=told)
        return
    for name, told in wrong.items():
        yield Check(what=f"{what}: {name}", state="differs", told=told)
    if not wrong:
        told = "It is of this report and its verdict, with other details than this version writes."
        yield Check(what=what, state="not checked", told=told)


def _decided(statement: Any) -> dict[str, Any]:
    """Return what a statement says, whatever its words; AttributeError if it is none."""
    head = {name: statement.get(name) for name in ("_type", "subject", "predicateType")}
    return head | {name: statement.get("predicate").get(name) for name in _DECIDED}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _to_be_signed(found: Report) -> bytes:
    """Return the statement of a report that a signature may vouch for."""
    record, where = found.record, str(found.file)
    refuse_edited(record, found.tree, where)
    checks = compute_again(record, root=None, folder=found.file.parent, look_at_files=False)
    if verify_exit_code(checks) == 1:
        fix = "`poison-audit verify` says what differs; sign the report that the audit wrote"
        raise InputError(Problem("does not follow from what it holds", where, fix))
    if not record.subject.get("model_sha256"):
        what = "names no SHA-256 of the model, which a statement is about"
        raise InputError(Problem(what, where, "Audit a model that lies in a file"))
    return _statement_of(found).encode("utf-8")


def _statement_of(found: Report) -> str:
    return render_attestation(found.record, report=(found.file.name, found.digest))


def _signed_by_others(file: Path, payload: bytes) -> tuple[dsse.Signature, ...]:
    if not os.path.lexists(file):
        return ()
    whole, signed = dsse.read_envelope(file)
    if signed != payload or whole.payloadType != dsse.PAYLOAD_TYPE:
        what = "is there already, and is of another statement"
        raise InputError(Problem(what, str(file), "Move it away, and attest again"))
    return whole.signatures


def _is_by(each: dsse.Signature, kind: str, payload: bytes, public: Ed25519PublicKey) -> bool:
    try:
        public.verify(dsse.from_base64(each.sig), dsse.encoded(kind, payload))
    except (InvalidSignature, ValueError):
        return False
    return True


def name_of(public: Ed25519PublicKey) -> str:
    """Return how a key is named: the SHA-256 of its public half, as DER."""
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def read_private(path: Path) -> Ed25519PrivateKey:
    """Read the key that signs, of PEM; InputError if it is none that can."""
    raw = _read(path)
    try:
        key = load_pem_private_key(raw, password=None)
    except TypeError as error:
        fix = f"Give it decrypted: openssl pkey -in {path} -out ed25519.pem"
        raise InputError(
            Problem("is encrypted, and no passphrase is asked for", str(path), fix)
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        public = b"PUBLIC KEY-----" in raw
        what = "holds a public key, which signs nothing" if public else "holds no private key (PEM)"
        raise InputError(Problem(what, str(path), f"Make one: {_MADE}")) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(_of_another_kind(key, path, f"Make one: {_MADE}"))
    return key


def read_public(path: Path) -> Ed25519PublicKey:
    """Read the key that verifies, of PEM; InputError if it is none that can."""
    raw = _read(path)
    try:
        key = load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm) as error:
        private = b"PRIVATE KEY-----" in raw
        what = (
            "holds a private key, and verifying takes the public one, which may be known"
            if private
            else "holds no public key (PEM)"
        )
        raise InputError(Problem(what, str(path), f"It is made by: {_PUBLIC}")) from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(_of_another_kind(key, path, f"Ask whoever signed: {_PUBLIC}"))
    return key


def _of_another_kind(key: object, path: Path, fix: str) -> Problem:
    kind = type(key).__name__.lstrip("_").removesuffix("PrivateKey").removesuffix("PublicKey")
    return Problem(f"is a key of another kind ({kind}), expected Ed25519", str(path), fix)


def _read(path: Path) -> bytes:
    # Where secrets are mounted they are links, so links are followed here.
    try:
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(Problem(f"cannot be read ({error.strerror})", str(path))) from error
    if len(raw) > _MOST_BYTES:
        raise InputError(Problem("is larger than any key", str(path)))
    return raw
