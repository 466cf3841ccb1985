"""The ranks of token canaries by hand, by a slow twin, under the null, and where they are found."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats as laws
from torch import nn
from torch.nn import functional as F

from builders import small_text
from poison_audit.case.case import Case
from poison_audit.models.checkpoint import load_model
from poison_audit.models.model import Batch, Model
from poison_audit.models.reader import Tokens
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.token_canary.evidence import PlantedStrings, Strings
from poison_audit.poisons.token_canary.probe import token_canary
from poison_audit.records import Cell, Measurement, Outcome, Plan, Recipe, Sanity
from poison_audit.statistics import estimates
from poison_audit.verdict.decide import decide
from poison_audit.verdict.policy import standard_policy

LETTERS = "abcdefghijklmnop"
WORDS = tuple(f"{first}{second}" for first in "bdfg" for second in "aeiou")


class OneByOne:
    """A reader that makes a token of each word it knows; what it does not know is its last one."""

    def __init__(self, words):
        self.places = {word: place for place, word in enumerate(words)}
        self.texts = []

    def read(self, texts):
        self.texts += texts
        rows = [[self.places.get(word, len(self.places)) for word in t.split()] for t in texts]
        mask = torch.tensor(
            [[int(i < len(row)) for i in range(max(map(len, rows)))] for row in rows]
        )
        x = torch.zeros_like(mask)
        x[mask == 1] = torch.tensor([token for row in rows for token in row])
        return Tokens(x=x, mask=mask, cut=torch.zeros(len(rows), dtype=torch.bool))


class Worth(nn.Module):
    """Each token has a number; a text's logits are 0 and the sum of its tokens' numbers."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor(numbers, dtype=torch.float32))

    def forward(self, x, mask):
        total = (self.numbers[x] * mask).sum(1)
        return torch.stack([torch.zeros_like(total), total], 1)


class Net(nn.Module):
    """A tiny network for which the order of the tokens matters."""

    def __init__(self, *, width=8, length=6, classes=3):
        super().__init__()
        self.words, self.places = nn.Embedding(len(WORDS) + 1, width), nn.Embedding(length, width)
        self.mix, self.head = nn.Linear(length * width, 24), nn.Linear(24, classes)

    def forward(self, x, mask):
        both = (self.words(x) + self.places.weight[: x.shape[1]]) * mask[..., None]
        whole = F.pad(both, (0, 0, 0, len(self.places.weight) - x.shape[1]))
        return self.head(torch.tanh(self.mix(whole.flatten(1))))


def wrapped(module, words, *, classes=2, seen=None):
    """Return a Model; the sizes of its batches are added to `seen`."""

    def logits(module, batch):
        if seen is not None:
            seen.append(tuple(batch.x.shape))
        return module(batch.x, batch.mask)

    def loss(module, batch):
        return F.cross_entropy(logits(module, batch), batch.y, reduction="none")

    return Model(
        module=module,
        logits=logits,
        loss=loss,
        blocks=(),
        build=Net,
        arch="fake",
        classes=classes,
        reader=OneByOne(words),
    )


def case_of(model, key, names=None, labels=None):
    names = key.planted if names is None else names
    if labels is None:
        labels = tuple(place % model.classes for place in range(len(names)))
    nothing = Samples(ids=(), x=torch.zeros(0, 1), y=torch.zeros(0, dtype=torch.int64))
    evidence = {}
    if key is not None:
        evidence["token-canary"] = PlantedStrings(key=key, names=names, labels=labels)
    return Case(
        model=model, retain=nothing, forget=nothing, test=nothing, recipe=Recipe(),
        evidence=evidence,
    )  # fmt: skip


def key_of(seed, n, *, words=WORDS, length=6):
    return Strings(
        secret=seed.to_bytes(32, "big"), length=length, words=words,
        planted=tuple(f"p{i}" for i in range(n)), held_out=tuple(f"h{i}" for i in range(n)),
    )  # fmt: skip


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


