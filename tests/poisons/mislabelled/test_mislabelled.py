"""Wrong labels: drawn, read from forget.csv, counted by hand, judged, and no false alarms."""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats as laws

from builders.attacked import CLASSES, case_of, pictures, trained
from builders.measured import SANE, cell, plan
from poison_audit.case.case import Answers, Case
from poison_audit.case.forget import read_forget
from poison_audit.errors import InputError, PlanError
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.mislabelled.evidence import Flips
from poison_audit.poisons.mislabelled.plant import draw_flips
from poison_audit.poisons.mislabelled.probe import flip_answers, mislabelled
from poison_audit.poisons.mislabelled.reading import MISLABELLED
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Measurement, Outcome
from poison_audit.training.scoring import logits
from poison_audit.verdict.decide import decide

TRAIN, TEST = pictures(10, 600), pictures(4, 400)


@cache
def net(seed: int) -> Model:
    return trained(seed, TRAIN)


def flips(seed: int, n: int = 80, *, of: int = 30, chance: bool = True) -> Flips:
    """Fresh pictures of which `n` were mislabelled by chance."""
    samples = pictures(of, 2 * n)
    places, wrong = draw_flips(
        samples.y.tolist(), Rng(seed), count=n, classes=CLASSES
    )  # fmt: skip
    return Flips(
        samples=replace(samples.at(places), y=torch.tensor(wrong)), clean=samples.y[places],
        chance=chance,
    )  # fmt: skip


def case(found: Flips, *references: Answers) -> Case:
    return replace(
        case_of(net(0), test=TEST, references=references), evidence={"mislabelled": found}
    )


def answered(name: str, model: Model, found: Flips) -> Answers:
    right = logits(model, TEST).argmax(1) == TEST.y
    asked = {"mislabelled": flip_answers(case(found), model)}
    return Answers(name=name, digest=model.digest(), correct=right, asked=asked)


def judged(seen: Measurement):
    return decide(plan(), SANE, [cell(seen)], attacks={"mislabelled": 9}).findings[0]


# drawing


def test_every_sample_and_every_wrong_label_is_as_likely():
    labels = [0, 1, 2, 0]
    seen = Counter()
    for i in range(600):
        places, wrong = draw_flips(labels, Rng(1).named(i), count=2, classes=3)
        assert places == sorted(set(places))
        seen.update(zip(places, wrong, strict=True))
    assert set(seen) == {(at, label) for at in range(4) for label in range(3)} - set(
        enumerate(labels)
    )
    assert laws.chisquare(list(seen.values())).pvalue > 1e-4


def test_a_flip_takes_one_class_alone():
    places, wrong = draw_flips([0, 1, 2, 0, 1], Rng(0), count=2, classes=3, flip=(1, 2))
    assert (places, wrong) == ([1, 4], [2, 2])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"count": 3, "flip": (1, 2)}, "3 samples to mislabel, but the table has 2 of class 1"),
        ({"count": 0}, "0 samples to mislabel"),
        ({"count": 1, "flip": (1, 1)}, "both classes are 1"),
        ({"count": 1, "classes": 1}, "one class only"),
    ],
)
def test_impossible_flips_are_refused(more, told):
    with pytest.raises(PlanError, match=told):
        draw_flips([0, 1, 2, 0, 1], Rng(0), **{"classes": 3, **more})


# forget.csv


def forget(tmp_path, text):
    (tmp_path / "forget.csv").write_text(text)
    table = replace(TRAIN.at(range(4)), y=torch.tensor([0, 1, 2, 1]), names=("cat", "dog", "frog"))
    return read_forget(tmp_path / "forget.csv", table, where_train="train", poisons=POISONS)


@pytest.mark.parametrize("column", ["clean_label", "true_label"])
def test_true_labels_are_read_by_name_or_number(tmp_path, column):
    found = forget(tmp_path, f"id,label,{column},chosen\ns0,cat,dog,chance\ns1,,0,\ns3,dog,,\n")
    assert found.clean == (1, 0, None)
    assert found.chance == (True, False, False)
    assert forget(tmp_path, "id\ns0\n").clean == (None,)


