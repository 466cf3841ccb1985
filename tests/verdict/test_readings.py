"""What readings promise to those who ask them, and evidence of another form than probes write."""

import pytest

from builders.audits import plain
from poison_audit.errors import InputError
from poison_audit.poisons.readings import POISONS
from poison_audit.reports.page.evidence_charts import CHARTS
from poison_audit.verdict.policy import standard_policy
from poison_audit.verdict.readings import READINGS, reading_of


def problems(probe, evidence):
    try:
        reading_of(probe).read(evidence, "here")
    except InputError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize("probe", READINGS)
def test_what_a_probe_writes_is_read_and_what_it_lacks_is_named(probe):
    seen = plain(probe, 0.2, n=40)
    assert problems(probe, {**seen, "more": [[1]]}) == []
    for key in seen:
        if key not in ("test", "references", "drawn", "chance", "looks"):
            rest = {k: v for k, v in seen.items() if k != key}
            assert problems(probe, rest) == [f"here: missing key {key!r}."]


@pytest.mark.parametrize("probe", READINGS)
@pytest.mark.parametrize("odd", ["x", None, True, -1, 1e300, 10**40, [], [None], [[1]], {}])
def test_odd_evidence_is_refused(probe, odd):
    seen = plain(probe, 0.2, n=40)
    for key in seen:
        usual = odd == [] and key in ("held_out", "references", "control_rates")
        usual = usual or (odd is True and key in ("drawn", "chance"))
        usual = usual or (odd is None and key == "looks")
        if key != "test" and not usual:
            found = problems(probe, {**seen, key: odd})
            assert found, (key, odd)
            assert all(text.startswith("here") for text in found)


def test_every_problem_is_said_at_once_with_its_place():
    wrong = {"n": 0, "against": [{"reference": 1, "both": -1, "only_candidate": 0, "neither": 0}]}
    places = {text.split(": ")[0] for text in problems("indiscriminate", wrong)}
    one = "here.against[0]"
    assert {one, f"{one}.both", f"{one}.reference", "here.n"} <= places


def test_parts_that_are_at_odds_are_all_said():
    seen = {**plain("targeted", 0.2, n=40), "targets": ["one"], "control_hits": 10**6}
    (told,) = problems("targeted", seen)
    assert "differ in length" in told
    assert "more control hits than controls" in told


def test_an_unknown_probe_decides_nothing_and_is_never_read():
    assert not reading_of("other").gates(named=True)
    assert problems("other", {}) == ["here: no probe is named 'other'."]


@pytest.mark.parametrize("name", READINGS)
def test_a_reading_is_judged_or_shown_and_all_it_names_exists(name):
    reading = READINGS[name]
    assert reading.name == name
    assert (reading.estimate is None) == (reading.tolerance is None) == (reading.shown is not None)
    assert set(reading.charts) <= set(CHARTS)
    if reading.tolerance is not None:
        assert reading.least < reading.tolerance < reading.most
        assert all((reading.words.alert, reading.words.found, reading.words.how))


def test_tolerances_are_those_that_are_published():
    # README and design: mu 0.25, chances 0.57, excesses 5 points, deficit 1 point, loss 2 points.
    assert standard_policy().tolerances == {
        "gaussian": 0.25, "exposure": 0.57, "token-canary": 0.57, "targeted": 0.05,
        "backdoor": 0.05, "mislabelled": 0.05, "indiscriminate": 0.01, "utility": 0.02,
    }  # fmt: skip
    assert {p: [r.name for r in poison.readings] for p, poison in POISONS.items()} == {
        "gaussian": ["gaussian", "exposure"], "token-canary": ["token-canary"],
        "targeted": ["targeted"], "backdoor": ["backdoor"], "indiscriminate": ["indiscriminate"],
        "mislabelled": ["mislabelled"],
    }  # fmt: skip
