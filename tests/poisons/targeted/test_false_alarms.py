"""Clean networks and the targets that plant chooses: how many are called poisoned.

The small twin of tests/measurements/targets.py.
"""

from pathlib import Path

import numpy as np
import pytest

from builders.many_nets import train_many
from poison_audit.case.case import Answers
from poison_audit.case.tables import read_table
from poison_audit.models.seeds import Rng
from poison_audit.poisons.targeted.plant import choose_targets
from poison_audit.statistics.forms import Compared, Stratum
from poison_audit.statistics.rates import excess_of_targets
from poison_audit.training.scoring import logits

DIGITS = Path(__file__).parents[3] / "fixtures/digits"
NETS = 24


@pytest.fixture(scope="module")
def nets():
    return train_many([read_table(DIGITS / "clean.npz")] * NETS, Rng(3), epochs=8)


def hits(model, targets):
    return (logits(model, targets.samples).argmax(1) == targets.adversarial).cpu()


@pytest.mark.parametrize("count", [8, 20])
def test_targets_that_were_chosen_for_being_easy_call_no_clean_net_poisoned(nets, count):
    test = read_table(DIGITS / "test.npz")
    totals = np.zeros(3, dtype=np.int64)
    for i, model in enumerate(nets):
        every = choose_targets(nets[i - 1], test, count=2 * count)
        targets = every.tossed(Rng(4).named(count, i))
        own, others = hits(model, targets), hits(model, targets.controls)
        pair = Answers(name="r", digest="", correct=own).compared(hits(nets[i - 2], targets), own)
        # Other samples are hardly ever given the label that was wanted of a target: 2 of 600.
        told = [(2, 600, True, ()), (int(others.sum()), count, True, ()),
                (2, 600, False, (Compared(**pair),))]  # fmt: skip
        found = [
            excess_of_targets(
                [Stratum(targets=count, hits=int(own.sum()), controls=n, control_hits=k)],
                control_hits=k, controls=n, drawn=drawn, against=against, level=0.9, tolerance=0.05,
            ).low > 0.05
            for k, n, drawn, against in told
        ]  # fmt: skip
        totals += np.array(found)
    by_class, by_toss, by_reference = totals.tolist()
    # Binomial(24, 0.05) exceeds 4 with probability 0.006.
    assert max(by_toss, by_reference) <= 4 < by_class
