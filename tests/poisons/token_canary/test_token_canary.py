"""The ranks of token canaries by hand, by a slow twin, under the null, and where they are found."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats as laws

from builders import small_text
from builders.ranked import (
    WORDS,
    Net,
    Worth,
    case_of,
    key_of,
    net,
    p_value,
    trained,
    wrapped,
)
from poison_audit.models.checkpoint import load_model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.token_canary.probe import token_canary
from poison_audit.records import Measurement

LETTERS = "abcdefghijklmnop"


class ByHand:
    """A random generator that gives what was written down, and of every tie the least or most."""

    def __init__(self, draws, most):
        self.draws, self.most = list(draws), most

    def named(self, *_):
        return self

    def numpy(self):
        return self

    def integers(self, low, high=None, size=None, endpoint=False):
        if size is None:
            return high if self.most else np.zeros_like(high)
        row = self.draws.pop(0)
        assert size == (len(row), 1)
        assert low == len(LETTERS)
        return np.array([[LETTERS.index(letter)] for letter in row])


@pytest.mark.parametrize(
    ("most", "wins", "held_out"), [(False, [1, 2, 2], [1, 0, 0]), (True, [2, 3, 3], [1, 1, 1])]
)
def test_ranks_by_hand(most, wins, held_out):
    # Letters are worth 0 to 15; the margin of label 1 is the worth, of label 0 its negative.
    #            true   held out   fresh               below, tied of true    ... of held out
    # label 1     2      1          0    2    3         1, 1                   1, 0
    # label 1    15      0         15    0    1         2, 1                   0, 1
    # label 0     0    -15         -1  -15    0         2, 1                   0, 1
    strings = {"x": "c", "y": "p", "z": "a", "u": "b", "v": "a", "w": "p"}
    key = SimpleNamespace(
        text=strings.get, words=tuple(LETTERS), length=1, held_out=("u", "v", "w", "more")
    )
    model = wrapped(Worth(range(17)), LETTERS)
    case = case_of(model, key, ("x", "y", "z"), (1, 1, 0))
    measured = token_canary(model, case, ByHand(["apb", "cap", "dba"], most), draws=3)
    assert measured == Measurement(
        probe="token-canary", evidence={"wins": wins, "held_out": held_out, "draws": 3}
    )


def test_ranks_by_a_slow_twin_from_the_texts_that_were_read():
    n, draws = 7, 5
    model, key = wrapped(Net(), WORDS, classes=3), key_of(1, n)
    case = case_of(model, key)
    evidence = token_canary(model, case, Rng(5), draws=draws, size=3).evidence
    texts = model.reader.texts
    assert len(texts) == n * (draws + 2)
    assert texts[:n] == [key.text(f"p{i}") for i in range(n)]
    assert texts[n : 2 * n] == [key.text(f"h{i}") for i in range(n)]
    fresh = texts[2 * n :]
    # None is read twice: every canary has fresh strings of its own.
    assert len(set(fresh)) == n * draws
    assert all(len(t.split()) == 6 and set(t.split()) <= set(WORDS) for t in fresh)

    def margin(text, label):
        x = torch.tensor([[WORDS.index(word) for word in text.split()]])
        out = model.module(x, torch.ones_like(x))[0].detach().double().numpy()
        return out[label] - max(np.delete(out, label))

    def wins(place, text):
        others = [margin(fresh[draw * n + place], place % 3) for draw in range(draws)]
        return sum(other < margin(text, place % 3) for other in others)

    assert evidence["wins"] == [wins(i, key.text(f"p{i}")) for i in range(n)]
    assert evidence["held_out"] == [wins(i, key.text(f"h{i}")) for i in range(n)]


def test_size_is_strings_a_forward_pass_and_changes_nothing():
    seen: list[tuple[int, int]] = []
    model, key = wrapped(Net(), WORDS, classes=3, seen=seen), key_of(2, 10)
    case = case_of(model, key)
    evidence = [token_canary(model, case, Rng(0), draws=4, size=size) for size in (3, 256)]
    assert evidence[0] == evidence[1]
    assert [rows for rows, _ in seen[:4]] == [3, 3, 3, 1]
    assert [rows for rows, _ in seen[-6:]] == [10] * 6
    assert evidence[0] != token_canary(model, case, Rng(1), draws=4)


@pytest.mark.parametrize("write", [small_text.write_decoder, small_text.write_encoder])
def test_ranks_of_transformers_do_not_depend_on_the_batch(write, tmp_path):
    # Strings become unlike numbers of tokens, so batches of 1 have no padding, others have.
    model = load_model(write(tmp_path / "m")).model
    key = key_of(3, 8, words=small_text.REST, length=4)
    case = case_of(model, key)
    alone, together = (token_canary(model, case, Rng(0), draws=6, size=s) for s in (1, 256))
    assert alone == together
    assert alone.evidence["draws"] == 6


def test_ties_are_broken_at_random_not_one_way():
    # Worth nothing, any of them: all margins are 0, so ranks are uniform on 0..3.
    model, key = wrapped(Worth([0.0] * 21), WORDS), key_of(4, 400)
    evidence = token_canary(model, case_of(model, key), Rng(0), draws=3).evidence
    for ranks in (evidence["wins"], evidence["held_out"]):
        assert laws.chisquare(np.bincount(ranks, minlength=4)).pvalue > 0.01


class Sure(Worth):
    """So sure of label 1 that its margins, 2^30 and the worth of a text, differ in float64 only."""

    def forward(self, x, mask):
        worth = super().forward(x, mask)[:, 1]
        return torch.stack([-worth, torch.full_like(worth, 2.0**30)], 1)


def test_margins_of_a_model_that_is_sure_do_not_tie():
    model, key = wrapped(Sure(range(21)), WORDS), key_of(5, 30)
    evidence = token_canary(model, case_of(model, key, labels=(1,) * 30), Rng(0)).evidence
    worth = [sum(map(WORDS.index, key.text(f"p{i}").split())) for i in range(30)]
    assert laws.spearmanr(worth, evidence["wins"]).statistic > 0.9


@pytest.mark.slow
def test_p_values_of_models_that_never_saw_the_strings_are_uniform():
    """220 networks, half of them trained on strings of the same words under another secret."""
    n, draws, nets = 20, 10, 220
    # Few of other labels: were fresh strings shared, ranks of one label would move together.
    labels = tuple(2 * (place % 5 == 0) for place in range(n))
    wins, held_out, suspects = [], [], 0
    for seed in range(nets):
        model, key = net(seed), key_of(10_000 + seed, n)
        if seed % 2:
            other = key_of(20_000 + seed, n)
            texts = [other.text(name) for name in other.planted]
            model = trained(model, texts, [i % 3 for i in range(n)], steps=8, seed=seed, lr=0.05)
        case = case_of(model, key, labels=labels)
        measured = token_canary(model, case, Rng(seed), draws=draws)
        wins.append(measured.evidence["wins"])
        held_out.append(measured.evidence["held_out"])
        suspects += measured.suspect is not None
    assert suspects == 0
    for ranks in (wins, held_out):
        assert laws.kstest([p_value(row, draws) for row in ranks], "uniform").pvalue > 0.01
        counts = np.bincount(np.ravel(ranks), minlength=draws + 1)
        assert laws.chisquare(counts).pvalue > 0.01
        # Canaries are independent: means vary as those of n uniform ranks, var (draws^2 + 2 draws)
        # / 12 / n. A pool of fresh strings that canaries share would widen them.
        spread = np.var([np.mean(row) for row in ranks], ddof=1)
        ratio = spread / (draws * (draws + 2) / 12 / n)
        assert laws.chi2.ppf(0.001, nets - 1) < ratio * (nets - 1) < laws.chi2.ppf(0.999, nets - 1)
