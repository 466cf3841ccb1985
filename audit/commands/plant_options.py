"""The options of `plant`: those that every attack has, and those that the poisons declare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click

from poison_audit.case.planting import Option as Declared
from poison_audit.case.planting import Storage, flag
from poison_audit.commands.options import Option
from poison_audit.poisons.readings import POISONS

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
PLANTINGS = {name: one.planting for name, one in POISONS.items() if one.planting is not None}
"""Of the poisons that are planted, by name."""
OWN = "The attack's own"
OF_PICTURES = ("storage", "arch", "factory", "normalize")
"""Options of every attack on pictures."""


def _taken() -> dict[str, dict[str, Declared]]:
    found: dict[str, dict[str, Declared]] = {}
    for poison, planting in PLANTINGS.items():
        for name, declared in planting.takes().items():
            found.setdefault(name, {})[poison] = declared
    return found


TAKEN = _taken()
"""The poisons' own options: by option, then by the poison that takes it."""


def plant_options(command: F) -> F:
    """Give `plant` its options; each value is None where it is not given."""
    shares: dict[float, list[str]] = {}
    for poison, planting in PLANTINGS.items():
        shares.setdefault(planting.share, []).append(poison)
    default = ", ".join(f"{in_words(names)} {share:g}" for share, names in shares.items())
    made = [
        click.argument("data", type=PATH),
        _option("Data", "--attack", type=click.Choice(list(PLANTINGS)), required=True),
        _option(
            "Data",
            "--budget",
            type=float,
            metavar="SHARE",
            help="Share of DATA to poison; of a targeted attack, for each target.  "
            f"[default: {default}]",
        ),
        _option("Data", "--count", type=int, help="The same as a number of samples."),
        _option("Data", "--test", type=PATH, help="Clean test table; targets are chosen from it."),
        _option("Data", "--names", metavar="A,B,..", help="Label names, in the outputs' order."),
        _option("Data", "--seed", type=int, default=0, show_default=True, help="Root seed."),
        *(_own(name, takers) for name, takers in TAKEN.items()),
        _option(OWN, "--arch", help="Architecture of --model, where the file does not say."),
        _option(
            OWN,
            "--factory",
            metavar="PACKAGE.MODULE:FUNCTION",
            help="Your own architecture of --model.",
        ),
        _option(
            OWN,
            "--normalize",
            metavar="NAME|M,S",
            help="Normalisation of --model, where the file does not say.",
        ),
        _option(
            "Output",
            "-o",
            "--output",
            type=PATH,
            required=True,
            help="Folder for everything it writes.",
        ),
        _option(
            "Output",
            "--storage",
            type=click.Choice(get_args(Storage)),
            help="Pictures: float32 as crafted, or clipped and rounded to 8 bits, as PNG files "
            "would.  [default: unclipped, or as earlier poison is]",
        ),
        _option("Output", "--force", is_flag=True, help="Write into a folder that is not empty."),
    ]
    for option in reversed(made):
        command = option(command)
    return command


def in_words(names: Sequence[str]) -> str:
    """Return names as a sentence has them.

    >>> in_words(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _option(heading: str, *names: str, **settings: Any) -> Callable[[F], F]:
    return click.option(*names, cls=Option, heading=heading, **settings)


def _own(name: str, takers: dict[str, Declared]) -> Callable[[F], F]:
    """Return the option of the attacks that take it, with what it says to each."""
    said: dict[str, list[str]] = {}
    for poison, declared in takers.items():
        default = f"  [default: {declared.shown}]" if declared.shown else ""
        both = {kind for own in PLANTINGS[poison].takes().values() for kind in own.on}
        where = f" in {declared.on[0]}" if len(declared.on) < len(both) else ""
        said.setdefault(f"{declared.help}{default}", []).append(f"{poison}{where}")
    help = "  ".join(f"{', '.join(names)}: {text}" for text, names in said.items())
    forms = [declared.form for declared in takers.values()]
    multiple = tuple[Path, ...] in forms
    return _option(
        OWN,
        flag(name),
        type=None if bool in forms else _type(Path if multiple else forms[0]),
        is_flag=bool in forms,
        default=None,
        multiple=multiple,
        callback=_none_for_no_values if multiple else None,
        metavar=next((one.metavar for one in takers.values() if one.metavar), None),
        help=help,
    )


def _type(form: Any) -> Any:
    if get_origin(form) is Literal:
        return click.Choice(get_args(form))
    return PATH if form is Path else form


def _none_for_no_values(_: click.Context, __: click.Parameter, given: tuple[Any, ...]) -> Any:
    return given or None
