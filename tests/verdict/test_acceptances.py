"""Accepted risks: what they cover, what they never cover, and when they end."""

from __future__ import annotations

import datetime
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from builders.audits import audits, plain, sanity
from poison_audit.cli import invoke
from poison_audit.commands.config import read_config, write_config
from poison_audit.errors import InputError, PlanError
from poison_audit.models.seeds import Rng
from poison_audit.records import Acceptance, Cell, Measurement, Outcome, Plan, Step
from poison_audit.verdict.decide import decide
from poison_audit.verdict.policy import far, make_policy, standard_policy
from poison_audit.verdict.redecide import redecide

pytestmark = pytest.mark.usefixtures("plain_page")

DAY = "2027-01-31"
SANE = sanity(910, alpha=0.05)


def acceptance(bound: float, *, probe="gaussian", candidate="deployed", expires=DAY) -> Acceptance:
    return Acceptance(
        probe=probe, candidate=candidate, bound=bound, reason="It ships in March.",
        owner="R. Mori", expires=expires,
    )  # fmt: skip


def scores(mean: float, n: int = 400) -> Measurement:
    from scipy.stats import norm

    values = (mean + norm.ppf((np.arange(n) + 0.5) / n)).tolist()
    return Measurement(
        probe="gaussian", evidence={"scores": values, "held_out": [], "dropped": 0}
    )  # fmt: skip


def decided(*measurements: Measurement, decided=DAY, gate="deployed", **policy):
    accepted = policy.pop("accepted", ())
    plan = Plan(
        methods=(),
        probes=tuple(Step(name=m.probe) for m in measurements),
        policy=replace(
            standard_policy(),
            gate=gate,
            accepted=accepted,
            decided=decided if accepted else None,
            **policy,
        ),
    )
    cell = Cell(candidate="deployed", kind="deployed", seed=0, measurements=measurements)
    return decide(plan, SANE, [cell], attacks={})


# One probe at four fifths of alpha 0.05: with 400 canaries mu +- 2.054 / 20 = 0.103.
@pytest.mark.parametrize(
    ("mean", "bound", "expires", "outcome", "code"),
    [
        (0.4, 0.51, DAY, Outcome.ACCEPTED, 0),  # [0.297, 0.503]
        (0.4, 0.50, DAY, Outcome.RESIDUAL, 1),  # reaches beyond
        (0.4, 0.51, "2027-02-01", Outcome.ACCEPTED, 0),
        (0.4, 0.51, "2027-01-30", Outcome.RESIDUAL, 1),  # yesterday was the last day
        (-0.4, 0.51, DAY, Outcome.ACCEPTED, 0),  # overshot as far as is accepted
        (-0.4, 0.45, DAY, Outcome.RESIDUAL, 1),
        (0.0, 0.50, DAY, Outcome.CLEAN, 0),  # not needed
    ],
)
def test_a_bound_covers_the_whole_interval_until_its_day(mean, bound, expires, outcome, code):
    verdict = decided(scores(mean), accepted=(acceptance(bound, expires=expires),)).verdict
    assert (verdict.outcome, verdict.exit_code) == (outcome, code)
    if outcome is Outcome.ACCEPTED:
        assert "is let through as an accepted risk" in verdict.sentence
        assert "R. Mori: It ships in March." in verdict.sentence
        assert expires in verdict.next_step
        assert "though the model is not clean" in verdict.next_step
    if expires < DAY:
        assert f"expired on {expires}" in verdict.sentence


def test_an_undecided_figure_is_covered_if_it_was_measured():
    # Mean [-0.32, 0.32], scatter up to 0.46: neither within 0.25 nor surely beyond.
    few = scores(0.0, n=40)
    assert decided(few).verdict.outcome is Outcome.INCONCLUSIVE
    assert decided(few, accepted=(acceptance(0.5),)).verdict.outcome is Outcome.ACCEPTED
    suspect = replace(few, suspect="the held-out keys leak")
    verdict = decided(suspect, accepted=(acceptance(9.0),)).verdict
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, 3)
    absent = Measurement(probe="gaussian", evidence=None, missing="needs a key")
    assert decided(absent, accepted=(acceptance(9.0),)).verdict.exit_code == 3


def test_another_candidate_and_another_probe_are_not_covered():
    for other in (acceptance(9.0, candidate="gd"), acceptance(0.9, probe="exposure")):
        assert decided(scores(0.4), accepted=(other,)).verdict.exit_code == 1


def test_an_attack_that_was_made_stronger_is_not_covered():
    plan = Plan(
        methods=(), probes=(Step(name="gaussian"), Step(name="utility")),
        policy=replace(
            standard_policy(), gate="gd", accepted=(acceptance(9.0, candidate="gd"),), decided=DAY
        ),
    )  # fmt: skip
    utility = Measurement(probe="utility", evidence=plain("utility", 0.0))
    cells = [
        Cell(candidate="deployed", kind="deployed", seed=0, measurements=(scores(0.4), utility)),
        Cell(candidate="gd", kind="method", seed=0, measurements=(scores(1.2), utility)),
    ]
    verdict = decide(plan, SANE, cells, attacks={}).verdict
    assert (verdict.outcome, verdict.exit_code) == (Outcome.ACTIVATED, 1)


