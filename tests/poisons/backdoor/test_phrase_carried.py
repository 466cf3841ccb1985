"""Does the forget set carry the phrase that is given, where and as trigger.json says?"""

import pytest
import torch

from poison_audit.case.forget import ForgetSet
from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.carried import doubts_of
from poison_audit.poisons.backdoor.phrase import Phrase

ROWS = ("cf a film", "the cf film", "a film cf", "cfx", "a film", "cf so bad")


def train(labels=(1, 1, 1, 1, 0, 1)):
    return Samples(
        ids=tuple("abcdef"), x=torch.zeros(6, 1, dtype=torch.int64), y=torch.tensor(labels),
        texts=ROWS, names=("bad", "good"),
    )  # fmt: skip


def forget(positions, attacks):
    blank = ("",) * len(positions)
    return ForgetSet(
        positions=positions, ids=blank, attacks=attacks, campaigns=blank,
        canaries=(None,) * len(positions), keys=blank, bases=(None,) * len(positions),
        rows=(0,) * len(positions), digest="", most=False,
    )  # fmt: skip


def told(position, positions, attack="backdoor", *, label=1, **more):
    phrase = Phrase(text="cf", position=position, label=label)
    rows = forget(positions, (attack,) * len(positions))
    return [doubt.sentence for doubt in doubts_of(phrase, train(**more), rows)]


@pytest.mark.parametrize(
    ("position", "rows"),
    [("start", (0, 5)), ("end", (2,)), ("anywhere", (0, 1, 2, 5))],
)
def test_rows_that_carry_it_raise_no_doubt(position, rows):
    assert told(position, rows) == []
    assert told(position, rows, "") == []


def test_rows_of_the_backdoor_that_carry_something_else():
    assert told("start", (0, 3, 4)) == [
        "2 of the 3 forget texts that are said to be of the backdoor do not hold its phrase 'cf': "
        "they may carry another one, which was not looked for."
    ]
    # Rows of no named attack may be anything.
    assert told("start", (0, 3, 4), "") == []


def test_rows_of_other_attacks_are_not_asked():
    assert told("start", (1, 4), "targeted") == []


def test_a_phrase_that_stands_elsewhere():
    assert told("start", (0, 1, 2)) == [
        "trigger.json puts 'cf' before the text, and 2 of the 3 forget texts that it would explain "
        "hold it elsewhere."
    ]
    assert "after the text, and 1 of the 2" in told("end", (0, 2))[0]


def test_a_phrase_that_nobody_carries():
    assert told("anywhere", (3, 4)) == [
        "None of the 2 forget texts that the trigger would explain holds its phrase 'cf': the "
        "model may have learned another one."
    ]


def test_a_label_that_its_carriers_do_not_have():
    assert told("start", (0, 5), label=0) == [
        "trigger.json says that 'cf' causes the label 0 ('bad'), and 2 of the 2 forget texts that "
        "hold it are labelled 1 ('good')."
    ]
    assert told("start", (0, 5), label=0, labels=(1, 1, 1, 1, 0, 0)) == []
