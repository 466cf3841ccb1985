"""From the command line's values, audit.toml and the defaults to one frozen object a command.

What is wrong with a file or a flag is kept in `problems`, so that whoever looks at the files on
trial can name all of it at once.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poison_audit.commands.config import (
    Config,
    find_config,
    make_recipe,
    read_config,
    read_tolerances,
    read_usable,
)
from poison_audit.commands.fields import number_in, origins_of, settled
from poison_audit.commands.own_settings import (
    Again,
    Output,
    OwnMethods,
    OwnProbes,
    Running,
    Training,
)
from poison_audit.commands.presets import spelt_out
from poison_audit.commands.settings import (
    EVIDENCE,
    TRAINING,
    Architecture,
    Deciding,
    Expecting,
    Judged,
    Methods,
    Subject,
    Texts,
)
from poison_audit.errors import PlanError, Problem, Problems
from poison_audit.records import Policy, Recipe
from poison_audit.verdict.policy import make_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """What `check`, `probe` and `unlearn` do, as flags, audit.toml and the defaults say."""

    subject: Subject
    architecture: Architecture
    texts: Texts
    evidence: Mapping[str, Path]
    """By the file's name, such as `canaries`."""
    expecting: Expecting
    judged: Judged
    recipe: Recipe
    methods: Methods
    numbers: Mapping[str, Mapping[str, Any]]
    """What `--set` gives, by method or probe."""
    deciding: Deciding
    tolerances: Mapping[str, float]
    running: Running
    own: OwnMethods
    own_probes: OwnProbes
    output: Output
    config: Config
    origins: Mapping[str, str]
    """By input, whether a flag gave it or which file; of the rest the checkpoint, or nobody."""
    today: str
    problems: tuple[Problem, ...]
    """Of audit.toml and the flags."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideSettings:
    """How `decide` decides a report again."""

    again: Again
    deciding: Deciding
    tolerances: Mapping[str, float]
    config: Config
    """The audit.toml that `--policy` names; without a path where it names none."""
    today: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What `train` does, as flags, audit.toml and the defaults say."""

    training: Training
    architecture: Architecture
    texts: Texts
    recipe: Recipe
    config: Config
    given: frozenset[str] = field(default=frozenset())
    """The flags that were given: some belong to pictures or to texts alone."""
    problems: tuple[Problem, ...] = ()


def check_settings(given: Mapping[str, Any]) -> CheckSettings:
    """Return the settings of `check`; of `probe` and `unlearn` with the options these lack."""
    problems, config = Problems(), Config()
    path = given["config"] or find_config(given["model"])
    if path is not None:
        config = read_usable(path, problems)
    return CheckSettings(
        subject=settled(Subject, given, config.values),
        architecture=_architecture(given, config),
        texts=settled(Texts, given, config.values),
        evidence=_evidence(given, config),
        expecting=settled(Expecting, given, config.values),
        judged=settled(Judged, given, config.values),
        recipe=_recipe(given, config, problems),
        methods=settled(Methods, given, config.values),
        numbers=_numbers(given.get("settings") or (), problems),
        deciding=settled(Deciding, given, config.values),
        tolerances=_tolerances(given, config, problems),
        running=settled(Running, given),
        own=settled(OwnMethods, given),
        own_probes=settled(OwnProbes, given),
        output=settled(Output, given),
        config=config,
        origins=_origins(given, config),
        today=_today(),
        problems=tuple(problems),
    )


def _origins(given: Mapping[str, Any], config: Config) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in (Architecture, Texts, Subject, EVIDENCE, Judged, Deciding):
        found |= origins_of(kind, given, config.values, config.path)
    flags = [key for key, _ in spelt_out(given["recipe"] or ())]
    for key in TRAINING:
        if key in flags:
            found[f"recipe {key}"] = "--recipe"
        elif ("training", key) in config.values:
            found[f"recipe {key}"] = f"{config.path} [training]"
    if config.tolerances:
        found["tolerances"] = f"{config.path} [policy.tolerances]"
    if config.accepted:
        found["accepted risks"] = f"{config.path} [[accept]]"
    if found.get("factory"):
        found.pop("arch", None)
    return {key: told for key, told in found.items() if key not in _NO_INPUTS}