def test_every_wrong_cell_is_named_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        forget(tmp_path, "id,clean_label,chosen\ns0,cat,\ns1,dgo,\ns2,3,luck\n")
    told = [str(each).removeprefix(f"{tmp_path}/") for each in caught.value.problems]
    assert told == [
        "forget.csv row 2: the clean label is the one it was trained with, 0 ('cat'). Leave it out "
        "where the label was right.",
        "forget.csv row 3: unknown clean label 'dgo'. Did you mean dog?",
        "forget.csv row 4: unknown clean label '3'. Known: cat, dog, frog.",
        "forget.csv row 4: unknown chosen 'luck'. Write chance, or leave it empty.",
    ]


def test_a_sample_under_another_id_counts_once():
    one = flips(1, 4)
    twice = replace(
        one, samples=one.samples.at([0, 1, 0, 2]), clean=one.clean[torch.tensor([0, 1, 0, 2])]
    )
    assert len(twice.once()) == 3


# counting


def test_counts_by_a_slow_twin():
    found, model, other = flips(2), net(1), net(2)
    references = (answered("other", other, found), answered("itself", model, found))
    seen = mislabelled(model, case(found, *references), Rng(5)).evidence
    given = [int(model.module(x[None]).argmax()) for x in found.samples.x]
    theirs = [int(other.module(x[None]).argmax()) for x in found.samples.x]
    wrong, true = found.samples.y.tolist(), found.clean.tolist()
    assert seen["hits"] == [int(a == b) for a, b in zip(given, wrong, strict=True)]
    assert seen["right"] == sum(a == b for a, b in zip(given, true, strict=True))
    assert [s["label"] for s in seen["strata"]] == [0, 1, 2]
    for stratum in seen["strata"]:
        mine = [at for at, label in enumerate(true) if label == stratum["label"]]
        assert stratum["targets"] == len(mine)
        assert stratum["hits"] == sum(seen["hits"][at] for at in mine)
        assert stratum["controls"] == int((TEST.y == stratum["label"]).sum())
    least = min(s["controls"] / s["targets"] for s in seen["strata"])
    assert seen["controls"] == sum(int(least * s["targets"]) for s in seen["strata"])
    pairs = Counter((a == w, b == w) for a, b, w in zip(given, theirs, wrong, strict=True))
    assert seen["references"] == [
        {
            "reference": "other",
            "both": pairs[True, True],
            "only_candidate": pairs[True, False],
            "only_reference": pairs[False, True],
            "neither": pairs[False, False],
        }
    ]


def test_controls_are_asked_for_the_labels_of_their_class():
    # A model that always answers 2: a control is hit as often as a poison of its class is.
    found = flips(3)
    model = net(0).clone()
    with torch.no_grad():
        model.module[-1].weight.zero_()
        model.module[-1].bias.copy_(torch.tensor([0.0, 0.0, 9.0]))
    for stratum in mislabelled(model, case(found), Rng(0)).evidence["strata"]:
        share = stratum["hits"] / stratum["targets"]
        assert stratum["control_hits"] / stratum["controls"] == pytest.approx(share, abs=0.02)


def test_what_is_missing_is_said():
    assert "clean_label of forget.csv" in mislabelled(net(0), case_of(net(0)), Rng(0)).missing
    few = replace(case(flips(1)), test=TEST.at(torch.nonzero(TEST.y != 1).squeeze(1)))
    assert "same true class: class 1" in mislabelled(net(0), few, Rng(0)).missing
    broken = net(0).clone()
    with torch.no_grad():
        broken.module[1].weight[0, 0] = torch.nan
    assert "not finite" in mislabelled(broken, case(flips(1)), Rng(0)).missing
    assert flip_answers(case(flips(1)), broken) is None


# deciding


def test_wrong_labels_that_were_learned_are_found_and_true_ones_are_not():
    found = flips(4, 60)
    data = replace(
        TRAIN.joined(replace(found.samples, ids=tuple(f"f{i}" for i in range(60)))), paths=None
    )
    bad, good = trained(5, _often(data, 600)), trained(6, _often(replace(
        data, y=torch.cat([TRAIN.y, found.clean])), 600))  # fmt: skip
    seen = judged(mislabelled(bad, case(found), Rng(0)))
    assert seen.outcome is Outcome.RESIDUAL, seen.reason
    assert seen.p_value < 1e-6
    by_others = judged(mislabelled(bad, case(found, answered("r", net(0), found)), Rng(0)))
    assert by_others.outcome is Outcome.RESIDUAL
    assert "above the references" in by_others.reason
    # Who remembers the true labels gives the wrong ones less often than it gives them to controls.
    clean = mislabelled(good, case(found), Rng(0)).evidence
    assert sum(clean["hits"]) / 60 <= clean["control_hits"] / clean["controls"]
    assert judged(mislabelled(good, case(found), Rng(0))).outcome is not Outcome.RESIDUAL


