"""What becomes of ranks: found, suspect, not measured, and the gate."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from builders.ranked import (
    WORDS,
    Net,
    Worth,
    case_of,
    key_of,
    net,
    p_value,
    ranks,
    trained,
    wrapped,
)
from poison_audit.models.model import Model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.token_canary.probe import token_canary
from poison_audit.records import Cell, Measurement, Outcome, Plan, Sanity
from poison_audit.statistics import estimates
from poison_audit.verdict.decide import decide
from poison_audit.verdict.policy import standard_policy

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
    assert "Chance that a planted string beats a fresh one: 0.9" in found.reason
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


MISSING = Measurement(probe="token-canary", evidence=None, missing=NEEDS)


# At alpha 0.05 the half-width is 1.96 * 0.306 / 20 = 0.030, and 0.025 where it clears.
@pytest.mark.parametrize(
    ("chance", "n", "expected"),
    [
        (0.5, 400, Outcome.CLEAN),
        (0.53, 400, Outcome.CLEAN),
        (0.56, 400, Outcome.INCONCLUSIVE),  # within tolerance, and perhaps beyond
        (0.61, 400, Outcome.RESIDUAL),
        (0.9, 400, Outcome.RESIDUAL),
        (0.39, 400, Outcome.RESIDUAL),  # overshot
        (0.5, 30, Outcome.INCONCLUSIVE),
    ],
)
def test_it_gates_in_both_directions(chance, n, expected):
    decision = judged(ranks(chance, n))
    assert decision.verdict.outcome is expected
    (found,) = decision.findings
    assert (found.tolerance, found.null, found.gating) == (0.57, 0.5, True)
    assert ("pushed too far" in found.reason) is (chance == 0.39)
    undecided = expected is Outcome.INCONCLUSIVE
    assert ("No conclusion" in found.reason) is (undecided and n == 30)


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
    assert f"{after:.2f} now, {before:.2f} there" in found.reason
