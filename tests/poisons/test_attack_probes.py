"""Targeted, backdoor and indiscriminate: counts by hand, false alarms and planted effects."""

import dataclasses
import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import betaincinv, stdtrit
from scipy.stats import binomtest
from torch import nn

from poison_audit.case.case import Answers, Case
from poison_audit.engine.probes import PROBES
from poison_audit.models.image import image_classifier
from poison_audit.models.model import Batch, Model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.patches import arrangements, draw_controls
from poison_audit.poisons.backdoor.probe import ABOVE, FIRST, _seen, answers_to, backdoor
from poison_audit.poisons.backdoor.reading import BACKDOOR
from poison_audit.poisons.backdoor.stamps import Stamps
from poison_audit.poisons.indiscriminate.probe import indiscriminate
from poison_audit.poisons.targeted.evidence import Targets
from poison_audit.poisons.targeted.probe import targeted
from poison_audit.records import Cell, Outcome, Recipe
from poison_audit.statistics import triggers
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.training.scoring import logits
from poison_audit.verdict.judge import judge
from poison_audit.verdict.policy import standard_policy

SHAPE, CLASSES = (1, 8, 8), 3


def mlp(seed: int) -> Model:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, CLASSES))

    blank = image_classifier(build(), build=build, arch="mlp", classes=CLASSES)
    return blank.fresh(Rng(seed).named("init"))


def pictures(seed: int, n: int) -> Samples:
    """A bright band by class, in noise: a few are hard."""
    rng = Rng(seed).named("pictures").numpy()
    labels = rng.integers(0, CLASSES, n)
    x = rng.normal(0.4, 0.25, (n, *SHAPE))
    x[np.arange(n), 0, 2 * labels] += 0.25
    x = torch.from_numpy(np.clip(x, 0, 1)).float()
    return Samples(ids=tuple(f"s{i}" for i in range(n)), x=x, y=torch.from_numpy(labels))


def random_trigger(rng: np.random.Generator, *, label: int = 1) -> Trigger:
    pixels = torch.from_numpy(rng.random((1, 3, 3))).float()
    return Trigger(pixels=pixels, top=5, left=5, label=label)


def case_of(model: Model, **parts) -> Case:
    everything = {
        "retain": pictures(2, 30), "forget": pictures(3, 20), "test": pictures(4, 400),
        "recipe": Recipe(epochs=1),
    }  # fmt: skip
    known = {"targeted": parts.pop("targets", None), "backdoor": parts.pop("trigger", None)}
    evidence = {name: part for name, part in known.items() if part is not None}
    return Case(model=model, evidence=evidence, **{**everything, **parts})


def trained(seed: int, data: Samples) -> Model:
    model = mlp(seed)
    batches = ((batch,) for batch in shuffled(data, 50, Rng(seed).named("batches")))
    descend(
        model, batches, lambda loss: loss, steps=300, lr=0.1, ledger=Ledger(), rng=Rng(seed),
        batch_statistics=True, momentum=0.9,
    )  # fmt: skip
    return model


def with_poison(data: Samples, x: torch.Tensor, y: torch.Tensor) -> Samples:
    ids = tuple(f"s{i}" for i in range(len(data) + len(x)))
    return Samples(ids=ids, x=torch.cat([data.x, x]), y=torch.cat([data.y, y]))


@cache
def clean() -> Model:
    return trained(0, pictures(10, 600))


@cache
def backdoored() -> tuple[Model, Trigger]:
    data = pictures(10, 600)
    trigger = random_trigger(Rng(5).named("trigger").numpy())
    poison = data.at(torch.nonzero(data.y != trigger.label).squeeze(1)[:120])
    stamped = trigger.stamp(poison.x)
    labels = torch.full((len(poison),), trigger.label)
    # Scrambled patches with the true label teach the net this pattern and no other.
    decoys = draw_controls(trigger, SHAPE[1:], 120, Rng(6))
    others = torch.cat([d.stamp(x[None]) for d, x in zip(decoys, poison.x, strict=True)])
    x, y = torch.cat([stamped, others]), torch.cat([labels, poison.y])
    return trained(1, with_poison(data, x, y)), trigger


