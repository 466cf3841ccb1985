"""What `plant` is to do: the command line, over what an earlier planting says, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poison_audit.case.planting import Kind, Storage, flag
from poison_audit.case.texts import holds_texts
from poison_audit.commands.config import Config
from poison_audit.commands.plant_earlier import Earlier, read_earlier
from poison_audit.commands.plant_options import OF_PICTURES, PLANTINGS, TAKEN
from poison_audit.errors import PlanError, Problem, Problems


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantSettings:
    """One planting; None: neither the command line nor an earlier planting says it."""

    data: Path
    kind: Kind
    """What it holds."""
    attack: str
    output: Path
    seed: int
    options: Any
    """The attack's own, of the type that it declares."""
    model: Mapping[str, Any]
    """What is said of the input of the model to be trained: [model] of audit.toml."""
    earlier: Earlier | None
    """The planting that left DATA."""
    budget: float | None
    count: int | None
    test: Path | None
    names: tuple[str, ...] | None
    storage: Storage | None
    arch: str | None
    factory: str | None
    normalize: str | None


def read_settings(given: Mapping[str, Any], problems: Problems) -> PlantSettings:
    """Make the settings, as far as the command line can be read.

    Args:
        given: the command line's values by name; None alone means that it does not say.
        problems: to which everything that is wrong is added.
    """
    data, attack, output = given["data"], given["attack"], given["output"]
    kind: Kind = "texts" if holds_texts(data) else "pictures"
    problems += _misplaced(given, attack, kind) + _empty(given)
    problems += _wrong_folder(output, force=given["force"])
    names = _listed(given["names"])
    earlier = None
    with problems.collecting():
        earlier = read_earlier(data, attack=attack, output=output, names=names)
    config = earlier.config if earlier else Config()
    own = _own(given, attack, kind, problems)
    model = {
        name: value
        for name, takers in TAKEN.items()
        if any(one.of_model and kind in one.on for one in takers.values())
        if (value := own.get(name, config.get("model", name))) is not None
    }
    planting = PLANTINGS[attack]
    said = {name: value for name, value in model.items() if name in planting.takes()}
    settings = PlantSettings(
        data=data,
        kind=kind,
        attack=attack,
        output=output,
        seed=given["seed"],
        options=planting.options(**(said | own)),
        model=model,
        earlier=earlier,
        budget=given["budget"],
        count=given["count"],
        test=config.get("data", "test") if given["test"] is None else given["test"],
        names=earlier.names if earlier and names is None else names,
        storage=given["storage"],
        arch=given["arch"],
        factory=given["factory"],
        normalize=given["normalize"],
    )
    problems += _missing(settings)
    return settings


def count_of(settings: PlantSettings, total: int) -> int:
    """Return how many of `total` samples are to be poisoned.

    Raises:
        PlanError: both or an impossible one of --count and --budget are given.
    """
    count, share = settings.count, settings.budget
    if count is not None and share is not None:
        raise PlanError(Problem("give one of --count and --budget", "--count"))
    if count is not None:
        share = count / total
    elif share is None:
        share = PLANTINGS[settings.attack].share
    if not 0 < share <= 1:
        what = f"must be above 0 and at most 1 (100% of the table), got {share:g}"
        raise PlanError(Problem(what, "--budget", "For example --budget 0.05"))
    return max(1, round(share * total)) if count is None else count


def _misplaced(given: Mapping[str, Any], attack: str, kind: Kind) -> list[Problem]:
    """Return the options that were given although this attack on this kind of data has none."""
    other = "pictures" if kind == "texts" else "texts"
    planted_here = [name for name, planting in PLANTINGS.items() if kind not in planting.refuses]
    homes = {
        name: [poison for poison, one in takers.items() if kind in one.on]
        for name, takers in TAKEN.items()
    }
    homes |= {name: planted_here if kind == "pictures" else [] for name in OF_PICTURES}
    problems = []
    for name, attacks in homes.items():
        if given[name] is None or attack in attacks:
            continue
        what = f"is for {other}, and DATA holds {kind}"
        if attacks:
            what = f"belongs to {' and '.join(attacks)}, not to {attack}"
        problems.append(Problem(what, flag(name), "Leave it out"))
    return problems


def _empty(given: Mapping[str, Any]) -> list[Problem]:
    """Return the options that are given, and say nothing; an attack's own it looks at itself."""
    return [
        Problem("says nothing", flag(name), "Give a value, or leave it out")
        for name in ("names", "arch", "factory", "normalize")
        if given[name] is not None and not given[name].strip(" ,")
    ]


def _wrong_folder(folder: Path, *, force: bool) -> list[Problem]:
    """Return why nothing can be written into the output folder."""
    if folder.is_dir() and any(folder.iterdir()) and not force:
        return [Problem(f"{folder} is not empty", "-o", "Choose another, or add --force")]
    if folder.exists() and not folder.is_dir():
        return [Problem(f"{folder} is a file", "-o", "Give a folder")]
    return []


def _own(given: Mapping[str, Any], attack: str, kind: Kind, problems: Problems) -> dict[str, Any]:
    """Return what is given of the attack's own options."""
    found = {}
    for name, declared in PLANTINGS[attack].takes().items():
        value = given[name]
        if value is None or kind not in declared.on:
            continue
        if declared.form is Path and isinstance(value, tuple):  # since another attack takes several
            if len(value) > 1:
                problems.append(Problem(f"{attack} takes one {name}", flag(name), "Give one"))
            value = value[0]
        found[name] = value
    return found


def _missing(settings: PlantSettings) -> list[Problem]:
    """Return what the attack cannot be planted without."""
    planting, options = PLANTINGS[settings.attack], settings.options
    if settings.kind in planting.refuses:
        return [planting.refuses[settings.kind]]
    return [
        Problem(f"{settings.attack} needs {need.what}", flag(need.option), need.fix)
        for need in planting.needs
        if settings.kind in need.on and not (need.unless and need.unless(options))
        if (settings.test if need.option == "test" else getattr(options, need.option)) is None
    ]


def _listed(text: str | None) -> tuple[str, ...] | None:
    """Return the parts of `A,B,..`; None where there is none."""
    parts = () if text is None else (part.strip() for part in text.split(","))
    return tuple(part for part in parts if part) or None
