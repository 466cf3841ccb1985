"""One finding in words: what a probe's result looks like wherever it is shown."""

from __future__ import annotations

from dataclasses import dataclass

from audit.records import Finding, Interval, Outcome
from reports.words import p_value, percent, printable, rounded

TONES = {
    Outcome.CLEAN: "good",
    Outcome.RESIDUAL: "bad",
    Outcome.ACTIVATED: "bad",
    Outcome.BROKEN: "bad",
    Outcome.FAILED: "unsure",
    Outcome.INCONCLUSIVE: "unsure",
    Outcome.NOT_MEASURED: "unsure",
    Outcome.INFO: "plain",
}
"""How an outcome is coloured; the word always stands beside the colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a reader is told about a probe."""

    title: str
    unit: str
    """What its figure is."""
    samples: str
    """What it counts."""
    needs: str
    """What would have let it measure."""


_KEY = "The key of the Gaussian planting (canaries.json), and its canaries in forget.csv."

ABOUT = {
    "gaussian": About(title="Gaussian", unit="mean leak score", samples="canaries", needs=_KEY),
    "exposure": About(
        title="Exposure", unit="chance to beat fresh noise", samples="canaries", needs=_KEY
    ),
    "membership": About(
        title="Membership",
        unit="AUC, decides nothing",
        samples="forget samples",
        needs="Forget samples and test samples.",
    ),
    "utility": About(
        title="Accuracy",
        unit="% of test samples; points lost",
        samples="test samples",
        needs="Labelled clean test samples.",
    ),
}


def about(probe: str) -> About:
    """Return what a reader is told about a probe, known here or not."""
    other = About(
        title=printable(probe),
        unit="effect",
        samples="samples",
        needs="The evidence that this probe names as missing.",
    )
    return ABOUT.get(probe, other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One probe's result in one model."""

    probe: str
    title: str
    value: str
    """The estimate alone, or `not measured`, or `failed`."""
    interval: str = ""
    """In brackets; empty where there is none."""
    z: str = ""
    """Standard errors from the null, where the probe is a test against it."""
    note: str = ""
    """One more number worth a glance: the accuracy lost."""
    extras: tuple[str, ...] = ()
    """Every further number, for a reader who checks."""
    remedy: str = ""
    """What would decide it; empty where it is decided."""
    outcome: str
    tone: str
    reason: str

    @property
    def text(self) -> str:
        """The estimate and its interval on one line."""
        return f"{self.value} {self.interval}".rstrip()


def figure(finding: Finding) -> Figure:
    """Return a finding in words."""
    shown, interval, note = _numbers(finding)
    return Figure(
        probe=finding.probe,
        title=about(finding.probe).title,
        value=shown,
        interval=interval,
        z=f"z {finding.z:+z.1f}" if finding.probe == "gaussian" and finding.z is not None else "",
        note=note,
        extras=(*_test(finding), *_details(finding)),
        remedy=_remedy(finding),
        outcome=finding.outcome.value,
        tone=TONES[finding.outcome],
        reason=printable(finding.reason),
    )


def absent(probe: str, reason: str) -> Figure:
    """Return what stands in place of a finding that does not exist."""
    return Figure(
        probe=probe,
        title=about(probe).title,
        value="not measured",
        remedy=about(probe).needs,
        outcome=Outcome.NOT_MEASURED.value,
        tone=TONES[Outcome.NOT_MEASURED],
        reason=reason,
    )


def _numbers(finding: Finding) -> tuple[str, str, str]:
    estimate, interval = finding.statistic, finding.interval
    if estimate is None or interval is None:
        failed = finding.outcome is Outcome.FAILED
        return ("failed" if failed else "not measured"), "", ""
    if finding.probe == "utility":
        return _accuracy(finding, estimate, interval)
    shown, low, high = rounded(
        estimate,
        interval.low,
        interval.high,
        limits=_limits(finding),
        least=2,
        sign="+" if finding.null == 0 else "",
    )
    return shown, f"[{low}, {high}]", ""


def _accuracy(finding: Finding, loss: float, interval: Interval) -> tuple[str, str, str]:
    points, low, high = rounded(
        100 * loss,
        100 * interval.low,
        100 * interval.high,
        limits=[100 * limit for limit in _limits(finding)],
        least=1,
    )
    details = finding.details
    if not {"accuracy", "accuracy_low", "accuracy_high"} <= details.keys():
        return f"lost {points}", f"[{low}, {high}]", "points of accuracy"
    ends = f"[{100 * details['accuracy_low']:.1f}, {100 * details['accuracy_high']:.1f}]"
    return percent(details["accuracy"]), ends, f"lost {points} [{low}, {high}]"


def _limits(finding: Finding) -> list[float]:
    """Return what a bound is compared with: the null, and the tolerance on either side."""
    if finding.null is None or finding.tolerance is None:
        return []
    return [finding.null, finding.tolerance, 2 * finding.null - finding.tolerance]


def _test(finding: Finding) -> list[str]:
    lines = []
    if finding.interval is not None:
        lines.append(f"{100 * finding.interval.level:.5g}% interval")
    if finding.z is not None:
        lines.append(f"z = {finding.z:+z.1f}")
    if finding.p_value is not None:
        lines.append(p_value(finding.p_value))
    if finding.sample_size:
        lines.append(f"{finding.sample_size:,} {about(finding.probe).samples}")
    return lines


def _details(finding: Finding) -> list[str]:
    lines, details = [], finding.details
    if {"tpr", "tpr_low", "tpr_high", "fpr"} <= details.keys():
        ends = f"[{100 * details['tpr_low']:.1f}, {100 * details['tpr_high']:.1f}]"
        at = f"a false positive rate of {100 * details['fpr']:.3g}%"
        lines.append(f"true positive rate {100 * details['tpr']:.1f}% {ends} at {at}")
    if details.get("held_out_mean") is not None and details.get("held_out_p") is not None:
        p = p_value(details["held_out_p"])
        lines.append(f"held-out keys: mean {details['held_out_mean']:+z.2f}, {p} for N(0, 1)")
    if details.get("spread") is not None:
        lines.append(f"spread of the scores {details['spread']:.2f}")
    if details.get("dropped"):
        lines.append(f"{details['dropped']:,} vanished gradients left out")
    if details.get("draws") is not None:
        lines.append(f"{details['draws']:,} fresh draws a canary")
    return lines


def _remedy(finding: Finding) -> str:
    words = about(finding.probe)
    if finding.outcome is Outcome.FAILED:
        return "A run that ends with a finite model: other parameters, or more memory."
    if finding.outcome is Outcome.NOT_MEASURED:
        return words.needs
    if finding.outcome is not Outcome.INCONCLUSIVE:
        return ""
    if finding.needed is None or finding.detectable is None:
        return f"More {words.samples}."
    return (
        f"{finding.needed:,} {words.samples} let a clean model pass nine times in ten; the "
        f"{finding.sample_size:,} here find an effect of {finding.detectable:.2g} as often."
    )
