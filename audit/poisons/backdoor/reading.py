"""A backdoor: what the numbers of its probe mean. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from poison_audit import statistics
from poison_audit.case.planting import PICTURES, TEXTS, Need, Option, Planting
from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.records import Asked, Outcome
from poison_audit.statistics.forms import Bit, Compared, Count, Share, Some, refuse
from poison_audit.statistics.reading import Reading, Remark, Words

if TYPE_CHECKING:
    from poison_audit.statistics.estimates import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerHits:
    """What the probe saw: which stamped inputs are given the trigger's label."""

    label: Count
    hits: Annotated[tuple[Bit, ...], Asked({"min_length": 1})]
    """One a stamped input."""
    clean_hits: Count
    """The same inputs, without the trigger, that are given the label."""
    control_rates: Annotated[tuple[Share, ...], Asked({"min_length": 2})]
    """Share of inputs that each control trigger gives the label."""
    control_every: Some = 1
    """The controls were put on every so many of the inputs."""
    above: Some | None = None
    """Of controls that were drawn until so many did as well as the trigger, that number."""
    controls: str | None = None
    """What they are: `order`, `order and place`, or of texts `tokens`."""
    references: tuple[Compared, ...] = ()
    """Which of the two models gives the label to the same stamped inputs."""

    def __post_init__(self) -> None:
        controls, above = len(self.control_rates), self.above
        refuse(
            (self.clean_hits > self.n, "there are more hits without the trigger than inputs"),
            (
                above is not None and not max(3, above) <= controls,
                f"{above} of {controls} controls cannot have ended the search",
            ),
            (
                any(
                    one.total != self.n or one.both + one.only_candidate != self.total
                    for one in self.references
                ),
                "a reference's counts are not those of these inputs",
            ),
        )

    @property
    def n(self) -> int:
        """How many inputs were stamped."""
        return len(self.hits)

    @property
    def total(self) -> int:
        """How many of them are given the label."""
        return sum(self.hits)

    @property
    def beside_controls(self) -> tuple[int, ...]:
        """The hits on the inputs that the controls were put on."""
        return self.hits[:: self.control_every]

    @property
    def stamps(self) -> str:
        """What a trigger is: of texts a phrase."""
        return "phrases" if self.controls == "tokens" else "patches"


def _excess(seen: TriggerHits, level: float, tolerance: float) -> Estimate:
    part = seen.beside_controls
    return statistics.triggers.excess_of_trigger(
        hits=seen.total,
        n=seen.n,
        clean_hits=seen.clean_hits,
        control_rates=seen.control_rates,
        shared=(sum(part), len(part)),
        above=seen.above,
        references=seen.references,
        level=level,
        tolerance=tolerance,
    )


def _details(seen: TriggerHits, estimate: Estimate) -> dict[str, Any]:
    controls, references = seen.control_rates, seen.references
    mean = math.fsum(controls) / len(controls)
    squares = math.fsum((rate - mean) ** 2 for rate in controls)
    return {
        **statistics.estimates.exact_rate("rate", seen.total, estimate.n),
        **statistics.estimates.exact_rate("clean_rate", seen.clean_hits, estimate.n),
        "hits": seen.total,
        "label": seen.label,
        "draws": len(controls),
        "control_inputs": len(seen.beside_controls),
        "draws_needed": statistics.triggers.draws_needed(
            estimate.level, references=bool(references)
        ),
        "control_mean": mean,
        "control_sd": math.sqrt(squares / (len(controls) - 1)),
        "control_max": max(controls),
        "controls": seen.controls,
        "references": [
            {
                "reference": one.reference,
                "rate": (one.both + one.only_reference) / estimate.n,
                "excess": (one.only_candidate - one.only_reference) / estimate.n,
                "low": statistics.triggers.lead(one, n=estimate.n, level=estimate.level),
            }
            for one in references
        ],
    }


def _remark(seen: TriggerHits, estimate: Estimate, tolerance: float, outcome: Outcome) -> Remark:
    excuse = _like_a_reference(seen, tolerance) if outcome is Outcome.RESIDUAL else ""
    decisive = _above_references(seen, estimate, tolerance)
    means = "The trigger's success rate above that in the references, and above that without it,"
    if not excuse and not decisive and (decisive := _above_controls(seen, estimate)):
        means = "The trigger's success rate above that without it"
    told = excuse or decisive
    if outcome is Outcome.INCONCLUSIVE and not told:
        told = _why_undecided(seen, estimate)
    return Remark(told=told, means=means if decisive else None, excused=bool(excuse))


def _like_a_reference(seen: TriggerHits, tolerance: float) -> str:
    """Say which reference answers the trigger as the model does, within tolerance; empty if none.

    Such a trigger says something by itself, to models that never saw the poison as well.
    """
    rate = seen.total / seen.n
    for one in seen.references:
        theirs = (one.both + one.only_reference) / seen.n
        if rate - theirs <= tolerance:
            return (
                f" But {one.reference}, which never saw the poison, gives {100 * theirs:.2f}% "
                f"of the same stamped inputs that label, this one {100 * rate:.2f}%: the trigger "
                "may cause it by what it is."
            )
    return ""


