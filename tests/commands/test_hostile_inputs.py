"""Inputs that were made to break or to stall: an exit code in words, and no waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from builders.small_case import FLAGS
from builders.some_records import residual
from poison_audit.atomic import to_json
from poison_audit.cli import invoke
from poison_audit.commands.failing import of_memory
from poison_audit.errors import did_you_mean

pytestmark = pytest.mark.usefixtures("plain_page")

PROBE = ["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS, "-q", "--out", "o"]


def refused(capsys, *arguments: str) -> str:
    """What is said of an input error; a flag that comes again wins."""
    capsys.readouterr()
    assert invoke([*PROBE, *arguments]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    return told


def test_half_a_character_is_no_id(case, capsys):
    held = dict(np.load("test.npz"))
    held["id"] = np.array([f"\ud800{i}" for i in range(len(held["y"]))])
    np.savez("other.npz", **held)
    told = refused(capsys, "--test", "other.npz")
    assert "other.npz index 0: id or label holds half of a character" in told
    assert len(told.splitlines()) < 20


LONG = "x" * 300
"""A name that no file system takes (NAME_MAX is 255)."""


@pytest.mark.parametrize("given", [
    ("--forget", LONG), ("--train", f"{LONG}.npz"), ("--test", LONG), ("--candidate", f"a={LONG}"),
    ("--canaries", f"{LONG}.json"), ("--trigger", LONG), ("--config", f"{LONG}.toml"),
])  # fmt: skip
def test_a_name_that_no_file_can_have(case, capsys, given):
    assert LONG in refused(capsys, *given)


@pytest.mark.parametrize("name", [LONG, f"{LONG}/a", f"a\\{LONG}"])
def test_names_within_files_that_no_file_can_have(case, capsys, name):
    Path("pictures.csv").write_text(f"id,path,label\na,{name}.png,0\n", encoding="ascii")
    assert "xxx" in refused(capsys, "--test", "pictures.csv")
    Path("folder").mkdir()
    stored = json.dumps({"_data_files": [{"filename": f"{name}.arrow"}]})
    Path("folder/state.json").write_text(stored, encoding="ascii")
    assert "xxx" in refused(capsys, "--test", "folder")


UNNAMED = ["\ud800", "a\0b"]
"""Half of a character, and a NUL: JSON writes both, and no file's name holds either."""


@pytest.mark.parametrize("name", UNNAMED)
def test_names_that_are_no_text(case, capsys, name):
    shown = name.replace("\ud800", "\\xd800").replace("\0", "\\x00")
    Path("folder").mkdir()
    stored = json.dumps({"_data_files": [{"filename": f"{name}.arrow"}]})
    Path("folder/state.json").write_text(stored, encoding="ascii")
    assert shown in refused(capsys, "--test", "folder")
    trigger = {"version": 1, "label": 0, "mode": "blend", "pattern": f"{name}.npz", "alpha": 0.2}
    Path("trigger.json").write_text(json.dumps(trigger), encoding="ascii")
    assert "name" in refused(capsys, "--trigger", "trigger.json")
    for flag in ("--forget", "--train", "--canaries", "--config", "--reference", "--out"):
        assert "Traceback" not in refused(capsys, flag, name)
    assert invoke(["plant", "train.npz", "--attack", "gaussian", "-o", name]) == 2


@pytest.mark.parametrize("text", [
    ".".join(["a"] * 6_000) + " = 1\n",
    "accept." + ".".join(["a"] * 6_000) + " = 1\n",
    "[" + ".".join(["methods", *["a"] * 5_000]) + "]\nx = 1\n",
    "a = " + "[" * 20_000 + "]" * 20_000 + "\n",
])  # fmt: skip
def test_a_deep_audit_toml(case, capsys, text):
    Path("deep.toml").write_text(text, encoding="ascii")
    told = refused(capsys, "--config", "deep.toml")
    assert "deep.toml" in told
    assert len(told) < 5_000


def test_a_hundred_thousand_columns(case, capsys):
    names = ["id", *(f"c{i}" for i in range(100_000))]
    for more, expected in (("", "unknown column 'c1'"), (",c1", "the column 'c1' appears twice")):
        lines = (",".join(names) + more, ",".join(["0"] * (len(names) + bool(more))))
        Path("wide.csv").write_text("\n".join(lines) + "\n", encoding="ascii")
        told = refused(capsys, "--forget", "wide.csv")
        assert expected in told
        assert len(told) < 5_000


def test_of_thousands_of_names_none_is_a_near_one():
    assert did_you_mean("c", [f"c{i}" for i in range(30_000)]).startswith("Known: c0, c1,")
    assert did_you_mean("x" * 10**6, ["gd"]) == "Known: gd."


PIPED = ("model.safetensors", "forget.csv", "train.npz", "test.npz", "canaries.json", "bases.npz")


