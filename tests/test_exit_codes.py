"""What ends before a verdict: wrong inputs, impossible flags, crashes, each by its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from builders.small_case import FLAGS, read_rows, write_rows
from poison_audit.atomic import from_json
from poison_audit.cli import invoke
from poison_audit.commands import check
from poison_audit.engine import unlearning
from poison_audit.verdict.record import AuditRecord

pytestmark = pytest.mark.usefixtures("plain_page")

ROOT = Path(__file__).parent.parent


@pytest.fixture
def case(case, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    return case


def run(*arguments: str, command: str = "check", model: str = "model.safetensors") -> int:
    return invoke([command, model, "--forget", "forget.csv", *FLAGS, *arguments])


def record_in(folder: Path) -> AuditRecord:
    return from_json(AuditRecord, (folder / "report.json").read_text(encoding="utf-8"))


def test_an_output_that_cannot_be_written_is_refused_before_any_work(case, monkeypatch, capsys):
    monkeypatch.setattr(unlearning, "unlearn", None)  # would crash if it were reached
    (case / "file").write_text("")
    assert run("--method", "gd", "-o", "file/x.safetensors", command="unlearn") == 2
    assert run("--method", "gd", "-o", ".", command="unlearn") == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["--train", "--test", "--normalize", "--recipe", "--bases"])
def test_a_flag_left_out_is_asked_for_by_name(case, capsys, missing):
    if missing == "--normalize":
        tensors = load_file(case / "model.safetensors")
        save_file(tensors, case / "model.safetensors")
    flags = [f for i, f in enumerate(FLAGS) if missing not in (f, FLAGS[i - 1] if i else "")]
    assert invoke(["check", "model.safetensors", "--forget", "forget.csv", *flags]) == 2
    said = capsys.readouterr().err
    assert missing in said
    assert "audit.toml" in said


def swap(case: Path, row: int, column: int, value: str) -> None:
    rows = read_rows(case / "forget.csv")
    rows[row][column] = value
    write_rows(case / "forget.csv", rows[0], rows[1:])


def rewrite(case: Path, name: str, **changes) -> None:
    with np.load(case / name) as table:
        parts = {key: table[key] for key in table.files}
    np.savez(case / name, **{**parts, **changes})


def sigma_times(case: Path, factor: float) -> None:
    path = case / "canaries.json"
    key = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**key, "sigma": key["sigma"] * factor}), encoding="utf-8")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def with_tensors(case: Path, change) -> None:
    tensors = load_file(case / "model.safetensors")
    change(tensors)
    save_file(tensors, case / "model.safetensors", {"poison_audit.arch": "cifar-resnet:1:w4"})


def spoil(tensors) -> None:
    tensors["fc.weight"][0, 0] = float("nan")


def rename(tensors) -> None:
    tensors["head.weight"] = tensors.pop("fc.weight")


BAD = {
    "missing file": (lambda c: (c / "test.npz").unlink(), ["test.npz"]),
    "empty forget": (lambda c: (c / "forget.csv").write_text("id,label\n"), ["forget.csv"]),
    "unknown column": (lambda c: swap(c, 0, 1, "labl"), ["labl", "Did you mean label?"]),
    "duplicate ids": (lambda c: swap(c, 2, 0, "c0"), ["row 3", "row 2"]),
    "not in train": (lambda c: swap(c, 4, 0, "nobody"), ["nobody", "row 5"]),
    "wrong label": (lambda c: swap(c, 1, 1, "7"), ["7"]),
    "two at once": (
        lambda c: (swap(c, 1, 0, "nobody"), swap(c, 2, 1, "7")), ["nobody", "row 2", "row 3"],
    ),
    "label out of range": (
        lambda c: rewrite(c, "test.npz", y=np.full(60, 9)), ["test.npz", "9"],
    ),
    "overlap with test": (
        lambda c: rewrite(c, "test.npz", x=np.load(c / "train.npz")["x"][30:], y=np.zeros(60, int)),
        ["60 samples of the retain set"],
    ),
    "wrong size": (
        lambda c: rewrite(c, "test.npz", x=np.zeros((60, 3, 8, 8), np.uint8)),
        ["3x8x8, expected 1x8x8"],
    ),
    "not what the model takes": (
        lambda c: [
            rewrite(c, name, x=np.repeat(np.load(c / name)["x"], 3, axis=1))
            for name in ("train.npz", "test.npz", "bases.npz")
        ],
        ["the model does not accept samples of shape (3, 8, 8)"],
    ),
    "sigma 10 times too big": (lambda c: sigma_times(c, 10), ["sigma"]),
    "sigma 10 times too small": (lambda c: sigma_times(c, 0.1), ["sigma"]),
    "truncated": (lambda c: truncate(c / "model.safetensors"), ["model.safetensors"]),
    "NaN weights": (lambda c: with_tensors(c, spoil), ["fc.weight"]),
    "renamed tensors": (lambda c: with_tensors(c, rename), ["fc.weight", "head.weight"]),
    "unknown key": (
        lambda c: (c / "audit.toml").write_text("[model]\narhc = 'x'\n"), ["Did you mean arch?"],
    ),
    "not an archive": (lambda c: (c / "train.npz").write_bytes(b"PK no"), ["train.npz"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_exit_2_with_a_message_and_no_traceback(case, capsys, name):
    break_it, expected = BAD[name]
    break_it(case)
    assert run() == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert out == ""
    assert "nothing was done" in err
    for part in expected:
        assert part in err, err


def test_problems_of_several_files_come_at_once(case, capsys):
    sigma_times(case, 10)
    (case / "test.npz").unlink()
    truncate(case / "model.safetensors")
    assert run("--methods", "gdd") == 2
    said = capsys.readouterr().err
    for part in ("test.npz", "model.safetensors", "gdd", "sigma"):
        assert part in said, said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "scrubb"], "Did you mean scrub?"),
        (["--set", "scrub.alfa=1"], "alfa"),
        (["--set", "alpha=1"], "NAME.KEY=VALUE"),
        (["--set", "cf_k.k=9"], "1..3"),
        (["--gate", "nobody"], "nobody"),
        (["--candidate", "gd=clean.safetensors"], "taken"),
        (["--candidate", "clean.safetensors"], "NAME=PATH"),
        (["--device", "abacus"], "abacus"),
        (["--budget", "0"], "budget"),
        (["--budget", "0.1,nan"], "got nan"),
        (["--budget", "0.1,a"], "0.02,0.1"),
        (["--candidate", "gd@0.02=clean.safetensors"], "taken"),
    ],
)
def test_impossible_flags_are_exit_2(case, capsys, arguments, said):
    assert run(*arguments) == 2
    assert said in capsys.readouterr().err


def test_a_pickle_needs_the_flag(case, capsys):
    import torch

    torch.save(load_file(case / "model.safetensors"), case / "model.pt")
    flags = ("--arch", "cifar-resnet:1:w4", "--methods", "none")
    assert run(*flags, model="model.pt") == 2
    assert "--allow-pickle" in capsys.readouterr().err
    assert run(*flags, "--allow-pickle", "--out", "o", model="model.pt") in (1, 3)


def test_a_crash_is_never_a_verdict(case, monkeypatch, capsys):
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(check, "check_sanity", crash)
    assert run() == 4
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_usage_errors_are_2_and_help_is_0(capsys):
    assert invoke(["check"]) == 2
    assert invoke(["chekc"]) == 2
    assert invoke(["--help"]) == 0
    assert invoke(["check", "--help"]) == 0
    assert "--forget" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["methods", "probes", "doctor"])
def test_lists(command, capsys):
    assert invoke([command]) == 0
    assert "gaussian" in capsys.readouterr().out or command != "probes"


def test_help_does_not_import_torch():
    code = (
        "import sys; from poison_audit.cli import invoke; assert invoke(['--help']) == 0; "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == 0


@pytest.mark.slow
def test_a_closed_pipe_does_not_change_the_exit_code(case):
    command = [sys.executable, "-m", "poison_audit.cli", "probe", "model.safetensors", "--forget",
               "forget.csv", *FLAGS, "--out", "o"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.close()
        assert process.wait() == record_in(case / "o").verdict.exit_code


def test_a_shell_completes_commands(monkeypatch, capsys):
    asked = {
        "_POISON_AUDIT_COMPLETE": "bash_complete", "COMP_WORDS": "poison-audit ver",
        "COMP_CWORD": "1",
    }  # fmt: skip
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    assert invoke([]) == 0
    told = capsys.readouterr()
    assert told.out.split() == ["plain,verify"]
    assert told.err == ""


def test_the_verdict_as_json_is_all_that_stdout_has(case, capsys):
    code = run("--json", "-q", "--out", "o", command="probe")
    told = json.loads(capsys.readouterr().out)
    report = json.loads((case / "o" / "report.json").read_text(encoding="utf-8"))
    assert told["exit_code"] == code == report["verdict"]["exit_code"]
    assert told["outcome"] == report["verdict"]["outcome"]
    assert told["report_digest"] == report["seal"]["digest"]