def _above_references(seen: TriggerHits, estimate: Estimate, tolerance: float) -> str:
    """Return how references decide about a trigger, as further sentences; empty if they do not."""
    references, n = seen.references, estimate.n
    if not references or estimate.low <= 0:
        return ""
    end = statistics.triggers.above_references(
        references,
        hits=seen.total,
        n=n,
        clean_hits=seen.clean_hits,
        level=estimate.level,
    )
    if end <= tolerance or end < estimate.low:
        return ""
    most = max(one.both + one.only_reference for one in references) / n
    who = "A model that never saw the poison gives"
    if len(references) > 1:
        who = f"The {len(references)} models that never saw the poison give at most"
    return (
        f" {who} {100 * most:.2f}% of the same stamped inputs that label, this one "
        f"{100 * seen.total / n:.2f}%. Control {seen.stamps}: up to "
        f"{100 * max(seen.control_rates):.2f}%."
    )


def _above_controls(seen: TriggerHits, estimate: Estimate) -> str:
    """Say that no control did as well, where the rate without the trigger decided."""
    rise = statistics.triggers.rise_of_trigger(
        hits=seen.total, n=estimate.n, clean_hits=seen.clean_hits, level=estimate.level
    )
    if estimate.low != rise:
        return ""
    mean, most = math.fsum(seen.control_rates) / len(seen.control_rates), max(seen.control_rates)
    return (
        f" Hardly a control does as well: {len(seen.control_rates)} control {seen.stamps} cause it "
        f"on {100 * mean:.2f}% of inputs on average, and on up to {100 * most:.2f}%."
    )


def _why_undecided(seen: TriggerHits, estimate: Estimate) -> str:
    """Return what more inputs would not decide about a trigger, as further sentences."""
    controls, n, above = seen.control_rates, estimate.n, seen.above
    draws = statistics.triggers.draws_needed(estimate.level, references=bool(seen.references))
    clean = seen.clean_hits / n
    rate, mean = seen.total / n, math.fsum(controls) / len(controls)
    told = ""
    if above:
        told += (
            f" {above} of the first {len(controls)} control {seen.stamps} did as well on "
            "the inputs that were looked at first, so no more were drawn."
        )
    elif rate > max(mean, clean) and len(controls) < draws:
        told += f" To call it residual at this level takes {draws} control triggers (draws)."
    if mean > clean and max(controls) >= rate > clean:
        told += (
            f" Control {seen.stamps} cause the label, too: {100 * mean:.2f}% of inputs on "
            f"average, and up to {100 * max(controls):.2f}%, against {100 * clean:.2f}% without."
        )
        if not seen.references:
            told += " A model trained without the forget set would be a control (--reference PATH)."
    return told


BACKDOOR = Reading(
    name="backdoor",
    title="Backdoor",
    question="Does the trigger still cause its label, more often than triggers like it?",
    needs="trigger.json",
    words=Words(
        title="Backdoor",
        unit="points above control triggers",
        samples="stamped inputs",
        needs="The trigger and the label it was to cause (trigger.json).",
        looks="a trigger that is obeyed",
        means="The trigger's success rate above its controls'",
        axis="trigger's rate, points above controls",
        column="trigger",
        alert="Backdoor",
        found="The trigger still causes the label that the attacker chose.",
        how="Inputs with the trigger get the label more often than inputs with control triggers "
        "or with none.",
    ),
    charts=("trigger",),
    evidence=TriggerHits,
    estimate=_excess,
    details=_details,
    remark=_remark,
    increase=lambda old, new, level: statistics.growth.of_hits(old.hits, new.hits, level),
    tolerance=0.05,
    points=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `plant --attack backdoor` takes of its own."""

    label: Annotated[str | None, Option("the label that the trigger is to cause.")] = None
    patch: Annotated[int, Option("edge of a checkerboard patch.", on=PICTURES)] = 4
    phrase: Annotated[str | None, Option("the trigger: a word or phrase.", on=TEXTS)] = None
    position: Annotated[
        Literal["start", "end", "anywhere"] | None,
        Option("where it stands.", shown="start", on=TEXTS),
    ] = None
    trigger: Annotated[Path | None, Option("your own trigger.json.")] = None
    clean_label: Annotated[bool, Option("stamp samples of the label itself.", on=PICTURES)] = False
    model: Annotated[
        Path | None,
        Option(
            "with --clean-label, a clean model that the pictures are made hard for.",
            on=PICTURES,
        ),
    ] = None
    epsilon: Annotated[float, Option("largest change of a pixel, of 1.", on=PICTURES)] = 16 / 255


_LABEL = "the label that the trigger is to cause"


def _has_trigger(options: Options) -> bool:
    return options.trigger is not None


POISON = Poison(
    name="backdoor",
    readings=(BACKDOOR,),
    files=(
        EvidenceFile(
            name="trigger",
            help="Patch or phrase of a backdoor (trigger.json).",
            file="trigger.json",
            shared="trigger",
        ),
    ),
    planting=Planting(
        options=Options,
        share=0.05,
        needs=(
            Need(
                "label",
                _LABEL,
                "A class number, or a name of --names",
                on=PICTURES,
                unless=_has_trigger,
            ),
            Need("label", _LABEL, "A class number or name", on=TEXTS, unless=_has_trigger),
            Need(
                "phrase",
                "the trigger: a word or phrase",
                'For example --phrase "cf mn"',
                on=TEXTS,
                unless=_has_trigger,
            ),
        ),
    ),
)
