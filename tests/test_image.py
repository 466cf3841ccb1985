"""The Dockerfile: what can be run of it without building an image.

Its RUN lines are run as they stand: pip decides whether they can be fulfilled by what is installed,
and installs nothing; useradd works on an empty root of its own. Whether the images and wheels that
they name can be fetched is not tried here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import poison_audit
from poison_audit.cli import cli

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "templates/ci/Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = [
    tuple(line.split(" ", 1))
    for line in TEXT.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
"""Instructions, and what each is given."""


def given(instruction: str) -> list[str]:
    return [rest for name, rest in LINES if name == instruction]


def assigned(instruction: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in given(instruction) for pair in shlex.split(rest))


def run(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a RUN line as a build does: by /bin/sh, with the arguments as variables."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, command in (
        ("pip", f'{sys.executable} -m pip "$@"'),
        ("useradd", f'/usr/sbin/useradd --prefix {folder / "root"} "$@"'),
    ):
        (folder / "bin" / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (folder / "bin" / name).chmod(0o755)
    environment = {
        **os.environ, **assigned("ARG"), **more,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip
    return subprocess.run(
        ["/bin/sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_it_begins_with_a_python_that_the_project_takes():
    assert LINES[0][0] == "FROM"
    (version,) = re.findall(r"^python:(\d+\.\d+)-slim$", LINES[0][1])
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]


def test_every_instruction_is_known_here_and_nothing_is_copied_or_fetched():
    assert {name for name, _ in LINES} == {
        "FROM", "ARG", "RUN", "USER", "ENV", "WORKDIR", "ENTRYPOINT", "CMD"
    }  # fmt: skip


def test_it_does_not_run_as_root():
    (user,) = given("USER")
    assert int(user) > 0
    names = [name for name, _ in LINES]
    assert max(i for i, name in enumerate(names) if name == "RUN") < names.index("USER")


def test_torch_comes_first_and_from_the_cpu_wheels():
    torch, own = (line for line in given("RUN") if line.startswith("pip"))
    assert torch.split()[-3:] == ["torchvision", "--index-url", '"$TORCH_INDEX"']
    assert assigned("ARG")["TORCH_INDEX"].endswith("/whl/cpu")
    # By the time the project asks for torch it is there, so that no CUDA wheel is taken.
    assert own.endswith('"$POISON_AUDIT"')


@pytest.mark.slow
def test_pip_can_do_what_it_is_told(tmp_path):
    pytest.importorskip("pip", reason="pip is not installed")
    torch, own = (line for line in given("RUN") if line.startswith("pip"))
    done = run(f"{torch} && {own}", tmp_path)
    assert done.returncode == 0, done.stderr
    for package in ("torch", "torchvision", "poison-audit"):
        assert f"Requirement already satisfied: {package}" in done.stdout
    assert "Would install" not in done.stdout
    # What is not to be had is noticed.
    assert run(own, tmp_path, POISON_AUDIT="poison-audit==9").returncode == 1


def test_it_installs_this_version():
    assert assigned("ARG")["POISON_AUDIT"] == f"poison-audit[sign]=={poison_audit.__version__}"
    assert "sign" in PROJECT["optional-dependencies"]


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0 or not Path("/usr/sbin/useradd").exists(),
    reason="only root can add users, and by useradd",
)
def test_the_user_that_is_made_is_the_one_that_runs(tmp_path):
    (tmp_path / "root/etc").mkdir(parents=True)
    for name in ("passwd", "group", "shadow", "gshadow"):
        (tmp_path / "root/etc" / name).touch()
    (line,) = [line for line in given("RUN") if line.startswith("useradd")]
    done = run(line, tmp_path)
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "root/etc/passwd").read_text("utf-8").splitlines()
    assert made.split(":")[0] == "audit"
    assert [made.split(":")[2]] == given("USER")


def test_what_is_entered_is_the_command():
    assert given("ENTRYPOINT") == ['["poison-audit"]']
    assert given("CMD") == ['["--help"]']
    assert PROJECT["scripts"]["poison-audit"] == "poison_audit.cli:main"
    # The command of the head is one: its command and its flags are known.
    (told,) = re.findall(r"poison-audit \\\n#\s+(.*)$", TEXT, re.MULTILINE)
    name, *rest = shlex.split(told)
    flags = {option for parameter in cli.commands[name].params for option in parameter.opts}
    assert {each for each in rest if each.startswith("--")} <= flags


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "--user", "--map-user=12345", "true"], check=False,
                      capture_output=True).returncode != 0,
    reason="no user can be made up here",
)  # fmt: skip
def test_a_user_without_a_name_or_a_home_can_run_it(tmp_path):
    """As by `docker run --user`: an id that no file knows, and the variables of the image."""
    code = "import sys; from poison_audit.cli import main; main()"
    shutil.copy(ROOT / "fixtures/digits/model.safetensors", tmp_path)
    environment = {
        **{k: v for k, v in os.environ.items() if k in ("PATH", "OMP_NUM_THREADS", "PYTHONPATH")},
        **assigned("ENV"),
    }  # fmt: skip
    for arguments, expected in (
        (["init", "model.safetensors"], 0),
        (["render", str(ROOT / "tests/reports/version_1.json"), "-f", "html", "-o", "p.html"], 1),
    ):
        done = subprocess.run(
            ["unshare", "--user", "--map-user=12345", sys.executable, "-c", code, *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == expected, done.stdout + done.stderr
        assert done.stderr == ""
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.safetensors", "audit.toml", "p.html"
    }  # fmt: skip
