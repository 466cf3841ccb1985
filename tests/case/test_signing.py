"""The key that tells this user's results from what somebody put there."""

import hashlib
import hmac
import os
import stat
from pathlib import Path

import pytest

from poison_audit.case import signing
from poison_audit.case.signing import is_ours, signature, signer, why_no_key


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("POISON_AUDIT_KEY", raising=False)
    return tmp_path / "poison-audit" / "key"


def test_a_key_is_made_once_and_is_its_owner_s_alone(state):
    assert signer() is None  # looking makes none
    first = signature("a", {"x": 1})
    told = state.stat()
    assert stat.S_IMODE(told.st_mode) == 0o600
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700
    assert list(state.parent.iterdir()) == [state]
    key = bytes.fromhex(state.read_text("ascii"))
    assert len(key) == 32
    # HMAC-SHA256 (RFC 2104) over what is signed, a zero byte, and its JSON.
    assert first == hmac.new(key, b'a\0{"x":1}', hashlib.sha256).hexdigest()
    assert signature("a", {"x": 1}) == first


def test_a_signature_is_of_one_thing_and_one_content(state):
    own = signature("a", {"x": [1, 2.5, "\ud800"]})
    assert is_ours("a", {"x": [1, 2.5, "\ud800"]}, own)
    for what, plain in (("b", {"x": [1, 2.5, "\ud800"]}), ("a", {"x": [1, 2.5, ""]}), ("a", {})):
        assert not is_ours(what, plain, own)
    for wrong in (None, "", 0, "0" * 64, own.upper() if own.upper() != own else "x", [own]):
        assert not is_ours("a", {"x": [1, 2.5, "\ud800"]}, wrong)


def test_another_user_s_key_is_another(state, tmp_path, monkeypatch):
    own, name = signature("a", 1), signer()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert not is_ours("a", 1, own)
    assert signer() != name


def shared_with_others(key: Path) -> None:
    key.chmod(0o644)


def a_link(key: Path) -> None:
    key.rename(key.with_name("elsewhere"))
    key.symlink_to(key.with_name("elsewhere"))


def a_pipe(key: Path) -> None:
    key.unlink()
    os.mkfifo(key)


def a_folder(key: Path) -> None:
    key.unlink()
    key.mkdir()


def something_else(key: Path) -> None:
    key.write_text("no key", encoding="ascii")


@pytest.mark.parametrize("spoil", [shared_with_others, a_link, a_pipe, a_folder, something_else])
def test_a_key_that_is_not_this_user_s_alone_signs_nothing(state, spoil):
    signature("a", 1)
    spoil(state)
    signing._stored_key.cache_clear()
    assert signature("a", 1) is None
    assert str(state) in why_no_key()


def test_the_environment_s_key_wins(state, monkeypatch):
    stored = signature("a", 1)
    monkeypatch.setenv("POISON_AUDIT_KEY", state.read_text("ascii"))
    assert signature("a", 1) == stored  # the file's content, as a secret of CI
    monkeypatch.setenv("POISON_AUDIT_KEY", "any words that are long enough to be one")
    assert signature("a", 1) not in (None, stored)
    monkeypatch.setenv("POISON_AUDIT_KEY", "short")
    assert signature("a", 1) is None
    assert why_no_key() == "POISON_AUDIT_KEY has 5 characters, and needs 32"
    monkeypatch.setenv("POISON_AUDIT_KEY", "")  # a secret that is not there
    assert signature("a", 1) == stored


def test_without_a_place_for_it_nothing_is_signed(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    assert signature("a", 1) is None
    assert "/proc/nowhere/poison-audit/key cannot be used" in why_no_key()
