"""Random audits for hypothesis: cells of random evidence, decided by the real `decide`."""

from dataclasses import replace

from hypothesis import strategies as st

from builders.measured import trigger_evidence
from poison_audit.records import (
    Acceptance,
    Cell,
    Measurement,
    Plan,
    Policy,
    Recipe,
    Sanity,
    Step,
    Woken,
)
from poison_audit.verdict.decide import decide
from poison_audit.verdict.policy import standard_policy
from poison_audit.verdict.record import SCHEMA_VERSION, AuditRecord

PROBES = (
    "gaussian", "exposure", "token-canary", "targeted", "backdoor", "indiscriminate",
    "mislabelled", "membership", "utility",
)  # fmt: skip
ATTACKS = ("", "gaussian", "token-canary", "targeted", "backdoor", "indiscriminate", "mislabelled")
WAYS = (("recalibrated", 0), ("rounded", 0), ("relearned", 0), ("relearned", 5))
DAY = "2027-01-31"

OWN_STEP, OWN_OTHER = (
    Step(name=name, params={
        "function": f"mine:{name}", "sha256": "ab" * 32, "asks": "Is it so?",
        "null": "<b>Nobody</b> knows.", "seconds": 600.0,
    })
    for name in ("flips", "others")
)  # fmt: skip
_sizes = st.sampled_from([2, 40, 400])
_shares = st.sampled_from([0.0, 0.01, 0.05, 0.3, 0.5, 0.56, 0.9, 1.0])


def _hits(share: float, n: int) -> list[int]:
    hit = round(share * n)
    return [1] * hit + [0] * (n - hit)


def _ranks(share: float, n: int, draws: int) -> list[int]:
    """Ranks spread over 0..draws, then moved so that about `share` of the draws are beaten."""
    shift = round((share - 0.5) * draws)
    return [min(draws, max(0, i % (draws + 1) + shift)) for i in range(n)]


def _counts(n: int, lost: int, gained: int, before: str, after: str) -> dict[str, int]:
    return {"both": n - lost - gained, before: lost, after: gained, "neither": 0}


