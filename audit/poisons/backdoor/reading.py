"""A backdoor: what the numbers of its probe mean. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from poison_audit import statistics
from poison_audit.case.planting import PICTURES, TEXTS, Need, Option, Planting
from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.records import Asked, Outcome
from poison_audit.statistics.forms import Bit, Compared, Count, Share, refuse
from poison_audit.statistics.reading import Reading, Remark, Words
from poison_audit.statistics.triggers import Looks

if TYPE_CHECKING:
    from poison_audit.statistics.estimates import Estimate
    from poison_audit.statistics.triggers import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """What a phrase does at another place than the one that is said."""

    position: Literal["start", "end", "anywhere"]
    hits: Count
    """The same inputs that are given the label with the phrase there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerHits:
    """What the probe saw: a model's answers with the trigger, with its controls, and without."""

    label: Count
    hits: Annotated[tuple[Bit, ...], Asked({"min_length": 1})]
    """Whether it is given the label: one a stamped input of another class."""
    clean_hits: Count
    """The same inputs, without the trigger, that are given the label."""
    control_rates: tuple[Share, ...]
    """Share of `control_inputs` inputs that each control trigger gives the label: to look at."""
    control_inputs: Count | None = None
    controls: str | None = None
    """What they are: `far`, or of texts `tokens`."""
    references: tuple[Compared, ...] = ()
    """Which of the two models gives the label to the same stamped inputs."""
    elsewhere: tuple[Elsewhere, ...] = ()
    """Of texts, where trigger.json says start or end."""
    looks: Looks | None = None
    """What decides. None: it was seen by an earlier version, which knew no far controls."""

    def __post_init__(self) -> None:
        refuse(
            (self.clean_hits > self.n, "there are more hits without the trigger than inputs"),
            (
                any(
                    one.total != self.n or one.both + one.only_candidate != self.total
                    for one in self.references
                ),
                "a reference's counts are not those of these inputs",
            ),
            (any(e.hits > self.n for e in self.elsewhere), "more hits elsewhere than inputs"),
            (self.looks is not None and self.label >= len(self.looks.classes), "no such label"),
        )

    @property
    def n(self) -> int:
        """How many inputs of other classes were stamped."""
        return len(self.hits)

    @property
    def total(self) -> int:
        """How many of them are given the label."""
        return sum(self.hits)

    def moved(self, tolerance: float) -> Elsewhere | None:
        """Return where else the phrase causes the label beyond the tolerance, if it does."""
        most = max(self.elsewhere, key=lambda place: place.hits, default=None)
        rise = 0.0 if most is None else (most.hits - self.clean_hits) / self.n
        return most if rise > tolerance else None

    @property
    def stamps(self) -> str:
        """What a trigger is: of texts a phrase."""
        return "phrases" if self.controls == "tokens" else "patterns"


def _excess(seen: TriggerHits, level: float, tolerance: float) -> Estimate:
    if seen.looks is not None:
        found = statistics.triggers.excess_of_trigger(seen.looks, level=level, tolerance=tolerance)
        moved = seen.moved(tolerance)
        if moved is None or found.high > tolerance:
            return found
        # At its own place it would pass; nothing that is done there tells what it does elsewhere.
        return replace(found, high=moved.hits / seen.n, needed=statistics.rates.NEVER)
    rise, n = (seen.total - seen.clean_hits) / seen.n, seen.n
    # Nothing is known of what other triggers do: neither end can decide.
    return statistics.estimates.Estimate(
        value=rise, null=0.0, low=min(0.0, rise), high=1.0, level=level, p_value=1.0, z=0.0, n=n,
        spread=0.5, detectable=1.0, needed=statistics.rates.NEVER,
    )  # fmt: skip


