"""The hook for pre-commit: its entry run on the files that it takes, and by pre-commit itself."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from builders.audits import small_audit
from builders.leaves import edit
from poison_audit.atomic import to_json
from poison_audit.cli import cli, invoke
from poison_audit.verdict.compare import comparability
from poison_audit.verdict.seal import sealed

ROOT = Path(__file__).parent.parent
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))


def write(path: Path, *, edited: bool = False) -> str:
    made = small_audit()
    text = to_json(sealed(replace(made, comparability=comparability(made))))
    if edited:
        text = edit(json.loads(text), ("findings", 0, "statistic"), careful=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def hooked(*arguments: str) -> int:
    """Run the hook as pre-commit does: its entry, the user's arguments, then the files."""
    program, *entry = shlex.split(HOOK["entry"])
    assert program == "poison-audit"
    return invoke([*entry, *arguments])


def test_it_verifies_and_nothing_else():
    assert HOOK["entry"] == "poison-audit verify"
    assert HOOK["language"] == "system"
    # What pre-commit could add without being told: nothing is changed by it.
    assert "verify" in cli.commands
    assert not set(HOOK) - {"id", "name", "entry", "language", "files", "require_serial"}


def test_the_example_of_the_document_names_it():
    text = (ROOT / "reports/README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ((hook,),) = [repo["hooks"] for repo in yaml.safe_load(block)["repos"]]
    flags = {option for parameter in cli.commands["verify"].params for option in parameter.opts}
    assert hook["id"] == HOOK["id"]
    assert set(hook["args"]) <= flags


def test_it_takes_reports_alone():
    taken = re.compile(HOOK["files"])
    assert all(taken.search(path) for path in ("report.json", "a/report.json", "a b/c/report.json"))
    assert not any(
        taken.search(path)
        for path in ("a/xreport.json", "report.json.bak", "reportxjson", "report.schema.json")
    )


def test_every_report_is_verified_and_the_worst_counts(tmp_path, capsys):
    good, also = write(tmp_path / "a/report.json"), write(tmp_path / "b/report.json")
    wrong = write(tmp_path / "c/report.json", edited=True)
    assert hooked("--no-files", good) == 0
    assert hooked("--no-files", good, also) == 0
    assert capsys.readouterr().out.endswith("exit 0: the worst of 2 reports.\n")
    assert hooked(good) == 3  # it names no file that could be looked at
    assert hooked("--no-files", good, wrong, also) == 1
    told = capsys.readouterr().out
    assert [line for line in told.splitlines() if line.endswith("report.json:")] == [
        f"{path}:" for path in (good, wrong, also)
    ]
    assert told.endswith("exit 1: the worst of 3 reports.\n")
    assert hooked(good, wrong) == 1  # what differs weighs more than what was not checked


def test_all_that_cannot_be_read_is_said_at_once(tmp_path, capsys):
    good = write(tmp_path / "a/report.json")
    others = [tmp_path / "x/report.json", tmp_path / "y/report.json"]
    for path in others:
        path.parent.mkdir()
        path.write_text('{"coverage": 1}', encoding="utf-8")
    assert hooked("--no-files", good, *map(str, others)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert all(str(path) in said.err for path in others)
    assert hooked() == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_pre_commit_runs_it(tmp_path, monkeypatch):
    pytest.importorskip("pre_commit", reason="pre-commit is not installed")
    binary, hooks, work = (tmp_path / name for name in ("bin", "hooks", "work"))
    for each in (binary, hooks, work):
        each.mkdir()
    code = "import sys; from poison_audit.cli import main; main()"
    (binary / "poison-audit").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    (binary / "poison-audit").chmod(0o755)
    monkeypatch.setenv("PATH", str(binary), prepend=":")
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "cache"))
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.com")

    def run(*command: str, at: Path = work) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=at, capture_output=True, text=True, check=False)

    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    for at in (hooks, work):
        run("git", "init", "--quiet", at=at)
    run("git", "add", ".", at=hooks)
    run("git", "commit", "--quiet", "-m", "hooks", at=hooks)
    revision = run("git", "rev-parse", "HEAD", at=hooks).stdout.strip()
    uses = {"id": HOOK["id"], "args": ["--no-files"]}
    config = {"repos": [{"repo": str(hooks), "rev": revision, "hooks": [uses]}]}
    (work / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    write(work / "a/report.json")
    (work / "package.json").write_text("{}", encoding="utf-8")
    command = [sys.executable, "-m", "pre_commit", "run"]
    run("git", "add", ".")
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed" in done.stdout
    write(work / "a/report.json", edited=True)
    run("git", "add", ".")
    done = run(*command)
    assert done.returncode == 1
    assert "DIFFERS: findings[0].statistic" in done.stdout, done.stdout
