"""A user's own method: what it makes is believed as tensors of this network, and not otherwise."""

import ast
import inspect
import json
import sys
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from builders import hostile
from builders.small_case import FLAGS
from builders.tiny import net, picture_case
from poison_audit.cli import invoke
from poison_audit.engine.own_method import own_methods
from poison_audit.engine.unlearning import unlearn
from poison_audit.errors import InputError
from poison_audit.methods import METHODS, check_params, filled, parameters
from poison_audit.models.image import image_classifier
from poison_audit.models.seeds import Rng
from poison_audit.records import Step

SPENT, NO_MODEL, LATE = (
    "gradient evaluations of 150 allowed",
    "ended without a model",
    "did not end",
)
OTHER, NOT_A_MODEL = "another architecture", "not a model"
FAILS = {
    "gives_nothing": NOT_A_MODEL,
    "gives_a_verdict": "returned a str, not a model",
    "gives_a_class": NOT_A_MODEL,
    "gives_tensors": NOT_A_MODEL,
    "changes_the_input": "changed the model that it was given",
    "changes_the_input_and_gives_another": "changed the model that it was given",
    "gives_nan": "not finite, in 2.weight",
    "gives_infinity": "not finite",
    "gives_nan_and_says_it_is_finite": "not finite",
    "gives_another_network": OTHER,
    "gives_a_network_with_more": f"{OTHER}: it differs in more",
    "gives_a_network_with_less": OTHER,
    "gives_other_names": OTHER,
    "gives_other_shapes": OTHER,
    "gives_doubles": OTHER,
    "gives_halves": OTHER,
    "raises": "raised ValueError: not today  [2J (hostile.py, line",
    "raises_at_length": "raised RuntimeError: xxx",
    "leaves": "raised SystemExit: 0",
    "interrupts": "raised KeyboardInterrupt",
    "leaves_at_once": NO_MODEL,
    "kills_itself": NO_MODEL,
    "crashes": NO_MODEL,
    "calls_itself": "raised RecursionError",
    "never_ends": LATE,
    "never_ends_and_will_not_be_told": LATE,
    "leaves_a_child_behind": NO_MODEL,
    "writes_everywhere": NO_MODEL,
    "writes_for_ever": "sent more than a model",
    "writes_a_pickle": NO_MODEL,
    "writes_a_wrong_account": NO_MODEL,
    "closes_everything": NO_MODEL,
    "spends_too_much": f"spent 200 {SPENT}",
    "spends_too_much_on_a_copy": f"spent 200 {SPENT}",
    "spends_too_much_on_a_fresh_one": f"spent 200 {SPENT}",
    "spends_too_much_in_vmap": f"spent 600 {SPENT}",
    "spends_too_much_and_hides_it": f"spent 200 {SPENT}",
}
"""What is said of each that gives no model."""
HARMLESS = (
    "good", "gives_a_module", "gives_the_input", "changes_the_case", "prints_a_verdict", "forks",
    "gives_a_network_that_answers_otherwise", "patches_the_audit", "waits_for_the_end",
    "forgets_its_imports",
)  # fmt: skip
"""Those whose tensors are taken: all else that they do stays where they are run."""


def _build():
    # Its first layer holds no parameters, as a normalising one of an adapter.
    return nn.Sequential(nn.Flatten(), nn.Identity(), nn.Linear(192, 3))


@pytest.fixture
def case():
    model = image_classifier(_build(), build=_build, arch="linear", classes=3)
    return picture_case(model.fresh(Rng(0)), epochs=10)


def _unlearned(case, name, *, seconds=60.0, **given):
    with own_methods([f"builders.hostile:{name}"], seconds):
        step = Step(name=name, params=filled(name, given))
        return unlearn(case, step, Rng(0), budget=1.0)


def test_every_scripted_method_is_told_of():
    tree = ast.parse(inspect.getsource(hostile))
    scripted = {part.name for part in tree.body if isinstance(part, ast.FunctionDef)}
    assert {name for name in scripted if name[0] != "_"} == {*FAILS, *HARMLESS}
    assert len(scripted) > 40


@pytest.mark.parametrize("name", FAILS)
def test_what_gives_no_model_fails_in_words(name, case, capfd):
    before, start = case.model.digest(), time.monotonic()
    done = _unlearned(case, name, seconds=0.3 if name.startswith("never") else 60.0)
    assert done.model is None
    assert done.error.startswith(f"{name} failed: ")
    assert FAILS[name] in done.error
    assert done.error.isprintable()
    assert len(done.error) < 400
    assert case.model.digest() == before
    assert capfd.readouterr() == ("", "")
    assert time.monotonic() - start < 30  # what it left behind is not waited for


@pytest.mark.parametrize("name", HARMLESS)
def test_what_gives_tensors_of_the_network_does_nothing_else(name, case, capfd):
    before, data = case.model.digest(), case.retain.digest()
    answer, probes = case.model.module(torch.ones(1, 3, 8, 8)), dict(METHODS)
    done = _unlearned(case, name)
    assert done.error is None
    moved = 0.0 if name == "gives_the_input" else 1.0
    for old, new in zip(
        case.model.module.parameters(), done.model.module.parameters(), strict=True
    ):
        assert torch.equal(new, old + moved)
    assert "forward" not in vars(done.model.module)
    assert (case.model.digest(), case.retain.digest()) == (before, data)
    assert torch.equal(case.model.module(torch.ones(1, 3, 8, 8)), answer)
    assert probes == METHODS
    assert capfd.readouterr() == ("", "")


