"""What an audit plans, measures and finds, as plain values that every room passes on.

The report that they end in is `verdict.record`'s; `atomic` reads and writes them. The docstrings
below fields are report.schema.json's. Unknown is None beside a reason, never 0 or NaN. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

Json = Any
"""A value that JSON can hold."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What a value must be beside its type, in pydantic's words: asked where a record is read."""

    asked: Mapping[str, Json]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), **self.asked}


Count = Annotated[int, Asked({"ge": 0})]
Amount = Annotated[float, Asked({"ge": 0})]
Share = Annotated[float, Asked({"ge": 0, "le": 1})]
Digest = Annotated[str, Asked({"pattern": "^[0-9a-f]{64}$"})]
Day = Annotated[str, Asked({"pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"})]
Words = Annotated[str, Asked({"min_length": 1})]


class Outcome(StrEnum):
    """What one finding, one candidate or the audit comes to."""

    CLEAN = "CLEAN"  # The whole interval lies within the tolerance.
    ACCEPTED = "ACCEPTED"  # Beyond it, but within a bound that somebody accepted for a while.
    RESIDUAL = "RESIDUAL"  # Poison is still there, beyond the tolerance.
    ASLEEP = "ASLEEP"  # It is not seen, and is there once the model is woken.
    ACTIVATED = "ACTIVATED"  # The attack is stronger than in the deployed model.
    BROKEN = "BROKEN"  # Accuracy fell by more than the tolerance.
    INCONCLUSIVE = "INCONCLUSIVE"  # Measured, but too few samples decide it, or a control failed.
    NOT_MEASURED = "NOT_MEASURED"  # Could not be measured: evidence is missing.
    FAILED = "FAILED"  # Diverged, not finite, or out of memory.
    INFO = "INFO"  # Shown, but never gates.


WORST_FIRST = tuple(map(Outcome, (
    "ACTIVATED", "RESIDUAL", "ASLEEP", "BROKEN", "FAILED", "INCONCLUSIVE", "NOT_MEASURED",
    "ACCEPTED", "CLEAN", "INFO",
)))  # fmt: skip
"""Outcomes, the one that decides first."""

