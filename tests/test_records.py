import json
import math

import pytest

from poison_audit.atomic import from_json, to_json
from poison_audit.errors import InputError
from poison_audit.records import (
    Cell,
    Finding,
    Interval,
    Measurement,
    Outcome,
    Plan,
    Policy,
    Recipe,
    Step,
)

PLAN = Plan(
    methods=(Step(name="scrub", params={"alpha": 0.1 + 0.2, "max_epochs": 3}),),
    probes=(Step(name="exposure", params={"draws": 32}),),
    seeds=2,
    policy=Policy(tolerances={"exposure": 0.57}, gate="any-method"),
)
CELL = Cell(
    candidate="scrub",
    kind="method",
    seed=1,
    method=PLAN.methods[0],
    measurements=(Measurement(probe="exposure", evidence={"wins": [1, 2], "draws": 3}),),
)


@pytest.mark.parametrize("record", [PLAN, CELL, Recipe(epochs=3, assumed=("lr",))])
def test_round_trip_is_exact(record):
    assert from_json(type(record), to_json(record)) == record


def test_json_is_sorted_and_stable():
    text = to_json(PLAN)
    assert text == to_json(from_json(Plan, text))
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_nan_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(Recipe(epochs=math.nan))


def test_unknown_missing_and_mistyped_keys_are_named():
    plain = json.loads(to_json(CELL))
    del plain["candidate"]
    plain["canddate"] = "x"
    with pytest.raises(InputError) as caught:
        from_json(Cell, json.dumps(plain), where="cell.json")
    assert [str(p) for p in caught.value.problems] == [
        "cell.json: unknown key 'canddate'. Did you mean candidate?",
        "cell.json: missing key 'candidate'.",
    ]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", "1", "cell.json.seed: expected of type int, got '1'."),
        ("seed", True, "cell.json.seed: expected of type int, got True."),
        ("kind", "other", "cell.json.kind: expected one of 'deployed'"),
        ("measurements", {}, "cell.json.measurements: expected a list, got {}."),
    ],
)
def test_wrong_types_are_refused(key, value, said):
    plain = {**json.loads(to_json(CELL)), key: value}
    with pytest.raises(InputError) as caught:
        from_json(Cell, json.dumps(plain), where="cell.json")
    assert str(caught.value).startswith(said)


def test_everything_that_is_wrong_is_said_at_once():
    plain = json.loads(to_json(CELL))
    plain["seed"], plain["cost"], plain["method"]["parms"] = (
        0.5,
        {"step": 3},
        plain["method"].pop("params"),
    )
    with pytest.raises(InputError) as caught:
        from_json(Cell, json.dumps(plain), where="cell.json")
    assert [str(p) for p in caught.value.problems] == [
        "cell.json.method: unknown key 'parms'. Did you mean params?",
        "cell.json.cost: unknown key 'step'. Did you mean steps?",
        "cell.json.seed: expected of type int, got 0.5.",
        *(
            f"cell.json.cost: missing key '{key}'."
            for key in ("gradients", "allowed", "steps", "losses", "seconds", "peak_bytes")
        ),
    ]


def test_of_many_problems_the_first_are_told_and_how_many_there_are():
    plain = {**json.loads(to_json(PLAN)), "sweep": ["x"] * 1000}
    with pytest.raises(InputError) as caught:
        from_json(Plan, json.dumps(plain), where="plan.json")
    assert len(caught.value.problems) == 21
    assert str(caught.value.problems[-1]) == "plan.json: 980 more problems."


@pytest.mark.parametrize(
    "text", ["{" * 100_000, "[" * 300 + "]" * 300, "", "{'seed': 1}", '"\\ud8"', "9" * 5000]
)
def test_not_json(text):
    with pytest.raises(InputError, match="not JSON"):
        from_json(Cell, text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 400])
def test_what_is_beyond_any_float_is_refused(number):
    for text in (f'{{"epochs": {number}}}', f'{{"assumed": {number}}}'):
        with pytest.raises(InputError):
            from_json(Recipe, text)
    if not number.isdigit():
        with pytest.raises(InputError, match=r"not JSON \(.* (is no number|is beyond any float)"):
            from_json(Step, f'{{"name": "a", "params": {{"free": [{number}]}}}}')


@pytest.mark.parametrize(
    "name", ["\udcff", "\ud800x", "\udfff\ud800", "\U0001f600\udc00", "\U0001f600", "\\ud8"]
)
def test_a_path_whose_bytes_are_no_utf8_survives(name):
    cell = Cell(candidate=name, kind="candidate", seed=0, movement={name: [name, {"a": name}]})
    assert from_json(Cell, to_json(cell)) == cell
    found = Finding(probe=name, candidate="a", seed=0, outcome=Outcome.INFO, reason=name)
    assert from_json(Finding, to_json(found)).outcome is Outcome.INFO
    with pytest.raises(InputError, match="unknown key"):
        from_json(Cell, to_json(cell).replace('"batch"', '"bach"'))


def test_a_measurement_has_evidence_or_a_reason():
    with pytest.raises(ValueError, match="evidence"):
        Measurement(probe="gaussian", evidence=None)
    with pytest.raises(ValueError, match="evidence"):
        Measurement(probe="gaussian", evidence={}, missing="no key")


def test_what_was_not_measured_cannot_be_clean():
    who = {"probe": "gaussian", "candidate": "gd", "seed": 0, "reason": "."}
    with pytest.raises(ValueError, match="never passes"):
        Finding(**who, outcome=Outcome.CLEAN)
    with pytest.raises(ValueError, match="interval"):
        Finding(**who, outcome=Outcome.CLEAN, statistic=0.1)
    Finding(
        **who, outcome=Outcome.CLEAN, statistic=0.1, interval=Interval(low=0, high=1, level=0.9)
    )