def test_a_module_that_ends_its_importer_is_never_imported_here(case):
    with own_methods(["builders.hostile_at_import:method"]):
        done = unlearn(case, Step(name="method", params=filled("method", {})), Rng(0), budget=1.0)
    assert done.error == f"method failed: {NO_MODEL}"
    assert "builders.hostile_at_import" not in sys.modules


def test_ties_stay_tied(case):
    done = _unlearned(picture_case(net("tied"), epochs=10), "good")
    assert done.model.module.upper.weight is done.model.module.middle.weight


def test_numbers_are_read_off_the_source_and_may_be_set(case):
    with own_methods(["builders.hostile:good"]):
        told = parameters("good")
        assert told["amount"] == 1.0
        assert told["function"] == "builders.hostile:good"
        assert len(told["sha256"]) == 64
        assert METHODS["good"].source.endswith(told["sha256"])
        assert check_params("good", {"amount": -2}) == []
        (wrong,) = check_params("good", {"amount": "much"})
        assert "expected a number, got 'much'" in str(wrong)
        (wrong,) = check_params("good", {"sha256": "0" * 64})
        assert "nothing but" in str(wrong)
    assert "good" not in METHODS
    done = _unlearned(case, "good", amount=-2.0)
    first, other = (next(model.module.parameters()) for model in (case.model, done.model))
    assert torch.equal(other, first - 2)


OWN = """
from poison_audit.training.loop import descend_on

def mine(model, case, rng, *, ledger, lr=0.1):
    model = model.clone()
    descend_on(model, case.retain, case.recipe, rng, ledger=ledger, lr=lr)
    assert len(case.test) == 0 and not case.evidence and not case.references
    return model
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_a_method_charges_is_not_counted_twice(case, here):
    (here / "own_one.py").write_text(OWN)
    with own_methods(["own_one:mine"]):
        step = Step(name="mine", params=filled("mine", {}))
        done = unlearn(case, step, Rng(0), budget=1.0)
    assert done.error is None
    assert done.cost.gradients == 148  # 37 steps of 4 of 150
    with own_methods(["own_one:mine"]):
        again = unlearn(case, step, Rng(0), budget=1.0)
    assert again.model.digest() == done.model.digest()


def test_source_that_changes_under_way_is_refused(case, here):
    (here / "own_two.py").write_text(OWN)
    with own_methods(["own_two:mine"]):
        step = Step(name="mine", params=filled("mine", {}))
        (here / "own_two.py").write_text(OWN + "\n")
        with pytest.raises(InputError, match="not what it was"):
            unlearn(case, step, Rng(0), budget=1.0)


def test_the_digest_is_of_the_whole_package(here):
    (here / "pack").mkdir()
    (here / "pack/__init__.py").write_text("raise SystemExit(0)")
    (here / "pack/part.py").write_text(OWN)
    seen = []
    for text in ("a = 1", "a = 2"):
        (here / "pack/beside.py").write_text(text)
        with own_methods(["pack.part:mine"]):
            seen.append(parameters("mine")["sha256"])
    assert seen[0] != seen[1]
    assert "pack" not in sys.modules


@pytest.mark.parametrize(
    ("text", "spec", "said"),
    [
        (OWN, "own_three:other", "defines no function 'other'. Known: mine"),
        (OWN, "own_none:mine", "no file of a module 'own_none'"),
        (OWN, "../own_three:mine", "no file of a module"),
        (OWN, "unheard", "no entry point of poison_audit.methods"),
        ("def mine(:", "own_three:mine", "is not Python"),
        ("def mine(model): pass", "own_three:mine", "does not take what a method is given"),
        ("def mine(m, c, r, *, ledger, a): pass", "own_three:mine", "needs 'a', which has no"),
        (OWN.replace("mine", "gd"), "own_three:gd", "the name 'gd' is taken"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(text, spec, said, here):
    (here / "own_three.py").write_text(text)
    with pytest.raises(InputError) as told, own_methods([spec]):
        pass
    assert said in str(told.value)
    assert "own_three" not in sys.modules


def test_another_device_is_refused_in_words(case):
    with own_methods(["builders.hostile:good"]):
        assert METHODS["good"].unfit(case) is None
        elsewhere = replace(case, model=replace(case.model, module=case.model.module.to("meta")))
        assert "on the CPU alone, not on meta" in METHODS["good"].unfit(elsewhere)


@pytest.mark.slow
def test_no_hostile_method_makes_the_audit_pass(small_pictures, tmp_path, monkeypatch, plain_page):
    monkeypatch.chdir(small_pictures)
    tried = ["good", "patches_the_audit", "gives_nan", "leaves", "prints_a_verdict", "forks"]
    told = [part for name in tried for part in ("--method-from", f"builders.hostile:{name}")]
    code = invoke([
        "check", "model.safetensors", "--forget", "forget.csv", *FLAGS,
        "--methods", "none", *told, "--gate", "gives_nan", "--budget", "1", "--out", str(tmp_path),
    ])  # fmt: skip
    assert code == 3
    report = json.loads((tmp_path / "report.json").read_text())
    outcomes = {each["candidate"]: each["outcome"] for each in report["verdict"]["candidates"]}
    assert outcomes["gives_nan"] == outcomes["leaves"] == "FAILED"
    assert {outcomes[name] for name in tried}.isdisjoint({"CLEAN"})
    (cell,) = (each for each in report["cells"] if each["candidate"] == "good")
    assert cell["method"]["params"]["function"] == "builders.hostile:good"
    assert len(cell["method"]["params"]["sha256"]) == 64
