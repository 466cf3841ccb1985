"""Candidates of which a toss decides who is attacked: files, counts, and what nothing claims."""

import itertools
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch
from scipy import stats as laws

from builders.attacked import CLASSES, case_of, pictures, trained
from poison_audit.case.case import Answers
from poison_audit.errors import InputError
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.targeted.evidence import Targets, read_targets, write_targets
from poison_audit.poisons.targeted.plant import choose_targets
from poison_audit.poisons.targeted.probe import target_answers, targeted
from poison_audit.poisons.targeted.reading import TARGETED
from poison_audit.training.scoring import logits

TEST = pictures(4, 400)


@cache
def net(seed: int) -> Model:
    return trained(seed, pictures(10, 600))


def candidates(n: int) -> Targets:
    return Targets(samples=TEST.at(range(n)), adversarial=(TEST.y[:n] + 1) % CLASSES)


def test_every_half_is_as_likely():
    seen = Counter(candidates(4).tossed(Rng(0).named(i)).samples.ids for i in range(600))
    assert set(seen) == set(itertools.combinations(TEST.ids[:4], 2))
    # Chi-squared with 5 degrees of freedom.
    assert laws.chisquare(list(seen.values())).pvalue > 1e-4


def test_a_toss_parts_the_candidates():
    every = candidates(7)
    tossed = every.tossed(Rng(3))
    assert (len(tossed), len(tossed.controls)) == (4, 3)
    wanted = dict(zip(every.samples.ids, every.adversarial.tolist(), strict=True))
    for part in (tossed, tossed.controls):
        found = dict(zip(part.samples.ids, part.adversarial.tolist(), strict=True))
        assert found == {name: wanted.pop(name) for name in found}
        assert list(found) == sorted(found, key=TEST.ids.index)
    assert not wanted


def test_roles_are_written_and_read_back(tmp_path):
    tossed = candidates(6).tossed(Rng(1))
    write_targets(tmp_path / "t.csv", tossed)
    again = read_targets(tmp_path / "t.csv", TEST, where_test="test")
    assert again.samples.ids == tossed.samples.ids
    assert again.controls.samples.ids == tossed.controls.samples.ids
    assert again.controls.adversarial.equal(tossed.controls.adversarial)
    # What knows no role names targets.
    rows = [line.rsplit(",", 1)[0] for line in (tmp_path / "t.csv").read_text().splitlines()]
    (tmp_path / "old.csv").write_text("\n".join(rows))
    old = read_targets(tmp_path / "old.csv", TEST, where_test="test")
    assert len(old) == 6
    assert old.controls is None


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("s0,{0},target\ns1,{1},decoy\n", "row 3: unknown role 'decoy'. Use target or control"),
        ("s0,{0},control\n", "no row is a target"),
        ("s0,{0},target\ns0,{0},control\n", "row 3: the same sample as in row 2"),
    ],
)
def test_wrong_roles_are_refused(tmp_path, rows, told):
    rows = rows.format(*((TEST.y[:2] + 1) % CLASSES).tolist())
    (tmp_path / "t.csv").write_text(f"id,adversarial,role\n{rows}")
    with pytest.raises(InputError, match=told):
        read_targets(tmp_path / "t.csv", TEST, where_test="test")


def test_a_control_that_shows_what_a_target_does_is_none():
    x = TEST.x[:4].clone()
    x[3], x[2] = x[0], x[1]
    test = Samples(ids=("a", "b", "c", "d"), x=x, y=torch.zeros(4, dtype=torch.int64))
    both = Targets(samples=test, adversarial=torch.tensor([1, 1, 2, 1]))
    once = replace(both.at([0, 1]), controls=both.at([2, 3])).once()
    assert once.samples.ids == ("a", "b")
    assert once.controls.samples.ids == ("c",)  # another label is wanted of it


def answered(name: str, model: Model, targets: Targets) -> Answers:
    case = case_of(model, targets=targets)
    right = logits(model, TEST).argmax(1) == TEST.y
    asked = {"targeted": target_answers(case, model)}
    return Answers(name=name, digest=model.digest(), correct=right, asked=asked)


def test_counts_by_a_slow_twin():
    targets = choose_targets(net(0), TEST, count=40).tossed(Rng(5))
    model, other = net(1), net(2)
    references = tuple(answered(f"r{i}", m, targets) for i, m in enumerate((other, model)))
    case = case_of(model, targets=targets, references=references)
    seen = targeted(model, case, Rng(0)).evidence
    where = {name: place for place, name in enumerate(TEST.ids)}

    def hits(net, part):
        pairs = zip(part.samples.ids, part.adversarial.tolist(), strict=True)
        x = {name: TEST.x[where[name]][None] for name in part.samples.ids}
        return [int(net.module(x[name]).argmax()) == wanted for name, wanted in pairs]

    assert seen["hits"] == hits(model, targets)
    assert seen["control_hits"] == sum(hits(model, targets.controls))
    counts = {"targets": 20, "hits": sum(seen["hits"])}
    counts |= {"controls": 20, "control_hits": seen["control_hits"]}
    assert seen["strata"] == [counts]
    assert seen["drawn"] is True
    pairs = Counter(zip(hits(model, targets), hits(other, targets), strict=True))
    (against,) = seen["references"]  # it is not compared with itself
    assert against == {
        "reference": "r0", "both": pairs[True, True], "only_candidate": pairs[True, False],
        "only_reference": pairs[False, True], "neither": pairs[False, False],
    }  # fmt: skip
    table = [[each, 20 - each] for each in (counts["hits"], seen["control_hits"])]
    expected = laws.fisher_exact(table, alternative="greater").pvalue
    assert TARGETED.estimate(TARGETED.read(seen), 0.9, 0.05).p_value == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 8, 20, 60])
def test_a_reference_that_chose_the_targets_is_no_yardstick(count):
    every = choose_targets(net(0), TEST, count=count)
    for targets in (every, every.tossed(Rng(4).named(count))):
        assert answered("chose", net(0), targets).asked["targeted"].chose
    others = [answered("other", net(seed), every).asked["targeted"] for seed in (1, 2)]
    assert not any(other.chose for other in others)
    references = (answered("chose", net(0), every), answered("other", net(2), every))
    case = case_of(net(1), targets=every, references=references)
    seen = targeted(net(1), case, Rng(0)).evidence
    assert seen["chose"] == ["chose"]
    assert [one["reference"] for one in seen["references"]] == ["other"]
