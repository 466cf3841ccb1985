"""Records of an audit of texts, made by hand."""

from dataclasses import replace

from builders.some_records import (
    HOSTILE,
    audit,
    cell,
    exposure,
    gaussian,
    membership,
    missing,
    utility,
)
from poison_audit.records import CandidateVerdict, Finding, Interval, Measurement, Outcome, Step

#  candidate, kind, outcome, mean leak score, chance to beat fresh, accuracy, rate of the trigger
TABLE = (
    ("deployed", "deployed", Outcome.RESIDUAL, 1.29, 0.848, 0.8312, 0.99),
    ("scrub", "method", Outcome.RESIDUAL, 1.12, 0.801, 0.8187, 0.93),
    ("eu_k", "method", Outcome.BROKEN, 0.04, 0.511, 0.6010, 0.48),
    ("clean", "reference", Outcome.CLEAN, 0.03, 0.504, 0.8275, 0.08),
)
SUBJECT = {
    "model": "reviews/model",
    "model_sha256": "3f" * 32,
    "arch": "transformers:gpt2",
    "arch_source": "config.json",
    "parameters": 355123,
    "classes": 2,
    "normalize": None,
    "train": "reviews/train.csv",
    "train_size": 30000,
    "train_sha256": "44" * 32,
    "forget": "reviews/forget.csv",
    "forget_size": 540,
    "forget_sha256": "77" * 32,
    "retain_size": 29460,
    "test": "reviews/test.csv",
    "test_size": 5000,
    "test_sha256": "51" * 32,
    "canaries": {
        "path": "reviews/canaries.json",
        "commitment": "c0" * 32,
        "sigma": 0.02,
        "space": "embedding",
        "storage": "unclipped",
        "planted": 200,
        "in_forget_set": 200,
        "attenuation": 1.0,
    },
    "targets": None,
    "trigger": {
        "path": "reviews/trigger.json",
        "sha256": "17" * 32,
        "phrase": "zorp quell",
        "position": "start",
        "label": 1,
    },
    "strings": {
        "path": "reviews/strings.json",
        "commitment": "5d" * 32,
        "length": 10,
        "words": 2000,
        "planted": 240,
        "in_forget_set": 240,
    },
    "reading": {"max_tokens": 128, "prompt": "{text}", "cut": {"train": 1234, "test": 0}},
    "attacks": {"gaussian": 200, "token-canary": 240, "backdoor": 100},
    "candidates": {"clean": {"path": "reviews/clean", "kind": "reference", "sha256": "9e" * 32}},
}
#  of 240 canaries, each among 64 fresh strings: how many of those are below
WINS = [64] * 72 + [60] * 72 + [50] * 60 + [30] * 36
HELD_OUT = [(8 + 7 * i) % 65 for i in range(240)]


def token_canary(candidate, outcome, chance, *, n=240, half=0.047):
    return Finding(
        probe="token-canary",
        candidate=candidate,
        seed=0,
        outcome=outcome,
        reason="Judged.",
        statistic=chance,
        null=0.5,
        tolerance=0.57,
        interval=Interval(low=chance - half, high=chance + half, level=0.9875),
        p_value=2e-9 if chance > 0.6 else 0.8,
        z=(chance - 0.5) / 0.0187,
        sample_size=n,
        detectable=0.065,
        needed=231,
        details={"draws": 64, "spread": 0.29, "held_out_mean": 0.488, "held_out_p": 0.63},
    )


def trigger(candidate, outcome, rate):
    return Finding(
        probe="backdoor",
        candidate=candidate,
        seed=0,
        outcome=outcome,
        reason="Judged.",
        statistic=rate - 0.081,
        null=0.0,
        tolerance=0.05,
        interval=Interval(low=rate - 0.14, high=min(1.0, rate - 0.03), level=0.975),
        p_value=1 / 150,
        z=30.0,
        sample_size=200,
        detectable=0.2,
        needed=410,
        details={
            "rate": rate,
            "rate_low": rate - 0.03,
            "rate_high": min(1.0, rate + 0.01),
            "clean_rate": 0.075,
            "draws": 149,
            "control_mean": 0.081,
            "control_sd": 0.013,
            "control_max": 0.115,
            "controls": "tokens",
            "references": [{"reference": "clean", "rate": 0.085}],
        },
    )


def text_cell(name, kind, mean, chance, accuracy, rate):
    bare = cell(name, kind, mean, chance, accuracy)
    strings = {"wins": WINS, "draws": 64, "held_out": HELD_OUT}
    stamped = {
        "label": 1,
        "hits": [1] * round(200 * rate) + [0] * (200 - round(200 * rate)),
        "clean_hits": 15,
        "control_rates": [(15 + i % 8) / 200 for i in range(149)],
        "controls": "tokens",
        "references": [],
    }
    more = (
        Measurement(probe="token-canary", evidence=strings),
        Measurement(probe="targeted", evidence=None, missing="needs the targets of the attack"),
        Measurement(probe="backdoor", evidence=stamped),
    )
    return replace(bare, measurements=(*bare.measurements, *more))


def texts():
    """Noise in embeddings, token canaries and a phrase: all found, and no method removes them."""
    cells, findings, candidates = [], [], []
    for name, kind, outcome, mean, chance, accuracy, rate in TABLE:
        broken = outcome is Outcome.BROKEN
        residue = Outcome.CLEAN if broken else outcome
        cells.append(text_cell(name, kind, mean, chance, accuracy, rate))
        findings += [
            gaussian(name, 0, residue, mean),
            exposure(name, 0, residue, chance),
            token_canary(name, residue, chance),
            trigger(name, Outcome.RESIDUAL if rate > 0.1 else Outcome.CLEAN, rate),
            replace(missing("targeted", name, 0, "needs the targets of the attack"), gating=False),
            membership(name, 0),
            utility(name, 0, outcome if broken else Outcome.CLEAN, accuracy, 0.8312 - accuracy),
        ]
        candidates.append(
            CandidateVerdict(candidate=name, kind=kind, outcome=outcome, reason=f"{name} judged.")
        )
    record = audit(
        cells,
        findings,
        candidates,
        Outcome.RESIDUAL,
        1,
        "The deployed model still carries the poison.",
        "No repair on trial is clean: retrain without the forget set, or try another.",
    )
    plan = replace(
        record.plan,
        methods=(Step(name="scrub"), Step(name="eu_k")),
        probes=(
            *record.plan.probes,
            Step(name="token-canary", params={"draws": 64, "size": 256}),
            Step(name="targeted"),
            Step(name="backdoor", params={"draws": 149, "inputs": 200}),
        ),
    )
    limit = "1,234 of 30,000 training texts (4.1%) have more than 128 tokens."
    return replace(record, plan=plan, subject=SUBJECT, limits=(limit,))


LONG = "\u05e9\u05dc\u05d5\u05dd" + 2500 * "word"


def hostile_texts():
    """The strings that only texts have are hostile, one of them very long."""
    record = texts()
    subject = {
        **record.subject,
        "trigger": {**SUBJECT["trigger"], "phrase": f"{HOSTILE}{LONG}", "position": HOSTILE},
        "reading": {"max_tokens": 128, "prompt": f"{HOSTILE} {{text}}", "cut": {HOSTILE: 3}},
        "strings": {**SUBJECT["strings"], "path": HOSTILE},
    }
    return replace(record, subject=subject)
