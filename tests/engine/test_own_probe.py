"""A probe of a user's own: two tables of numbers are taken from it, and nothing else."""

import ast
import inspect
import json
import sys
from dataclasses import replace

import pytest
import torch

from builders import hostile_probes
from builders.small_case import FLAGS
from builders.tiny import net, picture_case
from poison_audit.checks import own as reading
from poison_audit.cli import invoke
from poison_audit.engine import own_probe
from poison_audit.engine.own_probe import ask_own, own_probes, refuse_device
from poison_audit.engine.plan import make_plan
from poison_audit.engine.probes import PROBES
from poison_audit.errors import InputError
from poison_audit.models.seeds import Rng
from poison_audit.verdict.policy import standard_policy

FAILS = {
    "raises": "it raised ValueError: not  today  [2J (hostile_probes.py, line",
    "gives_nan": "it gave scores that are not finite",
    "gives_infinity": "it gave controls that are not finite",
    "gives_nan_and_hides_it": "it gave scores that are not finite",
    "gives_a_verdict": "it gave a str, not (scores, controls)",
    "gives_a_finding": "it raised RuntimeError",
    "gives_other_shapes": "of the shapes (3) and (2, 1), not (n,) and (n, k)",
    "gives_nothing": "of the shapes (0) and (0), not (n,) and (n, k)",
    "gives_truths": "it gave scores that are no table of numbers",
    "gives_too_much": "it sent more than numbers",
    "changes_the_weights": "it changed the weights that it was to look at",
    "never_ends": "it did not end within 0.3 s",
    "leaves_at_once": "it ended without numbers",
    "leaves": "it raised SystemExit: 0",
    "writes_everywhere": "it ended without numbers",
}
"""What is said of each that gives no numbers."""
HARMLESS = ("good", "prints_a_verdict", "patches_the_audit")


@pytest.fixture
def case():
    return picture_case(net("plain"), epochs=10)


def _asked(case, name, seconds=60.0):
    steps = own_probes([f"builders.hostile_probes:{name}"], seconds)
    plan = make_plan(policy=standard_policy(), methods=["none"], probes_of_own=steps)
    (seen,) = ask_own(case.model, case, plan, Rng(0))
    return seen


def test_every_scripted_probe_is_told_of():
    tree = ast.parse(inspect.getsource(hostile_probes))
    scripted = {part.name for part in tree.body if isinstance(part, ast.FunctionDef)}
    assert scripted == {*FAILS, *HARMLESS}


@pytest.mark.parametrize("name", FAILS)
def test_what_gives_no_numbers_is_not_measured(name, case, capfd, monkeypatch):
    monkeypatch.setattr(own_probe, "MOST", 1 << 16)
    before = case.model.digest()
    seen = _asked(case, name, 0.3 if name == "never_ends" else 60.0)
    assert seen.probe == f"own:{name}"
    assert seen.evidence is None
    assert FAILS[name].split("  ")[0] in seen.missing
    assert seen.missing.isprintable()
    assert case.model.digest() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", HARMLESS)
def test_numbers_are_compared_here_and_nothing_else_is_changed(name, case, capfd):
    data, known, tolerated = case.test.digest(), dict(PROBES), reading.TOLERATED
    seen = _asked(case, name)
    assert (case.test.digest(), PROBES, reading.TOLERATED) == (data, known, tolerated)
    assert capfd.readouterr() == ("", "")
    if name != "patches_the_audit":  # which sees another test table, in its own process
        with torch.no_grad():
            mine, theirs = (
                [-float(x) for x in case.model.loss(case.model.module, part.batch())]
                for part in (case.forget, case.test)
            )
        wins = [sum(score > other for other in theirs[:4]) for score in mine]
        assert seen.evidence == {"wins": wins, "draws": 4}


def test_what_it_says_of_itself_is_read_off_its_source():
    (step,) = own_probes(["builders.hostile_probes:good"])
    assert step.name == "good"
    assert len(step.params["sha256"]) == 64
    assert {key: told for key, told in step.params.items() if key != "sha256"} == {
        "function": "builders.hostile_probes:good",
        "asks": "Is a forget sample's loss below those of test samples?",
        "null": "neither was trained on, so that which is which makes no difference.",
        "seconds": 600.0,
    }


SOURCE = 'def mine(model, case, rng):\n    """Asks.\n\n    Null: none.\n    """\n'


