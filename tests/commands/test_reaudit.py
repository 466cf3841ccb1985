"""`--reaudit` on the command line: who is woken, what is kept, and what every reader is told."""

import json
from pathlib import Path

from builders.small_case import FLAGS
from poison_audit.cli import invoke

PROBE = ["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS, "--out", "o"]


def report():
    return json.loads(Path("o/report.json").read_text("utf-8"))


def ways(told):
    return {cell["candidate"]: [_name(each) for each in cell["woken"]] for cell in told["cells"]}


def _name(woken):
    return f"{woken['way']}-{woken['poisons']}" if woken["poisons"] else woken["way"]


def test_every_model_on_trial_is_woken_beside_a_reference(case, plain_page, capsys):
    both = ["--candidate", "ours=clean.safetensors", "--reference", "other.safetensors"]
    net = Path("clean.safetensors").read_bytes()
    Path("other.safetensors").write_bytes(net)
    assert invoke([*PROBE, *both[:2], "--gate", "ours"]) in (0, 3)
    assert ways(report()) == {"deployed": ["recalibrated"], "ours": ["recalibrated"]}
    capsys.readouterr()
    code = invoke([*PROBE, "--reference", "other.safetensors", "--reaudit", "--out", "p"])
    told = json.loads(Path("p/report.json").read_text("utf-8"))
    taught = ["relearned-1", "relearned-5", "relearned-20"]
    assert ways(told) == {
        "deployed": ["recalibrated", "rounded", "relearned", *taught], "other": taught,
    }  # fmt: skip
    (lr,) = {w["lr"] for cell in told["cells"] for w in cell["woken"] if w["steps"]}
    assert lr in (0.01, 0.003, 0.001, 0.0003, 0.0001)
    compared = [f for f in told["findings"] if f["way"] in taught and f["candidate"] == "deployed"]
    assert {f["details"]["reference"] for f in compared if f["gating"]} <= {"other"}
    assert code == told["verdict"]["exit_code"]
    assert invoke(["verify", "p", "--no-files"]) == 0


def test_a_run_without_it_goes_on_with_it_in_the_same_folder(case, plain_page):
    assert invoke(PROBE) in (1, 3)
    before = report()["cells"][0]
    cells = len(list(Path("o/cells").iterdir()))
    assert invoke([*PROBE, "--reaudit"]) in (1, 3)
    after = report()["cells"][0]
    assert len(list(Path("o/cells").iterdir())) == cells + 1
    assert (len(before["woken"]), len(after["woken"])) == (1, 6)
    assert after["measurements"] == before["measurements"]
    assert "Models were woken" not in " ".join(report()["limits"])