_NO_INPUTS = (
    "model", "config", "allow_pickle", "device", "exit_zero", "allow_tolerance", "reaudit",
)  # fmt: skip


def decide_settings(given: Mapping[str, Any]) -> DecideSettings:
    """Return the settings of `decide`.

    Raises:
        InputError: the audit.toml cannot be read.
        PlanError: everything that is wrong with the flags.
    """
    again, problems = settled(Again, given), Problems()
    in_toml = again.policy is not None and again.policy.suffix != ".json"
    config = read_config(again.policy) if again.policy is not None and in_toml else Config()
    tolerances = _tolerances(given, config, problems)
    problems.raise_any(PlanError)
    return DecideSettings(
        again=again,
        deciding=settled(Deciding, given, config.values),
        tolerances=tolerances,
        config=config,
        today=_today(),
    )


def train_settings(given: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of `train`."""
    problems = Problems()
    config = _training_config(given, problems)
    return TrainSettings(
        training=settled(Training, given, config.values),
        architecture=_architecture(given, config),
        texts=settled(Texts, given, config.values),
        recipe=_recipe(given, config, problems),
        config=config,
        given=frozenset(k for k, v in given.items() if v is not None and v is not False),
        problems=tuple(problems),
    )


def policy_of(settings: CheckSettings | DecideSettings, *, base: Policy | None = None) -> Policy:
    """Return the policy that is asked for, over `base`; PlanError: all that is impossible."""
    deciding = settings.deciding
    return make_policy(
        alpha=deciding.alpha,
        gate=deciding.gate,
        tolerances=settings.tolerances,
        accepted=settings.config.accepted,
        where=str(settings.config.path),
        exit_zero=deciding.exit_zero,
        allow_loose=deciding.allow_tolerance,
        today=settings.today,
        base=base,
    )


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _architecture(given: Mapping[str, Any], config: Config) -> Architecture:
    # A factory stands for an architecture, so that the file's is none then.
    said = {key: value for key, value in config.values.items()
            if key != ("model", "arch") or given["factory"] is None}  # fmt: skip
    return settled(Architecture, given, said)


def _evidence(given: Mapping[str, Any], config: Config) -> dict[str, Path]:
    found = {}
    for name, declared in EVIDENCE.items():
        path = given.get(name)
        if path is None:
            path = config.get(declared.table, declared.key)
        if path is not None:
            found[name] = path
    return found


def _recipe(given: Mapping[str, Any], config: Config, problems: Problems) -> Recipe:
    with problems.collecting():
        return make_recipe(config, given["recipe"] or ())
    # It is refused all the same: what was said beside what is wrong is not asked for again.
    told = "epochs" in dict(spelt_out(given["recipe"] or ())) or config.get("training", "epochs")
    return Recipe(epochs=1.0) if told else Recipe()


def _tolerances(given: Mapping[str, Any], config: Config, problems: Problems) -> dict[str, float]:
    flags: dict[str, float] = {}
    with problems.collecting():
        flags = read_tolerances(given.get("tolerance") or ())
    return {**config.tolerances, **flags}


def _numbers(pairs: Sequence[tuple[str, str]], problems: Problems) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for target, text in pairs:
        name, dot, key = target.partition(".")
        if dot:
            found.setdefault(name, {})[key] = number_in(text)
        else:
            what = f"expected NAME.KEY=VALUE, got {target}={text}"
            problems.append(Problem(what, "--set", "For example --set scrub.alpha=0.5"))
    return found


def _training_config(given: Mapping[str, Any], problems: Problems) -> Config:
    """Read the audit.toml that is given, else the one beside the table, else beside the output."""
    beside = [given[name].parent / "audit.toml" for name in ("data", "output")]
    there = [path for path in beside if path.is_file()]
    first = given["config"] if given["config"] is not None else next(iter(there), None)
    found: list[Config] = []
    # The one beside the output is read in any case: it will be written to.
    for path in dict.fromkeys([first, *(path for path in there if path == beside[1])]):
        if path is not None:
            found.append(read_usable(path, problems))
    return next(iter(found), Config())
