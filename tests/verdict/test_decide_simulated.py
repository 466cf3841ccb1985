"""Small twins of tests/measurements/decisions.py: the exit code errs as seldom as is promised."""

import runpy
from pathlib import Path

import pytest

from poison_audit.models.seeds import Rng

pytestmark = pytest.mark.usefixtures("no_sizes")
SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "measurements" / "decisions.py"))
ROWS, exit_code = SCRIPT["ROWS"], SCRIPT["exit_code"]
RUNS, MOST = 25, 5
"""Audits of each kind; Binomial(25, 0.05) exceeds 5 with probability 0.001."""


def codes(name, effect, gate="deployed", models=1, runs=RUNS):
    row, rng = ROWS[name], Rng(23).named(name, effect, gate, models).numpy()
    draws = (row.draw(rng, row.effects[effect], models) for _ in range(runs))
    return [exit_code(row, measured, gate) for measured in draws]


@pytest.mark.parametrize(
    "name",
    [
        "gaussian, half up and half down",
        "indiscriminate, 3 references, luck 0.6",
        "utility, clusters of five counted once",
    ],
)
def test_alone_it_errs_at_most_at_alpha(name):
    assert codes(name, 1).count(1) <= MOST
    assert codes(name, 2).count(0) <= MOST


def test_one_reference_decides_nothing_at_any_luck():
    for effect in range(4):
        assert set(codes("indiscriminate, 1 reference, luck 0.9", effect, runs=4)) == {3}


def test_one_clean_candidate_among_eight_bad_ones_is_no_failure():
    # Judged by the worst, or by undivided error, 58% of such audits ended with exit code 1.
    name, rng, found = "gaussian, 300 canaries", Rng(24).named("mixed").numpy(), []
    row = ROWS[name]
    for _ in range(10):
        measured = [*row.draw(rng, row.effects[3], 8), *row.draw(rng, 0.0, 1)]
        found.append(exit_code(row, measured, "any-method"))
    assert found.count(1) <= 3  # Binomial(10, 0.05) exceeds 3 with probability 0.001
