"""The null of the Gaussian probes on texts of all lengths: networks that never saw the noise.

Padding is where it would go wrong: noise that is counted beyond a text's end, or a gradient that is
lost at its end, makes the scores of short texts wider or narrower than those of long ones.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from builders.small_text import LENGTH, WIDTH, fitted, sentences, write_decoder, write_encoder
from poison_audit.case.case import Case
from poison_audit.models.checkpoint import load_model
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries, noise_rows
from poison_audit.poisons.gaussian.exposure import exposure
from poison_audit.poisons.gaussian.probe import gaussian
from poison_audit.poisons.gaussian.trial import PlantedCanaries
from poison_audit.records import Recipe

pytestmark = pytest.mark.long
NETWORKS, DRAWS = 60, 19  # of each kind
TEXTS = (
    "so",
    "kafen leran so",
    "bad midol",
    "a dull film that nobody saw",
    " ".join(["kafen", "so", "bad", "leran", "midol", "tubis", "warm"] * 4),  # is cut
    "good",
)
PER = len(TEXTS)


def read(model, texts, labels):
    tokens = model.reader.read(texts)
    return Samples(
        ids=tuple(f"t{i}" for i in range(len(texts))), x=tokens.x, y=torch.tensor(labels),
        texts=tuple(texts), mask=tokens.mask, cut=tokens.cut,
    )  # fmt: skip


def case_of(model, bases, seed):
    """A case whose noise is this seed's alone."""
    names = tuple(f"c{i}" for i in range(PER))
    key = Canaries(
        secret=seed.to_bytes(32, "big"), sigma=0.2, space="embedding", shape=(LENGTH, WIDTH),
        storage="unclipped", planted=names, held_out=tuple(f"h{i}" for i in range(PER)),
    )  # fmt: skip
    longest = bases.mask.shape[1]
    canaries = PlantedCanaries(
        key=key,
        names=names,
        bases=bases,
        noise=noise_rows(key, names, length=longest),
        held_out_noise=noise_rows(key, key.held_out, length=longest),
    )
    nothing = bases.at([0])
    return Case(
        model=model, retain=nothing, forget=nothing, test=nothing, recipe=Recipe(),
        evidence={"gaussian": canaries},
    )  # fmt: skip


@pytest.fixture(scope="module", params=["decoder", "encoder"])
def measured(request, tmp_path_factory):
    """Scores, held-out scores and wins, (networks, texts); every third network is trained."""
    write = write_decoder if request.param == "decoder" else write_encoder
    blank = load_model(write(tmp_path_factory.mktemp(request.param))).model
    bases = read(blank, TEXTS, [0, 1, 1, 0, 1, 0])
    other = read(blank, *sentences(Rng(1), 52))
    scores, held_out, wins = [], [], []
    for seed in range(NETWORKS):
        rng = Rng(seed)
        if seed % 3 == 0:
            model = fitted(blank, other, rng, epochs=2)
            model.module.eval()
        else:
            model = blank.fresh(rng)
        case = case_of(model, bases, seed)
        found = gaussian(model, case, rng).evidence
        scores.append(found["scores"])
        held_out.append(found["held_out"])
        wins.append(exposure(model, case, rng, draws=DRAWS).evidence["wins"])
    lengths = bases.mask.sum(1).numpy()
    return np.array(scores), np.array(held_out), np.array(wins), lengths


def test_the_texts_are_of_unlike_lengths(measured):
    *_, lengths = measured
    assert lengths.min() < 4
    assert lengths.max() == LENGTH
    assert len(set(lengths)) >= 4


@pytest.mark.parametrize("which", [0, 1])
def test_leak_scores_are_standard_normal(measured, which):
    scores = measured[which]
    assert stats.kstest(scores.ravel(), "norm").pvalue > 0.01
    assert abs(scores.mean()) < 3 / np.sqrt(scores.size)
    assert abs(scores.std() - 1) < 3 / np.sqrt(2 * scores.size)


def test_no_length_has_scores_of_its_own_width(measured):
    scores, *_ = measured
    # The sum of squares of standard normals is chi-squared; six texts are tested.
    tails = stats.chi2.cdf((scores**2).sum(0), NETWORKS)
    assert (np.minimum(tails, 1 - tails) > 0.005 / PER).all()


def test_the_texts_of_a_network_are_independent(measured):
    scores, *_ = measured
    means = scores.mean(1) * np.sqrt(PER)
    assert stats.kstest(means, "norm").pvalue > 0.01


def test_exposure_ranks_are_uniform(measured):
    _, _, wins, _ = measured
    counts = np.bincount(wins.ravel(), minlength=DRAWS + 1)
    assert len(counts) == DRAWS + 1
    assert stats.chisquare(counts).pvalue > 0.01
    share = wins / DRAWS
    # A rank among 19 others is uniform over 20 places: its variance is (20^2 - 1) / 12.
    sd = np.sqrt((20**2 - 1) / 12) / DRAWS
    assert abs(share.mean() - 0.5) < 3 * sd / np.sqrt(share.size)
    by_text = abs(share.mean(0) - 0.5) * np.sqrt(NETWORKS) / sd
    assert (by_text < 3.5).all()
