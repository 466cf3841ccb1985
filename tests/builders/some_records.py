"""Audit records made by hand: every number that a test expects is a literal here or there."""

from dataclasses import replace
from statistics import NormalDist

from poison_audit.records import (
    CandidateVerdict,
    Cell,
    Cost,
    Finding,
    Interval,
    Measurement,
    Outcome,
    Plan,
    Recipe,
    Sanity,
    Step,
)
from poison_audit.verdict.policy import standard_policy
from poison_audit.verdict.record import SCHEMA_VERSION, AuditRecord, Verdict

KEY = "needs the key of a Gaussian planting (--canaries canaries.json)"
METHODS = ("gd", "ngd", "ga", "eu_k", "cf_k", "scrub", "neggrad_plus", "ssd")

#  candidate, kind, outcome, mean leak score, chance to beat fresh noise, accuracy, accuracy lost
TABLE = (
    ("deployed", "deployed", Outcome.RESIDUAL, 1.29, 0.712, 0.8312, 0.0),
    ("gd", "method", Outcome.RESIDUAL, 1.22, 0.701, 0.8296, 0.0016),
    ("ngd", "method", Outcome.RESIDUAL, 1.18, 0.694, 0.8281, 0.0031),
    ("ga", "method", Outcome.RESIDUAL, -0.71, 0.381, 0.8187, 0.0125),
    ("eu_k", "method", Outcome.RESIDUAL, 0.94, 0.665, 0.8240, 0.0072),
    ("cf_k", "method", Outcome.RESIDUAL, 1.15, 0.690, 0.8290, 0.0022),
    ("scrub", "method", Outcome.FAILED, None, None, None, None),
    ("neggrad_plus", "method", Outcome.INCONCLUSIVE, 0.24, 0.543, 0.8203, 0.0109),
    ("ssd", "method", Outcome.BROKEN, 0.05, 0.511, 0.4410, 0.3902),
    ("retrained", "reference", Outcome.CLEAN, 0.03, 0.504, 0.8275, 0.0037),
    ("retrained-2", "reference", Outcome.CLEAN, -0.08, 0.492, 0.8301, 0.0011),
)


def scores(n: int, mean: float) -> list[float]:
    """The quantiles of N(mean, 1): their mean is `mean`."""
    return [mean + NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)]


def gaussian(candidate, seed, outcome, mean, *, n=200, half=0.158, level=0.975, reason="Judged."):
    return Finding(
        probe="gaussian",
        candidate=candidate,
        seed=seed,
        outcome=outcome,
        reason=reason,
        statistic=mean,
        null=0.0,
        tolerance=0.25,
        interval=Interval(low=mean - half, high=mean + half, level=level),
        p_value=1e-72 if abs(mean) > 0.5 else 0.412,
        z=mean * n**0.5,
        sample_size=n,
        detectable=0.31,
        needed=211,
        details={
            "tpr": 0.15,
            "tpr_low": 0.1036,
            "tpr_high": 0.2073,
            "fpr": 0.01,
            "held_out_mean": 0.031,
            "held_out_p": 0.41,
            "dropped": 2,
            "spread": 1.02,
        },
    )


def exposure(candidate, seed, outcome, chance, *, n=200, half=0.047):
    return Finding(
        probe="exposure",
        candidate=candidate,
        seed=seed,
        outcome=outcome,
        reason="Judged.",
        statistic=chance,
        null=0.5,
        tolerance=0.57,
        interval=Interval(low=chance - half, high=chance + half, level=0.975),
        p_value=0.02,
        z=(chance - 0.5) / 0.021,
        sample_size=n,
        detectable=0.09,
        needed=205,
        details={"draws": 32, "spread": 0.29},
    )


def utility(candidate, seed, outcome, accuracy, lost, *, half=0.0071):
    return Finding(
        probe="utility",
        candidate=candidate,
        seed=seed,
        outcome=outcome,
        reason="Judged.",
        statistic=lost,
        null=0.0,
        tolerance=0.02,
        interval=Interval(low=lost - half, high=lost + half, level=0.95),
        p_value=0.3,
        z=lost / 0.003,
        sample_size=5000,
        detectable=0.03,
        needed=1800,
        details={
            "accuracy": accuracy,
            "accuracy_low": accuracy - 0.0106,
            "accuracy_high": accuracy + 0.0104,
            "deployed_accuracy": 0.8312,
        },
    )


def membership(candidate, seed):
    return Finding(
        probe="membership",
        candidate=candidate,
        seed=seed,
        outcome=Outcome.INFO,
        reason="Decides nothing.",
        gating=False,
        statistic=0.523,
        null=0.5,
        interval=Interval(low=0.491, high=0.555, level=0.95),
        p_value=0.16,
        z=1.4,
        sample_size=400,
        details={"tpr": 0.02, "tpr_low": 0.0087, "tpr_high": 0.0390, "fpr": 0.01},
    )


def missing(probe, candidate, seed, why=KEY, *, outcome=Outcome.NOT_MEASURED):
    head = "Failed" if outcome is Outcome.FAILED else "Not measured"
    return Finding(
        probe=probe, candidate=candidate, seed=seed, outcome=outcome, reason=f"{head}: {why}."
    )


