"""What the classes are called: by a user, by a table, and by the model that answers them."""

from __future__ import annotations

from collections.abc import Sequence

from poison_audit.case.labels import several
from poison_audit.case.rows import label_spelt
from poison_audit.errors import Problem
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples


def wrong_names(names: Sequence[str], model: Model) -> list[Problem]:
    """Return what is wrong with names that a user gave for a model's outputs.

    Names of which the model knows none translate its own; of those that it knows, each must stand
    where the model has it.
    """
    where, own = (
        "--names",
        {name.casefold(): place for place, name in enumerate(model.labels or ())},
    )
    if len(names) != model.classes:
        what = f"{len(names)} names ({several(names)}) for a model of {model.classes} outputs"
        return [Problem(what, where, "Give one for each output, in the order of the outputs.")]
    if twice := [name for name in names if list(names).count(name) > 1]:
        return [Problem(f"names {twice[0]!r} twice", where, "Give each output a name of its own.")]
    moved = [name for place, name in enumerate(names) if own.get(name.casefold(), place) != place]
    if moved:
        what = (
            f"says {several(names)}, and the model's config.json says "
            f"{several(model.labels or ())}: {moved[0]!r} is not the same output"
        )
        fix = "Leave --names (or [data] names) out, or correct id2label in config.json."
        return [Problem(what, where, fix)]
    return []


def one_class(samples: Samples, classes: int, where: str) -> list[Problem]:
    """Return the problem of a table whose samples all have one label."""
    if classes < 2 or len(samples) < 2 or len(found := set(samples.y.tolist())) > 1:
        return []
    what = f"all {len(samples):,} samples have the label {label_spelt(samples, *found)}"
    fix = f"The model tells {classes} classes apart: is it the right file or folder, and all of it?"
    return [Problem(what, where, fix)]


def wrong_count(samples: Samples, classes: int, where: str) -> list[Problem]:
    """Return the problem of a table with more or fewer names than a model has outputs."""
    if samples.names is None or len(samples.names) == classes:
        return []
    what = f"there are {len(samples.names)} labels ({several(samples.names)})"
    fix = "Name the class of every output by --names A,B,.. in the order of the outputs."
    return [Problem(f"{what}, and the model has {classes} outputs", where, fix)]
