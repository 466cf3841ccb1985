"""What every command can be told, declared once. No torch: `--help` is made from this.

A part is what several commands share; None in it stands for what nobody said.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, get_type_hints

from poison_audit.commands.fields import (
    DAY,
    FLOAT,
    NAMES,
    NUMBER,
    PAIR,
    PATH,
    PATHS,
    SENTENCE,
    SHARE,
    SHARES,
    SWITCH,
    TEXT,
    TRUTH,
    WHOLE,
    WORDS,
    Field,
    bounded,
    choice,
    fields_of,
    said,
)
from poison_audit.commands.presets import PRESET, PRESETS
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Plan, Recipe
from poison_audit.verdict.policy import standard_policy

POLICY, RECIPE = standard_policy(), Recipe()
PLAN = Plan(methods=(), probes=(), policy=POLICY)
"""The defaults."""
Pairs = tuple[tuple[str, str], ...]

LABELS = said(NAMES, "Label names, in the order of the outputs.", at="data.names", group="data")
SEED = said(WHOLE, "Root seed of every generator.", at="plan.seed", default=PLAN.seed)
DEVICE = said(TEXT, "auto, cpu, cuda or cuda:N.", default="auto")
"""Fields of several commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a model of pictures is, beyond its weights."""

    arch: str | None = said(
        TEXT, "Architecture, such as resnet50 or cifar-resnet18.", at="model.arch",
        group="model", asked=True,
    )  # fmt: skip
    factory: str | None = said(
        TEXT, "Your own architecture.", group="model", metavar="PACKAGE.MODULE:FUNCTION"
    )
    normalize: str | None = said(
        TEXT, "cifar10, imagenet, none, or MEANS/STDS.", at="model.normalize", group="model",
        metavar="NAME|M,S", of="pictures", asked=True,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """How a language model reads and answers."""

    max_tokens: int | None = said(
        WHOLE, "Texts: tokens of an input.", at="model.max_tokens", group="model",
        told="all it takes", of="texts", asked=True,
    )  # fmt: skip
    start: Path | None = said(
        PATH, "Texts: folder of the pretrained model that training began with.", at="model.start",
        group="model", of="texts", asked=True,
    )  # fmt: skip
    label_words: tuple[str, ...] | None = said(
        WORDS, "Causal language models: the next token that stands for each class.",
        at="model.label_words", group="model", of="causal", asked=True,
    )  # fmt: skip
    prompt: str | None = said(
        TEXT, "Texts: what the model is given, with {text} in it.", at="model.prompt",
        group="model", of="causal", asked=True,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is on trial."""

    model: Path = said(PATH, "The checkpoint, or a language model's folder.", flag="")
    forget: Path | None = said(
        PATH, "Table of the training samples known to be poisoned.", group="data"
    )
    config: Path | None = said(PATH, "audit.toml.", group="data", told="beside MODEL")
    train: Path | None = said(
        PATH, "Training table: CSV, Parquet, npz or image folder.", at="data.train", group="data",
        asked=True,
    )  # fmt: skip
    test: Path | None = said(
        PATH, "Clean test table, never trained on.", at="data.test", group="data", asked=True
    )
    names: tuple[str, ...] | None = LABELS
    allow_pickle: bool = said(
        SWITCH, "Read what torch.save wrote, with weights_only=True.", group="model", default=False
    )
    state_key: str | None = said(
        TEXT, "Entry of a pickle, or prefix of the names, that holds the network.",
        at="model.state_key", group="model", metavar="KEY",
    )  # fmt: skip
    base: Path | None = said(
        PATH, "Of an adapter (LoRA): the model that it was trained on.", at="model.base",
        group="model", told="what its adapter_config.json names, if that lies beside it",
    )  # fmt: skip
    trainable: Literal["all", "adapter"] = said(
        choice("all", "adapter"), "What methods train of an adapter and its base.",
        at="plan.trainable", group="methods", default="all",
    )  # fmt: skip
    seed: int = SEED
    device: str = DEVICE


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What else is on trial beside the model."""

    reference: tuple[Path, ...] = said(
        PATHS, "A model that never saw the poison.", at="reference.paths", group="model",
        several=True, default=(), asked=True,
    )  # fmt: skip
    candidate: Pairs = said(
        PAIR, "A checkpoint unlearned elsewhere, to be judged beside MODEL.", group="model",
        metavar="NAME=PATH", several=True, default=(),
    )  # fmt: skip
    reaudit: bool = said(
        SWITCH, "Test every model again after rounding to 8 bits and after further training.",
        at="plan.reaudit", group="model", default=False,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Expecting:
    """What is known of the model from where it was trained."""

    expect_accuracy: float | None = said(
        SHARE, "Accuracy on clean test samples that was published or measured elsewhere.",
        at="model.expect_accuracy", group="model",
    )  # fmt: skip
    expect_tolerance: float = said(
        SHARE, "How far below that it may be.", at="model.expect_tolerance",
        group="model", default=0.01,
    )  # fmt: skip
    expect_size: str | None = said(
        TEXT, "Size of training's pictures, such as 32 or 224x224.", at="model.expect_size",
        group="model",
        metavar="SIDE|HxW", of="pictures",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Deciding:
    """By what it is decided."""

    gate: str | None = said(
        TEXT, "deployed, any-method or a candidate.", at="policy.gate", group="policy",
        told=POLICY.gate,
    )  # fmt: skip
    alpha: float | None = said(
        NUMBER, "Largest chance of a wrong exit code.", at="policy.alpha", group="policy",
        told=f"{POLICY.alpha}",
    )  # fmt: skip
    tolerance: Pairs = said(
        PAIR, "Largest figure of a probe that still counts as clean.", group="policy",
        metavar="PROBE=VALUE",
        several=True, default=(),
        told=", ".join(f"{name} {value:g}" for name, value in POLICY.tolerances.items()),
    )  # fmt: skip
    allow_tolerance: bool = said(
        SWITCH, "Allow tolerances so loose that almost any model passes.", group="policy",
        default=False,
    )  # fmt: skip
    exit_zero: bool = said(
        SWITCH, "Report exit code 1 as 0, and nothing else.", group="policy", default=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Methods:
    """What is tried on the model."""

    methods: tuple[str, ...] = said(
        NAMES, "Methods to run; none for none.", at="plan.methods", group="methods",
        default=("all",),
    )  # fmt: skip
    budget: tuple[float, ...] = said(
        SHARES, "Share of the original training's gradient evaluations, a method; of several, "
        "each is run and shown.", at="plan.budget", group="methods", default=(PLAN.budget,),
    )  # fmt: skip
    seeds: int = said(
        WHOLE, "Runs of each method; the worst counts.", at="plan.seeds", group="methods",
        default=PLAN.seeds,
    )  # fmt: skip
    found: float = said(
        NUMBER, "Show the methods only this share of the forget set; probes use all of it.",
        at="plan.found", group="methods", metavar="SHARE", default=PLAN.found,
    )  # fmt: skip
    found_seed: int = said(
        WHOLE, "Decides which are found.", at="plan.found_seed", group="methods",
        default=PLAN.found_seed, told=f"{PLAN.found_seed}",
    )  # fmt: skip
    tune: int | None = said(
        WHOLE, "Search each method's numbers on half of the canaries and of the test samples; "
        "the verdict reads the other halves.", at="plan.tune", group="methods", metavar="TRIALS",
    )  # fmt: skip


EVIDENCE: dict[str, Field] = {
    file.name: Field(
        kind=PATH, help=file.help, flag=f"--{file.name}", table=poison.table, key=file.name,
        group="evidence", of=file.of, asked=file.asked,
    )
    for poison in POISONS.values()
    for file in poison.files
}  # fmt: skip
"""The files that probes need, by name."""
_SPELT = get_type_hints(Recipe)


TRAINING: dict[str, Field] = {
    key: Field(kind=kind, help=text, flag=f"--recipe {key}=", table="training", key=key, of=of,
               told="" if (value := getattr(RECIPE, key)) is None else f"{value}", asked=asked,
               group="data")
    for key, kind, text, of, asked in (
        ("epochs", bounded(above=0), "Passes over the training set.", "", True),
        ("optimizer", choice(*get_args(_SPELT["optimizer"])), "sgd or adamw.", "", True),
        ("lr", bounded(above=0), "Peak learning rate.", "", True),
        ("momentum", bounded(), "Of sgd.", "", False),
        ("weight_decay", bounded(), "Times each weight, a step.", "", False),
        ("batch_size", bounded(whole=True, above=0), "Samples a step.", "", True),
        ("schedule", choice(*get_args(_SPELT["schedule"])), "constant, cosine or onecycle.", "",
         True),
        ("augment", choice(*get_args(_SPELT["augment"])), "none, flip, crop-flip or shift-flip.",
         "pictures", True),
        ("nesterov", TRUTH, "Whether the momentum looks ahead.", "", False),
        ("label_smoothing", bounded(below=1), "Share of a label that all classes get.", "", False),
        ("ema", bounded(below=1), "Decay of the average of the weights, a step.", "", False),
    )
}  # fmt: skip
"""How a model was trained, by key."""
TOLERANCES: dict[str, Field] = {
    name: Field(kind=NUMBER, help=f"Largest figure of {name} that is clean.", group="policy",
                flag=f"--tolerance {name}=", table="policy.tolerances", key=name, told=f"{value:g}")
    for name, value in POLICY.tolerances.items()
}  # fmt: skip
"""By probe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How the model was trained."""

    recipe: Pairs = said(
        PRESET, f"How MODEL was trained: {', '.join(TRAINING)}; or {' or '.join(PRESETS)}.",
        group="data", metavar="KEY=VALUE",
        several=True, default=(),
    )  # fmt: skip


ACCEPTANCE: dict[str, Field] = {
    key: Field(kind=kind, help=text, needed=key != "candidate")
    for key, kind, text in (
        ("probe", SENTENCE, "which probe's figure is accepted"),
        ("candidate", SENTENCE, "whose"),
        ("bound", FLOAT, "up to where, on the scale of the probe's tolerance"),
        ("reason", SENTENCE, "why"),
        ("owner", SENTENCE, "who answers for it"),
        ("expires", DAY, "the last day on which it counts"),
    )
}
"""The keys of an entry of `[[accept]]`, each with what it says."""


def _tables() -> dict[str, dict[str, Field]]:
    of_parts = [
        declared
        for part in (Architecture, Texts, Subject, Expecting, Judged, Deciding, Methods)
        for declared in fields_of(part).values()
    ]
    given = [*of_parts, *TRAINING.values(), *EVIDENCE.values(), *TOLERANCES.values()]
    order = ("model", "data", "training", *(poison.table for poison in POISONS.values()),
             "reference", "policy", "policy.tolerances", "plan")  # fmt: skip
    tables = {name: {f.key: f for f in given if f.table == name} for name in order}
    return {name: keys for name, keys in tables.items() if keys}


TABLES = _tables()
"""The tables of audit.toml and their keys; `[methods.NAME]` and `[probes.NAME]` hold parameters."""
