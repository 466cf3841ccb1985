"""A DSSE envelope: a statement, and who signed it. Whose key fits is not this room's business.

The envelope is the JSON that stock tools read. What is signed is not the JSON but the encoding of
the payload and its type (PAE), so that no space or order of keys matters.

Source: github.com/secure-systems-lab/dsse, protocol.md and envelope.md, version 1.0.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from poison_audit.atomic import from_json, read_plainly
from poison_audit.errors import InputError, Problem

FILE = "report.dsse.json"
"""Its name in the run directory."""
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MOST_BYTES = 16 << 20
MOST_SIGNATURES = 100
"""Of an envelope that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature, as the envelope holds it."""

    sig: str
    """Of base64."""
    keyid: str | None = None
    """Names the key, and is itself signed by nobody: it decides nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """An envelope; its fields have the names of the standard."""

    payload: str
    """The statement, as base64."""
    payloadType: str  # noqa: N815
    signatures: tuple[Signature, ...]


def encoded(kind: str, payload: bytes) -> bytes:
    """Return what is signed: type and payload, each with its length in bytes.

    >>> encoded("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    name = kind.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def to_base64(raw: bytes) -> str:
    """Return the standard base64 of bytes."""
    return base64.b64encode(raw).decode("ascii")


def from_base64(text: str) -> bytes:
    """Return the bytes of base64, the standard one or that of URLs; ValueError if it is none."""
    # The standard lets a reader meet both.
    return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)


def write_envelope(envelope: Envelope) -> str:
    """Return an envelope as JSON on one line, as an attestation bundle takes it."""
    plain = asdict(envelope)
    plain["signatures"] = [
        {key: value for key, value in each.items() if value is not None}
        for each in plain["signatures"]
    ]
    return json.dumps(plain) + "\n"


def read_envelope(path: Path) -> tuple[Envelope, bytes]:
    """Read an envelope and its payload; fields that the standard does not know are left out.

    Raises:
        InputError: it cannot be read, or is no envelope.
    """
    try:
        text = read_plainly(path, most=MOST_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(Problem(f"cannot be read ({reason})", str(path))) from error
    envelope = from_json(Envelope, text, where=str(path), extra="ignore")
    if len(envelope.signatures) > MOST_SIGNATURES:
        what = f"has {len(envelope.signatures)} signatures, more than {MOST_SIGNATURES}"
        raise InputError(Problem(what, str(path)))
    try:
        return envelope, from_base64(envelope.payload)
    except ValueError as error:
        raise InputError(Problem(f"its payload is no base64 ({error})", str(path))) from error