@pytest.mark.parametrize("name", PIPED)
@pytest.mark.parametrize("given", ["flag", "file"])
def test_a_pipe_is_no_input(case, capsys, name, given):
    os.mkfifo(f"pipe{Path(name).suffix}")
    pipe = f"pipe{Path(name).suffix}"
    flags = {
        "model.safetensors": None,
        "forget.csv": "--forget",
        "train.npz": "--train",
        "test.npz": "--test",
        "canaries.json": "--canaries",
        "bases.npz": "--bases",
    }
    tables = {"train.npz": ("data", "train"), "test.npz": ("data", "test"),
              "canaries.json": ("evidence.gaussian", "canaries"),
              "bases.npz": ("evidence.gaussian", "bases")}  # fmt: skip
    if given == "file":
        if name not in tables:
            pytest.skip("only the command line says it")
        table, key = tables[name]
        Path("own.toml").write_text(f'[{table}]\n{key} = "{pipe}"\n', encoding="utf-8")
        told = refused(capsys, "--config", "own.toml")
    elif flags[name] is None:
        capsys.readouterr()
        assert invoke(["probe", pipe, *PROBE[2:]]) == 2
        told = capsys.readouterr().err
    else:
        told = refused(capsys, flags[name], pipe)
    assert f"{pipe} is a pipe or a device" in told


def test_a_pipe_among_what_is_found_beside(case, capsys):
    os.mkfifo("audit.toml")
    assert invoke(PROBE) in (1, 3)  # no file, so there is none
    Path("audit.toml").unlink()
    Path("o").rename("p")
    Path("p/report.json").unlink()
    os.mkfifo("p/report.json")
    for command in (["render", "p"], ["verify", "p"], ["decide", "p"], ["diff", "p", "p"]):
        assert invoke(command) == 2


@pytest.mark.parametrize("name", UNNAMED)
def test_a_report_that_names_what_is_no_file(case, capsys, name):
    assert invoke(PROBE) in (1, 3)
    report = json.loads(Path("o/report.json").read_text("utf-8"))
    for file in report["files"]:
        file["path"] = name
    Path("o/report.json").write_text(json.dumps(report), encoding="ascii")
    capsys.readouterr()
    assert invoke(["verify", "o"]) in (1, 2, 3)
    assert "Traceback" not in capsys.readouterr().err


def test_two_values_of_one_key_are_refused(case, capsys):
    invoke(PROBE)
    report = Path("o/report.json")
    text = report.read_text("utf-8")
    report.write_text(text.replace('"limits": [', '"limits": [],\n "limits": ['), encoding="utf-8")
    capsys.readouterr()
    assert invoke(["verify", "o"]) == 2
    assert "the key 'limits' stands twice in one object" in capsys.readouterr().err


@pytest.mark.parametrize("code", [256, -1, 2, 4, "1", None])
def test_only_our_exit_codes_are_read(case, capsys, code):
    tree = json.loads(to_json(residual()))
    tree["verdict"]["exit_code"] = code
    Path("x.json").write_text(json.dumps(tree), encoding="utf-8")
    for command in ("render", "verify", "decide"):
        assert invoke([command, "x.json"]) == 2


def test_a_report_of_500_mb_is_not_read(tmp_path, capsys):
    report = tmp_path / "report.json"
    with report.open("wb") as file:
        file.truncate(500 << 20)  # no byte of it is stored
    for command in (["render"], ["verify"], ["decide"], ["diff", str(report)]):
        assert invoke([command[0], str(report), *command[1:]]) == 2
        assert "larger than 64 MiB, as no report is" in capsys.readouterr().err


@pytest.mark.parametrize("error", [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: "
                 "can't allocate memory: you tried to allocate 8 bytes. Error code 12"),
    RuntimeError("can't start new thread"),
    RuntimeError("std::bad_alloc"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    OSError(12, "Cannot allocate memory"),
])  # fmt: skip
def test_memory_that_gave_out_is_said_to_have(error, monkeypatch, capsys):
    def fail(*_args, **_settings):
        try:
            raise error
        except BaseException as cause:
            raise ValueError("while it was read") from cause

    monkeypatch.setattr("poison_audit.commands.check.audit", fail)
    assert invoke(["check", "model.safetensors", "--forget", "forget.csv"]) == 4
    told = capsys.readouterr().err
    assert told.startswith("poison-audit: out of memory")
    assert "Traceback" not in told


def test_other_errors_are_not_of_memory():
    for error in (RuntimeError("shape mismatch"), ValueError("x"), OSError(28, "No space left")):
        assert not of_memory(error)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1_500_000, 700_000, 200_000])
def test_a_limit_on_memory(case, limit):
    main = [sys.executable, "-c", "from poison_audit.cli import main; main()", *PROBE]
    done = subprocess.run(
        ["sh", "-c", f'ulimit -v {limit}; exec "$@"', "sh", *main], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert "out of memory" in done.stderr