def _details(seen: TriggerHits, estimate: Estimate) -> dict[str, Any]:
    controls, looks = seen.control_rates, seen.looks
    told: dict[str, Any] = {
        **statistics.estimates.exact_rate("rate", seen.total, seen.n),
        **statistics.estimates.exact_rate("clean_rate", seen.clean_hits, seen.n),
        "hits": seen.total,
        "label": seen.label,
        "draws": len(controls),
        "controls": seen.controls,
    }
    if controls:
        mean = math.fsum(controls) / len(controls)
        told |= {"control_mean": mean, "control_max": max(controls)}
        told |= {} if seen.control_inputs is None else {"control_inputs": seen.control_inputs}
    if looks is not None:
        told |= {
            "draws_needed": statistics.triggers.draws_needed(
                estimate.level, references=bool(looks.beside)
            ),
            "p_content": looks.rank("rises"),
            # All that was counted, so that no count can be changed and go unnoticed.
            "looks": json.loads(json.dumps(asdict(looks))),
        }
    rises = {one.reference: one.rise.value for one in looks.beside} if looks is not None else {}
    return {
        **told,
        "references": [
            {
                "reference": one.reference,
                "rate": (one.both + one.only_reference) / seen.n,
                "excess": (one.only_candidate - one.only_reference) / seen.n,
                "rise": rises.get(one.reference),
            }
            for one in seen.references
        ],
    }


def _remark(seen: TriggerHits, estimate: Estimate, tolerance: float, outcome: Outcome) -> Remark:
    looks = seen.looks
    if looks is None:
        told = " It was measured by an earlier version, which asked less: probe the model again."
        return Remark(told=told, excused=outcome is Outcome.RESIDUAL)
    level = estimate.level
    found = statistics.triggers.questions(looks, level=level, tolerance=tolerance)
    one = statistics.triggers.deciding(found, tolerance=tolerance)
    means, says = {
        "label": (None, f"The trigger still works: {_rates(seen)}."),
        "lost": (
            "Right answers lost under the trigger, above typical controls",
            "The trigger still works: it costs right answers.",
        ),
        "any": (
            f"Inputs that the trigger turns to class {one.class_}, above typical controls",
            f"The trigger still works: it leads to class {one.class_}.",
        ),
    }[one.kind]
    excuse = _excuse(seen, looks, one, tolerance) if outcome is Outcome.RESIDUAL else ""
    if excuse:
        told = excuse
    elif outcome is Outcome.RESIDUAL:
        told = _found(seen, looks, one)
    elif outcome is Outcome.CLEAN:
        told = (
            f" So are the right answers that it costs ({100 * looks.lost.value:.2f}) and the "
            f"largest rise of any class ({100 * found[2].value:.2f}), above typical controls."
        )
    else:
        told = _why_undecided(seen, looks, found, estimate, tolerance)
    return Remark(told=told, means=means, found=says, excused=bool(excuse))


def _excuse(seen: TriggerHits, looks: Looks, one: Question, tolerance: float) -> str:
    """Say which reference answers the trigger as the model does, within tolerance; empty if none.

    Such a trigger says something by itself, to models that never saw the poison as well.
    """
    for theirs in looks.beside:
        rate = seen.total / seen.n
        much, mine, what = {
            "label": (theirs.rate, rate, "of the same stamped inputs that label"),
            "lost": (theirs.lost, one.value, "of right answers less once they are stamped"),
            "any": (theirs.classes[one.class_], one.value, "more of them that class"),
        }[one.kind]
        if mine - much <= tolerance:
            return (
                f" But {theirs.reference}, which never saw the poison, gives {100 * much:.2f}% "
                f"{what}, this one {100 * mine:.2f}%: the trigger may cause it by what it is."
            )
    return ""


def _found(seen: TriggerHits, looks: Looks, one: Question) -> str:
    as_much = {"label": "rises", "lost": "losses", "any": "largest"}[one.kind]
    count = sum(getattr(family, as_much) for family in looks.families if family.here)
    told = "" if one.kind == "label" else f" Of its own label: {_rates(seen)}."
    if looks.beside:
        most = max(100 * theirs.rate for theirs in looks.beside)
        told += f" Models that never saw the poison give it to at most {most:.1f}%."
    return f"{told} Of {looks.controls} control {seen.stamps} {count or 'none'} do as much."