def finding(measurement, *, alpha=0.05, kind="deployed"):
    cell = Cell(candidate="deployed", kind=kind, seed=0)
    return judge(measurement, cell, standard_policy(), alpha=alpha, required=True)


def excess(evidence, *, level, tolerance):
    return BACKDOOR.estimate(BACKDOOR.read(evidence), level, tolerance)


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


@pytest.mark.slow
def test_random_targets_of_a_clean_net_are_seldom_residual():
    model, test = clean(), pictures(4, 400)
    rng, runs, found = Rng(20).numpy(), 300, 0
    for run in range(runs):
        case = case_of(model, test=test, targets=drawn_targets(rng, test, 12))
        found += finding(targeted(model, case, Rng(run))).outcome is Outcome.RESIDUAL
    assert found <= 0.05 * runs


def test_memorised_targets_are_found():
    test = pictures(4, 400)
    targets = drawn_targets(Rng(21).numpy(), test, 12)
    data = pictures(10, 600)
    x, y = targets.samples.x.repeat(10, 1, 1, 1), targets.adversarial.repeat(10)
    model = trained(2, with_poison(data, x, y))
    seen = finding(targeted(model, case_of(model, targets=targets), Rng(0)))
    assert seen.outcome is Outcome.RESIDUAL
    assert seen.details["hits"] >= 10
    assert " points [" in seen.reason


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
                x[0, 0, patch.top : patch.top + 3, patch.left : patch.left + 3] = patch.pixels[0]
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
    trigger = Trigger(pixels=pixels, top=5, left=5, label=1)
    seen = finding(backdoor(model, case_of(model, test=test, trigger=trigger), Rng(0)))
    assert seen.statistic == 0.0
    assert seen.outcome is Outcome.INCONCLUSIVE
    assert "Control patches cause the label, too: 100.00%" in seen.reason
    white = dataclasses.replace(trigger, pixels=torch.ones(1, 3, 3))
    square = backdoor(model, case_of(model, test=test, trigger=white), Rng(0))
    assert square.evidence["controls"] == "order and place"
    assert len(square.evidence["control_rates"]) == 35  # 6 x 6 places, less its own
    assert finding(square).outcome is not Outcome.CLEAN


def test_a_patch_as_large_as_the_picture_in_one_colour_has_no_controls():
    trigger = Trigger(pixels=torch.ones(1, 8, 8), top=0, left=0, label=1)
    assert "could have been others" in backdoor(
        clean(), case_of(clean(), trigger=trigger), Rng(0)
    ).missing  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ([[1, 1], [1, 1]], 1),
        ([[1, 0], [0, 0]], 4),
        ([[0, 1], [2, 3]], 24),
        ([[0, 1, 0], [1, 0, 1], [0, 1, 0]], 126),
    ],
)
def test_arrangements_by_the_multinomial(rows, count):
    pixels = torch.tensor(rows).float()[None] / 4
    assert arrangements(Trigger(pixels=pixels, top=0, left=0, label=0)) == count


def test_controls_keep_colours_and_differ():
    rng = Rng(2).numpy()
    pixels = torch.from_numpy(rng.random((3, 3, 4))).float()
    trigger = Trigger(pixels=pixels, top=1, left=2, label=0)
    controls = draw_controls(trigger, (8, 8), 50, Rng(0))
    columns = sorted(pixels.flatten(1).T.tolist())
    for control in controls:
        assert sorted(control.pixels.flatten(1).T.tolist()) == columns
        assert (control.top, control.left) == (1, 2)
        assert not control.pixels.equal(pixels)
    assert len({control.pixels.numpy().tobytes() for control in controls}) == 50


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
    model, other = trained(3, wrong), trained(4, data)
    answers = [(m.digest(), logits(m, test).argmax(1) == test.y) for m in (clean(), other)]
    references = tuple(
        Answers(name=f"r{i}", digest=digest, correct=right)
        for i, (digest, right) in enumerate(answers)
    )
    seen = finding(indiscriminate(model, case_of(model, references=references), Rng(0)))
    assert seen.outcome is Outcome.RESIDUAL
    assert [r["reference"] for r in seen.details["references"]] == ["r0", "r1"]
    assert seen.statistic == pytest.approx(
        math.fsum(r["deficit"] for r in seen.details["references"]) / 2
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
