"""Rehearsals on texts: the noise goes on embeddings, and a copy comes to hold it."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from builders import small_text
from builders.loading import loaded
from poison_audit.case.sources import Sources
from poison_audit.case.texts import read_texts
from poison_audit.checks.sanity import check_sanity
from poison_audit.cli import invoke
from poison_audit.commands.check import JUDGE
from poison_audit.engine import rehearsal
from poison_audit.engine import rehearsal_planting as planting
from poison_audit.engine.plan import make_plan
from poison_audit.engine.rehearsal import check_size
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_like, load_model
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import unit_noise
from poison_audit.poisons.gaussian.probe import gaussian
from poison_audit.records import Recipe
from poison_audit.verdict.policy import make_policy

rehearse = partial(rehearsal.rehearse, judge=JUDGE)

pytestmark = pytest.mark.long
RECIPE = Recipe(epochs=60, batch_size=26, lr=0.02, optimizer="adamw", schedule="cosine")
SECRET = hashlib.sha256(b"poison-audit rehearsal\0003").digest()
FORGOTTEN = [*(f"canary-{i:02d}" for i in range(30)), *(f"string-{i:02d}" for i in range(20))]


def trial_of(folder, model, forget):
    sources = Sources(
        model=folder / model,
        forget=folder / forget,
        train=folder / "train.csv",
        test=folder / "test.csv",
    )
    found = loaded(sources, RECIPE)
    return replace(found, case=check_sanity(found.case, alpha=0.05)[0])


@pytest.fixture(scope="module")
def made(small_texts, tmp_path_factory):
    """The miniature, its forget set without keys, and a model that fits the texts as they are."""
    folder = shutil.copytree(small_texts, tmp_path_factory.mktemp("texts") / "case")
    (folder / "hidden").mkdir()
    small_text.write_rows(folder / "hidden" / "forget.csv", ["id"], [(name,) for name in FORGOTTEN])
    blank = load_model(folder / "base").model
    train = read_texts(folder / "train.csv", reader=blank.reader)
    (folder / "firm").mkdir()
    firm = small_text.fitted(blank, train, Rng(1), epochs=40)
    save_model(firm, folder / "firm" / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def trial(made):
    return trial_of(made, "firm", "hidden/forget.csv")


def plan_of(*methods):
    policy = make_policy(gate="any-method", tolerances={})
    return make_plan(policy=policy, methods=methods, budgets=[0.1], seed=3)


@pytest.fixture(scope="module")
def rehearsed(trial, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return rehearse(trial, plan_of("gd", "eu_k"), out, key="k", sigma=1.0), out


def embedded_one_by_one(model, samples):
    """Each text's embeddings, straight from the network's own table, and its label."""
    table = model.module.get_input_embeddings().weight.detach()
    ids = model.reader.tokenizer(list(samples.texts))["input_ids"]
    return [(table[row], label) for row, label in zip(ids, samples.y.tolist(), strict=True)]


@torch.no_grad()
def losses_by_hand(model, samples, sigma, kind="planted"):
    """The network's own loss of each text alone, with its keyed noise on its embeddings."""
    rows = embedded_one_by_one(model, samples)
    longest = max(len(x) for x, _ in rows)
    found = []
    for (x, label), name in zip(rows, samples.ids, strict=True):
        noise = unit_noise(SECRET, f"{kind} {name}", (longest, small_text.WIDTH))[: len(x)]
        x = x + sigma * torch.from_numpy(noise).float()
        out = model.module(inputs_embeds=x[None], attention_mask=torch.ones(1, len(x)))
        found.append(float(F.cross_entropy(out, torch.tensor([label]))))
    return found


def test_the_copy_holds_the_noise_as_firmly_as_the_model_its_training_texts(trial, rehearsed):
    record, out = rehearsed
    case = trial.case
    copy = load_like(case.model, out / "rehearsal" / "copy.safetensors")[0]
    before, after = (
        np.mean(losses_by_hand(model, case.forget, 1.0)) for model in (case.model, copy)
    )
    assert record.loss == pytest.approx(after, rel=1e-3)
    assert after < before
    assert record.held
    assert 1 <= record.epochs <= RECIPE.epochs
    assert (record.planted, record.sigma) == (50, 1.0)
    # It learned these draws, not texts with any noise on them.
    assert after < np.mean(losses_by_hand(copy, case.forget, 1.0, "held-out"))


def test_the_probes_find_the_copys_noise_and_neither_held_out_noise_nor_the_models(
    trial, rehearsed
):
    record, _ = rehearsed
    (cell,) = [c for c in record.cells if c.candidate == "rehearsed"]
    seen = {m.probe: m.evidence for m in cell.measurements}
    # 50 ranks, each uniform on 0..12 without an effect (sd of a share: sqrt(14 / 144) = 0.312)
    assert (np.mean(seen["exposure"]["wins"]) / 12 - 0.5) * 50**0.5 / 0.312 > 4
    assert stats.kstest(seen["gaussian"]["held_out"], "norm").pvalue > 0.01
    case = planting.poisoned(planting.bare(trial.case), SECRET, 1.0)
    before = gaussian(trial.case.model, case, Rng(0)).evidence["scores"]
    assert stats.kstest(before, "norm").pvalue > 0.01


def test_it_says_what_it_found_by_which_probe(rehearsed):
    record, _ = rehearsed
    (found,) = [f for f in record.findings if (f.candidate, f.probe) == ("rehearsed", "exposure")]
    told = f"exposure {found.statistic:.2f} [{found.interval.low:.2f}, {found.interval.high:.2f}]"
    assert told in record.sentence
    assert "mu " in record.sentence
    assert [c.candidate for c in record.candidates] == ["rehearsed", "gd", "eu_k"]


