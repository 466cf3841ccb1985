"""`render` into files, and the flags that say where a command writes."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from builders.some_records import residual
from poison_audit.atomic import to_json
from poison_audit.cli import cli, invoke

WRITES = ("check", "probe", "investigate", "plant", "train", "unlearn", "decide", "render")


@pytest.fixture
def report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/report.json").write_text(to_json(residual()), encoding="utf-8")
    return Path("run/report.json")


@pytest.mark.parametrize("given", ["run", "run/report.json"])
def test_several_formats_are_written_beside_the_report(report, given, capsys):
    before = report.read_bytes()
    command = ["render", given, "--format", "html,markdown", "--format", "json"]
    assert invoke(command) == 1
    assert sorted(path.name for path in Path("run").iterdir()) == [
        "report.html", "report.json", "report.md",
    ]  # fmt: skip
    assert capsys.readouterr().out.split() == ["run/report.html", "run/report.md"]
    assert report.read_bytes() == before


def test_what_somebody_else_wrote_is_not_replaced(report, capsys):
    Path("run/report.html").write_text("mine", encoding="utf-8")
    assert invoke(["render", "run", "--format", "html,markdown"]) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert Path("run/report.html").read_text(encoding="utf-8") == "mine"
    assert not Path("run/report.md").exists()


def test_one_format_goes_to_stdout_and_any_flag_says_where(report, capsys):
    assert invoke(["render", "run", "--format", "markdown"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("## Still poisoned")
    for flag in ("-o", "--out", "--output"):
        assert invoke(["render", "run", "--format", "markdown", flag, f"new{flag}.md"]) == 1
        assert Path(f"new{flag}.md").read_text("utf-8").strip() == told.strip()


@pytest.mark.parametrize("name", WRITES)
def test_every_command_that_writes_takes_the_same_flags(name):
    assert isinstance(cli, click.Group)
    flags = [set(option.opts) for option in cli.commands[name].params]
    assert {"-o", "--out", "--output"} in flags
