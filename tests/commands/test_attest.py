"""Signed evidence: openssl and the standard's own library verify it, and nothing changed passes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders.audits import small_audit
from builders.leaves import edit as edited
from builders.leaves import leaves
from poison_audit.atomic import to_json
from poison_audit.cli import invoke
from poison_audit.commands.reviewing import read_whole
from poison_audit.verdict.compare import comparability
from poison_audit.verdict.seal import sealed

pytest.importorskip("cryptography", reason="cryptography is not installed")
from poison_audit.commands.attest import signed_checks

pytestmark = pytest.mark.skipif(
    "OpenSSL 3" not in subprocess.run(["openssl", "version"], capture_output=True, text=True,
                                      check=False).stdout
    if shutil.which("openssl") else True, reason="OpenSSL 3 is not installed",
)  # fmt: skip

TYPE = b"application/vnd.in-toto+json"
DOCUMENT = (Path(__file__).parents[2] / "reports/README.md").read_text("utf-8")


def openssl(*arguments: str | Path) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True,
                          check=False)  # fmt: skip
    return done.stdout if done.returncode == 0 else ""


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Keys that openssl made: two pairs of Ed25519, and what is none."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("own", "other"):
        openssl("genpkey", "-algorithm", "ed25519", "-out", folder / f"{name}.pem")
        openssl("pkey", "-in", folder / f"{name}.pem", "-pubout", "-out", folder / f"{name}.pub")
    openssl("genpkey", "-algorithm", "rsa", "-out", folder / "rsa.pem")
    openssl("genpkey", "-algorithm", "x25519", "-out", folder / "x25519.pem")
    for name in ("rsa", "x25519"):
        openssl("pkey", "-in", folder / f"{name}.pem", "-pubout", "-out", folder / f"{name}.pub")
    openssl("pkey", "-in", folder / "own.pem", "-aes256", "-passout", "pass:secret",
            "-out", folder / "encrypted.pem")  # fmt: skip
    openssl("pkey", "-in", folder / "own.pem", "-outform", "DER", "-out", folder / "der.pem")
    (folder / "text.pem").write_text("no key")
    (folder / "half.pem").write_text((folder / "own.pem").read_text()[:70])
    (folder / "large.pem").write_bytes(bytes(1 << 17))
    return folder


@pytest.fixture(scope="module")
def signed(keys, tmp_path_factory):
    """The folder of a report that was signed."""
    folder = tmp_path_factory.mktemp("signed") / "run"
    folder.mkdir()
    made = small_audit()
    made = replace(made, subject={**made.subject, "model": "m.safetensors",
                                  "model_sha256": "ab" * 32})  # fmt: skip
    made = sealed(replace(made, comparability=comparability(made)))
    (folder / "report.json").write_text(to_json(made), encoding="utf-8")
    assert attest(folder, keys / "own.pem") == made.verdict.exit_code
    return folder


@pytest.fixture(scope="module")
def found(signed):
    return read_whole(signed)


@pytest.fixture
def run(signed, tmp_path):
    return shutil.copytree(signed, tmp_path / "run")


def attest(run: Path, key: Path) -> int:
    return invoke(["attest", str(run), "--key", str(key)])


def verify(run: Path, key: Path) -> int:
    return invoke(["verify", str(run), "--no-files", "--key", str(key)])


def envelope(run: Path) -> dict:
    return json.loads((run / "report.dsse.json").read_text("utf-8"))


def put(run: Path, **fields) -> None:
    (run / "report.dsse.json").write_text(json.dumps({**envelope(run), **fields}), "utf-8")


def statement(run: Path) -> bytes:
    return base64.b64decode(envelope(run)["payload"])


def openssl_accepts(run: Path, public: Path, work: Path, number: int = 0) -> bool:
    """What anybody does by hand: decode, put the type and the lengths before it, verify."""
    payload = statement(run)
    kind = envelope(run)["payloadType"].encode()
    before = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), b""])
    (work / "signed").write_bytes(before + payload)
    (work / "sig").write_bytes(base64.b64decode(envelope(run)["signatures"][number]["sig"]))
    return "Signature Verified Successfully" in openssl(
        "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public, "-in", work / "signed",
        "-sigfile", work / "sig",
    )  # fmt: skip


def test_openssl_verifies_what_was_signed_and_so_does_verify(run, keys, tmp_path, capsys):
    assert openssl_accepts(run, keys / "own.pub", tmp_path)
    assert not openssl_accepts(run, keys / "other.pub", tmp_path)
    assert verify(run, keys / "own.pub") == 0, capsys.readouterr().out
    made = envelope(run)
    assert set(made) == {"payload", "payloadType", "signatures"}
    assert made["payloadType"].encode() == TYPE
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", keys / "own.pub", "-outform", "DER"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert [each["keyid"] for each in made["signatures"]] == [hashlib.sha256(der).hexdigest()]
    # One line, as a bundle of attestations takes it.
    assert (run / "report.dsse.json").read_bytes().count(b"\n") == 1


def test_the_statement_names_the_model_and_the_file_of_the_report(run):
    told = json.loads(statement(run))
    assert told["subject"] == [{"name": "m.safetensors", "digest": {"sha256": "ab" * 32}}]
    digest = hashlib.sha256((run / "report.json").read_bytes()).hexdigest()
    assert told["predicate"]["report"] == {"name": "report.json", "digest": {"sha256": digest}}
    rest = {k: v for k, v in told["predicate"].items() if k != "report"}
    assert invoke(["render", str(run), "-f", "in-toto", "-o", str(run / "x")]) in (1, 3)
    assert rest == json.loads((run / "x").read_text("utf-8"))["predicate"]


def test_what_openssl_signed_verify_takes(run, keys, tmp_path, capsys):
    payload = statement(run)
    (tmp_path / "signed").write_bytes(b"DSSEv1 28 %b %d %b" % (TYPE, len(payload), payload))
    openssl("pkeyutl", "-sign", "-rawin", "-inkey", keys / "other.pem", "-in", tmp_path / "signed",
            "-out", tmp_path / "sig")  # fmt: skip
    sig = base64.urlsafe_b64encode((tmp_path / "sig").read_bytes()).decode()
    # Without a name of the key, in the base64 of URLs, with fields of somebody's own.
    put(run, signatures=[{"sig": sig, "cert": "x"}], more={"a": 1})
    assert verify(run, keys / "other.pub") == 0, capsys.readouterr().out
    assert verify(run, keys / "own.pub") == 1


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_a_stranger_verifies_it_as_the_document_says(run, keys):
    (lines,) = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    run = run.rename(run.with_name("audit-1"))
    shutil.copy(keys / "own.pub", run.with_name("public.pem"))
    told = script(run.parent, lines)
    assert told.splitlines() == [
        "Signature Verified Successfully", "audit-1/report.json: OK", "FAILED", "RESIDUAL",
        "ab" * 32,
    ]  # fmt: skip
    shutil.copy(keys / "other.pub", run.with_name("public.pem"))
    assert script(run.parent, lines) == "Signature Verification Failure\n"
    shutil.copy(keys / "own.pub", run.with_name("public.pem"))
    (run / "report.json").write_text("{}")
    assert "audit-1/report.json: FAILED" in script(run.parent, lines)


def script(folder: Path, lines: str) -> str:
    return subprocess.run(
        ["bash", "-e", "-c", lines], cwd=folder, capture_output=True, text=True, check=False
    ).stdout


def test_the_standard_s_own_library_verifies_it(run, keys):
    dsse = pytest.importorskip("securesystemslib.dsse", reason="securesystemslib is not installed")
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    public = load_pem_public_key((keys / "own.pub").read_bytes())
    name = envelope(run)["signatures"][0]["keyid"]
    read = dsse.Envelope.from_dict(envelope(run))
    assert list(read.verify([SSlibKey.from_crypto(public, keyid=name)], 1)) == [name]


def test_a_second_signer_is_added_and_each_is_verified(run, keys, tmp_path, capsys):
    once = envelope(run)["signatures"]
    attest(run, keys / "other.pem")
    assert "the last of 2 signatures" in capsys.readouterr().out
    assert envelope(run)["signatures"][:1] == once
    for number, name in enumerate(("own", "other")):
        assert verify(run, keys / f"{name}.pub") == 0
        assert openssl_accepts(run, keys / f"{name}.pub", tmp_path, number)
    attest(run, keys / "own.pem")  # signs no second time
    assert len(envelope(run)["signatures"]) == 2


def test_other_signatures_do_not_hide_one_nor_stand_for_it(run, keys, capsys):
    (own,) = envelope(run)["signatures"]
    noise = [{"sig": sig, "keyid": own["keyid"]} for sig in ("", "AAAA", "no base64!", "A" * 88)]
    put(run, signatures=[*noise, own, {"sig": ""}])
    assert verify(run, keys / "own.pub") == 0, capsys.readouterr().out
    put(run, signatures=noise)
    assert verify(run, keys / "own.pub") == 1
    put(run, signatures=[])
    assert verify(run, keys / "own.pub") == 1
    put(run, signatures=[own] * 101)
    assert verify(run, keys / "own.pub") == 1


def test_a_wrong_key_differs(run, keys, capsys):
    assert verify(run, keys / "other.pub") == 1
    assert "DIFFERS: attestation: signature: None of its 1 signatures" in capsys.readouterr().out


def test_a_changed_statement_or_type_differs(run, keys, tmp_path, capsys):
    told = json.loads(statement(run))
    told["predicate"]["result"] = "PASSED"
    put(run, payload=base64.b64encode(json.dumps(told).encode()).decode())
    assert not openssl_accepts(run, keys / "own.pub", tmp_path)
    assert verify(run, keys / "own.pub") == 1
    out = capsys.readouterr().out
    assert "the statement or the signature was changed" in out
    assert 'statement: result: Signed is "PASSED", and of this report it is "FAILED"' in out


def test_another_payload_type_differs_even_if_it_was_signed(run, keys, tmp_path, capsys):
    payload = statement(run)
    (tmp_path / "signed").write_bytes(b"DSSEv1 10 text/plain %d %b" % (len(payload), payload))
    openssl("pkeyutl", "-sign", "-rawin", "-inkey", keys / "own.pem", "-in", tmp_path / "signed",
            "-out", tmp_path / "sig")  # fmt: skip
    sig = base64.b64encode((tmp_path / "sig").read_bytes()).decode()
    put(run, payloadType="text/plain", signatures=[{"sig": sig}])
    assert openssl_accepts(run, keys / "own.pub", tmp_path)
    assert verify(run, keys / "own.pub") == 1
    assert "DIFFERS: attestation: payload type: It is 'text/plain'" in capsys.readouterr().out


@pytest.mark.parametrize("careful", [False, True])
def test_a_changed_report_differs_and_is_not_signed(run, keys, careful, capsys):
    path = run / "report.json"
    tree = json.loads(path.read_text("utf-8"))
    path.write_text(edited(tree, ("limits",), careful=careful), "utf-8")
    assert verify(run, keys / "own.pub") == 1
    assert "DIFFERS: attestation: statement: report: Signed is" in capsys.readouterr().out
    (run / "report.dsse.json").unlink()
    # A careful edit has no digest that tells: whoever signs vouches for it.
    assert attest(run, keys / "own.pem") == (1 if careful else 2)


def test_what_does_not_follow_from_its_scores_is_not_signed(run, keys, capsys):
    path = run / "report.json"
    tree = json.loads(path.read_text("utf-8"))
    path.write_text(edited(tree, ("findings", 0, "statistic"), careful=True), "utf-8")
    assert attest(run, keys / "own.pem") == 2
    assert "does not follow from what it holds" in capsys.readouterr().err


def test_another_report_s_envelope_is_neither_taken_nor_replaced(run, keys, capsys):
    path = run / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8"))), "utf-8")  # spaced otherwise
    before = (run / "report.dsse.json").read_bytes()
    assert verify(run, keys / "own.pub") == 1
    assert attest(run, keys / "own.pem") == 2
    assert "of another statement. Move it away" in capsys.readouterr().err
    assert (run / "report.dsse.json").read_bytes() == before


def test_an_envelope_that_is_not_there_was_not_checked(run, keys, capsys):
    (run / "report.dsse.json").unlink()
    assert verify(run, keys / "own.pub") == 3
    assert "NOT CHECKED: attestation: report.dsse.json is not there" in capsys.readouterr().out


def test_every_truncated_envelope_differs(run, keys, capsys):
    whole = (run / "report.dsse.json").read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 100, len(whole) - 3):
        (run / "report.dsse.json").write_bytes(whole[:size])
        assert verify(run, keys / "own.pub") == 1, size
    assert "It is no envelope that can be read" in capsys.readouterr().out
    (run / "report.dsse.json").unlink()
    (run / "report.dsse.json").symlink_to(keys / "own.pem")
    assert verify(run, keys / "own.pub") == 1
    assert attest(run, keys / "own.pem") == 2


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rsa.pem", "a key of another kind (RSA), expected Ed25519"),
        ("x25519.pem", "a key of another kind (X25519), expected Ed25519"),
        ("encrypted.pem", "is encrypted"),
        ("own.pub", "holds a public key, which signs nothing"),
        ("der.pem", "holds no private key (PEM)"),
        ("text.pem", "holds no private key (PEM)"),
        ("half.pem", "holds no private key (PEM)"),
        ("large.pem", "larger than any key"),
        ("none.pem", "cannot be read (there is no such file)"),
        ("", "cannot be read (there is no such file)"),
    ],
)
def test_a_key_that_cannot_sign_is_an_input_error(run, keys, name, told, capsys):
    before = (run / "report.dsse.json").read_bytes()
    assert attest(run, keys / name) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert "Traceback" not in said.err
    assert (run / "report.dsse.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rsa.pub", "a key of another kind (RSA), expected Ed25519"),
        ("x25519.pub", "a key of another kind (X25519), expected Ed25519"),
        ("own.pem", "holds a private key, and verifying takes the public one"),
        ("encrypted.pem", "holds a private key, and verifying takes the public one"),
        ("text.pem", "holds no public key (PEM)"),
        ("none.pub", "cannot be read (there is no such file)"),
    ],
)
def test_a_key_that_cannot_verify_is_an_input_error(run, keys, name, told, capsys):
    assert verify(run, keys / name) == 2
    assert told in capsys.readouterr().err


def test_what_is_wrong_with_report_and_key_is_said_at_once(tmp_path, keys, capsys):
    assert attest(tmp_path, keys / "rsa.pem") == 2
    said = capsys.readouterr().err
    assert "report.json: cannot be read" in said
    assert "rsa.pem: is a key of another kind" in said


def test_a_report_without_the_digest_of_a_model_is_not_signed(tmp_path, keys, capsys):
    made = small_audit()
    (tmp_path / "report.json").write_text(to_json(sealed(made)), "utf-8")
    assert attest(tmp_path, keys / "own.pem") == 2
    assert "names no SHA-256 of the model" in capsys.readouterr().err


def test_nothing_else_is_written_and_the_key_is_not_shown(run, keys, capsys):
    secret = re.sub(r"-----.*-----|\s", "", (keys / "own.pem").read_text("utf-8"))
    before = {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}
    (run / "report.dsse.json").unlink()
    capsys.readouterr()
    attest(run, keys / "own.pem")
    said = capsys.readouterr()
    after = {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}
    assert after == before  # Ed25519 draws nothing, so that the same is signed again
    raw = base64.b64decode(secret)[-32:]
    for text in (said.out, said.err, (run / "report.dsse.json").read_text("utf-8"), str(envelope)):
        assert secret[-43:] not in text
        assert raw.hex() not in text


def test_without_the_library_it_says_how_to_get_it(run, keys, tmp_path):
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from poison_audit.cli import invoke; sys.exit(invoke(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "attest", str(run), "--key", str(keys / "own.pem")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "cryptography is not installed" in done.stderr
    assert "pip install cryptography" in done.stderr
    assert "Traceback" not in done.stderr


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["payload", "payloadType", "signatures", "sig", "keyid", "x"]), inner,
        max_size=4,
    ),
)  # fmt: skip


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_envelope_passes_but_one_of_the_same_content(data, run, signed, keys, found):
    made = envelope(signed)
    how = data.draw(st.sampled_from(["leaf", "cut", "bytes", "json"]))
    if how == "leaf":
        at = data.draw(st.sampled_from(sorted(leaves(made), key=str)))
        text = edited(made, at, careful=False).encode()
        same = at[-1] == "keyid"  # a hint, which nobody signed
    elif how == "cut":
        text = json.dumps(made).encode()
        text, same = text[: data.draw(st.integers(0, len(text) - 1))], False
    elif how == "bytes":
        whole = bytearray(json.dumps(made).encode())
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
        text, same = bytes(whole), _content(bytes(whole)) == _content(json.dumps(made).encode())
    else:
        text, same = json.dumps(data.draw(_JSON)).encode(), False
    (run / "report.dsse.json").write_bytes(text)
    states = {
        check.state
        for check in signed_checks(replace(found, file=run / "report.json"), keys / "own.pub")
    }
    assert states == {"agrees"} if same else "differs" in states


def _content(text: bytes) -> object:
    """Return what is signed, and by what; None where it cannot be read."""
    try:
        plain = json.loads(text.decode("utf-8"))
        (one,) = plain["signatures"]
        either = {ord("-"): "+", ord("_"): "/"}
        read = [base64.b64decode(each.translate(either), validate=True)
                for each in (plain["payload"], one["sig"])]  # fmt: skip
        keyid = one.get("keyid")
        return (read, plain["payloadType"]) if keyid is None or isinstance(keyid, str) else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def test_a_new_audit_in_the_same_folder_removes_a_stale_envelope(run, tmp_path):
    from poison_audit.commands.rendering import clear_reports

    shutil.copy(run / "report.dsse.json", tmp_path)
    clear_reports(run)
    assert list(run.iterdir()) == []
    put(tmp_path, payload=base64.b64encode(b"somebody else's").decode())
    clear_reports(tmp_path)
    assert (tmp_path / "report.dsse.json").exists()
