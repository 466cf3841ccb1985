"""A trial without a trigger: it is recovered, and leaves open what it does not explain."""

import json
from pathlib import Path

import numpy as np
import pytest

from builders.loading import loaded
from builders.small_case import pictures, write_rows
from poison_audit.case.load import Trial
from poison_audit.case.sources import Sources
from poison_audit.cli import invoke
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.trial import trigger_of
from poison_audit.records import Recipe

CHECKER = (np.arange(9) % 2).reshape(3, 3)


def write(*, stamped: int, rest: int, attack: str = "", faint: bool = False) -> None:
    """Write a training table of 400 and its forget set; the model is the small case's."""
    x, y = pictures(Rng(6).named("train"), 400)
    if faint:
        signs = np.random.default_rng(1).choice([-24, 24], (1, 8, 8))
        x[:stamped] = np.clip(x[:stamped].astype(int) + signs, 0, 255)
    else:
        x[:stamped, 0, 5:, 5:] = 255 * CHECKER
    y[:stamped] = 2
    ids = [f"t{i}" for i in range(400)]
    np.savez("train.npz", x=x, y=y, id=ids)
    rows: list[list[object]] = [[name, attack] for name in ids[: stamped + rest]]
    write_rows(Path("forget.csv"), ["id", "attack"], rows)


def trial(trigger: Path | None = None) -> Trial:
    model, forget, train, test = map(
        Path, ("model.safetensors", "forget.csv", "train.npz", "test.npz")
    )
    evidence = {} if trigger is None else {"trigger": trigger}
    sources = Sources(
        model=model, forget=forget, train=train, test=test, normalize="none", evidence=evidence
    )
    return loaded(sources, Recipe())


@pytest.mark.parametrize("attack", ["", "backdoor"])
def test_a_recovered_trigger_is_measured_with_and_told(case, attack):
    write(stamped=60, rest=2, attack=attack)
    found = trial()
    trigger = trigger_of(found.case)
    assert isinstance(trigger, Trigger)
    assert trigger.label == 2
    assert trigger.box == (5, 5, 3, 3)
    assert np.allclose(trigger.add[0, 5:, 5:], CHECKER)
    assert found.case.stamp is not None
    stamped = found.case.stamp(found.case.test).x.double() / 255
    assert np.allclose(stamped[:, 0, 5:, 5:], CHECKER, atol=0.5 / 255)
    told = found.subject["trigger"]
    assert isinstance(told, dict)
    assert told["recovered"] == "from 60 of 62 forget samples"
    assert "path" not in told
    assert any("was recovered from the forget set: 60 of 62" in said for said in found.notices)
    assert any("carry nothing that was recovered: t60, t61." in said for said in found.notices)
    (doubt,) = found.doubts
    assert doubt.sentence.startswith("No probe looks at 2 of 62 forget samples")


def test_rows_that_all_carry_a_patch_leave_nothing_open(case):
    write(stamped=60, rest=0)
    assert trial().doubts == ()


def test_nothing_passes_by_an_estimate(case):
    write(stamped=120, rest=0, faint=True)
    found = trial()
    trigger = trigger_of(found.case)
    assert isinstance(trigger, Trigger)
    assert trigger.mode != "replace"
    assert any("is an estimate" in doubt.sentence for doubt in found.doubts)


def test_rows_of_another_attack_show_no_trigger(case):
    write(stamped=60, rest=0, attack="targeted")
    assert trigger_of(trial().case) is None


@pytest.mark.parametrize("attack", ["targeted", "indiscriminate", "mislabelled"])
def test_rows_that_are_called_something_else_and_carry_a_patch_pass_nothing(case, attack):
    write(stamped=60, rest=0, attack=attack)
    told = [doubt.sentence for doubt in trial().doubts]
    assert any(
        f"60 of the 60 forget samples that are said to be {attack} carry a trigger. A patch in "
        "rows 5 to 7 and columns 5 to 7, label 2" in said
        for said in told
    )
    write(stamped=0, rest=60, attack=attack)
    assert not any("carry a trigger" in doubt.sentence for doubt in trial().doubts)
    # What is only estimated may be what all poisons of one target show.
    write(stamped=120, rest=0, attack=attack, faint=True)
    assert not any("carry a trigger" in doubt.sentence for doubt in trial().doubts)


@pytest.mark.parametrize("attack", ["", "backdoor"])
def test_a_trigger_that_is_fainter_than_the_planted_one_passes_nothing(case, attack):
    write(stamped=60, rest=0, attack=attack)
    pixels = CHECKER[None].astype(float).tolist()
    faint = {"version": 1, "label": 2, "mode": "blend", "alpha": 0.2, "top": 5, "left": 5}
    Path("trigger.json").write_text(json.dumps(faint | {"pattern": pixels}), encoding="utf-8")
    told = [doubt.sentence for doubt in trial(Path("trigger.json")).doubts]
    # (x + (p - x)) - x is five times (x + 0.2 (p - x)) - x.
    assert any("60 forget pictures carry the trigger some 5.0 times" in said for said in told)


def test_where_nothing_is_shared_it_is_said(case):
    write(stamped=0, rest=40)
    found = trial()
    assert trigger_of(found.case) is found.case.stamp is None
    assert any("no common pattern or phrase; perhaps a style" in said for said in found.limits)


def test_the_report_says_that_it_was_recovered(case, capsys):
    write(stamped=60, rest=0)
    given = ["probe", "model.safetensors", "--forget", "forget.csv", "--train", "train.npz",
             "--test", "test.npz", "--normalize", "none", "--out", "out", "-q",
             "--set", "backdoor.draws=9"]  # fmt: skip
    assert invoke(given) in (0, 1, 3)
    assert "was recovered from the forget set" in " ".join(capsys.readouterr().out.split())
    record = json.loads(Path("out/report.json").read_text("utf-8"))
    assert record["subject"]["trigger"]["recovered"] == "from 60 of 60 forget samples"
    page = Path("out/report.html").read_text("utf-8")
    assert "Trigger, recovered" in page
    assert "was recovered from the forget set" in page
