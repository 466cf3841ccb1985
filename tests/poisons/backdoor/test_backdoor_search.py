"""The search for the control triggers that a model answers most."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import betaincinv, stdtrit
from scipy.stats import binomtest

from builders.attacked import backdoored, case_of, pictures
from poison_audit.models.model import Batch
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.patches import draw_controls
from poison_audit.poisons.backdoor.probe import ABOVE, FIRST, _seen, backdoor
from poison_audit.poisons.backdoor.reading import BACKDOOR
from poison_audit.poisons.backdoor.stamps import Stamps
from poison_audit.statistics import triggers


def excess(evidence, *, level, tolerance):
    return BACKDOOR.estimate(BACKDOOR.read(evidence), level, tolerance)


@pytest.mark.parametrize(
    ("inputs", "works", "every"), [(150, True, 1), (170, True, 4), (170, False, 1)]
)
def test_backdoor_counts_by_a_slow_twin(inputs, works, every):
    # Of 170 inputs 43 are enough where one patch leads by far; of 150, a quarter is too few.
    (model, trigger), test = backdoored(), pictures(4, 400)
    if not works:
        trigger = draw_controls(trigger, (8, 8), 6, Rng(4))[-1]
    case = case_of(model, trigger=trigger)
    evidence = backdoor(model, case, Rng(3), draws=5, inputs=inputs).evidence
    others = [i for i in range(400) if int(test.y[i]) != trigger.label]
    order = Rng(3).named("inputs").numpy().permutation(len(others))[:inputs]
    chosen = sorted(others[i] for i in order)

    def hits(patch):
        seen = []
        for i in chosen:
            x = test.x[i : i + 1].clone()
            if patch is not None:
                top, left, _, _ = patch.box
                x[0, 0, top : top + 3, left : left + 3] = patch.add[
                    0, top : top + 3, left : left + 3
                ]
            seen.append(int(model.module(x).argmax()) == trigger.label)
        return seen

    assert evidence["hits"] == hits(trigger)
    assert evidence["clean_hits"] == sum(hits(None))
    controls = draw_controls(trigger, (8, 8), 5, Rng(3))
    expected = [pytest.approx(np.mean(hits(c)[::every])) for c in controls]
    assert evidence["control_rates"] == expected
    assert evidence["control_every"] == every


class Table:
    """A model that answers each patch on each input as a table of hits says."""

    def __init__(self, hits: np.ndarray) -> None:
        self.hits, self.asked = torch.from_numpy(hits), 0

    def seen(self) -> dict[str, object]:
        """Return what the two looks leave as evidence."""

        def batch(which: torch.Tensor, places: torch.Tensor) -> Batch:
            self.asked += len(which)
            return Batch(x=self.hits[which, places].float()[:, None], y=places)

        stamps = Stamps(
            triggers=len(self.hits), inputs=torch.arange(self.hits.shape[1]), batch=batch,
            controls="order",
        )  # fmt: skip
        model = SimpleNamespace(
            module=None, logits=lambda module, part: torch.cat([1 - part.x, part.x], 1)
        )
        seen = _seen(model, stamps, 1)
        hits, controls = seen.hits, seen.controls
        every = 1 if controls.shape[1] == len(hits) else FIRST
        assert hits.tolist() == self.hits[0].tolist()
        assert controls.tolist() == self.hits[1 : 1 + len(controls), ::every].tolist()
        return {
            "label": 1, "hits": hits.int().tolist(), "clean_hits": 0, "control_every": every,
            "control_rates": controls.double().mean(1).tolist(), "references": [],
            **({"above": ABOVE} if seen.stopped else {}),
        }  # fmt: skip


def test_a_leader_is_put_on_every_input_and_the_others_on_a_quarter():
    far = Table(np.random.default_rng(0).random((150, 200)) < np.r_[0.9, [0.1] * 149][:, None])
    assert far.seen()["control_every"] == FIRST
    assert far.asked == 150 * 50 + 150
    near = Table(np.random.default_rng(0).random((150, 200)) < np.r_[0.3, [0.1] * 149][:, None])
    assert near.seen()["control_every"] == 1
    assert near.asked == 150 * 200


def test_a_search_ends_with_the_tenth_control_that_does_as_well():
    hits = np.zeros((150, 200), dtype=bool)
    hits[0, :100] = True  # of the first look 25 of 50
    better = [3, 7, 20, 31, 40, 41, 42, 60, 61, 70, 71]
    hits[better, :104] = True
    table = Table(hits)
    evidence = table.seen()
    assert evidence["above"] == ABOVE == 10
    assert len(evidence["control_rates"]) == 70  # the tenth is control 70
    assert evidence["control_rates"][-1] == 0.52
    assert table.asked == 75 * 50 + 71 * 150  # three blocks of 25; then all inputs of those
    found = excess(evidence, level=0.9, tolerance=0.05)
    assert found.p_value == 10 / 70
    mean = 9 * 0.52 / 69
    assert found.value == pytest.approx(0.5 - mean)
    assert found.low == 0  # surely above the mean, and yet nothing is found
    # Of a weak trigger, by hand: both rates' exact ends at 0.05, and Student's t, in squares.
    weak = {**evidence, "hits": [1] * 20 + [0] * 180, "clean_hits": 18,
            "control_rates": [0.08, 0.12] * 10 + [0.1, 0.11]}  # fmt: skip
    found = excess(weak, level=0.9, tolerance=0.05)
    mean = 2.1 / 21
    ends = (0.1 - betaincinv(20, 181, 0.05), betaincinv(21, 180, 0.95) - 0.1)
    sd = np.std([0.08, 0.12] * 10 + [0.1], ddof=1)
    slack = stdtrit(20, 0.95) * sd / 21**0.5
    assert found.low == pytest.approx(0.1 - mean - math.hypot(*ends, slack))


def stopped_early(draws, n: int) -> dict[str, object]:
    """Return what is seen of a trigger that is one more patch like its controls."""
    rates = draws.beta(1, 6, 150)
    return Table(draws.random((150, n)) < rates[:, None]).seen()


@pytest.mark.slow
def test_the_p_value_of_a_search_that_ends_early_is_valid_and_its_mean_unbiased(monkeypatch):
    monkeypatch.setattr(triggers, "smallest_size", lambda passes: 0)
    draws, found, values, ended = np.random.default_rng(5), [], [], 0
    for _ in range(1500):
        evidence = stopped_early(draws, 160)
        ended += "above" in evidence
        estimate = excess(evidence, level=0.95, tolerance=0.05)
        found.append(estimate.p_value)
        values.append(estimate.value)
    assert ended > 1000
    for level in (0.02, 0.05, 0.1, 0.2, 0.5):
        hits = sum(p <= level for p in found)
        assert binomtest(hits, len(found), level, alternative="greater").pvalue > 0.005, level
    # Trigger and controls have the same law: the mean excess is 0, to four standard errors.
    assert abs(np.mean(values)) < 4 * np.std(values) / len(values) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("spread", ["one leads", "any rates", "two lead"])
def test_two_looks_do_not_find_more_than_one(spread, monkeypatch):
    monkeypatch.setattr(triggers, "smallest_size", lambda passes: 0)  # slow, and not asked for here
    # 40 exchangeable patches: at level 0.95 the trigger may be found once in 40 by luck, at most.
    rng, found, early, times = np.random.default_rng(7), 0, 0, 1500
    for _ in range(times):
        chances = {
            "one leads": np.r_[0.8, [0.1] * 39],
            "two lead": np.r_[0.95, 0.6, [0.1] * 38],
            "any rates": rng.beta(0.1, 1, 40),
        }[spread]  # fmt: skip
        hits = rng.random((40, 160)) < rng.permutation(chances)[:, None]
        evidence = Table(hits).seen()
        early += evidence["control_every"] == FIRST
        found += excess(evidence, level=0.95, tolerance=0.05).low > 0
    assert early > 0.03 * times
    assert binomtest(found, times, 1 / 40, alternative="greater").pvalue > 0.01
    assert found > 0