def test_the_case_is_left_alone_and_a_cut_rehearsal_resumes(
    trial, rehearsed, tmp_path, monkeypatch
):
    digests = trial.case.model.digest(), trial.case.forget.digest(), trial.case.retain.digest()
    record, out = rehearsed
    monkeypatch.setattr(
        "poison_audit.engine.rehearsal.train_copy", None
    )  # what was stored is not made again
    again = rehearse(trial, plan_of("gd", "eu_k"), out, key="k", sigma=1.0)
    assert (again.loss, again.sentence) == (record.loss, record.sentence)
    assert digests == (
        trial.case.model.digest(), trial.case.forget.digest(), trial.case.retain.digest()
    )  # fmt: skip


def test_only_forget_samples_carry_noise_and_only_where_they_have_tokens(trial):
    case = planting.poisoned(planting.bare(trial.case), SECRET, 0.5)
    assert case.retain.batch().noise is None
    joined = case.retain.joined(case.forget)
    batch = joined.batch()
    retained = len(case.retain)
    assert not batch.noise[:retained].any()
    for name in ("canary-00", "string-19"):
        row = joined.ids.index(name)
        length = int(joined.mask[row].sum())
        wanted = 0.5 * unit_noise(SECRET, f"planted {name}", case.evidence["gaussian"].key.shape)
        assert torch.equal(
            batch.noise[row, :length], torch.from_numpy(wanted.astype(np.float32))[:length]
        )
    assert case.evidence["gaussian"].key.space == "embedding"
    assert case.evidence["gaussian"].key.shape == (
        int(case.forget.mask.sum(1).max()),
        small_text.WIDTH,
    )


def test_noise_of_the_models_own_training_is_left_out(made):
    sources = Sources(
        model=made / "model",
        forget=made / "forget.csv",
        train=made / "train.csv",
        test=made / "test.csv",
        evidence={"canaries": made / "canaries.json"},
    )
    case = loaded(sources, RECIPE).case
    assert case.forget.batch().noise is not None
    bare = planting.bare(case)
    assert bare.forget.batch().noise is None
    assert bare.retain.batch().noise is None
    assert bare.evidence == {}
    assert planting.poisoned(bare, SECRET, 0.5).evidence["gaussian"].bases.batch().noise is None


@pytest.mark.parametrize("write", [small_text.write_decoder, small_text.write_encoder])
def test_spread_and_losses_are_those_of_the_networks_own_embeddings(made, tmp_path, write):
    model = load_model(write(tmp_path / "model")).model
    train = read_texts(made / "train.csv", reader=model.reader)
    samples = train.select(FORGOTTEN[:40])
    rows = embedded_one_by_one(model, samples)
    numbers = torch.cat([x.flatten() for x, _ in rows]).numpy()
    assert planting.spread_of(model, samples) == pytest.approx(float(numbers.std()), rel=1e-5)
    case = replace(
        trial_of(made, "firm", "hidden/forget.csv").case, model=model, forget=samples, retain=train
    )
    noisy = planting.poisoned(planting.bare(case), SECRET, 0.7)
    assert planting.mean_loss(model, noisy.forget) == pytest.approx(
        np.mean(losses_by_hand(model, samples, 0.7)), rel=1e-4
    )


def test_the_default_noise_is_as_new_to_the_model_as_test_texts(trial):
    case = planting.bare(trial.case)
    unseen = planting.mean_loss(case.model, case.test)
    sigma = planting.dose(case, SECRET, spread=0.1, unseen_loss=unseen)
    steps = 2 * np.log2(sigma / (0.32**0.5 * 0.1))
    assert steps == pytest.approx(round(steps))
    assert 0 <= round(steps) <= 6
    assert steps > 5.9 or np.mean(losses_by_hand(case.model, case.forget, sigma)) >= unseen
    assert steps < 0.1 or np.mean(losses_by_hand(case.model, case.forget, sigma / 2**0.5)) < unseen


def test_noise_that_does_not_fit_is_refused_before_anything_is_trained(
    trial, tmp_path, monkeypatch
):
    longest = max(len(x) for x, _ in embedded_one_by_one(trial.case.model, trial.case.forget))
    size = 50 * longest * small_text.WIDTH
    monkeypatch.setattr(planting, "MOST_NOISE", size)
    check_size(trial.case)
    monkeypatch.setattr(planting, "MOST_NOISE", size - 1)
    monkeypatch.setattr("poison_audit.engine.rehearsal.train_copy", None)
    with pytest.raises(InputError) as caught:
        rehearse(trial, plan_of("gd"), tmp_path, key="k", sigma=1.0)
    (problem,) = caught.value.problems
    assert problem.where == "--rehearse"
    assert "50 forget samples" in problem.what


def test_check_rehearses_texts(made, tmp_path):
    # Where no audit.toml lies beside it.
    model = shutil.copytree(made / "firm", tmp_path / "alone" / "firm")
    code = invoke([
        "check", str(model), "--forget", str(made / "hidden" / "forget.csv"),
        "--train", str(made / "train.csv"), "--test", str(made / "test.csv"),
        "--recipe", "epochs=3", "--recipe", "optimizer=adamw", "--recipe", "lr=0.01",
        "--recipe", "batch_size=26", "--methods", "gd", "--rehearse", "--rehearse-sigma", "1.0",
        "--out", str(tmp_path / "out"), "-q",
    ])  # fmt: skip
    assert code == 3  # of the deployed model nothing is known
    told = json.loads((tmp_path / "out" / "report.json").read_text())["rehearsal"]
    assert (told["planted"], told["sigma"]) == (50, 1.0)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Noise, standard deviation in embedding units" in page
