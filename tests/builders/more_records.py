"""Records with the later probes, the hypotheses, a part found and a rehearsal, made by hand."""

from dataclasses import replace

from builders.signed_records import signed, swept
from builders.some_records import (
    EVERY,
    HOSTILE,
    audit,
    cell,
    exposure,
    gaussian,
    membership,
    missing,
    residual,
    utility,
)
from builders.text_records import hostile_texts, texts
from poison_audit.records import (
    CandidateVerdict,
    Finding,
    Interval,
    Measurement,
    Outcome,
    Rehearsal,
    Step,
)

FRACTIONS = [0.1, 0.25, 0.5, 1.0]


def shift():
    return Finding(
        probe="shift",
        candidate="deployed",
        seed=0,
        outcome=Outcome.INFO,
        gating=False,
        reason="Leaving out the forget set moves the last layer 2.40 times as far.",
        statistic=2.4,
        null=1.0,
        interval=Interval(low=2.0, high=3.0, level=0.95),
        p_value=1 / 61,
        sample_size=400,
        details={
            "fractions": FRACTIONS,
            "poison_l1": [1.0, 2.5, 5.5, 12.0],
            "random_l1_mean": [0.5, 1.25, 2.5, 5.0],
            "random_l1_low": [0.4, 1.0, 2.0, 4.0],
            "random_l1_high": [0.6, 1.5, 3.0, 6.0],
        },
    )


NETWORK = {
    "share": 0.021,
    "share_low": 0.004,
    "share_high": 0.038,
    "rank": 50,
    "gradients": 256,
    "sketch": 512,
    "sketched_share": 0.117,
    "random": {"mean": 0.0977, "low": 0.074, "high": 0.124},
    "cosine": 0.03,
    "parameters": 11173962,
    "sketch_error": 0.0625,
}


def orthogonality(network=None):
    return Finding(
        probe="orthogonality",
        candidate="deployed",
        seed=0,
        outcome=Outcome.INFO,
        gating=False,
        reason="12.0% of the shift that the last layer needs lies in the span of clean gradients.",
        statistic=0.4,
        null=1.0,
        interval=Interval(low=0.3, high=0.6, level=0.95),
        p_value=0.0328,
        sample_size=400,
        details={
            "share": 0.12,
            "random_share_mean": 0.3,
            "random_share_low": 0.2,
            "random_share_high": 0.4,
            "direction_share": {"mean": 0.05, "low": 0.031, "high": 0.074},
            "network": network,
            "network_missing": None if network else "needs a reference",
        },
    )


def moved(*, references=2, sentence="It covered 4.2% of the needed shift (cosine 0.21)."):
    found = {"moved_l1": 812.0, "moved_l2": 3.21, "references": references, "missing": {}}
    means = {"distance_l2": 1.014, "distance_l1": 1.02, "covered": 0.0423, "aligned": 0.213}
    if not references:
        lack = dict.fromkeys([*means, "apart"], "needs a reference")
        nothing = dict.fromkeys([*means, *(f"{name}_range" for name in means), "apart"])
        return found | nothing | {"missing": lack, "sentence": "Not measured: needs a reference."}
    ranges = {f"{name}_range": [value - 0.01, value + 0.01] for name, value in means.items()}
    return found | means | ranges | {"apart": 0.82, "sentence": sentence}


def explained():
    """Both hypotheses measured, the whole network too, and two references."""
    record = residual()
    return replace(
        record,
        cells=tuple(
            replace(c, movement=moved()) if c.kind == "method" and c.error is None else c
            for c in record.cells
        ),
        findings=(*record.findings, shift(), orthogonality(NETWORK)),
        diagnosis="The forget set moves the last layer further. Retraining is the safe answer.",
    )


def unexplained():
    """Neither hypothesis could be measured, and no reference is there."""
    record = residual()
    why = "retain holds fewer samples than the forget set of classes 3"
    gone = [replace(missing(p, "deployed", 0, why), gating=False) for p in WHY]
    return replace(
        record,
        cells=tuple(
            replace(c, movement=moved(references=0)) if c.kind == "method" and not c.error else c
            for c in record.cells
        ),
        findings=(*record.findings, *gone),
        diagnosis="Neither hypothesis could be measured.",
    )


WHY = ("shift", "orthogonality")

#  candidate, kind, targets hit of 50, rate of the trigger, accuracy, outcome
ATTACKED = (
    ("deployed", "deployed", 40, 0.90, 0.8312, Outcome.RESIDUAL),
    ("ga", "method", 45, 0.98, 0.8102, Outcome.ACTIVATED),
    ("retrained", "reference", 1, 0.03, 0.8392, Outcome.CLEAN),
)