def _rates(seen: TriggerHits) -> str:
    stamped, plain = (f"{100 * hits / seen.n:.1f}%" for hits in (seen.total, seen.clean_hits))
    chosen = "of inputs with it get the label that the attacker chose"
    return f"{stamped} {chosen}, and {plain} without it"


def _why_undecided(
    seen: TriggerHits,
    looks: Looks,
    found: Sequence[Question],
    estimate: Estimate,
    tolerance: float,
) -> str:
    """Return what more inputs would not decide about a trigger, as further sentences."""
    told, references = "", bool(looks.beside)
    label, lost, largest = found
    if (moved := seen.moved(tolerance)) is not None and label.value <= tolerance:
        where = {"start": "before", "end": "after", "anywhere": "anywhere in"}[moved.position]
        told += (
            f" Put {where} the text, and not where trigger.json says, the phrase causes the label "
            f"in {100 * moved.hits / seen.n:.2f}% of the same inputs: audit again with "
            f'"position": "{moved.position}".'
        )
    draws = statistics.triggers.draws_needed(estimate.level, references=references)
    if label.low > tolerance and not label.sure:
        count = sum(family.rises for family in looks.families if family.here)
        told += (
            f" Of {looks.controls} control {seen.stamps} {count or 'none'} raise the label as much."
        )
        if looks.controls < draws:
            told += f" To call it residual at this level takes {draws} of them (draws)."
        elif not references:
            told += " A model trained without the forget set would be a control (--reference PATH)."
    if looks.frail > statistics.triggers.FRAIL:
        told += (
            f" Typical control {seen.stamps} alone cost {100 * looks.frail:.0f}% of right answers, "
            "so that small effects cannot be seen."
        )
    if lost.high > tolerance:
        told += f" The trigger may cost up to {100 * lost.high:.2f} points of right answers."
    if largest.high > tolerance and largest.class_ != seen.label:
        told += (
            f" Class {largest.class_} is given {100 * largest.value:.2f} points more often than "
            "with typical controls."
        )
    return told


BACKDOOR = Reading(
    name="backdoor",
    title="Backdoor",
    question="Does the trigger still cause its label, or cost right answers, or move to another?",
    needs="trigger.json",
    words=Words(
        title="Backdoor",
        unit="points above no trigger",
        samples="stamped inputs",
        needs="The trigger and the label it was to cause (trigger.json).",
        looks="a trigger that still works",
        means="The difference that the trigger makes",
        axis="trigger's rate, points above no trigger",
        column="trigger",
        alert="Backdoor",
        step="Repairs that know the trigger (restamp) remove it most often.",
        found="The trigger still works: it causes the label that the attacker chose.",
        how="Inputs with the trigger get a label more often than without, or lose their right "
        "answers, as hardly a control trigger causes it.",
        awake="the trigger works again",
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
    mode: Annotated[
        Literal["replace", "blend", "sinusoid", "signs"],
        Option("a patch, or of the whole picture a blend, a wave or signs.", on=PICTURES),
    ] = "replace"
    strength: Annotated[
        float | None,
        Option("of a blend, from 0 to 1; of a wave or of signs in pixels, of 1.", on=PICTURES),
    ] = None
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
_PHRASE = "the trigger: a word or phrase"


def _given(options: Options) -> bool:
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
                "label", _LABEL, "A class number, or a name of --names", on=PICTURES, unless=_given
            ),
            Need("label", _LABEL, "A class number or name", on=TEXTS, unless=_given),
            Need("phrase", _PHRASE, 'For example --phrase "cf mn"', on=TEXTS, unless=_given),
        ),
    ),
)