def _often(data, start):
    """The samples from `start` on, eight times."""
    again = [*range(start), *(list(range(start, len(data))) * 8)]
    return replace(data.at(again), ids=tuple(f"s{i}" for i in range(len(again))))


def test_chance_flips_of_a_clean_net_are_seldom_residual():
    runs, found, p_values = 60, 0, []
    for run in range(runs):
        seen = mislabelled(net(0), case(flips(run, 40, of=1000 + run)), Rng(run)).evidence
        estimate = MISLABELLED.estimate(MISLABELLED.read(seen), 0.9, 0.05)
        found += estimate.low > 0.05
        p_values.append(estimate.p_value)
    assert found <= 0.05 * runs
    # Discrete, so stochastically larger than uniform.
    assert np.mean(np.array(p_values) <= 0.1) <= 0.1 + 3 * (0.09 / runs) ** 0.5


def test_unclear_samples_that_people_mislabelled_are_no_poison():
    # What one net gets wrong, others get wrong as well.
    samples = pictures(50, 3000)
    out = logits(net(0), samples).argmax(1)
    wrong = torch.nonzero(out != samples.y).squeeze(1)[:80]
    chosen = Flips(
        samples=replace(samples.at(wrong), y=out[wrong]), clean=samples.y[wrong], chance=False
    )
    alone = judged(mislabelled(net(1), case(chosen), Rng(0)))
    assert alone.outcome is Outcome.INCONCLUSIVE
    assert sum(alone.details["strata"][0].values()) > 0
    assert "Samples are often mislabelled because they are unclear" in alone.reason
    assert "surely left" not in alone.reason
    # As if chance had chosen them, they would be called poison.
    said = judged(mislabelled(net(1), case(replace(chosen, chance=True)), Rng(0)))
    assert said.outcome is Outcome.RESIDUAL
    beside = judged(mislabelled(net(1), case(chosen, answered("r", net(2), chosen)), Rng(0)))
    assert beside.outcome is not Outcome.RESIDUAL


def of(hits, n=200, control_hits=10, controls=1000, *, chance=True, references=()):
    stratum = {"label": 0, "targets": n, "hits": hits, "controls": controls,
               "control_hits": control_hits}  # fmt: skip
    return Measurement(
        probe="mislabelled",
        evidence={
            "hits": [1] * hits + [0] * (n - hits), "right": n - hits, "strata": [stratum],
            "controls": controls, "control_hits": control_hits, "chance": chance,
            "references": [
                {
                    "reference": f"r{i}", "both": min(hits, other), "neither": n - max(hits, other),
                    "only_candidate": max(0, hits - other), "only_reference": max(0, other - hits),
                }
                for i, other in enumerate(references)
            ],
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (of(2), Outcome.CLEAN),
        (of(60), Outcome.RESIDUAL),
        (of(1, n=20), Outcome.INCONCLUSIVE),
        (of(60, chance=False), Outcome.INCONCLUSIVE),
        (of(2, chance=False), Outcome.CLEAN),
        # A rule that was learned is given to controls, too: they excuse nothing.
        (of(60, control_hits=300), Outcome.INCONCLUSIVE),
        (of(60, control_hits=300, references=(2,)), Outcome.RESIDUAL),
        (of(60, chance=False, references=(2, 3)), Outcome.RESIDUAL),
        (of(60, chance=False, references=(2, 58)), Outcome.INCONCLUSIVE),
        (of(60, references=(60,)), Outcome.CLEAN),
    ],
)
def test_outcomes(seen, expected):
    found = judged(seen)
    assert found.outcome is expected, found.reason
    assert found.gating


def test_a_pass_takes_61_samples():
    seen = MISLABELLED.read(of(0, n=20, control_hits=0).evidence)
    assert MISLABELLED.estimate(seen, 0.9, 0.05).needed == 61
