"""What is installed: every room, the package's own names, and nobody else's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import poison_audit
from builders.small_case import FLAGS

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = SETTINGS["tool"]["setuptools"]["package-dir"]
PACKAGES = SETTINGS["tool"]["setuptools"]["packages"]


def test_every_room_is_listed_and_every_listed_one_is_there():
    found = ["poison_audit.templates"]  # files alone: no code, so no __init__.py
    for name, folder in FOLDERS.items():
        for file in (ROOT / folder).rglob("__init__.py"):
            found.append(".".join([name, *file.parent.relative_to(ROOT / folder).parts]))
    assert sorted(found) == sorted(PACKAGES)
    # A file in a folder that is no package would be left behind.
    for folder in FOLDERS.values():
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file


def test_the_version_is_one():
    done = subprocess.run(
        [sys.executable, "-m", "poison_audit", "--version"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert poison_audit.__version__ == SETTINGS["project"]["version"] == version("poison-audit")
    assert done.stdout.split()[-1] == poison_audit.__version__


OTHERS = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "theirs"
version = "1"

[tool.setuptools]
packages = ["audit", "reports"]
"""
USE = """
import sys
from pathlib import Path

import audit
import poison_audit
import reports
from poison_audit.reports.page.html import render_html

assert audit.WHOSE == reports.WHOSE == "theirs"
installed = Path(sys.argv[1])
for module in (audit, reports, poison_audit):
    assert Path(module.__file__).is_relative_to(installed), module.__file__
assert (installed / "poison_audit/py.typed").exists()
from builders.some_records import clean
page = render_html(clean())
assert page.startswith("<!DOCTYPE html>"), page[:40]
assert "<style>" in page
"""
NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
"""


def built(source: Path, out: Path) -> Path:
    """Build a wheel without a network, and return it."""
    command = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out)]
    pip(*command, str(source))
    (wheel,) = out.glob("*.whl")
    return wheel


def pip(*command: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *command], check=True
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package, and with another that installs `audit` and `reports`."""
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("packaging")
    theirs = folder / "theirs"
    for name in ("audit", "reports"):
        (theirs / name).mkdir(parents=True)
        (theirs / name / "__init__.py").write_text('WHOSE = "theirs"\n')
    (theirs / "pyproject.toml").write_text(OTHERS)
    # A copy: setuptools leaves its build folder in the source.
    ours = folder / "ours"
    ours.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        (ours / name).write_bytes((ROOT / name).read_bytes())
    for name in FOLDERS.values():
        shutil.copytree(ROOT / name, ours / name, ignore=shutil.ignore_patterns("__pycache__"))
    wheels = [built(ours, folder / "ours-wheel"), built(theirs, folder / "theirs-wheel")]
    place = folder / "installed"
    pip("install", "--quiet", "--no-deps", "--target", str(place), *map(str, wheels))
    return place


def alone(installed: Path, *command: str, cwd: Path, more: str = "") -> int:
    """Run Python where the package is the installed one, and return its exit code."""
    path = os.pathsep.join([str(installed), more] if more else [str(installed)])
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    return done.returncode


@pytest.mark.slow
def test_what_is_in_the_tree_is_in_the_wheel(installed):
    for name, folder in FOLDERS.items():
        inside = installed.joinpath(*name.split("."))
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".typed", ".json", ".j2", ".css", ".yml"):
                assert (inside / path.relative_to(ROOT / folder)).exists(), path


@pytest.mark.slow
def test_it_lies_beside_somebody_s_own_audit_and_reports(installed, tmp_path):
    code = ["-c", USE, str(installed)]
    assert alone(installed, *code, cwd=tmp_path, more=str(ROOT / "tests")) == 0


@pytest.mark.slow
def test_a_project_names_a_factory_in_reports_of_its_own(installed, case):
    (case / "reports").mkdir()
    (case / "reports/__init__.py").touch()
    (case / "reports/net.py").write_text(NET)
    given = ["--factory", "reports.net:build"]
    train = [
        "train",
        "train.npz",
        "--normalize",
        "none",
        "--recipe",
        "epochs=1",
        "-o",
        "m.safetensors",
    ]
    assert (
        alone(installed, "-m", "poison_audit", *train, *given, "-o", "m.safetensors", cwd=case) == 0
    )
    check = ["check", "m.safetensors", "--forget", "forget.csv", *FLAGS, "--methods", "none"]
    assert alone(installed, "-m", "poison_audit", *check, *given, "--out", "o", cwd=case) in (1, 3)
    assert (case / "o/report.html").exists()
