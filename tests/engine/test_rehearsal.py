"""Rehearsals: the copy holds what was planted, methods are judged on it, and nothing else is."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from builders.loading import loaded
from builders.small_case import read_rows, write_rows
from poison_audit.atomic import to_json
from poison_audit.case.sources import Sources
from poison_audit.checks.sanity import check_sanity
from poison_audit.commands.check import JUDGE
from poison_audit.engine import rehearsal
from poison_audit.engine import rehearsal_copy as copying
from poison_audit.engine import rehearsal_planting as planting
from poison_audit.engine.plan import make_plan
from poison_audit.errors import DivergedError
from poison_audit.models.checkpoint import load_like
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import unit_noise
from poison_audit.poisons.gaussian.probe import gaussian
from poison_audit.records import Outcome, Recipe
from poison_audit.verdict.policy import make_policy

rehearse = partial(rehearsal.rehearse, judge=JUDGE)

RECIPE = Recipe(epochs=60, batch_size=20, lr=0.1, schedule="onecycle")
WIDE = {"gaussian": 0.9, "exposure": 0.8, "utility": 0.4}


@pytest.fixture(scope="module")
def trial(small_pictures, tmp_path_factory):
    """The miniature with its keys hidden."""
    folder = shutil.copytree(small_pictures, tmp_path_factory.mktemp("pictures") / "case")
    rows = read_rows(folder / "forget.csv")
    write_rows(folder / "forget.csv", ["id"], [row[:1] for row in rows[1:]])
    sources = Sources(
        model=folder / "model.safetensors",
        forget=folder / "forget.csv",
        train=folder / "train.npz",
        test=folder / "test.npz",
        normalize="none",
    )
    found = loaded(sources, RECIPE)
    assert found.case.evidence == {}
    return replace(found, case=check_sanity(found.case, alpha=0.05)[0])


def plan_of(*methods: str, tolerances=WIDE):
    policy = make_policy(gate="any-method", tolerances=tolerances, allow_loose=True)
    return make_plan(policy=policy, methods=methods, budgets=[0.1], seed=3)


def without_times(record) -> str:
    cells = tuple(
        replace(
            cell,
            probe_seconds=0.0,
            cost=cell.cost and replace(cell.cost, seconds=0.0, peak_bytes=None),
        )
        for cell in record.cells
    )
    return to_json(replace(record, cells=cells))


@pytest.fixture(scope="module")
def rehearsed(trial, tmp_path_factory):
    out, told = tmp_path_factory.mktemp("out"), []
    plan = plan_of("gd", "eu_k")
    record = rehearse(trial, plan, out, key="k", sigma=0.6, report=told.append)
    return record, out, told, plan


def by_hand(module, x, y):
    """Mean cross-entropy from the network itself."""
    with torch.no_grad():
        return float(F.cross_entropy(module.eval()(x), y))


def noise_of(trial, sigma, kind="planted"):
    secret = hashlib.sha256(b"poison-audit rehearsal\0003").digest()
    forget = trial.case.forget
    noise = [unit_noise(secret, f"{kind} {name}", forget.x.shape[1:]) for name in forget.ids]
    return torch.from_numpy(sigma * np.stack(noise)).float(), secret


def test_the_copy_holds_the_canaries_as_firmly_as_the_model_its_training_samples(trial, rehearsed):
    record, out, _, _ = rehearsed
    noise, secret = noise_of(trial, record.sigma)
    assert record.commitment == hashlib.sha256(secret).hexdigest()
    case = trial.case
    copy = load_like(case.model, out / "rehearsal" / "copy.safetensors")[0]
    canaries, y = case.forget.x + noise, case.forget.y
    before, after = (by_hand(model.module, canaries, y) for model in (case.model, copy))
    assert record.loss == pytest.approx(after, rel=1e-4)
    assert after < before
    unseen = by_hand(case.model.module, case.test.batch().x, case.test.y)
    assert record.held
    assert record.loss <= record.usual_loss + 0.01 * max(0, unseen - record.usual_loss)
    assert 1 <= record.epochs <= RECIPE.epochs
    assert record.planted == 30


def test_the_probe_finds_the_copys_canaries_and_neither_held_out_noise_nor_the_models(
    trial, rehearsed
):
    record, _, _, _ = rehearsed
    (cell,) = [c for c in record.cells if c.candidate == "rehearsed"]
    seen = {m.probe: m.evidence for m in cell.measurements}
    # 30 ranks, each uniform on 0..12 without an effect (sd of a share: sqrt(14 / 144) = 0.312)
    assert (np.mean(seen["exposure"]["wins"]) / 12 - 0.5) * 30**0.5 / 0.312 > 4
    assert stats.kstest(seen["gaussian"]["held_out"], "norm").pvalue > 0.01
    case = planting.poisoned(planting.bare(trial.case), noise_of(trial, 1)[1], record.sigma)
    before = gaussian(trial.case.model, case, Rng(0)).evidence["scores"]
    assert stats.kstest(before, "norm").pvalue > 0.01


def test_it_is_labelled_and_judges_methods_only(rehearsed):
    record, _, told, _ = rehearsed
    assert [c.candidate for c in record.cells] == ["rehearsed", "gd", "eu_k"]
    assert [c.kind for c in record.cells] == ["deployed", "method", "method"]
    assert {f.candidate for f in record.findings} == {"rehearsed", "gd", "eu_k"}
    assert {f.probe for f in record.findings} == {"gaussian", "exposure", "membership", "utility"}
    assert record.sentence.startswith("A rehearsal: it judges methods, never the deployed model.")
    assert {p.job.candidate for p in told} == {
        "rehearsed", "rehearsal of gd", "rehearsal of eu_k"}  # fmt: skip
    said = [f.reason for f in record.findings] + [c.reason for c in record.candidates]
    assert not any("deployed" in text for text in said)
    # at most a twentieth, on one side since it is cleared, whatever the audit's gate is
    (level,) = [
        f.interval.level
        for f in record.findings
        if (f.candidate, f.probe, f.way) == ("gd", "gaussian", "")
    ]
    assert level == pytest.approx(1 - 2 * 0.05)


def test_the_case_and_its_model_are_left_alone(trial, tmp_path):
    before, x = trial.case.model.digest(), trial.case.forget.x.clone()
    rehearse(trial, plan_of("gd"), tmp_path, key="k", sigma=0.6, epochs=1)
    assert trial.case.model.digest() == before
    assert torch.equal(trial.case.forget.x, x)
    assert not list(tmp_path.glob("cells"))


def test_the_same_seed_gives_the_same_rehearsal_and_a_cut_one_resumes(
    trial, rehearsed, tmp_path, monkeypatch
):
    record, _, _, plan = rehearsed

    def stop(progress):
        if progress.job.candidate == "rehearsal of gd" and progress.cell:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rehearse(trial, plan, tmp_path, key="k", sigma=0.6, report=stop)
    with monkeypatch.context() as patch:
        # What was stored is not made again.
        patch.setattr("poison_audit.engine.rehearsal.train_copy", None)
        again = rehearse(trial, plan, tmp_path, key="k", sigma=0.6)
    assert without_times(again) == without_times(record)


def test_a_copy_of_another_rehearsal_is_not_taken(trial, rehearsed, monkeypatch):
    _, out, _, plan = rehearsed

    def made(*args, **more):
        raise InterruptedError

    monkeypatch.setattr("poison_audit.engine.rehearsal.train_copy", made)
    for change in ({"key": "other"}, {"sigma": 0.5}, {"epochs": 2}):
        with pytest.raises(InterruptedError):
            rehearse(trial, plan, out, **{"key": "k", "sigma": 0.6, **change})


def test_without_an_effect_nothing_is_said_of_the_methods(trial, tmp_path):
    # Noise of a thousandth of a pixel's range cannot be seen.
    record = rehearse(trial, plan_of("gd", "ga"), tmp_path, key="k", sigma=0.001, epochs=1)
    assert "this says nothing about any method" in record.sentence
    assert [c.candidate for c in record.cells] == ["rehearsed"]
    methods = [c for c in record.candidates if c.kind == "method"]
    assert [c.candidate for c in methods] == ["gd", "ga"]
    assert {c.outcome for c in methods} == {Outcome.INCONCLUSIVE}
    assert "no effect" in methods[0].reason


def test_on_a_copy_that_does_not_hold_them_nothing_passes(trial, rehearsed, tmp_path, monkeypatch):
    def half(case, rng, **more):
        copy = copying.train_copy(case, rng, **more)
        return replace(copy, held=False)

    monkeypatch.setattr("poison_audit.engine.rehearsal.train_copy", half)
    plan = replace(plan_of("eu_k"), budget=1.0)
    record = rehearse(trial, plan, tmp_path, key="k", sigma=0.6)
    monkeypatch.undo()
    honest = rehearse(trial, plan, tmp_path / "honest", key="k", sigma=0.6)
    (passed,) = [c for c in honest.candidates if c.kind == "method"]
    (refused,) = [c for c in record.candidates if c.kind == "method"]
    assert passed.outcome is Outcome.CLEAN
    assert "Would remove it: eu_k (mu " in honest.sentence
    assert refused.outcome is Outcome.INCONCLUSIVE
    assert "less firmly" in record.sentence


def test_few_forget_samples_are_called_too_few(trial, tmp_path):
    record = rehearse(trial, plan_of("gd", tolerances={}), tmp_path, key="k", sigma=0.6)
    # (normal quantiles: alpha .05 at each end, power .9 on both sides) / tolerance 0.25, squared
    wanted = (2 * stats.norm.isf(0.05) / 0.25) ** 2
    named = int(record.sentence.split("; about ")[1].split()[0])
    assert named >= wanted > 30
    assert all(c.outcome is not Outcome.CLEAN for c in record.candidates)


def test_a_copy_that_diverges_is_of_no_use(trial, tmp_path, monkeypatch):
    def diverge(*args, **more):
        raise DivergedError("the loss is not finite by step 50")

    monkeypatch.setattr(copying, "descend", diverge)
    record = rehearse(trial, plan_of("gd"), tmp_path, key="k", sigma=0.6)
    assert (record.cells, record.findings, record.held) == ((), (), False)
    assert "diverged" in record.sentence
    assert [c.outcome for c in record.candidates] == [Outcome.INCONCLUSIVE]


def test_the_default_noise_is_as_new_to_the_model_as_test_samples(trial):
    case = planting.bare(trial.case)
    secret = noise_of(trial, 1)[1]
    unseen = by_hand(case.model.module, case.test.batch().x, case.test.y)
    sigma = planting.dose(case, secret, spread=0.1, unseen_loss=unseen)
    doublings = np.log2(sigma / (0.32**0.5 * 0.1)) * 2
    assert doublings == pytest.approx(round(doublings))
    assert 0 <= doublings <= 6

    def loss(scale):
        return by_hand(case.model.module, case.forget.x + noise_of(trial, scale)[0], case.forget.y)

    assert doublings > 5.9 or loss(sigma) >= unseen
    assert doublings < 0.1 or loss(sigma / 2**0.5) < unseen
