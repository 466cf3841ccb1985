"""What a stored cell is found by: the code that measured it, the user's own code among it."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from builders.small_case import FLAGS, make
from poison_audit.cli import invoke
from poison_audit.engine.runs import MEASURING, NOT_MEASURING, code_digest, fingerprint
from poison_audit.models.factory import user_code
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Plan, Policy, Recipe

pytestmark = pytest.mark.usefixtures("plain_page")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path):
    shutil.copytree(ROOT / "audit", tmp_path / "audit")
    return tmp_path / "audit"


def test_only_code_counts_and_not_where_it_lies(package):
    (package / "engine" / "README.md").write_text("a word")
    assert code_digest(package=package) == code_digest()


@pytest.mark.parametrize(
    "file",
    ["cli.py", "commands/check.py", "verdict/decide.py", "poisons/backdoor/reading.py",
     "poisons/gaussian/plant.py", "poisons/readings.py", "engine/caveats.py", "errors.py"],
)  # fmt: skip
def test_a_changed_word_keeps_the_cells(package, file):
    with (package / file).open("a", encoding="utf-8") as stream:
        stream.write("# a word\n")
    assert code_digest(package=package) == code_digest()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("methods/ssd.py", "alpha: float = 10.0", "alpha: float = 11.0"),
        ("poisons/gaussian/exposure.py", "draws: int = 12", "draws: int = 64"),
        ("checks/honesty.py", "LEAST_AGREEMENT = 0.5", "LEAST_AGREEMENT = 0.4"),
    ],
)
def test_another_default_is_another_measurement(package, file, old, new):
    text = (package / file).read_text("utf-8")
    assert text.count(old) == 1
    (package / file).write_text(text.replace(old, new), encoding="utf-8")
    assert code_digest(package=package) != code_digest()


def test_a_renamed_file_and_what_is_asked_for_beside_count(package):
    with (package / "commands" / "train_job.py").open("a", encoding="utf-8") as stream:
        stream.write("# a word\n")
    with (package / "poisons" / "gaussian" / "reading.py").open("a", encoding="utf-8") as stream:
        stream.write("# a word\n")
    for beside in ("commands/train*.py", "*/reading.py"):
        assert code_digest(beside, package=package) != code_digest(beside)
    assert code_digest(package=package) == code_digest()
    (package / "methods" / "gd.py").rename(package / "methods" / "dg.py")
    assert code_digest(package=package) != code_digest()


FORM = {"errors.py", "atomic.py", "statistics/__init__.py", "statistics/reading.py"}
"""How errors are told, how files are written, and the form of a reading."""


def imported_by(*names: str) -> set[str]:
    """Return the files of the package that these modules import, and those import, and so on."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        base = ROOT / "audit" / Path(*todo.pop().split(".")[1:])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            own = path.relative_to(ROOT / "audit").as_posix() if path.is_file() else ""
            if own in ("", "__init__.py") or own in found:
                continue
            found.add(own)
            if own in FORM or any(fnmatchcase(own, one) for one in NOT_MEASURING):
                continue  # the table of the poisons names what plants them, too
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("poison_a"):
                    todo += [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
    return found


def test_all_that_measuring_imports_is_covered():
    measuring = ("run", "tuning", "rehearsal", "unlearning", "probes")
    found = imported_by(*(f"poison_audit.engine.{name}" for name in measuring))
    assert {"models/model.py", "poisons/gaussian/probe.py", "training/loop.py"} <= found
    left_out = {
        name
        for name in found
        if not any(fnmatchcase(name, one) for one in (*MEASURING, *NOT_MEASURING))
    }
    assert left_out <= FORM
    left_out = {name for name in found if any(fnmatchcase(name, one) for one in NOT_MEASURING)}
    # Of the engine only what finds a cell, and decides nothing in it.
    assert {name for name in left_out if name.startswith("engine/")} <= {"engine/runs.py"}


SUBJECT: dict[str, Any] = {
    "model_sha256": "0", "arch": "a", "normalize": None, "train_sha256": "1", "forget_sha256": "2",
    "test_sha256": "3", "reading": None, "candidates": {},
    "trigger": {"path": "here/trigger.json", "sha256": "4"},
    "canaries": {"path": "here/canaries.json", "commitment": "5"},
}  # fmt: skip


def key_of(**changed: Any) -> str:
    plan = Plan(methods=(), probes=(), policy=Policy(tolerances={}))
    return fingerprint(plan, Recipe(), {**SUBJECT, **changed}, "cpu float32", None)


def test_other_evidence_of_any_poison_is_another_audit_wherever_it_lies():
    first = key_of()
    assert key_of(trigger={"path": "there/trigger.json", "sha256": "4"}) == first
    assert key_of(canaries=None) != first
    names = [file.name for poison in POISONS.values() for file in poison.files]
    told = {first, *(key_of(**{name: {"path": "p", "sha256": "9"}}) for name in names)}
    assert len(names) >= 5
    assert len(told) == 1 + len(names)


FACTORY = """
from nets_helper import SCALE
from poison_audit.models.image import CifarResNet, cifar_resnet_spec

class Net(CifarResNet):
    def forward(self, x):
        return super().forward(x * SCALE)

def make():
    import nets_later
    return Net(cifar_resnet_spec("cifar-resnet:1:w4"), channels=1, classes=3)
"""
DIGESTS = """
import os, sys
import poison_audit.models.image
from poison_audit.models.factory import import_factory, user_code

for _ in sys.stdin:
    if os.fork() == 0:
        import_factory("nets:make")()
        print(user_code(), flush=True)
        os._exit(0)
    os.wait()
"""
"""For each line, the digest in a process that has not imported the user's code. Torch is imported
once, since that takes seconds."""


@pytest.fixture
def nets(tmp_path):
    (tmp_path / "nets.py").write_text(FACTORY)
    (tmp_path / "nets_helper.py").write_text("SCALE = 0.9\n")
    (tmp_path / "nets_later.py").write_text("")
    (tmp_path / "unused.py").write_text("")
    return tmp_path


def test_a_factory_s_module_and_all_that_it_imports_count(nets):
    command = [sys.executable, "-B", "-c", DIGESTS]
    with subprocess.Popen(
        command, cwd=nets, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def digest() -> str:
            print(file=process.stdin, flush=True)
            return process.stdout.readline()

        first = digest()
        (nets / "unused.py").write_text("X = 1\n")
        assert digest() == first
        told = {first}
        for name in ("nets_helper.py", "nets_later.py"):
            with (nets / name).open("a") as stream:
                stream.write("\nY = 1\n")
            told.add(digest())
        assert len(told) == 3
        assert "" not in told  # it ended


def test_python_s_own_code_and_what_is_installed_do_not_count(monkeypatch):
    before = user_code()
    for name in ("colorsys", "pytest", "poison_audit.errors", "__main__"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert user_code() == before


def test_a_corrected_factory_is_not_judged_by_the_old_cells(nets, monkeypatch, capsys):
    monkeypatch.chdir(make(nets))
    monkeypatch.syspath_prepend(nets)
    command = ["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS, "--factory",
               "nets:make", "--out", "o", "-q"]  # fmt: skip
    assert invoke(command) in (1, 3)
    cells = set(Path("o/cells").iterdir())
    assert invoke(command) in (1, 3)
    shutil.copytree("o", "before")
    assert set(Path("o/cells").iterdir()) == cells  # the same code goes on with them
    Path("nets_helper.py").write_text("SCALE = 1.0\n")
    monkeypatch.delitem(sys.modules, "nets")
    monkeypatch.delitem(sys.modules, "nets_helper")
    capsys.readouterr()
    assert invoke(command) in (1, 3)
    assert "The code of --factory is another than before" in capsys.readouterr().err
    assert len(set(Path("o/cells").iterdir()) - cells) == 1
    assert cells < set(Path("o/cells").iterdir())
    # Figures of the one code are not those of the other.
    assert invoke(["diff", "before", "o"]) == 2
    assert "another code of --factory" in capsys.readouterr().err
    for name in ("nets", "nets_helper", "nets_later"):
        monkeypatch.delitem(sys.modules, name)
