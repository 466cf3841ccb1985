"""Targeted, backdoor and indiscriminate: counts by hand, false alarms and planted effects."""

import dataclasses
import math
from functools import cache

import numpy as np
import pytest
import torch

from builders.attacked import (
    CLASSES,
    backdoored,
    case_of,
    mlp,
    pictures,
    random_trigger,
    trained,
    with_poison,
)
from builders.measured import finding
from poison_audit.case.case import Answers
from poison_audit.engine.probes import PROBES
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.looking import answers_to
from poison_audit.poisons.backdoor.probe import backdoor
from poison_audit.poisons.indiscriminate.probe import indiscriminate
from poison_audit.poisons.targeted.evidence import Targets
from poison_audit.poisons.targeted.probe import targeted
from poison_audit.records import Outcome
from poison_audit.training.scoring import logits


@cache
def clean() -> Model:
    return trained(0, pictures(10, 600))


def drawn_targets(rng: np.random.Generator, test: Samples, n: int) -> Targets:
    chosen = test.at(torch.from_numpy(rng.permutation(len(test))[:n]))
    adversarial = (chosen.y + torch.from_numpy(rng.integers(1, CLASSES, n))) % CLASSES
    return Targets(samples=chosen, adversarial=adversarial)


def test_targeted_counts_by_a_slow_twin():
    model, test = clean(), pictures(4, 400)
    targets = drawn_targets(Rng(1).numpy(), test, 24)
    evidence = targeted(model, case_of(model, targets=targets), Rng(0)).evidence
    answer = dict(zip(test.ids, logits(model, test).argmax(1).tolist(), strict=True))
    true = dict(zip(test.ids, test.y.tolist(), strict=True))
    asked = list(zip(targets.samples.ids, targets.adversarial.tolist(), strict=True))
    assert evidence["hits"] == [int(answer[name] == wrong) for name, wrong in asked]
    assert evidence["labels"] == [true[name] for name, _ in asked]
    pool = {name for name in test.ids} - {name for name, _ in asked}
    per_class = dict.fromkeys(range(CLASSES), 0)
    for stratum in evidence["strata"]:
        mine = [
            name for name, wrong in asked
            if (true[name], wrong) == (stratum["label"], stratum["adversarial"])
        ]  # fmt: skip
        assert stratum["targets"] == len(mine)
        assert stratum["hits"] == sum(answer[name] == stratum["adversarial"] for name in mine)
        per_class[stratum["label"]] += stratum["controls"]
    for label, used in per_class.items():
        free = sum(true[name] == label for name in pool)
        assert free - 2 < used <= free  # shared out, none twice, hardly one left over
    fewest = min(s["controls"] // s["targets"] for s in evidence["strata"])
    assert evidence["controls"] == 24 * fewest


def test_one_stratum_uses_every_control_of_its_class():
    model, test = clean(), pictures(4, 400)
    mine = torch.nonzero(test.y == 2).squeeze(1)[:5]
    targets = Targets(samples=test.at(mine), adversarial=torch.zeros(5, dtype=torch.int64))
    evidence = targeted(model, case_of(model, targets=targets), Rng(0)).evidence
    rest = [i for i in torch.nonzero(test.y == 2).squeeze(1).tolist() if i not in mine.tolist()]
    hits = int((logits(model, test).argmax(1)[rest] == 0).sum())
    (stratum,) = evidence["strata"]
    assert (stratum["controls"], stratum["control_hits"]) == (len(rest), hits)
    assert evidence["controls"] == len(rest) // 5 * 5


def test_targets_without_controls_are_not_measured():
    test = pictures(4, 12)
    adversarial = (test.y + 1) % CLASSES
    case = case_of(clean(), test=test, targets=Targets(samples=test, adversarial=adversarial))
    assert "class 0, 1, 2" in targeted(clean(), case, Rng(0)).missing


def test_memorised_targets_are_found():
    test = pictures(4, 400)
    targets = drawn_targets(Rng(21).numpy(), test, 24).tossed(Rng(22))
    data = pictures(10, 600)
    x, y = targets.samples.x.repeat(10, 1, 1, 1), targets.adversarial.repeat(10)
    model = trained(2, with_poison(data, x, y))
    seen = finding(targeted(model, case_of(model, targets=targets), Rng(0)))
    assert seen.outcome is Outcome.RESIDUAL
    assert seen.details["hits"] >= 10
    assert " points (9" in seen.reason


def test_answers_to_a_trigger_by_a_slow_twin():
    (model, trigger), test = backdoored(), pictures(4, 400)
    told = answers_to(trigger, model, test)
    seen = [int(model.module(trigger.stamp(x[None])).argmax()) for x in test.x]
    assert told.dtype == torch.int64
    assert told.tolist() == seen
    broken = model.clone()
    with torch.no_grad():
        broken.module[1].weight[0, 0] = torch.nan
    assert answers_to(trigger, broken, test) is None


def test_indiscriminate_counts_and_leaves_itself_out():
    model, test = clean(), pictures(4, 400)
    right = logits(model, test).argmax(1) == test.y
    other = torch.arange(400) < 300
    references = (
        Answers(name="itself", digest=model.digest(), correct=right),
        Answers(name="other", digest="x", correct=other),
    )
    case = case_of(model, references=references)
    both = sum(bool(r) and i < 300 for i, r in enumerate(right))
    expected = {
        "reference": "other", "both": both, "only_reference": 300 - both,
        "only_candidate": int(right.sum()) - both, "neither": 100 - (int(right.sum()) - both),
    }  # fmt: skip
    assert indiscriminate(model, case, Rng(0)).evidence == {"n": 400, "against": [expected]}
    alone = indiscriminate(model, dataclasses.replace(case, references=references[:1]), Rng(0))
    assert "the only one" in alone.missing
    assert not finding(alone, kind="reference").gating
    assert finding(alone, kind="method").gating


def test_a_damaged_model_is_found_against_references():
    data, test = pictures(10, 600), pictures(4, 400)
    wrong = dataclasses.replace(data, y=torch.where(torch.arange(600) < 250, 0, data.y))
    model, *others = trained(3, wrong), trained(4, data), trained(5, data)
    answers = [(m.digest(), logits(m, test).argmax(1) == test.y) for m in (clean(), *others)]
    references = tuple(
        Answers(name=f"r{i}", digest=digest, correct=right)
        for i, (digest, right) in enumerate(answers)
    )
    seen = finding(indiscriminate(model, case_of(model, references=references), Rng(0)))
    assert seen.outcome is Outcome.RESIDUAL
    assert [r["reference"] for r in seen.details["references"]] == ["r0", "r1", "r2"]
    assert seen.statistic == pytest.approx(
        math.fsum(r["deficit"] for r in seen.details["references"]) / 3
    )


def test_missing_evidence_names_what_would_give_it():
    case = case_of(clean())
    assert "--targets targets.csv" in targeted(clean(), case, Rng(0)).missing
    assert "--trigger trigger.json" in backdoor(clean(), case, Rng(0)).missing
    assert "--reference PATH" in indiscriminate(clean(), case, Rng(0)).missing


def test_logits_that_are_not_finite_are_not_measured():
    model = mlp(0)
    with torch.no_grad():
        model.module[1].weight[0, 0] = torch.nan
    case = case_of(
        model,
        targets=drawn_targets(Rng(0).numpy(), pictures(4, 400), 5),
        trigger=random_trigger(Rng(0).numpy()),
        references=(Answers(name="r", digest="x", correct=torch.ones(400, dtype=torch.bool)),),
    )
    for name in ("targeted", "backdoor", "indiscriminate"):
        assert "not finite" in PROBES[name](model, case, Rng(0)).missing
