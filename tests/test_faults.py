"""What ends an audit before its end: nothing is lost, nothing stale is read, two never mix."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders.small_case import FLAGS
from poison_audit import atomic as files
from poison_audit.cli import invoke
from poison_audit.commands import check
from poison_audit.engine import runs
from poison_audit.errors import InputError

pytestmark = pytest.mark.usefixtures("plain_page")

METHODS = (
    "--methods", "gd,cf_k,ssd", "--keep", "--set", "shift.subsets=2", "--set",
    "orthogonality.subsets=2",
)  # fmt: skip
COMMAND = ["check", "model.safetensors", "--forget", "forget.csv", *FLAGS, *METHODS]
TIMINGS = {"seconds", "probe_seconds", "peak_bytes", "started", "command", "path", "seal"}


def without_timings(value):
    if isinstance(value, dict):
        return {k: without_timings(v) for k, v in value.items() if k not in TIMINGS}
    return [without_timings(v) for v in value] if isinstance(value, list) else value


def report(folder: Path):
    return without_timings(json.loads((folder / "report.json").read_text("utf-8")))


def written(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def start(*arguments: str, cwd: Path) -> subprocess.Popen:
    code = "import sys; from poison_audit.cli import invoke; sys.exit(invoke(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *COMMAND, *arguments], cwd=cwd,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.long
def test_an_audit_that_is_killed_ends_as_if_it_had_not_been(case):
    whole = start("--out", "whole", cwd=case)
    assert whole.wait() in (1, 3)
    every = written(case / "whole")
    # Each goes on in what the one before it left; the last is killed while it renders.
    for count in (every // 3, every - 1):
        killed = start("--out", "killed", cwd=case)
        while killed.poll() is None and written(case / "killed") < count:
            time.sleep(0.002)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        for path in (case / "killed").rglob("*.json"):
            if not path.name.startswith("."):
                json.loads(path.read_text("utf-8"))  # whole, or absent
    last = start("--out", "killed", cwd=case)
    assert last.wait() == whole.returncode
    assert report(case / "killed") == report(case / "whole")
    names = {path.name for path in (case / "killed").rglob("*")}
    assert not [name for name in names if name.startswith(".")]


@pytest.mark.slow
def test_the_same_plan_gives_the_same_report(case):
    codes = [invoke([*COMMAND, "-q", "--out", out]) for out in ("a", "b")]
    assert codes[0] == codes[1]
    assert report(case / "a") == report(case / "b")


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", '{"candidate": 1}'])
def test_a_damaged_cell_is_measured_again(case, content, capsys):
    invoke([*COMMAND, "--out", "o"])
    expected = report(case / "o")
    victims = [path for path in (case / "o" / "cells").iterdir() if path.name[:3] in ("gd-", "why")]
    assert len(victims) == 3
    for path in victims:
        path.write_bytes(content.encode("latin-1"))
    capsys.readouterr()
    invoke([*COMMAND, "--out", "o"])
    assert "gd: what lay in the run directory is damaged" in capsys.readouterr().err
    assert report(case / "o") == expected


@pytest.mark.slow
def test_a_report_is_gone_while_its_audit_runs_again(case, monkeypatch):
    given = [*COMMAND, "-q", "--out", "o", "--format", "json"]
    invoke(given)
    assert (case / "o" / "report.html").exists()

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "run", stopped)
    assert invoke(given) == 130
    assert not list((case / "o").glob("report.*"))


@pytest.mark.slow
def test_two_audits_never_share_a_run_directory(case, capsys):
    key = "k"
    with runs.open_run(case / "o", key, started="t"):
        other = subprocess.run(
            [sys.executable, "-c",
             "import sys; from pathlib import Path; from poison_audit.engine import runs\n"
             "from poison_audit.errors import InputError\n"
             "try:\n    with runs.open_run(Path('o'), 'k', started='t'): print('entered')\n"
             "except InputError as error: print(error)"],
            cwd=case, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert f"o: is in use by another audit (process {os.getpid()})" in other.stdout
    with runs.open_run(case / "o", key, started="t"):
        pass
    # Without --out, a directory in use is left alone, and an unfinished one is gone on in.
    unfinished = case / "audit-1"
    with runs.open_run(unfinished, key, started="1"):
        code = (
            "from poison_audit.engine import runs\n"
            "with runs.open_run(None, 'k', started='2') as out: print(out)"
        )
        told = subprocess.run(
            [sys.executable, "-c", code], cwd=case, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert told.stdout.strip() == "audit-2"
    with runs.open_run(None, key, started="3") as out:
        assert str(out) in ("audit-1", "audit-2")


def test_what_a_killed_process_began_to_write_is_removed(tmp_path):
    folder = tmp_path / "o" / "cells"
    folder.mkdir(parents=True)
    (tmp_path / "o" / "run.json").write_text('{"key": "k"}', encoding="utf-8")
    for name in (".gd-0-ab.json.123", ".report.json.7"):
        (folder / f"{name}.poison-audit-part").write_text("{", encoding="utf-8")
    kept = [".hidden", ".hidden.txt", ".backup.20240101", "gd-0-ab.json"]
    for name in kept:
        (folder / name).write_text("{}", encoding="utf-8")
    with runs.open_run(tmp_path / "o", "k", started="t"):
        assert sorted(path.name for path in folder.iterdir()) == sorted(kept)


class Full:
    """A disk with room for so many files more."""

    def __init__(self, monkeypatch, room: int, code: int = errno.ENOSPC) -> None:
        self.room, self.code, self.replace = room, code, os.replace
        monkeypatch.setattr(files.os, "replace", self)  # type: ignore[attr-defined]

    def __call__(self, source, target):
        self.room -= 1
        if self.room < 0:
            raise OSError(self.code, os.strerror(self.code), str(target))
        return self.replace(source, target)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("room", "code"),
    [(1, errno.EROFS), (4, errno.EDQUOT), (9, errno.ENOSPC)],
)
def test_a_disk_that_fills_up_loses_nothing(case, monkeypatch, room, code, capsys):
    with monkeypatch.context() as patched:
        Full(patched, room, code)
        ended = invoke([*COMMAND, "-q", "--out", "o"])
    told = capsys.readouterr().err
    assert ended == 4
    assert os.strerror(code) in told
    assert "says nothing about the model" in told
    assert "Traceback" not in told
    assert not (case / "o" / "report.json").exists()
    assert not [path for path in (case / "o").rglob(".*") if path.is_file()]
    kept = len(list((case / "o").rglob("*.json")))
    assert kept >= min(room, 1)
    assert invoke([*COMMAND, "-q", "--out", "o"]) in (1, 3)
    assert invoke([*COMMAND, "-q", "--out", "whole"]) in (1, 3)
    assert report(case / "o") == report(case / "whole")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KiB, which takes a mount: root, and a system that lets it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)],
        capture_output=True, check=False,
    ) if shutil.which("mount") else None  # fmt: skip
    if made is None or made.returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_real_disk_that_is_full(case, small_disk, capsys):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(220 * 1024))
    assert invoke([*COMMAND, "-q", "--out", str(small_disk / "o")]) == 4
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert "Traceback" not in told
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert invoke([*COMMAND, "-q", "--out", str(small_disk / "o")]) in (1, 3)
    invoke([*COMMAND, "-q", "--out", "whole"])
    assert report(small_disk / "o") == report(case / "whole")


def test_a_real_read_only_folder(case, small_disk, capsys):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert invoke([*COMMAND, "-q", "--out", str(small_disk / "o")]) == 2
    assert "cannot be written (Read-only file system)" in capsys.readouterr().err


def test_a_folder_without_permission(case, monkeypatch, capsys):
    # Root may write anywhere, so the refusal is the test's own.
    opened = Path.open

    def refused(path, mode="r", *args, **more):
        if "o" in path.parts and set(mode) & set("wax+"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, mode, *args, **more)

    monkeypatch.setattr(Path, "open", refused)
    assert invoke([*COMMAND, "-q", "--out", "o"]) == 2
    assert "o: cannot be written (Permission denied)" in capsys.readouterr().err


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_atomically(path, "old")

    def fail():
        with files.written_whole(path) as partial:
            partial.write_text("new", encoding="utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text("utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_lock_ends_with_its_context(tmp_path):
    def enter(key):
        with runs.open_run(tmp_path, key, started="t"):
            pass

    enter("k")
    with pytest.raises(InputError, match="another model"):
        enter("other")
    enter("k")


class PanicException(BaseException):
    """As pyo3 raises it where Rust code panics: no Exception, so Python itself would exit 1."""


@pytest.mark.parametrize("error", [PanicException("panic"), SystemExit(0), ValueError("oops")])
def test_whatever_is_raised_is_no_verdict(monkeypatch, capsys, error):
    def fail(*_args, **_settings):
        raise error

    monkeypatch.setattr("poison_audit.commands.check.audit", fail)
    assert invoke(["check", "model.safetensors", "--forget", "forget.csv"]) == 4
    assert "this says nothing about the model" in capsys.readouterr().err
