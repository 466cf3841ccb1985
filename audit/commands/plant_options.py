"""What `plant` can be told: what every attack takes, and what the poisons declare. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from poison_audit.case.planting import KINDS, Kind, Option, Storage, flag
from poison_audit.commands.fields import NUMBER, PATH, SWITCH, TEXT, WHOLE, Field, choice, said
from poison_audit.commands.settings import DEVICE, LABELS
from poison_audit.poisons.readings import POISONS

if TYPE_CHECKING:
    from poison_audit.commands.plant_earlier import Earlier

PLANTINGS = {name: one.planting for name, one in POISONS.items() if one.planting is not None}
"""Of the poisons that are planted, by name."""
OWN = "the attack's own"
OF_PICTURES = ("storage", "arch", "factory", "normalize", "device")
"""Options of every attack on pictures."""
_FORMS = {float: NUMBER, int: WHOLE, str: TEXT, bool: SWITCH, Path: PATH, tuple[Path, ...]: PATH}


def _taken() -> dict[str, dict[str, Option]]:
    found: dict[str, dict[str, Option]] = {}
    for poison, planting in PLANTINGS.items():
        for name, option in planting.takes().items():
            found.setdefault(name, {})[poison] = option
    return found


def _field(name: str, takers: Mapping[str, Option]) -> Field:
    """Return the field of an option, with what it says to each attack that takes it."""
    told: dict[str, list[str]] = {}
    for poison, option in takers.items():
        default = f"  [default: {option.shown}]" if option.shown else ""
        both = len(option.on) < len(KINDS) - len(PLANTINGS[poison].refuses)
        told.setdefault(f"{option.help}{default}", []).append(
            f"{poison} in {option.on[0]}" if both else poison
        )
    forms = [option.form for option in takers.values()]
    literal = get_origin(forms[0]) is not None and forms[0] not in _FORMS
    return Field(
        kind=choice(*get_args(forms[0])) if literal else _FORMS[forms[0]],
        help="  ".join(f"{', '.join(names)}: {text}" for text, names in told.items()),
        flag=flag(name),
        group=OWN,
        metavar=next((option.metavar for option in takers.values() if option.metavar), ""),
        several=tuple[Path, ...] in forms,
    )


TAKEN = _taken()
"""The poisons' own options: by option, then by the poison that takes it."""
OWN_OPTIONS = {name: _field(name, takers) for name, takers in TAKEN.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantSettings:
    """One planting; None: neither the command line nor an earlier planting says it."""

    data: Path = said(PATH, "The clean table, or one that was planted in.", flag="")
    attack: str = said(choice(*PLANTINGS), "What is planted.", group="data", needed=True)
    budget: float | None = said(
        NUMBER, "Share of DATA to poison; of a targeted attack, for each target.", group="data",
        metavar="SHARE", told=", ".join(
            f"{name} {one.share:g}" + " or as many as let a clean model pass" * bool(one.enough)
            for name, one in PLANTINGS.items()
        ),
    )  # fmt: skip
    count: int | None = said(WHOLE, "The same as a number of samples.", group="data")
    test: Path | None = said(
        PATH, "Clean test table; targets are chosen from it.", at="data.test", group="data"
    )
    names: tuple[str, ...] | None = LABELS
    seed: int = said(WHOLE, "Root seed.", group="data", default=0)
    arch: str | None = said(
        TEXT, "Architecture of --model, where the file does not say.", group=OWN
    )
    factory: str | None = said(
        TEXT, "Your own architecture of --model.", group=OWN, metavar="PACKAGE.MODULE:FUNCTION"
    )
    normalize: str | None = said(
        TEXT, "Normalisation of --model, where the file does not say.", group=OWN,
        metavar="NAME|M,S",
    )  # fmt: skip
    device: str = DEVICE
    output: Path = said(PATH, "Folder for everything it writes.", short="-o", needed=True)
    storage: Storage | None = said(
        choice(*get_args(Storage)), "Pictures: float32 as crafted, or clipped and rounded to 8 "
        "bits, as PNG files would.", told="unclipped, or as earlier poison is",
    )  # fmt: skip
    force: bool = said(SWITCH, "Write into a folder that is not empty.", default=False)
    kind: Kind = "pictures"
    """What DATA holds."""
    options: Any = None
    """The attack's own, of the type that it declares."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """What is said of the input of the model to be trained: [model] of audit.toml."""
    earlier: Earlier | None = None
    """The planting that left DATA."""