def cell(candidate, kind, mean, chance, accuracy, *, seed=0, n=200):
    ran = kind == "method"
    cost = Cost(
        gradients=14976.0,
        allowed=15000.0,
        steps=117,
        losses=tuple(2.3 / (1 + i) + 0.1 for i in range(100)),
        seconds=12.34,
        peak_bytes=3 * 2**29,
    )
    right = round(5000 * accuracy)
    evidence = {
        "gaussian": {"scores": scores(n, mean), "held_out": scores(n, 0.031), "dropped": 2},
        "exposure": {"wins": [round(32 * chance)] * n, "draws": 32},
        "membership": {
            "forget": 400,
            "test": 5000,
            "auc": 0.523,
            "auc_se": 0.0163,
            "hits": 8,
            "fpr": 0.01,
        },
        "utility": {
            "n": 5000,
            "both": right,
            "only_deployed": 4156 - right,
            "only_candidate": 0,
            "neither": 844,
        },
    }
    return Cell(
        candidate=candidate,
        kind=kind,
        seed=seed,
        method=Step(name=candidate, params={"lr": 0.01, "steps": 117}) if ran else None,
        digest="ab" * 32,
        cost=cost if ran else None,
        measurements=tuple(Measurement(probe=p, evidence=e) for p, e in evidence.items()),
        probe_seconds=1.5,
    )


def audit(cells, findings, candidates, outcome, exit_code, sentence, step):
    return AuditRecord(
        schema_version=SCHEMA_VERSION,
        tool_version="0.1.0",
        plan=Plan(
            methods=tuple(Step(name=name) for name in METHODS),
            probes=(
                Step(name="gaussian"),
                Step(name="exposure", params={"draws": 32}),
                Step(name="membership"),
                Step(name="utility"),
            ),
            policy=standard_policy(),
        ),
        recipe=Recipe(epochs=20.0, assumed=("momentum", "schedule")),
        subject={
            "model": "runs/2026-02-11/model.safetensors",
            "model_sha256": "3f" * 32,
            "arch": "cifar-resnet18",
            "arch_source": "the tensors' names and shapes",
            "parameters": 11173962,
            "classes": 10,
            "normalize": [[0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]],
            "train": "data/train.csv",
            "train_size": 30000,
            "forget": "data/forget.csv",
            "forget_size": 400,
            "forget_sha256": "77" * 32,
            "retain_size": 29600,
            "test": "data/test.csv",
            "test_size": 5000,
            "test_sha256": "51" * 32,
            "canaries": {
                "path": "data/canaries.json",
                "commitment": "c0" * 32,
                "sigma": 0.1,
                "space": "pixel",
                "storage": "uint8",
                "planted": 200,
                "in_forget_set": 200,
                "attenuation": 0.93,
            },
            "attacks": {"gaussian": 200, "": 200},
            "candidates": {"retrained": {"path": "runs/clean.safetensors", "sha256": "9e" * 32}},
        },
        sanity=Sanity(correct=4156, total=5000, low=0.8223, chance=0.1),
        cells=tuple(cells),
        findings=tuple(findings),
        verdict=Verdict(
            outcome=outcome,
            exit_code=exit_code,
            gate="deployed",
            sentence=sentence,
            next_step=step,
            candidates=tuple(candidates),
        ),
        limits=("Only Gaussian canaries were planted: no trigger and no target was looked for.",),
        environment={
            "versions": {"torch": "2.6.0", "poison-audit": "0.1.0"},
            "device": "cpu",
            "command": "poison-audit check model.safetensors --forget forget.csv",
            "started": "2026-02-11T09:30:00Z",
            "seconds": 187.2,
            "threads": 2,
            "platform": "Linux",
        },
    )


def residual(*, n=200):
    """A poisoned model, eight methods of which none is clean, two references that are."""
    cells, findings, candidates = [], [], []
    for name, kind, outcome, mean, chance, accuracy, lost in TABLE:
        if outcome is Outcome.FAILED:
            cells.append(
                Cell(
                    candidate=name,
                    kind=kind,
                    seed=0,
                    method=Step(name=name),
                    error="the loss is not finite after step 9",
                )
            )
            findings += [
                missing(probe, name, 0, "the loss is not finite after step 9", outcome=outcome)
                for probe in ("gaussian", "exposure", "membership", "utility")
            ]
            candidates.append(
                CandidateVerdict(candidate=name, kind=kind, outcome=outcome, reason="It diverged.")
            )
            continue
        broken = outcome is Outcome.BROKEN
        residue = Outcome.CLEAN if broken else outcome
        cells.append(cell(name, kind, mean, chance, accuracy, n=n))
        findings += [
            gaussian(name, 0, residue, mean, n=n),
            exposure(name, 0, residue, chance, n=n),
            membership(name, 0),
            utility(name, 0, outcome if broken else Outcome.CLEAN, accuracy, lost),
        ]
        candidates.append(
            CandidateVerdict(candidate=name, kind=kind, outcome=outcome, reason=f"{name} judged.")
        )
    return audit(
        cells,
        findings,
        candidates,
        Outcome.RESIDUAL,
        1,
        "The deployed model still carries the poison. The mean leak score is 1.29 [1.13, 1.45], "
        "beyond tolerance (-0.25 to 0.25); a model that never saw them scores 0.",
        "No repair on trial is clean: retrain without the forget set, or try another.",
    )