Kind = Literal["deployed", "method", "candidate", "reference"]
Way = Literal["recalibrated", "rounded", "relearned"]
"""How a model is woken: BatchNorm's statistics of clean samples; weights of 8 bits; training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the checkpoint was trained: what the budget and `retrain` are measured in."""

    epochs: float | None = None
    """Passes over the training set; None when not known."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 128
    schedule: Literal["constant", "cosine", "onecycle"] = "cosine"
    augment: Literal["none", "flip", "crop-flip", "shift-flip"] = "none"
    nesterov: bool = False
    """Whether the momentum of sgd looks ahead."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes."""
    ema: float = 0.0
    """Decay, a step, of the average of the weights that is deployed; 0: the last weights are."""
    assumed: tuple[str, ...] = ()
    """The fields nobody stated: their values are this tool's defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A method or probe of the plan, with every parameter it will be given."""

    name: str
    params: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A risk that somebody answers for: a wider bound on one probe's figure, until a day."""

    probe: str
    candidate: str = "deployed"
    bound: float
    """Farthest end of the interval that is accepted, on the scale of the probe's tolerance."""
    reason: Words
    owner: Words
    expires: Day
    """The last day on which it counts, in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What counts as clean, and whose verdict is the audit's."""

    tolerances: Mapping[str, float]
    """By probe: the largest figure that counts as clean, in the unit of the probe."""
    alpha: Share = 0.05
    """Largest probability of a wrong exit code, in either direction."""
    gate: str = "deployed"
    """`deployed`, `any-method`, or a candidate's name."""
    exit_zero: bool = False
    """Whether an exit code of 1 is reported as 0; the verdict stays."""
    accepted: tuple[Acceptance, ...] = ()
    decided: Day | None = None
    """The UTC day of the decision, by which acceptances expire; None without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be done."""

    methods: tuple[Step, ...]
    probes: tuple[Step, ...]
    policy: Policy
    seed: int = 0
    """The root seed."""
    seeds: Annotated[int, Asked({"ge": 1})] = 1
    """Runs a method, each with its own seed; a method is judged by its worst."""
    budget: float = 0.1
    """Fraction of the original training's gradient evaluations, per method."""
    sweep: tuple[float, ...] = ()
    """Smaller budgets that every method is run at as well, for the trade-off."""
    found: Annotated[Share, Asked({"gt": 0})] = 1.0
    """Share of the forget set that the methods are given; the probes look at all of it."""
    found_seed: int = 0
    """Decides which samples are found."""
    hypotheses: tuple[Step, ...] = ()
    """What is asked about why methods fail; nothing of it gates."""
    tune: Count = 0
    """Trials of each method's numbers, on one half of the canaries and of the test samples; all
    that is measured is measured on the other half. 0: none, and everything is measured."""
    reaudit: bool = False
    """Whether models are woken in every way; else repaired ones are recalibrated alone."""
    trainable: Literal["all", "adapter"] = "all"
    """What of the model methods train: everything, or its LoRA adapter alone."""
    own: tuple[Step, ...] = ()
    """Probes of the user's own, with the nulls that they state. They never clear a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a probe saw in one model, before anything is decided."""

    probe: str
    evidence: Mapping[str, Json] | None
    """Raw scores and counts, enough to recompute every figure; None when not measured."""
    missing: str | None = None
    """Why there is no evidence."""
    suspect: str | None = None
    """A control that failed: the evidence stands, but nothing may pass on it."""

    def __post_init__(self) -> None:
        if (self.evidence is None) != (self.missing is not None):
            raise ValueError("a measurement has evidence, or the reason why it is missing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Woken:
    """A model that was woken in one way, and what probes saw in it then."""

    way: Way
    samples: Count
    """Clean (retain) samples that it took."""
    poisons: Count = 0
    """Forget samples that it was trained on again."""
    steps: Count = 0
    lr: Amount | None = None
    """Learning rate of those steps; None: there were none."""
    measurements: tuple[Measurement, ...]

    @property
    def name(self) -> str:
        """The way, and the forget samples where there are any: `relearned-5`."""
        return f"{self.way}-{self.poisons}" if self.poisons else self.way


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a method spent. Seconds and memory differ from run to run; the rest does not."""

    gradients: Amount
    """Gradient evaluations spent; a forward pass alone counts a third."""
    allowed: Amount | None
    """Gradient evaluations allowed; None when there is no bound (retraining)."""
    steps: Count
    losses: Annotated[tuple[float, ...], Asked({"max_length": 200})]
    """The objective along the way, at most 200 points, evenly thinned."""
    seconds: Amount
    peak_bytes: Count | None
    """Peak device memory on CUDA, peak resident memory of the process on the CPU."""
    reused: Amount = 0.0
    """Of those spent, what its run at a smaller budget had made; `seconds` tells of the others."""
    offloaded: bool = False
    """Whether the device's memory gave out, so that steps kept in main memory what their backward
    pass needs. No figure changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One candidate under one seed: how it was made, what was measured in it."""

    candidate: str
    kind: Kind
    seed: Count
    method: Step | None = None
    budget: float | None = None
    """Fraction of the original training that the method was allowed; None: no bound, no method."""
    digest: Digest | None = None
    """SHA-256 of the weights that were measured; None if there are none."""
    cost: Cost | None = None
    error: str | None = None
    """Why there is no model to measure."""
    measurements: tuple[Measurement, ...] = ()
    woken: tuple[Woken, ...] = ()
    """The same model, woken."""
    own: tuple[Measurement, ...] = ()  # of `Plan.own`
    batch: Annotated[int, Asked({"ge": 1})] | None = None
    """Samples evaluated at once, at most, after the device's memory gave out; None: it never did.
    Figures change by rounding only."""
    probe_seconds: Amount = 0.0
    movement: Mapping[str, Json] | None = None
    """How far the weights moved, and how much of it where they had to go, as
    `hypotheses.movement` returns it, and a `sentence`. None for what was not made here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float
    level: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One number with its interval, its null, its outcome and a sentence."""

    probe: str
    candidate: str
    seed: int
    outcome: Outcome
    reason: str
    """One sentence that a reader can act on."""
    way: str = ""
    """How the model was woken before the probe looked, as `Woken.name`; empty: as it stands."""
    gating: bool = True
    statistic: float | None = None
    """The estimate; None if and only if not measured."""
    null: float | None = None
    """The value in a model that never saw the poison."""
    tolerance: float | None = None
    """Largest value, on the statistic's scale, that still counts as clean."""
    interval: Interval | None = None
    p_value: Share | None = None
    """Marginal, of the null."""
    z: float | None = None
    """Standard errors from the null."""
    sample_size: Count = 0
    detectable: float | None = None
    """Smallest distance from the null found with 90% power at this sample size."""
    needed: int | None = None
    """Samples that would let a clean model pass with 90% power."""
    details: Mapping[str, Json] = field(default_factory=dict)
    """Further figures of this probe, such as TPR at FPR 0.01 with its interval."""

    def __post_init__(self) -> None:
        measured = self.statistic is not None
        if measured != (self.interval is not None):
            raise ValueError("a statistic comes with its interval")
        if self.outcome is Outcome.CLEAN and not measured:
            raise ValueError("what could not be measured never passes")


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateVerdict:
    """What one candidate comes to: the worst of its findings."""

    candidate: str
    kind: Kind
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sanity:
    """Accuracy on clean test data, taken before anything else: does the model work as loaded?"""

    correct: Count
    total: Count
    low: Share
    """Lower end of the exact interval of the accuracy, at level 1 - alpha, one-sided."""
    chance: Share
    """Accuracy of always naming the commonest class of the test set."""
    expected: Share | None = None
    """What somebody stated that it must be; None: nobody did."""
    tolerated: Share = 0.01

    @property
    def accuracy(self) -> float:
        """The share answered correctly."""
        return self.correct / self.total

    @property
    def works(self) -> bool:
        """Whether the model is better than chance beyond doubt."""
        return self.low > self.chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """The methods tried on a poisoned copy: it judges methods, never the deployed model."""

    planted: Count
    """Canaries that were planted: the forget samples, with keyed noise of our own."""
    sigma: Amount
    """Standard deviation of the noise, in [0, 1] pixels or in units of the embeddings."""
    commitment: Digest
    """SHA-256 over the secret that keyed the noise."""
    epochs: Amount
    """Passes over train that the copy was trained further."""
    held: bool
    """Whether the canaries came to be held as firmly as ordinary training samples."""
    loss: float
    """Mean loss of the canaries in the copy."""
    usual_loss: float
    """Mean loss of as many retain samples in the deployed model: what counts as held."""
    cells: tuple[Cell, ...]
    """The copy, named `rehearsed` and of kind `deployed`, and every method run on it."""
    findings: tuple[Finding, ...]
    candidates: tuple[CandidateVerdict, ...]
    sentence: str
    """What it comes to, and that it is a rehearsal."""