@pytest.mark.parametrize(
    ("text", "spec", "said"),
    [
        (SOURCE, "own_four:other", "defines no function 'other'. Known: mine"),
        (SOURCE, "own_none:mine", "no file of a module 'own_none'"),
        (SOURCE, "unheard", "no entry point of poison_audit.probes"),
        ("def mine(:", "own_four:mine", "is not Python"),
        ("def mine(model): pass", "own_four:mine", "does not take what a probe is given"),
        (SOURCE.replace("rng", "rng, *, a"), "own_four:mine", "does not take what a probe"),
        (SOURCE.replace("Null:", "Nothing:"), "own_four:mine", "does not say its null"),
        (SOURCE.replace("Null: none.", "Null:"), "own_four:mine", "does not say its null"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is(
    text, spec, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_four.py").write_text(text)
    with pytest.raises(InputError) as told:
        own_probes([spec])
    assert said in str(told.value)
    assert "own_four" not in sys.modules


def test_an_installed_one_is_found_by_its_name(tmp_path, monkeypatch, capsys):
    told = tmp_path / "theirs-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[poison_audit.probes]\ntheir-name = own_six:mine\n")
    (tmp_path / "own_six.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    (step,) = own_probes(["their-name"])
    assert (step.name, step.params["function"]) == ("mine", "own_six:mine")
    with pytest.raises(InputError, match="Did you mean their-name"):
        own_probes(["their-nam"])
    assert invoke(["probes"]) == 0
    assert "Installed, own_six:mine. Asked by --probe-from their-name" in capsys.readouterr().out
    assert "own_six" not in sys.modules


def test_two_of_one_name_are_refused():
    with pytest.raises(InputError, match="the name 'good' is taken"):
        own_probes(["builders.hostile_probes:good"] * 2)


def test_source_that_changes_under_way_is_refused(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_five.py").write_text(SOURCE)
    plan = make_plan(
        policy=standard_policy(), methods=["none"], probes_of_own=own_probes(["own_five:mine"])
    )
    (tmp_path / "own_five.py").write_text(SOURCE + "\n")
    with pytest.raises(InputError, match="not what it was"):
        ask_own(case.model, case, plan, Rng(0))


def test_another_device_is_refused_in_words():
    steps = own_probes(["builders.hostile_probes:good"])
    plan = make_plan(policy=standard_policy(), methods=["none"], probes_of_own=steps)
    refuse_device(plan, torch.device("cpu"))
    refuse_device(replace(plan, own=()), torch.device("cuda"))
    with pytest.raises(InputError, match="on the CPU alone, not on cuda"):
        refuse_device(plan, torch.device("cuda"))


@pytest.mark.slow
def test_no_hostile_probe_makes_an_audit_better(small_pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(small_pictures)
    command = ["probe", "model.safetensors", "--forget", "forget.csv", *FLAGS]
    command = command[: command.index("--recipe")]
    tried = ["good", "patches_the_audit", "gives_nan", "leaves", "prints_a_verdict", "raises"]
    told = [part for name in tried for part in ("--probe-from", f"builders.hostile_probes:{name}")]
    plain, own = tmp_path / "plain", tmp_path / "own"
    codes = [invoke([*command, "--out", str(plain)]), invoke([*command, *told, "--out", str(own)])]
    reports = [json.loads((out / "report.json").read_text()) for out in (plain, own)]
    ours = [[f for f in r["findings"] if not f["probe"].startswith("own:")] for r in reports]
    assert ours[0] == ours[1]
    assert codes[0] in (1, 3)
    assert codes[1] in (1, codes[0])
    found = {f["probe"]: f["outcome"] for f in reports[1]["findings"] if f not in ours[1]}
    assert set(found) == {f"own:{name}" for name in tried}
    assert {found[f"own:{name}"] for name in ("gives_nan", "leaves", "raises")} == {"FAILED"}
    assert "CLEAN" not in found.values()
    page = (own / "report.html").read_text()
    assert 'id="own"' in page
    assert "neither was trained on, so that which is which makes no difference." in page
    assert reports[1]["plan"]["own"][0]["params"]["sha256"] in page
    assert invoke(["verify", str(own), "--no-files"]) == 0
    assert reports[0]["comparability"] == reports[1]["comparability"]
