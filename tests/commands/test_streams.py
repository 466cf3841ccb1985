"""stdout and stderr that are closed, full, or a pipe that nobody reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builders.small_case import FLAGS
from builders.some_records import residual
from poison_audit.atomic import to_json

MAIN = [sys.executable, "-c", "from poison_audit.cli import main; main()"]
PROBE = ["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS, "--out"]


def shell(redirected: str, *arguments: str) -> int:
    """The exit code of a command whose streams a shell redirects."""
    script = f'"$@" {redirected}'
    return subprocess.run(["sh", "-c", script, "sh", *MAIN, *arguments], check=False).returncode


REDIRECTED = (
    ">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full",
)  # fmt: skip


@pytest.fixture
def report(tmp_path):
    (tmp_path / "report.json").write_text(to_json(residual()), encoding="utf-8")
    return str(tmp_path)


@pytest.mark.parametrize("redirected", REDIRECTED)
def test_a_verdict_stays_what_it_is(report, redirected):
    assert shell(redirected, "render", report) == 1


@pytest.mark.parametrize("redirected", [">&-", ">/dev/full 2>/dev/full"])
def test_an_input_error_stays_one(tmp_path, redirected):
    assert shell(redirected, "probe", str(tmp_path / "none"), "--forget", "none.csv") == 2


def test_who_stops_reading_turns_no_input_error_into_a_verdict(tmp_path):
    piped = '{ "$@"; echo "code $?" >"$OUT"; } 2>&1 | head -c 1 >/dev/null'
    out = tmp_path / "code"
    missing = [f"--reference=none{number}" for number in range(500)]
    subprocess.run(
        ["sh", "-c", piped, "sh", *MAIN, "probe", "none", "--forget", "none.csv", *missing],
        env={"OUT": str(out), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert out.read_text("ascii") == "code 2\n"


def test_what_was_to_be_written_and_was_not_is_no_success(report):
    assert shell(">/dev/full 2>/dev/null", "render", report, "--format", "json") == 4


@pytest.mark.slow
@pytest.mark.parametrize("redirected", [">&-", ">/dev/full 2>&1", ">&- 2>&-"])
def test_an_audit_is_written_whoever_reads(case, redirected):
    code = shell(redirected, *PROBE, "o")
    assert code in (1, 3)
    assert json.loads(Path("o/report.json").read_text("utf-8"))["verdict"]["exit_code"] == code
    assert Path("o/lock").read_text("ascii").strip().isdigit()