@st.composite
def evidence(draw, probe: str):
    """What a probe may have seen."""
    n, share = draw(_sizes), draw(_shares)
    if probe == "gaussian":
        mean = draw(st.sampled_from([-1.0, -0.2, 0.0, 0.1, 0.3, 1.0]))
        scores = [mean + 3.4 * ((i + 0.5) / n - 0.5) for i in range(n)]
        held_out = draw(st.sampled_from([[], [-1.0, 0.1, 0.9]]))
        return {"scores": scores, "held_out": held_out, "dropped": draw(st.integers(0, 2))}
    if probe in ("exposure", "token-canary"):
        seen = {"wins": _ranks(share, n, 16), "draws": 16}
        return seen if probe == "exposure" else {**seen, "held_out": _ranks(0.5, n, 16)}
    if probe == "targeted":
        control_hits = round(draw(_shares) * 5 * n)
        controls = {"controls": 5 * n, "control_hits": control_hits}
        stratum = {"label": 0, "adversarial": 1, "targets": n, "hits": round(share * n), **controls}
        return {
            "targets": [f"t{i}" for i in range(n)], "labels": [0] * n, "adversarial": [1] * n,
            "hits": _hits(share, n), "strata": [stratum], **controls, "drawn": draw(st.booleans()),
        }  # fmt: skip
    if probe == "backdoor":
        draws = draw(st.sampled_from([2, 19, 199]))
        return trigger_evidence(
            round(share * n), n, round(draw(_shares) * n), draws=draws,
            as_much=draw(st.sampled_from([0, 1, draws])), lost=round(draw(_shares) * n),
            moved=round(draw(_shares) * n), frail=draw(_shares),
            references=[round(rate * n) for rate in draw(st.lists(_shares, max_size=2))],
        )  # fmt: skip
    if probe == "mislabelled":
        return {**_wrong(share, n, draw(_shares)), "chance": draw(st.booleans())}
    lost, gained = round(share * n / 2), draw(st.sampled_from([0, n // 10]))
    if probe == "indiscriminate":
        one = {"reference": "r0", **_counts(n, lost, gained, "only_reference", "only_candidate")}
        return {"n": n, "against": [one]}
    if probe == "membership":
        return {
            "auc": share, "auc_se": 0.05, "hits": round(share * n), "forget": n, "test": n,
            "fpr": 0.01,
        }  # fmt: skip
    return {"n": n, **_counts(n, lost, gained, "only_deployed", "only_candidate")}


def plain(probe: str, effect: float, *, n: int = 2000):
    """What a probe sees in a model with an effect of this size, 0 or about 0.2: decided surely."""
    if probe == "gaussian":
        scores = [2 * effect + 3.4 * ((i + 0.5) / n - 0.5) for i in range(n)]
        return {"scores": scores, "held_out": [], "dropped": 0}
    if probe in ("exposure", "token-canary"):
        seen = {"wins": _ranks(0.5 + effect, n, 16), "draws": 16}
        return seen if probe == "exposure" else {**seen, "held_out": _ranks(0.5, n, 16)}
    share, few = 0.01 + effect, round(0.01 * n)
    if probe == "targeted":
        controls = {"controls": 5 * n, "control_hits": 5 * few}
        stratum = {"label": 0, "adversarial": 1, "targets": n, "hits": round(share * n), **controls}
        return {
            "targets": [f"t{i}" for i in range(n)], "labels": [0] * n, "adversarial": [1] * n,
            "hits": _hits(share, n), "strata": [stratum], **controls, "drawn": True,
        }  # fmt: skip
    if probe == "backdoor":
        return trigger_evidence(round(min(1, 2.5 * share) * n), n, few, draws=999)
    if probe == "mislabelled":
        return {**_wrong(share, n, 0.01), "chance": True}
    lost = round(effect * n)
    if probe == "indiscriminate":
        one = {"reference": "r0", **_counts(n, lost, 0, "only_reference", "only_candidate")}
        return {"n": n, "against": [one]}
    if probe == "membership":
        return {"auc": 0.5, "auc_se": 0.05, "hits": few, "forget": n, "test": n, "fpr": 0.01}
    return {"n": n, **_counts(n, lost, 0, "only_deployed", "only_candidate")}


def _wrong(share: float, n: int, others: float) -> dict[str, object]:
    """Wrong labels given to so many of the samples, and of five times as many controls."""
    hits = _hits(share, n)
    controls = {"controls": 5 * n, "control_hits": round(others * 5 * n)}
    stratum = {"label": 0, "targets": n, "hits": sum(hits), **controls}
    return {"hits": hits, "right": n - sum(hits), "strata": [stratum], **controls}


@st.composite
def measurements(draw):
    """A measurement of each of some probes: seen, missing or suspect."""
    found = []
    mood = draw(st.sampled_from(["clean", "leaks", "anything"]))
    if mood != "anything":
        effect = 0.2 if mood == "leaks" else 0.0
        some = draw(st.lists(st.sampled_from(PROBES[:7]), unique=True, min_size=1, max_size=7))
        seen = {probe: plain(probe, effect) for probe in some}
        seen["utility"] = plain("utility", 0.0)
        return tuple(Measurement(probe=probe, evidence=each) for probe, each in seen.items())
    for probe in draw(st.lists(st.sampled_from(PROBES), unique=True, max_size=5)):
        if draw(st.integers(0, 5)) == 0:
            found.append(Measurement(probe=probe, evidence=None, missing="needs its evidence"))
        else:
            suspect = draw(st.sampled_from([None, None, None, "the held-out keys leak"]))
            seen = draw(evidence(probe))
            found.append(Measurement(probe=probe, evidence=seen, suspect=suspect))
    return tuple(found)


@st.composite
def cells(draw):
    """The deployed model, and up to four candidates, with up to two seeds."""
    found = [Cell(candidate="deployed", kind="deployed", seed=0, measurements=draw(measurements()))]
    kinds = (("gd", "method"), ("scrub", "method"), ("ours", "candidate"), ("ref", "reference"))
    for name, kind in draw(st.lists(st.sampled_from(kinds), unique=True, max_size=3)):
        for seed in range(draw(st.integers(1, 2)) if kind == "method" else 1):
            cell = Cell(candidate=name, kind=kind, seed=seed)
            if kind == "method" and draw(st.integers(0, 4)) == 0:
                found.append(replace(cell, error="gd diverged: the loss is not finite"))
            else:
                found.append(replace(cell, measurements=draw(measurements())))
    return tuple(replace(cell, woken=draw(woken(cell))) for cell in found)


@st.composite
def woken(draw, cell):
    """What was seen in woken states of a cell: of all kinds, and as different as may be."""
    found = []
    for way, poisons in draw(st.lists(st.sampled_from(WAYS), unique=True, max_size=3)):
        seen = draw(measurements())
        learned = {"steps": 40, "lr": 0.01} if way == "relearned" else {}
        found.append(Woken(
            way=way, samples=2000, poisons=poisons, **learned,
            measurements=tuple(m for m in seen if m.probe not in ("membership", "utility")),
        ))  # fmt: skip
    return () if cell.error else tuple(found)


@st.composite
def policies(draw, names):
    """A policy over candidates of these names, now and then with acceptances."""
    accepted = tuple(
        Acceptance(
            probe=probe,
            candidate=draw(st.sampled_from(names)),
            bound={"gaussian": 0.8, "exposure": 0.8, "token-canary": 0.8}.get(probe, 0.4),
            reason="It ships in March.",
            owner="R. Mori",
            expires=draw(st.sampled_from(["2027-01-30", DAY, "2027-02-01"])),
        )
        for probe in draw(
            st.lists(st.sampled_from([*PROBES[:6], "utility"]), unique=True, max_size=7)
        )
    )
    return Policy(
        tolerances=standard_policy().tolerances,
        alpha=draw(st.sampled_from([0.05, 0.2])),
        gate=draw(st.sampled_from(["deployed", "any-method", *names])),
        exit_zero=draw(st.booleans()),
        accepted=accepted,
        decided=DAY if accepted else None,
    )


@st.composite
def own_seen(draw, cell, steps):
    """What probes of a user's own saw in a cell: something, nothing, or they were not asked."""
    found = []
    for step in steps if cell.error is None else ():
        name, share = f"own:{step.name}", draw(_shares)
        seen = {"wins": _ranks(share, draw(_sizes), 16), "draws": 16}
        missing = draw(st.sampled_from([None, None, None, "it raised ValueError", "left out"]))
        if missing != "left out":
            evidence = None if missing else seen
            found.append(Measurement(probe=name, evidence=evidence, missing=missing))
    return tuple(found)


@st.composite
def audits(draw):
    """A whole record, as an audit would write it."""
    measured = draw(cells())
    policy = draw(policies([cell.candidate for cell in measured]))
    attacks = draw(st.dictionaries(st.sampled_from(ATTACKS), st.integers(1, 400), max_size=1))
    works = draw(st.integers(0, 5)) > 0
    # scipy: 910 of 1000 gives 0.8938 at level 0.95, one-sided; 100 of 1000 gives 0.0848.
    sane = sanity(910 if works else 100, alpha=policy.alpha)
    probes = tuple(Step(name=name) for name in PROBES)
    reaudit = draw(st.integers(0, 3)) == 0
    own = draw(st.sampled_from([[], [], [OWN_STEP], [OWN_STEP, OWN_OTHER]]))
    plan = Plan(methods=(), probes=probes, policy=policy, reaudit=reaudit, own=tuple(own))
    measured = tuple(replace(cell, own=draw(own_seen(cell, own))) for cell in measured)
    if not works:
        measured = ()
    decision = decide(plan, sane, measured, attacks=attacks)
    return AuditRecord(
        schema_version=SCHEMA_VERSION,
        tool_version="0.1.0",
        plan=plan,
        recipe=Recipe(epochs=10),
        subject={"model": "m.safetensors", "attacks": attacks},
        sanity=sane,
        cells=measured,
        findings=decision.findings,
        verdict=decision.verdict,
    )


def small_audit() -> AuditRecord:
    """A report of two candidates, by every probe, with 40 scores each."""
    steps = tuple(Step(name=name) for name in PROBES)
    plan = Plan(methods=(), probes=steps, policy=standard_policy())
    seen = tuple(Measurement(probe=p, evidence=plain(p, 0.2, n=40)) for p in PROBES)
    cells = (
        Cell(candidate="deployed", kind="deployed", seed=0, measurements=seen),
        Cell(
            candidate="gd",
            kind="method",
            seed=0,
            method=Step(name="gd"),
            measurements=seen,
            woken=(
                Woken(way="recalibrated", samples=90, measurements=(seen[0], seen[4])),
                Woken(
                    way="relearned",
                    samples=90,
                    poisons=5,
                    steps=40,
                    lr=0.01,
                    measurements=(seen[4],),
                ),
            ),
        ),
    )
    attacks = {"gaussian": 40, "backdoor": 40}
    decision = decide(plan, sanity(910, alpha=0.05), cells, attacks=attacks)
    return AuditRecord(
        schema_version=SCHEMA_VERSION,
        tool_version="0.1.0",
        plan=plan,
        recipe=Recipe(epochs=10),
        subject={"model": "m.safetensors", "attacks": attacks},
        sanity=sanity(910, alpha=0.05),
        cells=cells,
        findings=decision.findings,
        verdict=decision.verdict,
        limits=("A limit.",),
        environment={"versions": {"python": "3.11"}, "seconds": 1.5},
    )


def sanity(correct: int, *, alpha: float) -> Sanity:
    """Of 1,000 test samples, a tenth of each class."""
    from scipy.stats import beta

    low = float(beta.ppf(alpha, correct, 1000 - correct + 1))
    return Sanity(correct=correct, total=1000, low=low, chance=0.1)
