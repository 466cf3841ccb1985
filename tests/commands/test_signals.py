"""SIGTERM and SIGHUP end a command as Ctrl-C does: in words, by exit code 130, leaving nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders.small_case import FLAGS
from poison_audit.cli import invoke
from poison_audit.commands import check, train
from poison_audit.commands import plant as planting
from poison_audit.commands import repair as repairing
from poison_audit.commands.signals import end_tidily

pytestmark = pytest.mark.usefixtures("plain_page")

GIVEN = ("model.safetensors", "--forget", "forget.csv", *FLAGS, "-q")
COMMANDS = {
    "check": (check, "run", ["check", *GIVEN, "--out", "o"]),
    "repair": (repairing, "repairs", ["repair", *GIVEN, "-o", "fixed.safetensors", "--out", "o"]),
    "train": (train, "descend_on", [
        "train", "train.npz", "-o", "o/m.safetensors", "--arch", "cifar-resnet:1:w4",
        "--normalize", "none", "--recipe", "epochs=1",
    ]),
    "plant": (planting, "_write", [
        "plant", "train.npz", "--attack", "backdoor", "--label", "1", "-o", "o",
    ]),
}  # fmt: skip


@pytest.fixture
def tidy():
    """What `main` sets, and afterwards what was set before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    end_tidily()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_interrupted_and_gone_on_with(case, tidy, monkeypatch, capsys, name, number):
    module, work, command = COMMANDS[name]

    def struck(*_given, **_more):
        os.kill(os.getpid(), number)
        raise AssertionError("the signal came to nobody")

    with monkeypatch.context() as patched:
        patched.setattr(module, work, struck)
        assert invoke(command) == 130
    assert "run the same command again" in capsys.readouterr().err
    # A repair begins with the audit of the model as it is, whose report is there.
    assert not Path("fixed.safetensors").exists()
    assert name == "repair" or not list(Path("o").rglob("report.json"))
    if name != "repair":  # its search is measured by tests/measurements/kill.py
        monkeypatch.setattr(check, "run", lambda *_given, **_more: ())
        assert invoke(command) in (0, 1, 3)


def test_a_planting_that_was_ended_is_gone_on_with_by_the_same_command_alone(
    case, monkeypatch, capsys
):
    command = COMMANDS["plant"][2]
    assert invoke([*command[:-1], "whole"]) == 0

    def ended(*_given, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(planting, "_write_config", ended)
        assert invoke(command) == 130
    left = {path.name for path in Path("o").iterdir()}
    assert "train.npz" in left
    assert "planting.json" not in left
    Path("new").mkdir()
    Path("new/..plant.poison-audit-part.9.poison-audit-part").write_bytes(b"")
    assert invoke([*command[:-1], "new"]) == 0
    # One that is killed leaves what it had begun to write, too.
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    Path(f"o/.train.npz.{gone.pid}.poison-audit-part").write_bytes(b"half")
    Path(f"o/.train.npz.{os.getpid()}9.poison-audit-part.txt").write_bytes(b"mine")
    capsys.readouterr()
    assert invoke(["plant", "train.npz", "--attack", "indiscriminate", "-o", "o"]) == 2
    assert "o is not empty" in capsys.readouterr().err
    assert invoke(command) == 0
    Path(f"o/.train.npz.{os.getpid()}9.poison-audit-part.txt").unlink()
    assert {path.name: path.read_bytes() for path in Path("o").iterdir()} == {
        path.name: path.read_bytes() for path in Path("whole").iterdir()
    }
    assert invoke(command) == 2  # what is whole is kept


def test_one_more_ends_it_on_the_spot(tidy):
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_was_switched_off_stays_off(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_tidily()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_a_real_process_that_is_told_to_end(case):
    main = [sys.executable, "-c", "from poison_audit.cli import main; main()"]
    audit = subprocess.Popen(
        [*main, "probe", *GIVEN, "--out", "o"], stderr=subprocess.PIPE, text=True
    )
    while not Path("o/run.json").exists() and audit.poll() is None:
        time.sleep(0.01)
    audit.send_signal(signal.SIGTERM)
    assert audit.communicate()[1].strip().startswith("Interrupted.")
    assert audit.returncode == 130
    assert not list(Path("o").rglob("*.poison-audit-part"))