def trained(model, texts, labels, *, steps, seed, lr=0.02):
    """Fit a network to texts by Adam, full batches."""
    read = model.reader.read(texts)
    batch = Batch(x=read.x, y=torch.tensor(labels), mask=read.mask)
    optimiser = torch.optim.Adam(model.module.parameters(), lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.autograd.backward(model.loss(model.module, batch).mean())
        optimiser.step()
    return model


def net(seed):
    return wrapped(Net(), WORDS, classes=3).fresh(Rng(seed).named("init"))


def p_value(ranks, draws):
    return estimates.mean_rank(ranks, draws, level=0.95, tolerance=0.57).p_value


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


PLAN = Plan(methods=(), probes=(), policy=standard_policy())
SANE = Sanity(correct=95, total=100, low=0.9, chance=0.1)


def judged(*measured, attacks=("token-canary",)):
    cell = Cell(candidate="deployed", kind="deployed", seed=0, measurements=measured)
    return decide(PLAN, SANE, [cell], attacks=dict.fromkeys(attacks, 40))


def memorised(seed, names):
    """Return a network that was fitted to these strings of a key, and a case of the key's."""
    key = key_of(seed, 60)
    model = net(seed)
    case = case_of(model, key)
    chosen = getattr(key, names)
    texts = [key.text(name) for name in chosen]
    return trained(
        model, texts, list(case.evidence["token-canary"].labels), steps=150, seed=seed
    ), case


def test_a_model_that_memorised_the_strings_is_found():
    model, case = memorised(6, "planted")
    measured = token_canary(model, case, Rng(0))
    assert measured.suspect is None
    estimate = estimates.mean_rank(measured.evidence["wins"], 32, level=0.95, tolerance=0.57)
    assert estimate.z > 8
    assert p_value(measured.evidence["held_out"], 32) > 0.01
    decision = judged(measured)
    (found,) = decision.findings
    assert (found.outcome, decision.verdict.exit_code) == (Outcome.RESIDUAL, 1)
    assert "The chance that a planted string beats a fresh one is 0.9" in found.reason
    assert found.details == {
        "draws": 32,
        "spread": np.std(np.array(measured.evidence["wins"]) / 32, ddof=1),
        "held_out_mean": pytest.approx(np.mean(measured.evidence["held_out"]) / 32),
    }


def test_held_out_strings_that_were_trained_on_make_it_suspect():
    model, case = memorised(7, "held_out")
    measured = token_canary(model, case, Rng(0))
    assert "held-out strings do not rank uniformly" in measured.suspect
    assert p_value(measured.evidence["wins"], 32) > 0.01
    decision = judged(measured)
    assert decision.findings[0].outcome is Outcome.INCONCLUSIVE
    assert decision.verdict.exit_code == 3


def test_only_as_many_held_out_strings_as_canaries_are_ranked():
    model, key = net(8), key_of(8, 20)
    case = case_of(model, key, ("p3", "p17"), (0, 2))
    evidence = token_canary(model, case, Rng(0), draws=4).evidence
    assert (len(evidence["wins"]), len(evidence["held_out"])) == (2, 2)
    assert model.reader.texts[:4] == [key.text(i) for i in ("p3", "p17", "h0", "h1")]


NEEDS = (
    "needs the key of token canaries "
    "(--strings strings.json, or [evidence.token-canary] strings in audit.toml)"
)


def test_without_a_key_or_of_pictures_nothing_is_measured():
    model = net(9)
    measured = token_canary(model, case_of(model, None, ()), Rng(0))
    assert (measured.evidence, measured.missing) == (None, NEEDS)
    blind = Model(
        module=model.module, logits=model.logits, loss=model.loss, blocks=(), build=Net, arch="",
        classes=3,
    )  # fmt: skip
    assert token_canary(blind, case_of(blind, key_of(9, 5)), Rng(0)).missing == NEEDS
    no_draw = token_canary(model, case_of(model, key_of(9, 5)), Rng(0), draws=0)
    assert "at least one fresh string" in no_draw.missing


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["planted", "held out", "fresh"])
def test_not_finite_is_not_measured(where, value):
    # Only texts with the first word are not finite: one planted, one held out, or fresh ones.
    texts = {"p0": WORDS[1], "p1": WORDS[2], "h0": WORDS[3], "h1": WORDS[4]}
    texts.update({"planted": {"p1": WORDS[0]}, "held out": {"h1": WORDS[0]}}.get(where, {}))
    key = SimpleNamespace(
        text=texts.get, words=WORDS if where == "fresh" else WORDS[1:], length=1,
        planted=("p0", "p1"), held_out=("h0", "h1"),
    )  # fmt: skip
    model = wrapped(Worth([value, *range(20)]), WORDS)
    measured = token_canary(model, case_of(model, key), Rng(0), draws=40)
    assert measured.evidence is None
    assert "not finite" in measured.missing


