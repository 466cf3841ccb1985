"""One finding in words: what a probe's result looks like wherever it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from poison_audit.records import Finding, Json, Outcome
from poison_audit.reports.view.words import about, p_value, percent, printable
from poison_audit.statistics.reading import Words
from poison_audit.statistics.rounding import rounded
from poison_audit.verdict.readings import reading_of

TONES = {
    Outcome.CLEAN: "good",
    Outcome.ACCEPTED: "unsure",
    Outcome.RESIDUAL: "bad",
    Outcome.ACTIVATED: "worse",
    Outcome.ASLEEP: "bad",
    Outcome.BROKEN: "bad",
    Outcome.FAILED: "unsure",
    Outcome.INCONCLUSIVE: "unsure",
    Outcome.NOT_MEASURED: "unsure",
    Outcome.INFO: "plain",
}
"""How an outcome is coloured; the word always stands beside the colour."""


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
    """What it lacked, or what it could have shown; empty where it is decided."""
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
    words = about(finding.probe)
    return Figure(
        probe=finding.probe,
        title=f"{words.title}, {printable(finding.way)}" if finding.way else words.title,
        value=shown,
        interval=interval,
        z=f"z {finding.z:+z.1f}" if words.shows_z and finding.z is not None else "",
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
        remedy=needed(about(probe)),
        outcome=Outcome.NOT_MEASURED.value,
        tone=TONES[Outcome.NOT_MEASURED],
        reason=reason,
    )


def _numbers(finding: Finding) -> tuple[str, str, str]:
    estimate, interval = finding.statistic, finding.interval
    if estimate is None or interval is None:
        failed = finding.outcome is Outcome.FAILED
        return ("failed" if failed else "not measured"), "", ""
    reading, details = reading_of(finding.probe), finding.details
    scale, least = (100, 1) if reading.points else (1, 2)
    signed = reading.excess or (finding.null == 0 and not reading.damage)
    shown, low, high = rounded(
        *(scale * figure for figure in (estimate, interval.low, interval.high)),
        limits=[scale * limit for limit in _limits(finding)],
        least=least,
        sign="+" if signed else "",
    )
    if not reading.damage:
        open_ = reading.points and interval.low <= -1 and interval.high >= 1
        ends = "[anything]" if open_ else f"[{low}, {high}]"
        return shown, ends, _note(finding) if reading.excess else ""
    if not {"accuracy", "accuracy_low", "accuracy_high"} <= details.keys():
        return f"lost {shown}", f"[{low}, {high}]", "points of accuracy"
    ends = f"[{100 * details['accuracy_low']:.1f}, {100 * details['accuracy_high']:.1f}]"
    return percent(details["accuracy"]), ends, f"lost {shown} [{low}, {high}]"


def _note(finding: Finding) -> str:
    """Return the rate behind an excess, or the accuracy behind a deficit."""
    details = finding.details
    if _have(details, "hits", "targets"):
        return f"{details['hits']:,} of {details['targets']:,} hit"
    told = (f"{name} {percent(details[name])}" for name in ("rate", "accuracy") if name in details)
    return next(told, "")


def _have(details: Mapping[str, Json], *names: str) -> bool:
    return all(details.get(name) is not None for name in names)


def _limits(finding: Finding) -> list[float]:
    """Return what a bound is compared with: the null, and the tolerance on either side."""
    if finding.null is None or finding.tolerance is None:
        return []
    if reading_of(finding.probe).excess:
        return [finding.null, finding.tolerance]
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
    lines, details, words = [], finding.details, about(finding.probe)
    if {"tpr", "tpr_low", "tpr_high", "fpr"} <= details.keys():
        ends = f"[{100 * details['tpr_low']:.1f}, {100 * details['tpr_high']:.1f}]"
        at = f"a false positive rate of {100 * details['fpr']:.3g}%"
        lines.append(f"true positive rate {100 * details['tpr']:.1f}% {ends} at {at}")
    if _have(details, "held_out_mean"):
        mean = f"{details['held_out_mean']:{'' if finding.null else '+z'}.2f}"
        told = f"held-out {words.held_out}: mean {mean}"
        if _have(details, "held_out_p"):
            told += f", {p_value(details['held_out_p'])} for {words.law}"
        lines.append(told)
    if details.get("spread") is not None:
        lines.append(f"spread of the scores {details['spread']:.2f}")
    if _have(details, "scatter", "scatter_low", "scatter_high", "scatter_p"):
        ends = f"[{details['scatter_low']:z.2f}, {details['scatter_high']:z.2f}]"
        told = f"(mean square - 1) / sqrt 2 = {details['scatter']:z.2f} {ends}"
        lines.append(f"{told}, {p_value(details['scatter_p'])}")
    if _have(details, "epsilon"):
        lines.append(f"epsilon at least {details['epsilon']:.2f} (one training, 95%)")
    if details.get("dropped"):
        lines.append(f"{details['dropped']:,} vanished gradients left out")
    if words.fresh and _have(details, "draws"):
        lines.append(f"{details['draws']:,} fresh {words.fresh} a canary")
    return [*lines, *_rates(finding)]


def _rates(finding: Finding) -> list[str]:
    """Return the rates that an excess, or the accuracies that a deficit, is the difference of."""
    details = finding.details
    if not reading_of(finding.probe).excess:
        return []
    shares = {"rate": "success rate", "control_rate": "controls", "accuracy": "accuracy"}
    lines = [f"{told} {_share(details, n)}" for n, told in shares.items() if n in details]
    if _have(details, "control_mean"):
        sd = f", sd {_pp(details['control_sd'])}" if _have(details, "control_sd") else ""
        most = f", highest {_pp(details['control_max'])}" if _have(details, "control_max") else ""
        draws = f"{details['draws']:,} " if _have(details, "draws") else ""
        what = "phrases" if details.get("controls") == "tokens" else "triggers"
        seen = details.get("control_inputs", finding.sample_size)
        few = "" if seen == finding.sample_size else f" on {seen:,} of the inputs"
        lines.append(f"{draws}control {what}{few}: mean {_pp(details['control_mean'])}{sd}{most}")
    if _have(details, "clean_rate"):
        lines.append(f"without the trigger {_pp(details['clean_rate'])}")
    lines += [
        f"stamped inputs in reference {printable(str(one['reference']))} {_pp(one['rate'])}"
        for one in details.get("references") or ()
        if one.get("rate") is not None
    ]
    return lines


def _share(details: Mapping[str, Json], name: str) -> str:
    if not _have(details, f"{name}_low", f"{name}_high"):
        return percent(details[name])
    low, high = 100 * details[f"{name}_low"], 100 * details[f"{name}_high"]
    return f"{percent(details[name])} [{low:.1f}, {high:.1f}]"


def _pp(share: float) -> str:
    return f"{100 * share:.1f}%"


def _remedy(finding: Finding) -> str:
    words = about(finding.probe)
    if finding.outcome is Outcome.FAILED:
        return "Needed: a run that ends with a finite model (other parameters, or more memory)."
    if finding.outcome is Outcome.NOT_MEASURED:
        return needed(words)
    if finding.outcome is not Outcome.INCONCLUSIVE or finding.detectable is None:
        return ""
    effect = f"{finding.detectable:.2g}"
    if reading_of(finding.probe).excess:
        effect = f"{100 * finding.detectable:.1f} points"
    return (
        f"The {finding.sample_size:,} {words.samples} here would show an effect of {effect} 9 "
        "times in 10."
    )


def needed(words: Words) -> str:
    """Return what a probe would have needed, in a sentence."""
    return f"Needed: {words.needs[:1].lower()}{words.needs[1:]}"
