"""Gaussian canaries: what the numbers of its probes mean. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from poison_audit import statistics
from poison_audit.case.planting import TEXTS, Option, Planting
from poison_audit.case.poison import EvidenceFile, Poison
from poison_audit.records import Asked, Outcome
from poison_audit.statistics.forms import Count, Number, Some, refuse
from poison_audit.statistics.reading import Reading, Remark, Words

if TYPE_CHECKING:
    from poison_audit.statistics.estimates import Estimate
    from poison_audit.statistics.growth import Increase

FPR = 0.01
"""The false positive rate at which canaries are recognised."""
_KEY = "The key of the Gaussian planting (canaries.json), and its canaries in forget.csv."


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What the gaussian probe saw: leak scores, N(0, 1) in a model that never saw the noise."""

    scores: Annotated[tuple[Number, ...], Asked({"min_length": 1})]
    held_out: tuple[Number, ...]
    """Of noise that was never planted."""
    dropped: Count
    """Canaries whose gradient vanished."""


def _mean(seen: Scores, level: float, tolerance: float) -> Estimate:
    mean = statistics.estimates.mean_score(seen.scores, level=level, tolerance=tolerance)
    return replace(mean, needed=statistics.squares.needed_with_scatter(level, tolerance))


def _details_of_scores(seen: Scores, estimate: Estimate) -> dict[str, Any]:
    threshold = statistics.laws.normal_quantile(1 - FPR)
    held_out = seen.held_out
    return {
        **statistics.estimates.exact_rate(
            "tpr", sum(s > threshold for s in seen.scores), len(seen.scores)
        ),
        "fpr": FPR,
        "held_out_mean": math.fsum(held_out) / len(held_out) if held_out else None,
        "held_out_p": statistics.laws.normality(held_out) if held_out else None,
        "epsilon": _epsilon(seen),
        "dropped": seen.dropped,
        "spread": estimate.spread,
        **_scatter(seen, estimate),
    }


def _epsilon(seen: Scores) -> float | None:
    if not seen.held_out:
        return None
    return statistics.privacy.epsilon_at_least(seen.scores, seen.held_out)


def _same_effect(seen: Ranks, estimate: Estimate, tolerance: float, outcome: Outcome) -> Remark:
    """Say which mean leak score the tolerance is: of N(mu, 1) against N(0, 1)."""
    mu = math.sqrt(2) * statistics.laws.normal_quantile(tolerance)
    return Remark(told=f" A chance of {tolerance:.3g} goes with a mean leak score of {mu:.2f}.")


def _scatter(seen: Scores, estimate: Estimate) -> dict[str, float]:
    found = statistics.squares.scatter(seen.scores, level=estimate.level)
    return {
        "scatter": found.value,
        "scatter_low": found.low,
        "scatter_high": found.high,
        "scatter_p": found.p_value,
    }


def _more_score(before: Scores, after: Scores, level: float) -> Increase | None:
    # Which canaries were dropped is not known, so that those left are no pairs.
    if before.dropped or after.dropped:
        return None
    return statistics.growth.of_scores(before.scores, after.scores, level)


GAUSSIAN = Reading(
    name="gaussian",
    title="Gaussian correlation",
    question="Does the loss still fall along the noise the canaries were planted with?",
    needs="canaries.json",
    words=Words(
        title="Gaussian",
        unit="mean leak score",
        samples="canaries",
        needs=_KEY,
        looks="memory of planted noise",
        means="Mean leak score",
        symbol="mu",
        column="gauss.",
        shows_z=True,
        held_out="keys",
        law="N(0, 1)",
        alert="GaussianCanaries",
        step="Repairs seldom remove planted noise: retraining is the safe way.",
        found="The model still reacts to the noise that was planted in its training samples.",
        how="Noise known only to the key was added to training samples. The model's gradients on "
        "these samples line up with that noise more than those of a model that never saw it.",
    ),
    always=True,
    charts=("scores", "recognised"),
    evidence=Scores,
    estimate=_mean,
    scatter=lambda seen, level: statistics.squares.scatter(seen.scores, level=level),
    figure=lambda seen: sum(seen.scores) / len(seen.scores),
    details=_details_of_scores,
    increase=_more_score,
    tolerance=0.25,
    most=math.inf,
    loosest=1.0,
    two_sided=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """What the exposure probe saw: how many of its fresh draws each canary's noise beat."""

    wins: Annotated[tuple[Count, ...], Asked({"min_length": 1})]
    draws: Some

    def __post_init__(self) -> None:
        most = max(self.wins)
        refuse((most > self.draws, f"a canary beats {most} of {self.draws} draws"))


def _more_wins(before: Ranks, after: Ranks, level: float) -> Increase | None:
    old, new = ([win / seen.draws for win in seen.wins] for seen in (before, after))
    return statistics.growth.of_scores(old, new, level)


EXPOSURE = Reading(
    name="exposure",
    title="Exposure",
    question="Does the model prefer the planted noise to fresh noise?",
    needs="canaries.json",
    words=Words(
        title="Exposure",
        unit="chance to beat fresh noise",
        samples="canaries",
        needs=_KEY,
        looks="memory of planted noise",
        means="Chance that planted noise beats fresh noise",
        symbol="exposure",
        column="expos.",
        fresh="draws",
        alert="CanaryExposure",
        step="Repairs seldom remove planted noise: retraining is the safe way.",
        found="The model still prefers the planted noise to fresh noise of the same kind.",
        how="Planted noise is ranked among fresh draws by the loss of the model. In a model that "
        "never saw it, every rank is equally likely.",
    ),
    always=True,
    charts=("ranks of noise",),
    evidence=Ranks,
    estimate=lambda seen, level, tolerance: statistics.estimates.mean_rank(
        seen.wins, seen.draws, level=level, tolerance=tolerance
    ),
    details=lambda seen, estimate: {"draws": seen.draws, "spread": estimate.spread},
    remark=_same_effect,
    increase=_more_wins,
    tolerance=0.57,
    least=0.5,
    loosest=0.76,  # a mean leak score of 1
    two_sided=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `plant --attack gaussian` takes of its own."""

    sigma: Annotated[
        float | None,
        Option("sd of the noise.", shown="in pixels 0.2; in embeddings theirs; that of --key"),
    ] = None
    key: Annotated[
        Path | None, Option("canaries.json (or strings.json) whose secret is used again.")
    ] = None
    model: Annotated[
        tuple[Path, ...] | None, Option("folder of the model that is to be trained.", on=TEXTS)
    ] = None
    max_tokens: Annotated[
        int | None,
        Option("tokens of an input.", shown="all it takes", on=TEXTS, of_model=True),
    ] = None
    prompt: Annotated[
        str | None,
        Option("what the model is given, with {text} in it.", on=TEXTS, of_model=True),
    ] = None


POISON = Poison(
    name="gaussian",
    readings=(GAUSSIAN, EXPOSURE),
    files=(
        EvidenceFile(
            name="canaries",
            help="Key of a Gaussian planting (canaries.json).",
            file="canaries.json",
            asked=True,
            shared="canary key",
            digest="commitment",
        ),
        EvidenceFile(
            name="bases",
            help="Table of the clean samples canaries were made from.",
            file="bases",
            of="pictures",
            asked=True,
        ),
    ),
    keyed=True,
    planting=Planting(
        options=Options,
        share=0.05,
        enough=lambda: statistics.squares.needed_with_scatter(0.9, 0.25),
    ),
)