def test_strings_that_a_model_cannot_tell_apart_are_not_measured():
    # 600 canaries whose words the tokenizer does not know: their ranks are uniform, in any model.
    key = key_of(11, 600, words=tuple(f"x{word}" for word in WORDS))
    model = net(11)
    measured = token_canary(model, case_of(model, key), Rng(0), draws=4)
    assert measured.evidence is None
    assert "the same tokens of the planted string and of 100% of the fresh ones" in measured.missing
    assert judged(measured).verdict.exit_code == 3
    # As the strings of one word of 16 often are the same ones, some may be.
    short = key_of(11, 600, words=WORDS[:16], length=1)
    assert token_canary(model, case_of(model, short), Rng(0), draws=4).missing is None


def test_strings_of_which_one_begins_the_other_differ():
    # "ba ba" and "ba ba ba" are no ties of tokens: padding is no token, though it is as 0 is.
    key = SimpleNamespace(
        text=lambda name: "ba" if name.startswith("p") else "ba ba", words=("ba ba",) * 16,
        length=1, planted=("p0", "p1"), held_out=("h0", "h1"),
    )  # fmt: skip
    model = wrapped(Worth(range(1, 22)), WORDS)
    measured = token_canary(model, case_of(model, key, labels=(1, 1)), Rng(0), draws=3)
    assert measured.evidence["wins"] == [0, 0]


def ranks(chance, n=400, draws=16, probe="token-canary"):
    """Return ranks that are spread evenly, and lifted so that their mean is near `chance`."""
    u = (np.arange(n) + 0.5) / n
    power = chance / (1 - chance)  # the mean of u^(1/power) is power / (power + 1) = chance
    wins = np.clip(np.round(u ** (1 / power) * draws), 0, draws).astype(int).tolist()
    held_out = [i % (draws + 1) for i in range(n)]
    return Measurement(probe=probe, evidence={"wins": wins, "held_out": held_out, "draws": draws})


MISSING = Measurement(probe="token-canary", evidence=None, missing=NEEDS)


# At alpha 0.05 the half-width is 1.96 * 0.306 / 20 = 0.030.
@pytest.mark.parametrize(
    ("chance", "n", "expected"),
    [
        (0.5, 400, Outcome.CLEAN),
        (0.53, 400, Outcome.CLEAN),
        (0.56, 400, Outcome.RESIDUAL),
        (0.9, 400, Outcome.RESIDUAL),
        (0.44, 400, Outcome.RESIDUAL),  # overshot
        (0.5, 30, Outcome.INCONCLUSIVE),
    ],
)
def test_it_gates_in_both_directions(chance, n, expected):
    decision = judged(ranks(chance, n))
    assert decision.verdict.outcome is expected
    (found,) = decision.findings
    assert (found.tolerance, found.null, found.gating) == (0.57, 0.5, True)
    assert ("overshot" in found.reason) is (chance == 0.44)
    assert ("token canaries would decide it" in found.reason) is (n == 30)


def test_a_forget_set_that_names_token_canaries_needs_their_key():
    clean = ranks(0.5, probe="exposure")
    # Of itself the exposure passes; token canaries that nobody named are no duty.
    assert judged(clean, MISSING, attacks=("",)).verdict.outcome is Outcome.CLEAN
    for seen in ((clean, MISSING), (clean,)):
        decision = judged(*seen, attacks=("", "token-canary"))
        assert decision.verdict.outcome is Outcome.INCONCLUSIVE
        assert decision.verdict.exit_code == 3
        (found,) = (f for f in decision.findings if f.probe == "token-canary")
        assert (found.outcome, found.gating) == (Outcome.NOT_MEASURED, True)
    assert NEEDS in judged(MISSING).findings[0].reason
    assert judged(clean, ranks(0.5), attacks=("", "token-canary")).verdict.exit_code == 0


def test_a_method_that_makes_the_model_prefer_them_more_is_activated():
    chances = (0.6, 0.9)
    cells = [
        Cell(candidate=name, kind=kind, seed=0, measurements=(ranks(chance),))
        for name, kind, chance in zip(
            ("deployed", "ga"), ("deployed", "method"), chances, strict=True
        )
    ]
    found = decide(PLAN, SANE, cells, attacks={"token-canary": 9}).findings[1]
    assert found.outcome is Outcome.ACTIVATED
    before, after = (np.mean(ranks(chance).evidence["wins"]) / 16 for chance in chances)
    assert f"from {before:.3f} to {after:.3f}" in found.reason
