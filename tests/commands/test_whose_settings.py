"""Where settings come from is said; what is wrong with a file hides nothing else that it gives."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from builders.small_case import FLAGS
from builders.some_records import residual
from poison_audit.case.keyfile import remark_on, write_object
from poison_audit.cli import invoke
from poison_audit.commands.config import read_usable
from poison_audit.reports.view.settings import settings_from

PROBE = ["probe", "model.safetensors", "--forget", "forget.csv", "-q", "--out", "o"]
FILE = """
[model]
normalize = "none"
[data]
train = "train.npz"
test = "test.npz"
[training]
epochs = 4
[evidence.gaussian]
canaries = "canaries.json"
bases = "bases.npz"
"""


def write(text: str) -> Path:
    Path("audit.toml").write_text(text, encoding="utf-8")
    return Path("audit.toml")


def test_a_report_says_whose_settings_it_ran_by(case, capsys):
    write(FILE)
    assert invoke([*PROBE, "--test", "test.npz"]) in (1, 3)
    told = json.loads(Path("o/report.json").read_text("utf-8"))["environment"]["settings"]
    assert told["test"] == "--test"
    assert told["forget"] == "--forget"
    assert told["train"] == "audit.toml [data]"
    assert told["canaries"] == "audit.toml [evidence.gaussian]"
    assert told["recipe epochs"] == "audit.toml [training]"
    assert told["arch"] == "the checkpoint"
    shown = " ".join(capsys.readouterr().out.split())
    assert "Settings from audit.toml: " in shown
    assert "by flags: forget, test;" in shown
    page = Path("o/report.html").read_text("utf-8")
    assert "<p>Settings from audit.toml: " in page


def test_without_a_file_that_is_said(case, capsys):
    assert invoke([*PROBE, *FLAGS]) in (1, 3)
    assert "Settings from no audit.toml; by flags: " in " ".join(capsys.readouterr().out.split())


def test_an_earlier_report_says_nothing_of_it():
    assert settings_from(residual()) == ""
    odd = {"settings": {"a\u202e": "x]"}, "config": "f\u202e"}
    assert "\u202e" not in settings_from(replace(residual(), environment=odd))


def problems_of(capsys, text: str) -> list[str]:
    write(text)
    capsys.readouterr()
    assert invoke(PROBE) == 2
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("  - ") for line in lines if line.startswith("  - ")]


@pytest.mark.parametrize(("old", "new", "said"), [
    ("epochs = 4", "epochs = four", "audit.toml: not valid TOML (Invalid value (at line 8,"),
    ("epochs = 4", 'epochs = "four"', "audit.toml [training] epochs: expected a number above 0"),
    ("epochs = 4", "epochz = 4", "audit.toml [training]: unknown key 'epochz'"),
    ("[training]", "[training", "audit.toml: not valid TOML (Expected ']'"),
    ("[training]", "[trainings]", "audit.toml: unknown table [trainings]"),
    ('train = "train.npz"', "train = 5", "audit.toml [data] train: expected a string, got 5"),
    ('train = "train.npz"', 'train = "train.npz', "audit.toml: not valid TOML (Illegal character"),
])  # fmt: skip
def test_one_error_of_a_file_hides_nothing_that_it_gives(case, capsys, old, new, said):
    """One problem is said, and not that what the file gives is missing."""
    assert FILE.count(old) == 1
    (only,) = problems_of(capsys, FILE.replace(old, new))
    assert only.startswith(said)


def test_all_that_is_wrong_is_said_at_once(case, capsys):
    text = FILE.replace("epochs = 4", "epochs = four").replace("test.npz", "none.npz")
    told = problems_of(capsys, text.replace('normalize = "none"', "normalize = 1"))
    assert len(told) == 3
    assert [each for each in told if each.startswith("none.npz")]
    assert [each for each in told if "normalize: expected a string" in each]


def test_what_cannot_be_read_gives_nothing(tmp_path):
    for text in ("[", "x = [1,\n2\n", "\n".join(["?"] * 100), "a = '''"):
        path = tmp_path / "audit.toml"
        path.write_text(text, encoding="utf-8")
        problems = []
        assert dict(read_usable(path, problems).values) == {}
        assert [str(each) for each in problems if "not valid TOML" in str(each)]


def test_a_key_is_written_for_its_owner_alone_and_a_shared_one_remarked_on(tmp_path):
    path = tmp_path / "canaries.json"
    write_object(path, {}, mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert remark_on(path) == ""
    path.chmod(0o644)
    assert "(mode 644)" in remark_on(path)
    path.chmod(0o640)
    assert f"chmod 600 {path}" in remark_on(path)


def test_a_shared_key_is_remarked_on_by_an_audit(case, capsys):
    Path("canaries.json").chmod(0o644)
    flags = [flag for flag in PROBE if flag != "-q"]
    invoke([*flags, *FLAGS])
    assert "Other users of this machine can read canaries.json" in capsys.readouterr().err