@pytest.mark.slow
@settings(max_examples=20)
@given(audits())
def test_no_acceptance_passes_what_was_not_measured(record):
    policy = record.plan.policy
    bare = replace(policy, accepted=(), decided=None)
    without = redecide(record, bare)
    if record.verdict.exit_code == 0 and without.verdict.exit_code != 0:
        assert record.verdict.outcome is Outcome.ACCEPTED
        gate = policy.gate
        used = [f for f in record.findings if f.outcome is Outcome.ACCEPTED]
        assert used
        assert all(f.statistic is not None and f.interval is not None for f in used)
        if gate not in ("any-method",):
            mine = [f for f in without.findings if f.candidate == gate and f.gating]
            assert not any(
                f.outcome in (Outcome.FAILED, Outcome.NOT_MEASURED, Outcome.ACTIVATED) for f in mine
            )
    # Decided again by its own policy, a report is what it was.
    assert redecide(record, policy).findings == record.findings
    assert redecide(record, policy).verdict == record.verdict


def test_an_effect_beyond_the_bound_is_seldom_accepted():
    draws = Rng(3).named("acceptances").numpy()
    times, passed = 1000, 0
    for _ in range(times):
        values = (0.6001 + draws.standard_normal(200)).tolist()
        seen = Measurement(
            probe="gaussian", evidence={"scores": values, "held_out": [], "dropped": 0}
        )  # fmt: skip
        passed += decided(seen, accepted=(acceptance(0.6),)).verdict.exit_code == 0
    # Two-sided at 0.05, an effect at the bound passes 2.5% of the time: at most 40 of 1,000
    # with probability 0.998.
    assert passed <= 40


ENTRY = """
[[accept]]
probe = "gaussian"
bound = 0.6
reason = "It ships in March."
owner = "R. Mori"
expires = 2027-03-31
"""


