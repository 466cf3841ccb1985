"""What `plant` is to do: the command line, over what an earlier planting says, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from poison_audit.atomic import PARTIAL, digest_of, read_plainly, write_atomically
from poison_audit.case.planting import Kind, flag
from poison_audit.case.texts import holds_texts
from poison_audit.commands.config import Config
from poison_audit.commands.fields import settled
from poison_audit.commands.plant_earlier import read_earlier
from poison_audit.commands.plant_options import OF_PICTURES, PLANTINGS, TAKEN, PlantSettings
from poison_audit.errors import PlanError, Problem, Problems

MARK = f".plant{PARTIAL}"
"""Lies in the output folder until all is written, and names the command that writes it."""


def read_settings(given: Mapping[str, Any], problems: Problems) -> PlantSettings:
    """Make the settings, as far as the command line can be read; `problems` takes what is wrong.

    Args:
        given: the command line's values by name; None alone means that it does not say.
    """
    data, attack, output = given["data"], given["attack"], given["output"]
    kind: Kind = "texts" if holds_texts(data) else "pictures"
    problems += _misplaced(given, attack, kind) + _wrong_folder(output, given)
    earlier = None
    with problems.collecting():
        earlier = read_earlier(data, attack=attack, output=output, names=given["names"])
    config = earlier.config if earlier else Config()
    own, planting = _own(given, attack, kind, problems), PLANTINGS[attack]
    model = {
        name: value
        for name, takers in TAKEN.items()
        if any(one.of_model and kind in one.on for one in takers.values())
        if (value := own.get(name, config.get("model", name))) is not None
    }
    of_model = {name: value for name, value in model.items() if name in planting.takes()}
    names = earlier.names if earlier and given["names"] is None else given["names"]
    options = planting.options(**(of_model | own))
    settings = settled(PlantSettings, given, config.values)
    settings = replace(
        settings, names=names, kind=kind, options=options, model=model, earlier=earlier
    )
    problems += _missing(settings)
    return settings


def count_of(settings: PlantSettings, total: int) -> tuple[int, str]:
    """Return how many of `total` samples are to be poisoned, and what is to be said of it.

    Where nobody says how many, it is as many as let a clean model pass, up to a quarter of them.

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
    chosen = max(1, round(share * total)) if count is None else count
    enough = PLANTINGS[settings.attack].enough
    if enough is None or chosen >= (needed := enough()):
        return chosen, ""
    if count is None and settings.budget is None and needed <= total // 4:
        told = f"{needed} samples are poisoned, not {chosen} ({share:.0%}): with {chosen} a clean "
        return needed, told + "model would not pass."
    told = f"With {chosen} samples a clean model will hardly pass the audit: with {needed} it does "
    if needed > total // 2:
        return chosen, told + f"so 9 times in 10, for which the table needs {2 * needed} samples."
    return chosen, told + f"so 9 times in 10 (--count {needed})."


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
        if given[name] is None or given[name] is False or attack in attacks:
            continue
        what = f"is for {other}, and DATA holds {kind}"
        if attacks:
            what = f"belongs to {' and '.join(attacks)}, not to {attack}"
        problems.append(Problem(what, flag(name), "Leave it out"))
    return problems


def _wrong_folder(folder: Path, given: Mapping[str, Any]) -> list[Problem]:
    """Return why nothing can be written into the output folder."""
    if folder.exists() and not folder.is_dir():
        return [Problem(f"{folder} is a file", "-o", "Give a folder")]
    # A process may have been killed before it had written anything.
    written = folder.is_dir() and any(not p.name.endswith(PARTIAL) for p in folder.iterdir())
    if not written or given["force"]:
        return []
    if _mark_in(folder) == _mark(given):
        return []
    return [Problem(f"{folder} is not empty", "-o", "Choose another, or add --force")]


@contextmanager
def begun(folder: Path, given: Mapping[str, Any]) -> Iterator[None]:
    """Mark the output folder as this command's until all is written: killed, it may go on in it.

    Args:
        folder: made where there is none.
        given: the command line's values.
    """
    mark, new = folder / MARK, not folder.exists()
    write_atomically(mark, _mark(given))
    try:
        yield
    except Exception:  # an interrupted one goes on
        mark.unlink(missing_ok=True)
        with suppress(OSError):  # something lies in it
            if new:
                folder.rmdir()
        raise
    mark.unlink(missing_ok=True)


def _mark(given: Mapping[str, Any]) -> str:
    return digest_of({name: repr(value) for name, value in given.items() if name != "force"}) + "\n"


def _mark_in(folder: Path) -> str | None:
    try:
        return read_plainly(folder / MARK, most=100).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None


def _own(given: Mapping[str, Any], attack: str, kind: Kind, problems: Problems) -> dict[str, Any]:
    """Return what is given of the attack's own options."""
    found = {}
    for name, declared in PLANTINGS[attack].takes().items():
        value = given[name]
        if value is None or value is False or kind not in declared.on:
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
