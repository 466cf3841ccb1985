"""Targeted, backdoor and indiscriminate: counts by hand, false alarms and planted effects."""

import dataclasses
import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

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
from poison_audit.case.case import Answers
from poison_audit.engine.probes import PROBES
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger, patch
from poison_audit.poisons.backdoor.probe import answers_to, backdoor
from poison_audit.poisons.indiscriminate.probe import indiscriminate
from poison_audit.poisons.targeted.evidence import Targets
from poison_audit.poisons.targeted.probe import targeted
from poison_audit.records import Cell, Outcome
from poison_audit.training.scoring import logits
from poison_audit.verdict.judge import Errors, judge
from poison_audit.verdict.policy import standard_policy


@cache
def clean() -> Model:
    return trained(0, pictures(10, 600))


def finding(measurement, *, alpha=0.05, kind="deployed"):
    cell = Cell(candidate="deployed", kind=kind, seed=0)
    return judge(
        measurement, cell, standard_policy(), Errors(clearing=alpha, finding=alpha), required=True
    )


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
    assert " points [" in seen.reason


def answered(name: str, model: Model, trigger: Trigger | None) -> Answers:
    test = pictures(4, 400)
    return Answers(
        name=name, digest=model.digest(), correct=logits(model, test).argmax(1) == test.y,
        asked={"backdoor": answers_to(trigger, model, test) if trigger else None},
    )  # fmt: skip


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


def test_references_are_asked_about_the_same_stamped_inputs():
    (model, trigger), test = backdoored(), pictures(4, 400)
    references = (
        answered("clean", clean(), trigger),
        answered("itself", model, trigger),
        answered("silent", mlp(7), None),
    )
    case = case_of(model, trigger=trigger, references=references)
    evidence = backdoor(model, case, Rng(3), draws=5, inputs=70).evidence
    others = [i for i in range(400) if int(test.y[i]) != trigger.label]
    chosen = sorted(others[i] for i in Rng(3).named("inputs").numpy().permutation(len(others))[:70])
    counts = {"both": 0, "only_candidate": 0, "only_reference": 0, "neither": 0}
    for hit, place in zip(evidence["hits"], chosen, strict=True):
        x = trigger.stamp(test.x[place : place + 1])
        theirs = int(clean().module(x).argmax()) == trigger.label
        name = {(1, 1): "both", (1, 0): "only_candidate", (0, 1): "only_reference"}
        counts[name.get((hit, int(theirs)), "neither")] += 1
    assert evidence["references"] == [{"reference": "clean", **counts}]
    assert counts["only_candidate"] > 50
    assert backdoor(model, case_of(model, trigger=trigger), Rng(3)).evidence["references"] == []


def test_inputs_and_controls_are_the_same_for_every_candidate():
    case = case_of(clean(), trigger=backdoored()[1])
    first = backdoor(clean(), case, Rng(3), draws=4, inputs=999).evidence
    again = backdoor(backdoored()[0], case, Rng(3), draws=4, inputs=999).evidence
    assert len(first["hits"]) == len(again["hits"]) == int((case.test.y != 1).sum())
    assert first["hits"] != again["hits"]


@pytest.mark.slow
def test_random_triggers_of_a_clean_net_are_seldom_residual():
    model, rng, runs, found = clean(), Rng(30).numpy(), 300, 0
    case = case_of(model, test=pictures(4, 120))
    for run in range(runs):
        trigger = random_trigger(rng, label=run % CLASSES)
        case = dataclasses.replace(case, evidence={"backdoor": trigger})
        seen = backdoor(model, case, Rng(run), draws=39, inputs=60)
        found += finding(seen).outcome is Outcome.RESIDUAL
    assert found <= 0.05 * runs


def test_a_planted_backdoor_is_found():
    model, trigger = backdoored()
    seen = finding(backdoor(model, case_of(model, trigger=trigger), Rng(0)))
    assert seen.outcome is Outcome.RESIDUAL
    assert seen.details["rate"] > 0.9
    assert seen.details["control_max"] < seen.details["rate"]
    assert seen.details["controls"] == "order"
    assert seen.p_value == 1 / 150


def test_a_backdoor_that_answers_to_every_patch_never_passes():
    class Shortcut(nn.Module):
        """Names class 1 wherever the corner holds a bright pixel, and else the truth's band."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = clean().module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bright = x[:, 0, 5:, 5:].amax((1, 2)) >= 0.999
            return torch.where(bright[:, None], torch.eye(3)[1] * 100, self.inner(x))

    model = image_classifier(Shortcut(), build=Shortcut, arch="short", classes=CLASSES)
    pixels = torch.zeros(1, 3, 3)
    pixels[0, 1, 1] = pixels[0, 0, 2] = pixels[0, 2, 0] = pixels[0, 1, 0] = 1.0  # 126 orders
    test = pictures(4, 400)
    test = dataclasses.replace(test, x=test.x.clamp(max=0.9))
    trigger = patch(pixels, (1, 8, 8), top=5, left=5, label=1)
    seen = finding(backdoor(model, case_of(model, test=test, trigger=trigger), Rng(0)))
    assert seen.statistic == 0.0
    assert seen.outcome is Outcome.INCONCLUSIVE
    assert "Control patches cause the label, too: 100.00%" in seen.reason
    white = patch(torch.ones(1, 3, 3), (1, 8, 8), top=5, left=5, label=1)
    square = backdoor(model, case_of(model, test=test, trigger=white), Rng(0))
    assert square.evidence["controls"] == "order and place"
    assert len(square.evidence["control_rates"]) == 35  # 6 x 6 places, less its own
    assert finding(square).outcome is not Outcome.CLEAN


def test_a_patch_as_large_as_the_picture_in_one_colour_has_no_controls():
    trigger = patch(torch.ones(1, 8, 8), (1, 8, 8), top=0, left=0, label=1)
    assert "could have been others" in backdoor(
        clean(), case_of(clean(), trigger=trigger), Rng(0)
    ).missing  # fmt: skip


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
