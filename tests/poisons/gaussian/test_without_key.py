"""Gaussian canaries whose bases are named, and whose key nobody has."""

from pathlib import Path

import numpy as np
import pytest
import torch

from builders.loading import loaded
from builders.small_case import SIGMA
from poison_audit.case.load import Trial
from poison_audit.case.sources import Sources
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.probe import gaussian
from poison_audit.poisons.gaussian.trial import planted
from poison_audit.records import Recipe

KEY, BASES = {"canaries": Path("canaries.json")}, {"bases": Path("bases.npz")}


def trial(evidence: dict[str, Path]) -> Trial:
    model, forget, train, test = map(
        Path, ("model.safetensors", "forget.csv", "train.npz", "test.npz")
    )
    sources = Sources(model=model, forget=forget, train=train, test=test, normalize="none",
                      evidence=evidence)  # fmt: skip
    return loaded(sources, Recipe())


def rewritten(**changes: np.ndarray) -> None:
    with np.load("train.npz") as held:
        np.savez("train.npz", **{**{name: held[name] for name in held.files}, **changes})


def table() -> np.ndarray:
    with np.load("train.npz") as held:
        return np.array(held["x"])


def test_the_stored_noise_scores_as_the_key_does(case):
    keyed, found = trial({**KEY, **BASES}), trial(BASES)
    mine, theirs = planted(found.case), planted(keyed.case)
    assert mine is not None
    assert theirs is not None
    assert mine.names == theirs.names
    assert torch.allclose(mine.noise, theirs.noise, atol=1e-5)
    assert mine.key.sigma == pytest.approx(SIGMA, rel=0.05)
    assert found.doubts == ()
    assert any("No key was given" in told for told in found.notices)
    told = found.subject["canaries"]
    assert isinstance(told, dict)
    assert told["recovered"] == "from 30 forget samples and their bases"
    scores = [gaussian(each.case.model, each.case, Rng(0)).evidence for each in (keyed, found)]
    assert scores[0] is not None
    assert scores[1] is not None
    # The same but for the sd, which is estimated.
    ratio = np.array(scores[1]["scores"]) / np.array(scores[0]["scores"])
    assert ratio == pytest.approx(SIGMA / mine.key.sigma, rel=1e-3)


def test_fresh_noise_is_the_control(case):
    found = planted(trial(BASES).case)
    assert found is not None
    held_out = found.held_out_noise.flatten(1)
    assert float(held_out.std()) == pytest.approx(found.key.sigma, rel=0.05)
    alike = torch.cosine_similarity(held_out, found.noise.flatten(1))
    assert float(alike.abs().max()) < 0.6  # of 64 values: about 4.8 standard errors


@pytest.mark.parametrize("kind", ["clipped", "smooth", "shared", "heavy"])
def test_other_differences_are_no_canaries(case, kind):
    x = table()
    with np.load("bases.npz") as held:
        clean = held["x"].astype(np.float32) / 255
    rng = np.random.default_rng(2)
    drawn = rng.normal(0, SIGMA, (30, 1, 8, 8))
    noise = {
        "clipped": np.clip(clean + drawn, 0, 1) - clean,
        "smooth": (drawn + np.roll(drawn, 1, 3)) / 2,
        "shared": np.repeat(drawn[:1], 30, 0),
        "heavy": np.where(rng.random(drawn.shape) < 0.1, 3 * drawn, 0),
    }[kind]
    x[:30] = clean + noise
    rewritten(x=x)
    found = trial(BASES)
    assert planted(found.case) is None
    assert found.subject["canaries"] is None


def test_without_bases_nothing_is_known(case):
    assert planted(trial({}).case) is None