def excess(probe, candidate, outcome, value, details, *, half=0.06, tolerance=0.05):
    return Finding(
        probe=probe,
        candidate=candidate,
        seed=0,
        outcome=outcome,
        reason="Judged.",
        statistic=value,
        null=0.0,
        tolerance=tolerance,
        interval=Interval(low=value - half, high=value + half, level=0.95),
        p_value=0.0004,
        z=9.1,
        sample_size=50,
        detectable=0.2,
        needed=410,
        details=details,
    )


def attack_findings(name, kind, hits, rate, accuracy, outcome):
    targeted = {"rate": hits / 50, "rate_low": hits / 50 - 0.1, "rate_high": hits / 50 + 0.05}
    targeted |= {"control_rate": 0.02, "control_low": 0.01, "control_high": 0.04}
    backdoor = {"rate": rate, "rate_low": rate - 0.02, "rate_high": rate + 0.02}
    backdoor |= {"control_mean": 0.021, "control_sd": 0.011, "control_max": 0.064}
    backdoor |= {"references": [{"reference": "retrained", "rate": 0.004}]}
    loss = 0.8392 - accuracy
    against = [
        {"reference": "retrained", "deficit": loss, "low": loss - 0.006, "high": loss + 0.006}
    ]
    worse = {"accuracy": accuracy, "accuracy_low": accuracy - 0.01, "references": against}
    worse |= {"accuracy_high": accuracy + 0.01}
    found = [
        excess(
            "targeted", name, outcome, hits / 50 - 0.02, targeted | {"hits": hits, "targets": 50}
        ),
        excess("backdoor", name, outcome, rate - 0.021, backdoor | {"clean_rate": 0.018}),
    ]
    if kind == "reference":
        alone = missing("indiscriminate", name, 0, "needs another reference")
        found.append(replace(alone, gating=False))
    else:
        undecided = Outcome.INCONCLUSIVE
        found.append(
            excess("indiscriminate", name, undecided, loss, worse, half=0.006, tolerance=0.01)
        )
    return found


def attack_evidence(hits, rate, accuracy):
    right = round(5000 * accuracy)
    return (
        Measurement(
            probe="targeted",
            evidence={
                "targets": [f"test/{i:05}.png" for i in range(50)],
                "labels": [i % 10 for i in range(50)],
                "adversarial": [(i + 1) % 10 for i in range(50)],
                "hits": [1] * hits + [0] * (50 - hits),
                "controls": 1000,
                "control_hits": 20,
                "drawn": True,
                "strata": [
                    {
                        "label": label,
                        "adversarial": (label + 1) % 10,
                        "targets": 5,
                        "hits": sum(i % 10 == label for i in range(hits)),
                        "controls": 100,
                        "control_hits": 2,
                    }
                    for label in range(10)
                ],
            },
        ),
        Measurement(
            probe="backdoor",
            evidence={
                "label": 3,
                "hits": [1] * round(250 * rate) + [0] * (250 - round(250 * rate)),
                "clean_hits": 4,
                "control_rates": [(i % 8) / 125 for i in range(199)],
                "controls": "order",
            },
        ),
        Measurement(
            probe="indiscriminate",
            evidence={
                "n": 5000,
                "against": [
                    {
                        "reference": "retrained",
                        "both": right,
                        "only_reference": 4196 - right,
                        "only_candidate": 0,
                        "neither": 804,
                    }
                ],
            },
        ),
    )


def attacked():
    """Targets, a trigger and a reference: the attacks are there, and one method made them worse."""
    cells, findings, candidates = [], [], []
    for name, kind, hits, rate, accuracy, outcome in ATTACKED:
        bare = cell(name, kind, 0.0, 0.5, accuracy)
        cells.append(replace(bare, measurements=attack_evidence(hits, rate, accuracy)))
        findings += attack_findings(name, kind, hits, rate, accuracy, outcome)
        findings += [missing(probe, name, 0) for probe in ("gaussian", "exposure")]
        findings.append(utility(name, 0, Outcome.CLEAN, accuracy, 0.8312 - accuracy))
        findings.append(membership(name, 0))
        candidates.append(
            CandidateVerdict(candidate=name, kind=kind, outcome=outcome, reason=f"{name} judged.")
        )
    record = audit(
        cells,
        [replace(f, gating=f.gating and f.statistic is not None) for f in findings],
        candidates,
        Outcome.RESIDUAL,
        1,
        "The deployed model still carries the poison.",
        "No repair on trial is clean.",
    )
    named = ("targeted", "backdoor", "indiscriminate")
    plan = replace(
        record.plan, probes=(*record.plan.probes, *(Step(name=probe) for probe in named))
    )
    return replace(record, plan=plan)


