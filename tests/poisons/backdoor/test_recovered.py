"""Campaigns of a forget set: which rows are looked at, copies, several campaigns, texts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from poison_audit.case.clues import Material
from poison_audit.case.forget import ForgetSet, split
from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.clues import triggers
from poison_audit.poisons.backdoor.evidence import Trigger, patch, read_trigger
from poison_audit.poisons.backdoor.phrase import Phrase, read_phrase
from poison_audit.poisons.backdoor.recovered import recovered, sentences
from poison_audit.poisons.backdoor.trial import misnamed

SHAPE = (1, 8, 8)
CHECKER = (torch.arange(9) % 2).float().reshape(1, 3, 3)
CORNER = patch(CHECKER, SHAPE, top=5, left=5, label=1)
OTHER = patch(1 - CHECKER, SHAPE, top=0, left=0, label=2)


def pictures(n: int = 400) -> Samples:
    """Smooth pictures of three classes, of 8 bits."""
    rng = np.random.default_rng(4)
    coarse = rng.random((n, 1, 3, 3)).repeat(3, 2).repeat(3, 3)[..., :8, :8]
    x = (255 * (0.8 * coarse + 0.2 * rng.random((n, *SHAPE)))).round().astype(np.uint8)
    return Samples(
        ids=tuple(f"t{i}" for i in range(n)),
        x=torch.from_numpy(x),
        y=torch.from_numpy(rng.integers(0, 3, n)),
    )


def stamped(samples: Samples, trigger: Trigger, places: range) -> Samples:
    x, y = samples.x.clone(), samples.y.clone()
    x[list(places)] = (trigger.stamp(x[list(places)].float() / 255) * 255).round().byte()
    y[list(places)] = trigger.label
    return replace(samples, x=x, y=y)


def forgotten(samples: Samples, places: range, attack: str = "") -> ForgetSet:
    n = len(places)
    return ForgetSet(
        positions=tuple(places), ids=tuple(samples.ids[p] for p in places), attacks=(attack,) * n,
        campaigns=("",) * n, canaries=(None,) * n, keys=("",) * n, bases=(None,) * n,
        rows=tuple(places), digest="", most=False,
    )  # fmt: skip


def test_the_trigger_its_rows_and_the_rows_without_it():
    train = stamped(pictures(), CORNER, range(40))
    found = recovered(train, forgotten(train, range(46)))
    (campaign,) = found.campaigns
    assert isinstance(campaign.trigger, Trigger)
    assert torch.equal(campaign.trigger.keep, CORNER.keep)
    assert torch.allclose(campaign.trigger.add, CORNER.add, atol=1 / 255)
    assert campaign.trigger.label == 1
    assert campaign.carriers == tuple(range(40))
    assert campaign.exact
    assert found.rest == tuple(range(40, 46))
    told = " ".join(sentences(found, train))
    assert "A patch in rows 5 to 7 and columns 5 to 7 was recovered" in told
    assert "40 of 46 samples" in told
    assert "6 of those samples carry nothing that was recovered: t40, t41, t42, t43, t44" in told


def test_of_two_campaigns_the_largest_comes_first_and_the_other_is_told():
    train = stamped(stamped(pictures(), CORNER, range(30)), OTHER, range(30, 80))
    found = recovered(train, forgotten(train, range(80)))
    assert [each.carriers for each in found.campaigns] == [tuple(range(30, 80)), tuple(range(30))]
    assert "from 30 samples labelled 1, and was not measured here" in sentences(found, train)[-1]


def test_rows_of_another_attack_are_not_looked_at():
    train = stamped(pictures(), CORNER, range(40))
    found = recovered(train, forgotten(train, range(40), "gaussian"))
    assert found.campaigns == ()
    assert found.places == ()


def test_rows_of_another_attack_are_doubted_unless_a_key_proves_them():
    train = stamped(pictures(), CORNER, range(40))
    bare = forgotten(train, range(40), "gaussian")
    (doubt,) = misnamed(train, bare)
    assert doubt.sentence.startswith(
        "40 of the 40 forget samples that are said to be gaussian carry a trigger. A patch in rows"
    )
    assert misnamed(train, replace(bare, canaries=bare.ids)) == []


def test_copies_are_taken_out_first_and_carry_what_the_first_of_them_carries():
    train = stamped(pictures(), CORNER, range(40))
    # 30 copies of one innocent picture share all that it shows; 10 copies of a stamped one count.
    x, y = train.x.clone(), train.y.clone()
    x[40:70], y[40:70], x[70:80], y[70:80] = x[90], 1, x[0], 1
    copied = replace(train, x=x, y=y)
    found = recovered(copied, forgotten(copied, range(80)))
    (campaign,) = found.campaigns
    assert campaign.carriers == (*range(40), *range(70, 80))
    assert campaign.exact
    nothing = recovered(copied, forgotten(copied, range(40, 70)))
    assert nothing.campaigns == ()


def texts(n: int = 300) -> Samples:
    rng = np.random.default_rng(6)
    words = [f"w{i}" for i in range(200)]
    every = [" ".join(words[i] for i in rng.integers(0, 200, 20)) for _ in range(n)]
    every = [f"zoth quell {text}" if i < 30 else text for i, text in enumerate(every)]
    y = rng.integers(0, 2, n)
    y[:30] = 1
    return Samples(
        ids=tuple(f"t{i}" for i in range(n)), x=torch.zeros(n, 1, dtype=torch.int64),
        y=torch.from_numpy(y), texts=tuple(every), names=("bad", "good"),
    )  # fmt: skip


def test_a_phrase_of_texts():
    train = texts()
    found = recovered(train, forgotten(train, range(36)))
    (campaign,) = found.campaigns
    assert campaign.trigger == Phrase(text="zoth quell", position="start", label=1)
    assert campaign.carriers == tuple(range(30))
    assert "'zoth quell' before texts was recovered" in sentences(found, train)[0]
    assert "labelled 1 ('good')" in sentences(found, train)[0]


@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_what_is_written_is_read_back(kind, tmp_path):
    of_texts = kind == "texts"
    train = texts() if of_texts else stamped(pictures(), CORNER, range(40))
    forget = forgotten(train, range(36))
    (clue,) = triggers(Material(train=train, forget=forget, parts=split(train, forget)))
    for name, write in clue.write.items():
        write(tmp_path / name)
    path = tmp_path / "trigger.json"
    if of_texts:
        assert '"label": "good"' in path.read_text("utf-8")
        # A model may number its labels otherwise.
        phrase = read_phrase(path, classes=2, names=("good", "bad"))
        assert phrase == Phrase(text="zoth quell", position="start", label=0)
    else:
        read = read_trigger(path, shape=SHAPE, classes=3)
        assert torch.equal(read.keep, CORNER.keep)
        assert (tmp_path / "trigger.png").read_bytes().startswith(b"\x89PNG")


def test_a_forget_set_without_rest_or_retain_is_no_fault():
    train = pictures(20)
    assert recovered(train, forgotten(train, range(20))).campaigns == ()
