"""The CI jobs and the commands of the documents, run as they stand there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from poison_audit.cli import invoke
from poison_audit.commands.config import read_config

ROOT = Path(__file__).parent.parent
REPORTS, VERDICT = (
    (ROOT / room / "README.md").read_text(encoding="utf-8") for room in ("reports", "audit/verdict")
)
GITHUB, GITLAB = (
    yaml.safe_load((ROOT / "templates/ci" / name).read_text(encoding="utf-8"))
    for name in ("github.yml", "gitlab.yml")
)
STEPS = GITHUB["jobs"]["audit"]["steps"]
# The installation is what ran this test; without it the scripts are what a runner would run.
RUNS = {
    "github": [step["run"] for step in STEPS if "run" in step and "pip install" not in step["run"]],
    "gitlab": [line for line in GITLAB["poison-audit"]["script"] if "pip install" not in line],
}


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(ROOT / "fixtures" / "digits", tmp_path / "digits")
    return tmp_path / "digits"


def script(folder: Path, lines, **more) -> subprocess.CompletedProcess:
    """Run lines with bash as a runner does, with `poison-audit` on the path."""
    path = folder.parent / "bin"
    path.mkdir(exist_ok=True)
    command = path / "poison-audit"
    code = "import sys; from poison_audit.cli import main; main()"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}", **more,
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(lines)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_jobs_and_what_reads_their_report_again(folder):
    audit, summary = RUNS["github"]
    # The fixture's model is poisoned, so the gate is red.
    done = script(folder, [audit])
    assert done.returncode == 1, done.stderr
    assert "exit 1: RESIDUAL" in done.stdout
    written = folder / "summary.md"
    assert script(folder, [summary], GITHUB_STEP_SUMMARY=str(written)).returncode == 0
    assert "RESIDUAL" in written.read_text("utf-8")
    (sarif,) = [s["with"]["sarif_file"] for s in STEPS if "upload-sarif" in s.get("uses", "")]
    assert (folder / sarif).exists()
    (kept,) = [s["with"]["path"] for s in STEPS if "upload-artifact" in s.get("uses", "")]
    assert {path.name for path in folder.glob(kept)} == {
        "report.html", "report.json", "report.junit.xml", "report.sarif", "report.md"
    }  # fmt: skip
    (cache,) = [s["with"] for s in STEPS if "actions/cache" in s.get("uses", "")]
    assert list((folder / cache["path"]).iterdir())
    for name in re.findall(r"'([^']+)'", cache["key"]):
        assert (folder / name).exists()
    # What is measured is kept, as GitLab's own cache keeps it.
    (audit,) = RUNS["gitlab"]
    assert script(folder, [audit]).returncode == 1
    job = GITLAB["poison-audit"]
    for kind in ("junit", "cyclonedx"):
        assert (folder / job["artifacts"]["reports"][kind]).exists()
    for entry in job["cache"]:
        for name in entry["key"].get("files", []) if isinstance(entry["key"], dict) else []:
            assert (folder / name).exists()
    again = re.findall(
        r"^    poison-audit ((?:render|verify|decide|diff) .*)$", REPORTS, re.MULTILINE
    )
    again = [line for line in again if "--key" not in line]  # tests/commands/test_attest.py
    assert [line.split()[0] for line in again] == ["render", "verify", "decide", "diff"]
    shutil.copytree(folder / "audit", folder / "audit-1")
    shutil.copytree(folder / "audit", folder / "audit-2")
    here = Path.cwd()
    os.chdir(folder)
    try:
        codes = [invoke(shlex.split(line)) for line in again]
    finally:
        os.chdir(here)
    # Rendering keeps the report's code; no method ran, so no repaired candidate can be clean.
    assert codes == [1, 0, 3, 0]


def test_the_acceptance_of_the_document_is_one(tmp_path):
    (block,) = re.findall(r"```toml\n(\[\[accept\]\].*?)```", VERDICT, re.DOTALL)
    (tmp_path / "audit.toml").write_text(block, encoding="utf-8")
    assert read_config(tmp_path / "audit.toml").path == tmp_path / "audit.toml"