def unlooked():
    """Canaries only: the later probes were planned, and have nothing to measure by."""
    record = residual()
    lacks = {
        "targeted": "needs the targets of the attack",
        "backdoor": "needs the trigger",
        "indiscriminate": "needs a reference",
    }
    gone = [
        replace(missing(probe, verdict.candidate, 0, why), gating=False)
        for verdict in record.verdict.candidates
        for probe, why in lacks.items()
    ]
    steps = (*record.plan.probes, *(Step(name=probe) for probe in lacks))
    return replace(
        record, plan=replace(record.plan, probes=steps), findings=(*record.findings, *gone)
    )


def activated():
    """Unlearning made the gated candidate worse."""
    record = attacked()
    verdict = replace(
        record.verdict,
        outcome=Outcome.ACTIVATED,
        gate="ga",
        sentence="Candidate ga carries poison that unlearning made stronger.",
    )
    return replace(record, verdict=verdict)


def found_in_part():
    """The methods knew a tenth of the forget set."""
    record = residual()
    partly = {"retrained": "method"}
    kinds = [replace(c, kind=partly.get(c.candidate, c.kind)) for c in record.verdict.candidates]
    return replace(
        record,
        plan=replace(record.plan, found=0.1),
        subject={**record.subject, "found_size": 40},
        cells=tuple(replace(c, kind=partly.get(c.candidate, c.kind)) for c in record.cells),
        verdict=replace(record.verdict, candidates=tuple(kinds)),
    )


REHEARSED = (
    ("rehearsed", "deployed", Outcome.RESIDUAL, 0.913, 0.651, 0.83),
    ("scrub", "method", Outcome.RESIDUAL, 0.517, 0.602, 0.82),
    ("ssd", "method", Outcome.CLEAN, 0.022, 0.503, 0.81),
)


def rehearsed(*, held=True):
    """Nothing is known of the poison, so methods were tried on a poisoned copy."""
    cells, findings, candidates = [], [], []
    for name, kind, outcome, mean, chance, accuracy in REHEARSED:
        cells.append(cell(name, kind, mean, chance, accuracy))
        findings += [
            gaussian(name, 0, outcome, mean),
            exposure(name, 0, outcome, chance),
            utility(name, 0, Outcome.CLEAN, accuracy, 0.83 - accuracy),
        ]
        candidates.append(
            CandidateVerdict(
                candidate=name, kind=kind, outcome=outcome, reason=f"{name} was rehearsed."
            )
        )
    rehearsal = Rehearsal(
        planted=400,
        sigma=0.137,
        commitment="d1" * 32,
        epochs=6.0,
        held=held,
        loss=0.0121,
        usual_loss=0.0133,
        cells=tuple(cells),
        findings=tuple(findings),
        candidates=tuple(candidates),
        sentence="This is a rehearsal: of 2 methods, ssd removed the canaries.",
    )
    return replace(EVERY["inconclusive"](), rehearsal=rehearsal)


def hostile_everywhere():
    """Every string that the later parts show is hostile."""
    record = attacked()
    seen = explained()
    cells = []
    for one in record.cells:
        targeted, backdoor, worse = one.measurements
        evidence = {**targeted.evidence, "targets": [f"{HOSTILE}{i}" for i in range(50)]}
        against = [{**worse.evidence["against"][0], "reference": HOSTILE}]
        cells.append(
            replace(
                one,
                movement=moved(sentence=HOSTILE) if one.kind == "method" else None,
                measurements=(
                    replace(targeted, evidence=evidence),
                    backdoor,
                    replace(worse, evidence={**worse.evidence, "against": against}),
                ),
            )
        )
    findings = []
    for one in (*record.findings, *(f for f in seen.findings if f.probe in WHY)):
        details = dict(one.details)
        if "references" in details:
            details["references"] = [{**details["references"][0], "reference": HOSTILE}]
        if "network" in details:
            details |= {"network": None, "network_missing": HOSTILE}
        findings.append(replace(one, reason=HOSTILE, details=details))
    rehearsal = rehearsed().rehearsal
    return replace(
        record,
        cells=tuple(cells),
        findings=tuple(findings),
        diagnosis=HOSTILE,
        rehearsal=replace(
            rehearsal,
            sentence=HOSTILE,
            candidates=tuple(replace(c, reason=HOSTILE) for c in rehearsal.candidates),
        ),
    )


ALL = EVERY | {
    "explained": explained,
    "unexplained": unexplained,
    "attacked": attacked,
    "unlooked": unlooked,
    "activated": activated,
    "found_in_part": found_in_part,
    "rehearsed": rehearsed,
    "not_held": lambda: rehearsed(held=False),
    "hostile_everywhere": hostile_everywhere,
    "texts": texts,
    "hostile_texts": hostile_texts,
    "swept": lambda: signed(swept()),
    "signed": lambda: signed(attacked()),
}