def test_an_entry_of_audit_toml(tmp_path):
    path = tmp_path / "audit.toml"
    path.write_text(ENTRY + ENTRY.replace("gaussian", "exposure").replace("= 0.6", "= 0.65")
                    .replace("2027-03-31", '"2027-03-31"')
                    + 'candidate = "gd"\n', encoding="utf-8")  # fmt: skip
    first, second = read_config(path).accepted
    assert first == replace(acceptance(0.6), expires="2027-03-31")
    assert (second.candidate, second.expires, second.bound) == ("gd", "2027-03-31", 0.65)
    # Written again, nothing of it is lost.
    write_config(path, {"model": {"arch": "a"}})
    assert read_config(path).accepted == (first, second)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("bound = 0.6", "bound = true", "bound: expected a number"),
        ("bound = 0.6", "", "bound is missing"),
        ('owner = "R. Mori"', 'owner = " "', "owner: expected words"),
        ('reason = "It ships in March."', "", "reason is missing"),
        ("2027-03-31", "2027-03-31T00:00:00", "expected a day"),
        ("2027-03-31", '"2027-02-30"', "expected a day"),
        ("2027-03-31", '"31.3.2027"', "expected a day"),
        ("probe", "prob", "Did you mean probe?"),
        ("[[accept]]", "[accept]", r"expected \[\[accept\]\]"),
    ],
)
def test_what_is_no_acceptance_is_refused(tmp_path, old, new, said):
    path = tmp_path / "audit.toml"
    path.write_text(ENTRY.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_config(path)


@pytest.mark.parametrize(
    ("accepted", "said"),
    [
        ((acceptance(0.25),), "tolerates 0.25 already"),
        ((acceptance(float("inf")),), "tolerates 0.25 already"),
        ((acceptance(0.9, probe="gauss"),), "Did you mean gaussian?"),
        ((acceptance(0.9), acceptance(0.8)), "accepted twice"),
    ],
)
def test_what_can_be_no_acceptance_is_refused(accepted, said):
    with pytest.raises(PlanError, match=said):
        make_policy(accepted=accepted, where="audit.toml", tolerances={}, today=DAY)


@pytest.mark.parametrize(
    ("probe", "bound", "said"),
    [
        ("gaussian", 1e308, "bound is 1e+308, by which next to every model passes. Give at most 1"),
        ("exposure", 0.77, "next to every model passes. Give at most 0.76, or add"),
        ("backdoor", 0.6, "next to every model passes. Give at most 0.5, or add"),
        ("exposure", 1e308, "exposure is never above 1. Give the larger figure"),
    ],
)
def test_a_bound_from_which_nothing_fails_has_to_be_asked_for(probe, bound, said):
    asked = {"accepted": (acceptance(bound, probe=probe),), "where": "a", "tolerances": {}}
    with pytest.raises(PlanError, match=re.escape(said)):
        make_policy(**asked, today=DAY)
    if "never" in said:
        with pytest.raises(PlanError, match="is never above"):
            make_policy(**asked, today=DAY, allow_loose=True)
        return
    policy = make_policy(**asked, today=DAY, allow_loose=True)
    told = f"Next to every model passes what was accepted: {probe} of deployed up to {bound:g}."
    assert far(policy) == told


def test_a_bound_from_which_nothing_fails_is_said_beside_the_verdict():
    asked = {"tolerances": {}, "today": DAY, "allow_loose": True}
    accepted = make_policy(accepted=(acceptance(1e9),), **asked).accepted
    assert decided(scores(3.0), accepted=accepted).verdict.sentence.endswith(
        " Next to every model passes what was accepted: gaussian of deployed up to 1e+09."
    )
    usual = make_policy(accepted=(acceptance(0.6),), **asked).accepted
    verdict = decided(scores(0.4), accepted=usual).verdict
    assert verdict.outcome is Outcome.ACCEPTED
    assert "Next to every" not in verdict.sentence


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    from builders.audits import small_audit
    from poison_audit.atomic import to_json

    path = tmp_path_factory.mktemp("report") / "report.json"
    path.write_text(to_json(small_audit()), encoding="utf-8")
    return path


def test_decide_by_flags_by_a_file_and_by_another_report(report, tmp_path, capsys):
    wide = ["gaussian=9", "exposure=0.99", "token-canary=0.99", "targeted=0.9", "backdoor=0.9",
            "mislabelled=0.9"]  # fmt: skip
    flags = ["--allow-tolerance", *(part for each in wide for part in ("--tolerance", each))]
    assert invoke(["decide", str(report)]) == 1
    # At a hundred times the tolerance everything is within it.
    assert invoke(["decide", str(report), *flags, "-o", str(tmp_path / "lax")]) == 0
    theirs = ["decide", str(report), "--policy", str(tmp_path / "lax/report.json")]
    assert invoke([*theirs, "--allow-tolerance"]) == 0
    assert invoke(theirs) == 2  # nobody's report may say it for whoever decides now
    # An audit.toml that says nothing means the defaults, whatever the report was decided by.
    plain_file = tmp_path / "audit.toml"
    plain_file.write_text("", encoding="utf-8")
    lax = str(tmp_path / "lax")
    assert invoke(["decide", lax, "--allow-tolerance"]) == 0
    assert invoke(["decide", lax, "--policy", str(plain_file)]) == 1
    assert invoke(["decide", lax, *flags, "-o", lax]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert invoke(["decide", str(report), "--gate", "gdd"]) == 2
    assert "Did you mean gd?" in capsys.readouterr().err
    assert invoke(["decide", str(report), "--exit-zero"]) == 0
    assert invoke(["decide", str(report), "--tolerance", "gaussian=x"]) == 2


def test_acceptances_expire_by_today_s_date(report, tmp_path):
    today = datetime.datetime.now(datetime.UTC).date()
    wide = {"gaussian": 9.0, "exposure": 0.99, "token-canary": 0.99, "targeted": 0.9,
            "backdoor": 0.9, "mislabelled": 0.9}  # fmt: skip
    for days, code in ((1, 0), (-1, 1)):
        day = (today + datetime.timedelta(days=days)).isoformat()
        entries = [
            f'[[accept]]\nprobe = "{probe}"\nbound = {bound}\nreason = "r"\nowner = "o"\n'
            f"expires = {day}\n"
            for probe, bound in wide.items()
        ]
        path = tmp_path / "audit.toml"
        path.write_text("\n".join(entries), encoding="utf-8")
        out = tmp_path / f"out{days}"
        asked = ["decide", str(report), "--policy", str(path), "--allow-tolerance"]
        assert invoke([*asked, "-o", str(out)]) == code
        assert invoke(["verify", str(out), "--no-files"]) == 0


def test_the_gate_of_a_policy_must_be_on_trial():
    from builders.audits import small_audit

    record = small_audit()
    assert redecide(record, make_policy(tolerances={}, base=record.plan.policy)).plan == record.plan
    with pytest.raises(PlanError, match="on trial"):
        redecide(record, make_policy(gate="scrub", tolerances={}, base=record.plan.policy))


def test_the_acceptance_that_is_missing_is_named():
    wins = Measurement(
        probe="exposure", evidence={"wins": [11] * 400, "draws": 12, "dropped": 0}
    )  # fmt: skip
    both = (scores(0.4), wins)
    found = decided(*both, accepted=(acceptance(0.6),))
    assert found.verdict.outcome is Outcome.RESIDUAL
    told = 'No [[accept]] covers it: add one of probe = "exposure", bound above '
    assert told in found.verdict.sentence
    least = float(found.verdict.sentence.rpartition(told)[2].split()[0].rstrip("."))
    more = (acceptance(0.6), acceptance(least + 0.001, probe="exposure"))
    assert decided(*both, accepted=more).verdict.outcome is Outcome.ACCEPTED
    assert "[[accept]]" not in decided(*both).verdict.sentence
