"""Several budgets in one sweep: each goes on from the smaller one, and changes no bit by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builders.layered import RNG, VECTORS, layered
from builders.small_case import FLAGS
from poison_audit.atomic import from_json
from poison_audit.cli import invoke
from poison_audit.engine import unlearning
from poison_audit.methods import UNLEARNING
from poison_audit.records import Cell
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger, Trail
from poison_audit.training.loop import descend
from poison_audit.verdict.record import AuditRecord

pytestmark = pytest.mark.usefixtures("plain_page")

BUDGETS = (0.2, 0.4, 1.0)


def run(budget: str, out: str, *arguments: str) -> list[Cell]:
    command = ["check", "model.safetensors", "--forget", "forget.csv", *FLAGS, *arguments]
    assert invoke([*command, "--budget", budget, "--out", out]) in (1, 3)
    text = (Path(out) / "report.json").read_text(encoding="utf-8")
    return [cell for cell in from_json(AuditRecord, text).cells if cell.method]


def bare(cell: Cell) -> Cell:
    """Return a cell without its name, its timings, and what it took over."""
    cost = replace(cell.cost, seconds=0.0, peak_bytes=None, reused=0.0)
    return replace(cell, candidate="", cost=cost, probe_seconds=0.0)


EVERY = tuple(name for name in UNLEARNING if name != "restamp")  # no trigger is known here
GOING_ON = ("gd", "ngd", "ga", "cf_k", "neggrad_plus", "npo")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "names", "seeds"), [("constant", EVERY, 1), ("cosine", ("gd", "eu_k"), 2)]
)
def test_every_method_is_at_every_budget_what_it_is_alone(case, schedule, names, seeds):
    recipe = ("--recipe", f"schedule={schedule}", "--recipe", "augment=flip",
              "--recipe", "momentum=0.9", "--recipe", "weight_decay=0.001",
              "--methods", ",".join(names), "--seeds", str(seeds),
              "--set", "exposure.draws=4")  # fmt: skip
    swept = run(",".join(map(str, BUDGETS)), "sweep", *recipe)
    assert len(swept) == len(names) * len(BUDGETS) * seeds
    for budget in BUDGETS:
        alone = run(str(budget), f"alone{budget}", *recipe)
        assert all(cell.cost.reused == 0 for cell in alone)
        assert [bare(c) for c in swept if c.budget == budget] == [bare(c) for c in alone]
    at = {(cell.method.name, cell.budget, cell.seed): cell.cost for cell in swept}
    for seed in range(seeds):
        for name in names:
            assert at[name, 0.2, seed].reused == 0
        goes_on = [*GOING_ON, "eu_k"] if schedule == "constant" else GOING_ON
        for name in set(goes_on) & set(names):
            assert at[name, 0.4, seed].reused == at[name, 0.2, seed].gradients > 0
            assert at[name, 1.0, seed].reused == at[name, 0.4, seed].gradients
    if "ssd" in names:
        # Importances: 1 epoch of 90 samples is affordable at each of these budgets of 5 epochs.
        assert at["ssd", 0.4, 0].reused == at["ssd", 0.4, 0].gradients == 90
        # A method of several descents starts anew.
        assert at["scrub", 1.0, 0].reused == 0


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_without_the_smaller_run(case, monkeypatch):
    whole = run("0.2,0.4,1.0", "whole", "--methods", "gd")
    unlearn = unlearning.unlearn

    def killed(*arguments, budget, **others):
        if budget == 0.4:
            raise KeyboardInterrupt
        return unlearn(*arguments, budget=budget, **others)

    monkeypatch.setattr(unlearning, "unlearn", killed)
    command = ["check", "model.safetensors", "--forget", "forget.csv", *FLAGS]
    invoke([*command, "--methods", "gd", "--budget", "0.2,0.4,1.0", "--out", "o"])
    monkeypatch.setattr(unlearning, "unlearn", unlearn)
    resumed = run("0.2,0.4,1.0", "o", "--methods", "gd")
    assert [bare(cell) for cell in resumed] == [bare(cell) for cell in whole]
    told = {cell.budget: cell.cost.reused for cell in resumed}
    assert told[0.2] == told[0.4] == 0 < told[1.0]


SETTINGS = [
    dict(momentum=0.9, weight_decay=0.01, batch_norm="train"),
    dict(optimizer="adamw", weight_decay=0.1, noise=0.1),
    dict(parameters=["1.0.weight"], momentum=0.9),
]


def descended(trail, steps, *, schedule="constant", lr=0.1, rng=RNG, model=None, **settings):
    """Return the weights, the ledger, and the batches that were gone forward and backward with."""
    seen = []
    model, ledger = model or layered(), Ledger(trail=trail)
    loss = model.loss

    def counted(module, batch):
        seen.append(tuple(batch.y.tolist()))
        return loss(module, batch)

    batches = shuffled(VECTORS, 4, rng.named("batches"))
    descend(
        replace(model, loss=counted), ((batch,) for batch in batches), lambda mean: mean,
        steps=steps, lr=lr, ledger=ledger, rng=rng, schedule=schedule, **settings,
    )  # fmt: skip
    return (model.digest(), ledger.curve(), ledger.spent), ledger.reused, seen, next(batches)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_longer_descent_goes_on_and_makes_the_rest_of_the_steps(settings):
    trail = Trail()
    for steps, before in ((3, 0), (7, 3), (7, 7), (60, 7)):
        alone, _, every, after = descended(None, steps, **settings)
        found, reused, seen, next_one = descended(trail, steps, **settings)
        assert found == alone
        assert reused == 4 * before
        assert seen == every[before:]
        assert next_one.y.tolist() == after.y.tolist()


def test_only_the_same_descent_goes_on():
    trail = Trail()
    descended(trail, 3)
    other = layered()
    other.module[0][0].weight.data[0, 0] += 1e-3
    changes = [
        dict(lr=0.2), dict(rng=RNG.named("other")), dict(schedule="cosine"), dict(model=other),
    ]  # fmt: skip
    for change in changes:
        made = descended(Trail(trail.key, trail.end), 5, **change)
        assert made[1] == 0
        assert len(made[2]) == 5
    # A shorter one has nothing to go on from.
    assert descended(Trail(trail.key, trail.end), 2)[1] == 0
    assert descended(Trail(trail.key, trail.end), 4)[1] == 12


def test_what_was_computed_once_is_charged_every_time():
    trail, calls = Trail(), []
    for number in range(3):
        ledger = Ledger(allowed=10.0, trail=trail)
        assert ledger.once("key", 4.0, lambda: calls.append(0) or 7) == 7
        assert (ledger.spent, ledger.reused) == (4.0, 4.0 if number else 0.0)
    assert len(calls) == 1
    free = Ledger()
    assert [free.once("key", 4.0, lambda: calls.append(0) or 8) for _ in range(2)] == [8, 8]
    assert (free.spent, free.reused, len(calls)) == (8.0, 0.0, 3)