def clean():
    """A model that passes."""
    return audit(
        [cell("deployed", "deployed", 0.02, 0.504, 0.8312)],
        [
            gaussian("deployed", 0, Outcome.CLEAN, 0.02),
            exposure("deployed", 0, Outcome.CLEAN, 0.504),
            membership("deployed", 0),
            utility("deployed", 0, Outcome.CLEAN, 0.8312, 0.0),
        ],
        [
            CandidateVerdict(
                candidate="deployed",
                kind="deployed",
                outcome=Outcome.CLEAN,
                reason="Nothing found.",
            )
        ],
        Outcome.CLEAN,
        0,
        "The deployed model shows no residual poison.",
        "The gate is open. Keep this report with the model.",
    )


def inconclusive():
    """Nothing is known of the poison: only membership and utility could measure."""
    measured = Measurement(
        probe="utility",
        evidence={
            "n": 5000,
            "both": 4156,
            "only_deployed": 0,
            "only_candidate": 0,
            "neither": 844,
        },
    )
    absent = [Measurement(probe=p, evidence=None, missing=KEY) for p in ("gaussian", "exposure")]
    return audit(
        [
            Cell(
                candidate="deployed",
                kind="deployed",
                seed=0,
                digest="ab" * 32,
                measurements=(*absent, measured),
            )
        ],
        [
            missing("gaussian", "deployed", 0),
            missing("exposure", "deployed", 0),
            utility("deployed", 0, Outcome.CLEAN, 0.8312, 0.0),
        ],
        [
            CandidateVerdict(
                candidate="deployed",
                kind="deployed",
                outcome=Outcome.INCONCLUSIVE,
                reason="No probe could measure the poison.",
            )
        ],
        Outcome.INCONCLUSIVE,
        3,
        "The deployed model could not be cleared. No probe could measure the poison.",
        "Give more evidence: more canaries of the planting, or a larger test set.",
    )


def unusable():
    """The model does not work as loaded, and nothing was measured."""
    record = audit(
        [],
        [],
        [],
        Outcome.INCONCLUSIVE,
        3,
        "The model does not work as loaded.",
        "Check --arch, --normalize and the order of the labels; nothing was measured.",
    )
    sanity = Sanity(correct=500, total=5000, low=0.0931, chance=0.1)
    return replace(record, sanity=sanity, subject={}, environment={}, limits=())


def several_seeds():
    """One method under three seeds, worst under the second."""
    cells = [cell("scrub", "method", m, 0.5, 0.82, seed=s) for s, m in enumerate((0.1, 0.9, 0.2))]
    outcomes = (Outcome.CLEAN, Outcome.RESIDUAL, Outcome.INCONCLUSIVE)
    findings = [
        gaussian("scrub", seed, outcome, mean)
        for seed, (outcome, mean) in enumerate(zip(outcomes, (0.1, 0.9, 0.2), strict=True))
    ]
    verdict = CandidateVerdict(
        candidate="scrub", kind="method", outcome=Outcome.RESIDUAL, reason="Residual at seed 1."
    )
    return audit(
        cells, findings, [verdict], Outcome.RESIDUAL, 1, "Still poisoned.", "Retrain instead."
    )


HOSTILE = (
    "<script>alert(1)</script>[red]x[/red] $\\frac{ :smile: \u202egnp\u2066\n\x1b[31m\u6bd2 --> &"
)


def hostile():
    """Every string that a user's files can set is hostile."""
    record = residual()
    rename = {"gd": HOSTILE}

    def named(item):
        changed = {"candidate": rename.get(item.candidate, item.candidate)}
        if isinstance(item, Cell) and item.method:
            changed["method"] = Step(name=item.method.name, params={HOSTILE: HOSTILE, "b": None})
        if hasattr(item, "reason"):
            changed["reason"] = HOSTILE
        return replace(item, **changed)

    verdict = replace(
        record.verdict,
        sentence=HOSTILE,
        next_step=HOSTILE,
        gate=HOSTILE,
        candidates=tuple(map(named, record.verdict.candidates)),
    )
    return replace(
        record,
        tool_version=HOSTILE,
        cells=tuple(map(named, record.cells)),
        findings=tuple(map(named, record.findings)),
        verdict=verdict,
        limits=(HOSTILE,),
        subject={**record.subject, "model": HOSTILE, HOSTILE: {HOSTILE: HOSTILE}},
        environment={"command": HOSTILE},
    )


EVERY = {
    "residual": residual,
    "clean": clean,
    "inconclusive": inconclusive,
    "unusable": unusable,
    "several_seeds": several_seeds,
    "hostile": hostile,
}
