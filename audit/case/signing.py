"""This user's key: what was measured here is told from what somebody else put there.

An audit goes on with the results that lie in its run directory. Whoever can write there, by a cache
that CI restores or a commit, could put a measurement there that nobody made. So every result that
is kept, and every report, is signed (HMAC-SHA256), and only what this user's key signed is taken.

Who is trusted: this user's account on this machine. The key lies in its state folder, outside of
every run directory and every repository, so that a forged directory cannot bring its own. It is
made where there is none, of 32 random bytes, readable by its owner alone; one that others can read,
or that is a link, is not used. Where no home lasts, as in CI, POISON_AUDIT_KEY holds it instead.

Who is not: anybody who can write into the run directory, before an audit or between two, and who
knows all of this code. They can remove results or damage them, which makes an audit measure again.
They can put back what this key signed before: it is bound to everything that decides it (weights,
data, plan, code), so that it says nothing else than a new measurement would. They can not make one.

What this does not stop: who can read the key, or run code as this user, or change this program.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import secrets
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path

from poison_audit.records import Json

VARIABLE = "POISON_AUDIT_KEY"
"""Of the environment: the key, as its file holds it, or any other `LEAST` characters and more."""
LEAST = 32
_SIZE = 32


class NoKeyError(Exception):
    """Nothing can be signed; the words say why."""


def signature(what: str, plain: Json) -> str | None:
    """Return this user's signature of what JSON can say; None where there is no key.

    Args:
        what: what it is and what it is of: the same content elsewhere has another signature.
        plain: the content.
    """
    try:
        key = user_key()
    except NoKeyError:
        return None
    return hmac.new(key, f"{what}\0{_canonical(plain)}".encode(), hashlib.sha256).hexdigest()


def is_ours(what: str, plain: Json, signed: object) -> bool:
    """Return whether a signature is this user's, of exactly this."""
    own = signature(what, plain)
    return own is not None and isinstance(signed, str) and hmac.compare_digest(own, signed)


def signer() -> str | None:
    """Return the public name of this user's key; None where there is none."""
    try:
        return hashlib.sha256(b"poison-audit key\0" + user_key(make=False)).hexdigest()[:16]
    except NoKeyError:
        return None


def why_no_key() -> str | None:
    """Return why nothing can be signed; None: it can."""
    try:
        user_key()
    except NoKeyError as error:
        return str(error)
    return None


def hand_over() -> str:
    """Return what `take_over` takes in another process of this user."""
    try:
        return user_key().hex()
    except NoKeyError:
        return "none"


def take_over(key: str) -> None:
    """Sign in this process with another one's key, or with none if it has none."""
    os.environ[VARIABLE] = key


def user_key(*, make: bool = True) -> bytes:
    """Return the key.

    Args:
        make: whether one is made where there is none.

    Raises:
        NoKeyError: there is none, and none can be made; or it is not this user's alone.
    """
    if given := os.environ.get(VARIABLE):  # CI sets a secret that does not exist to nothing
        if len(given) < LEAST:
            raise NoKeyError(f"{VARIABLE} has {len(given)} characters, and needs {LEAST}")
        return _key_in(given) or hashlib.sha256(os.fsencode(given)).digest()
    try:
        path = key_file()
    except RuntimeError as error:
        raise NoKeyError(f"this user has no home, and {VARIABLE} is not set") from error
    return _stored_key(path, make)


def key_file() -> Path:
    """Return where the key lies: the user's state folder, as XDG names it."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    # The specification has relative paths ignored.
    folder = state if state.is_absolute() else Path("~/.local/state").expanduser()
    return folder / "poison-audit" / "key"


@cache
def _stored_key(path: Path, make: bool) -> bytes:
    try:
        if make and not os.path.lexists(path):
            _make(path)
        return _read(path)
    except OSError as error:
        linked = error.errno == errno.ELOOP
        reason = "is a link" if linked else f"cannot be used ({error.strerror})"
        raise NoKeyError(f"{path} {reason}") from error


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        told = os.fstat(descriptor)
        if not stat.S_ISREG(told.st_mode):
            raise NoKeyError(f"{path} is no file")
        if told.st_uid != os.geteuid() or told.st_mode & 0o077:
            raise NoKeyError(f"{path} can be read or written by others: remove it, for a new one")
        text = os.read(descriptor, 2 * _SIZE + 2)
    finally:
        os.close(descriptor)
    key = _key_in(text.decode("ascii", "replace"))
    if key is None:
        raise NoKeyError(f"{path} holds no key: remove it, for a new one")
    return key


def _key_in(text: str) -> bytes | None:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        return None
    return key if len(key) == _SIZE else None


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = path.with_name(f".key.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_hex(_SIZE)}\n")
            file.flush()
            os.fsync(file.fileno())
        # Of two processes that make one at once, both go on with the first.
        with suppress(FileExistsError):
            os.link(own, path)
    finally:
        own.unlink(missing_ok=True)


def _canonical(plain: Json) -> str:
    # Paths whose bytes are no UTF-8 hold lone surrogates, which ASCII escapes.
    return json.dumps(plain, sort_keys=True, allow_nan=False, separators=(",", ":"))
