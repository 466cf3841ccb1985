"""The composite action, read from its YAML and run step by step, as a runner does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from poison_audit.cli import cli

ROOT = Path(__file__).parent.parent
ACTION = yaml.safe_load(
    (ROOT / ".github/actions/poison-audit/action.yml").read_text(encoding="utf-8")
)
STEPS = ACTION["runs"]["steps"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
OWN = {
    "command", "fail-on", "arguments", "model", "out", "sarif", "artifact", "key", "signing-key",
    "python-version", "torch-index",
}  # fmt: skip
"""Inputs that are no flag, or one that the action itself decides on."""

PRETEND = """#!/usr/bin/env bash
if [ "$1" = attest ]; then exit "${ATTEST_CODE:-$CODE}"; fi
printf '%s\\0' "$@" > "$TOLD"
for each in "$@"; do case "$each" in --out=*) out="${each#--out=}" ;; esac; done
if [ "$CODE" != 2 ]; then
  mkdir -p "$out"; echo '# told' > "$out/report.md"; touch "$out/report.json" "$out/report.sarif"
fi
exit "$CODE"
"""
"""Says what it was given, and ends as it was told to."""


@dataclass
class Ran:
    """What a run of the action came to."""

    failed: bool = False
    outputs: dict[str, str] = field(default_factory=dict)
    used: dict[str, dict[str, str]] = field(default_factory=dict)
    """What other actions were given, by their names."""
    told: str = ""
    summary: str = ""
    codes: list[int] = field(default_factory=list)


def value(text: str, inputs: dict[str, str], outputs: dict[str, dict[str, str]]) -> str:
    """The text with its expressions filled in; they are names alone."""

    def of(match: re.Match[str]) -> str:
        path = match[1].split(".")
        if path[0] == "inputs":
            return inputs[path[1]]
        assert (path[0], path[2]) == ("steps", "outputs"), match[0]
        return outputs.get(path[1], {}).get(path[3], "")

    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", of, str(text))


def holds(condition: str | None, failed: bool, inputs, outputs) -> bool:
    """Whether a step is run: terms joined by `&&`, of `always()` and comparisons with a word."""
    terms = (condition or "").split(" && ") if condition else []
    if failed and "always()" not in terms:
        return False
    for term in terms:
        if term != "always()":
            name, sign, word = re.fullmatch(r"([\w.-]+) (==|!=) '([\w-]*)'", term).groups()
            same = value(f"${{{{ {name} }}}}", inputs, outputs) == word
            if same != (sign == "=="):
                return False
    return True


def run_action(folder: Path, given: dict[str, str], **more: str) -> Ran:
    """Run the steps in a folder; with a real `poison-audit` or a pretended one on the path."""
    inputs = {name: str(each.get("default", "")) for name, each in ACTION["inputs"].items()} | given
    assert set(inputs) == set(ACTION["inputs"])
    outputs: dict[str, dict[str, str]] = {}
    ran = Ran()
    summary = folder.parent / "summary.md"
    summary.touch()
    for step in STEPS:
        if not holds(step.get("if"), ran.failed, inputs, outputs):
            continue
        if "uses" in step:
            used = {k: value(v, inputs, outputs) for k, v in step["with"].items()}
            ran.used[step["uses"].partition("@")[0]] = used
            continue
        written = folder.parent / "output"
        written.write_text("", encoding="utf-8")
        environment = {k: value(v, inputs, outputs) for k, v in step.get("env", {}).items()}
        script = folder.parent / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=folder, capture_output=True, text=True, check=False,
            env={
                **os.environ, **more, **environment,
                "PATH": f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "GITHUB_ACTION_PATH": str(ROOT / ".github/actions/poison-audit"),
                "GITHUB_OUTPUT": str(written), "GITHUB_STEP_SUMMARY": str(summary),
            },
        )  # fmt: skip
        ran.told += done.stdout + done.stderr
        ran.codes.append(done.returncode)
        ran.failed |= done.returncode != 0
        if "id" in step:
            lines = written.read_text("utf-8").splitlines()
            outputs[step["id"]] = dict(line.split("=", 1) for line in lines)
    ran.outputs = {k: value(v["value"], inputs, outputs) for k, v in ACTION["outputs"].items()}
    ran.summary = summary.read_text("utf-8")
    return ran


def program(folder: Path, name: str, text: str) -> None:
    path = folder.parent / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def folder(tmp_path):
    """A working folder, with a `python` beside it that installs nothing and says what it should."""
    (tmp_path / "work").mkdir()
    program(tmp_path / "work", "python", '#!/bin/sh\necho "python $*"\n')
    program(tmp_path / "work", "poison-audit", PRETEND)
    return tmp_path / "work"


def pretended(folder: Path, code: int, **given: str) -> tuple[Ran, list[str]]:
    """The run of a pretended audit, and the arguments that it got."""
    told = folder.parent / "told"
    inputs = {"model": "m.safetensors", "forget": "forget.csv"}
    inputs |= {name.replace("_", "-"): text for name, text in given.items()}
    ran = run_action(folder, inputs, TOLD=str(told), CODE=str(code))
    return ran, told.read_text("utf-8").split("\0")[:-1] if told.exists() else []


def test_inputs_are_flags_and_each_reaches_the_command():
    flags = {option for name in ("probe", "check") for parameter in cli.commands[name].params
             for option in parameter.opts}  # fmt: skip
    inputs = set(ACTION["inputs"])
    assert inputs >= OWN
    assert not {name for name in inputs - OWN if f"--{name}" not in flags}
    (audit,) = [step for step in STEPS if step.get("id") == "audit"]
    given = {k.removeprefix("FLAG_"): v for k, v in audit["env"].items() if k.startswith("FLAG_")}
    assert {k.replace("_", "-"): v for k, v in given.items()} == {
        name: f"${{{{ inputs.{name} }}}}" for name in inputs - OWN
    }


def test_the_example_of_the_readme_is_one_of_this_version():
    blocks = re.findall(r"^```yaml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    ((step,),) = [yaml.safe_load(each) for each in blocks if ".github/actions" in each]
    place, _, version = step["uses"].partition("@")
    assert place == f"{'/'.join(REPOSITORY.split('/')[-2:])}/.github/actions/poison-audit"
    assert version == f"v{PROJECT['version']}"
    assert set(step["with"]) <= set(ACTION["inputs"])
    needed = {name for name, each in ACTION["inputs"].items() if each.get("required")}
    assert needed <= set(step["with"])


def test_no_script_is_made_of_an_input():
    for step in STEPS:
        assert "${{" not in step.get("run", "")


def test_what_is_installed_is_this_repository(folder):
    ran, _ = pretended(folder, 0)
    cpu = ACTION["inputs"]["torch-index"]["default"]
    assert ran.told.splitlines()[:2] == [
        f"python -m pip install torch torchvision --index-url {cpu}",
        f"python -m pip install {ROOT}[sign]",
    ]
    assert (ROOT / "pyproject.toml").exists()
    ran, _ = pretended(folder, 0, torch_index="")
    assert ran.told.splitlines()[0] == f"python -m pip install {ROOT}[sign]"


@pytest.mark.parametrize(
    ("code", "fail_on", "outcome", "failed"),
    [
        (0, "1,3,4", "passed", False),
        (1, "1,3,4", "residual", True),
        (3, "1,3,4", "inconclusive", True),
        (4, "1,3,4", "failed", True),
        (1, "1", "residual", True),
        (3, "1, 4", "inconclusive", False),
        (4, "1,3", "failed", False),
        (1, "none", "residual", False),
        (2, "none", "input-error", True),
        (130, "none", "failed", True),
    ],
)
def test_exit_codes_fail_the_job_as_was_chosen(folder, code, fail_on, outcome, failed):
    ran, _ = pretended(folder, code, fail_on=fail_on)
    reported = "false" if code == 2 else "true"
    assert ran.outputs == {"exit-code": f"{code}", "outcome": outcome, "reported": reported}
    assert ran.failed == failed
    # The last step alone decides, so that the report is shown and kept in any case.
    assert not any(ran.codes[:-1])
    assert ran.codes[-1] == (0 if not failed else code if code in (1, 3, 4) else 1)


@pytest.mark.parametrize("fail_on", ["", "2", "1,2", "13", "any", "1;rm", "none,1"])
def test_a_fail_on_that_says_nothing_is_refused_before_the_audit(folder, fail_on):
    ran, told = pretended(folder, 0, fail_on=fail_on)
    assert ran.failed
    assert "fail-on: expected some of 1,3,4, or none" in ran.told
    assert told == []
    assert ran.summary == "poison-audit wrote no report: the job stopped before.\n"


def test_what_hides_a_verdict_is_refused(folder):
    ran, told = pretended(folder, 0, arguments="--quiet\n--exit-zero")
    assert ran.failed
    assert told == []
    ran, told = pretended(folder, 0, command="train")
    assert ran.failed
    assert told == []


HOSTILE = [
    "a b", "$(touch pwned)", "`touch pwned`", "; touch pwned #", "x' ; touch pwned ; '",
    'x" ; touch pwned ; "', "-rf", "--help", "*", "~", "a\\nb", "${{ github.token }}", "%0A", "é",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_an_input_is_one_argument_and_nothing_else(folder, text):
    ran, told = pretended(
        folder, 0, model=text, forget=text, out=f"o/{text}", reference=f"{text}\n\nb", gate=text
    )
    assert told == [
        "probe", f"--forget={text}", f"--gate={text}", f"--reference={text}", "--reference=b",
        f"--out=o/{text}", "--format=junit,sarif,markdown", "--", text,
    ]  # fmt: skip
    assert not ran.failed
    assert sorted(path.name for path in folder.iterdir()) == ["o"]


def test_the_report_is_shown_uploaded_and_kept(folder):
    ran, told = pretended(folder, 1, arguments="--quiet\n--set\nscrub.alpha=0.5", out="o")
    assert told[:5] == ["probe", "--forget=forget.csv", "--quiet", "--set", "scrub.alpha=0.5"]
    assert ran.summary == "# told\n"
    assert ran.used == {
        "actions/setup-python": {"python-version": "3.12"},
        "github/codeql-action/upload-sarif": {
            "sarif_file": "o/report.sarif", "category": "poison-audit",
        },
        "actions/upload-artifact": {"name": "poison-audit", "path": "o/report.*"},
    }  # fmt: skip
    ran, _ = pretended(folder, 1, sarif="false", artifact="")
    assert list(ran.used) == ["actions/setup-python"]


def test_a_report_that_was_there_before_is_not_shown(folder):
    (folder / "audit").mkdir()
    (folder / "audit/report.md").write_text("exit 0: CLEAN")
    (folder / "audit/report.json").touch()
    ran, _ = pretended(folder, 2)
    assert ran.outputs["reported"] == "false"
    assert ran.summary == "poison-audit wrote no report: input-error.\n"
    assert list(ran.used) == ["actions/setup-python"]


def test_a_signature_that_fails_fails_the_job(folder):
    inputs = {"model": "m", "forget": "f", "signing-key": "secret", "fail-on": "none"}
    more = {"TOLD": os.devnull, "CODE": "1"}
    assert not run_action(folder, inputs, **more).failed
    ran = run_action(folder, inputs, **more, ATTEST_CODE="2")
    assert ran.failed
    assert "secret" not in ran.told


@pytest.mark.long
def test_it_audits_signs_and_keeps_a_real_model(folder, tmp_path):
    shutil.copytree(ROOT / "fixtures" / "digits", folder, dirs_exist_ok=True)
    code = "import sys; from poison_audit.cli import main; main()"
    program(folder, "poison-audit", f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    for name, more in (("key.pem", []), ("public.pem", ["-pubout"])):
        made = ["pkey", "-in", "key.pem", *more] if more else ["genpkey", "-algorithm", "ed25519"]
        subprocess.run(["openssl", *made, "-out", name], cwd=tmp_path, check=True)
    inputs = {
        "model": "model.safetensors", "forget": "forget.csv", "fail-on": "3,4",
        "tolerance": "gaussian=0.2", "signing-key": (tmp_path / "key.pem").read_text("utf-8"),
    }  # fmt: skip
    (tmp_path / "temporary").mkdir()
    ran = run_action(folder, inputs, TMPDIR=str(tmp_path / "temporary"))
    assert ran.outputs == {"exit-code": "1", "outcome": "residual", "reported": "true"}, ran.told
    assert not ran.failed
    assert "RESIDUAL" in ran.summary
    assert (folder / ran.used["github/codeql-action/upload-sarif"]["sarif_file"]).exists()
    kept = folder.glob(ran.used["actions/upload-artifact"]["path"])
    assert {path.name for path in kept} == {
        "report.html", "report.json", "report.junit.xml", "report.sarif", "report.md",
        "report.dsse.json",
    }  # fmt: skip
    report = json.loads((folder / "audit/report.json").read_text("utf-8"))
    assert report["plan"]["policy"]["tolerances"]["gaussian"] == 0.2
    done = subprocess.run(
        [tmp_path / "bin/poison-audit", "verify", "audit", "--key", tmp_path / "public.pem"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    left = [path.read_bytes() for path in (tmp_path / "temporary").rglob("*") if path.is_file()]
    assert not [text for text in left if b"PRIVATE KEY" in text]
